"""The plain forecasts beside the models: worked by hand, or found again in data made to their own law."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.features import FEATURES, INDEX
from stream.messages import HORIZONS
from training import baselines, boosting, data, garch, har, simulation


def features_of(v60: NDArray[np.float64], v300: NDArray[np.float64], v1800: NDArray[np.float64]) -> NDArray[np.float32]:
    features = np.zeros((len(v60), len(FEATURES)), np.float32)
    for seconds, variance in ((60, v60), (300, v300), (1800, v1800)):
        features[:, INDEX[f"log_grid_variance_{seconds}s"]] = np.log(variance)
    return features


def series_of(seconds: NDArray[np.int64], log_price: NDArray[np.float64], **columns: Any) -> data.Series:
    """A tick at the start of each of some seconds, all training, one session."""
    n = len(seconds)
    two = np.zeros((n, len(HORIZONS)), np.float32)
    plain: dict[str, Any] = {
        "session": np.zeros(n, np.int64),
        "warming": np.zeros(n, np.bool_),
        "part": np.full(n, data.TRAIN, np.int8),
    } | columns
    return data.Series(
        "made",
        "MADE",
        np.zeros((n, len(FEATURES)), np.float32),
        seconds * data.SECOND,
        plain["session"],
        log_price,
        plain["warming"],
        two,
        two,
        np.ones(n, np.float32),
        plain["part"],
        np.ones(n, np.bool_),
    )


def test_har_mixes_its_scales() -> None:
    features = features_of(np.array([4e-8]), np.array([2e-8]), np.array([1e-8]))
    mixed = har.forecast(np.array([0.1, 0.2, 0.3, 0.4]), features, np.array([5e-7]), 10)
    # 10 s of 0.1 * 1e-8 + 0.2 * 4e-8 + 0.3 * 2e-8 is 1.5e-7, and 0.4 of the last horizon 2e-7 more.
    assert mixed == pytest.approx([3.5e-7], rel=1e-5)


def test_har_finds_the_coefficients_of_its_own_law() -> None:
    rng = np.random.default_rng(0)
    v60, v300, v1800 = (1e-8 * rng.gamma(2.0, size=40_000) for _ in range(3))
    last = 1e-7 * rng.gamma(2.0, size=40_000)
    features, true = features_of(v60, v300, v1800), np.array([0.2, 0.5, 0.1, 0.3])
    realized = har.forecast(true, features, last, 10) * rng.exponential(size=40_000)
    assert har.fit(features, last, realized, 10) == pytest.approx(true, abs=0.03)


def test_har_of_a_frozen_market_is_the_floor() -> None:
    still = np.full(100, 1e-14)
    features = features_of(still, still, still)
    coefficients = har.fit(features, np.full(100, 1e-10), np.zeros(100), 10)
    assert np.isfinite(coefficients).all()
    assert (har.forecast(coefficients, features, np.zeros(100), 10) == baselines.LEAST_VARIANCE).all()


def test_garch_of_two_seconds_by_hand() -> None:
    model = garch.Garch(omega=1e-8, alpha=0.2, beta=0.7)  # long-run variance 1e-8 / 0.1 = 1e-7
    one = series_of(np.array([0, 1, 2]), np.array([0.0, 1e-3, 1e-3]))
    # At second 1 the second 0 is over, without a move from its own price: 1e-8 + 0.7 * 1e-7 = 8e-8.
    # At second 2 the second 1 is over, with a move of 1e-3: 1e-8 + 0.2 * 1e-6 + 0.7 * 8e-8 = 2.66e-7.
    next_second = garch.forecast(model, one, 1)
    assert next_second == pytest.approx([1e-7, 8e-8, 2.66e-7])
    # Over 10 s the excess of 1.66e-7 decays by 0.9 a second: 10 * 1e-7 + 1.66e-7 * (1 - 0.9^10) / 0.1.
    assert garch.forecast(model, one, 10)[2] == pytest.approx(1e-6 + 1.66e-7 * (1 - 0.9**10) / 0.1)


def test_garch_finds_its_own_law() -> None:
    rng = np.random.default_rng(1)
    n, variance, returns = 20_000, 1e-8, np.zeros(20_000)
    for k in range(n):
        returns[k] = math.sqrt(variance) * rng.standard_normal()
        variance = 5e-10 + 0.15 * returns[k] ** 2 + 0.80 * variance
    found = garch.fit(series_of(np.arange(n), np.cumsum(returns)))
    assert found is not None
    assert (found.alpha, found.beta) == pytest.approx((0.15, 0.80), abs=0.03)
    assert found.omega == pytest.approx(5e-10, rel=0.3)


def test_garch_sees_nothing_of_the_future() -> None:
    rng = np.random.default_rng(2)
    price = np.cumsum(1e-4 * rng.standard_normal(3000))
    changed = price.copy()
    changed[2000:] += np.cumsum(1e-2 * rng.standard_normal(1000))
    part = np.where(np.arange(3000) < 1500, data.TRAIN, data.TEST).astype(np.int8)
    forecasts = []
    for prices in (price, changed):
        one = series_of(np.arange(3000), prices, part=part)
        forecasts.append(garch.forecast(garch.fit(one) or garch.RISKMETRICS, one, 60)[:2000])
    assert (forecasts[0] == forecasts[1]).all()


def test_garch_without_moves_is_not_fitted_and_the_shared_one_stays_finite() -> None:
    still = series_of(np.arange(5000), np.zeros(5000))
    assert garch.fit(still) is None
    assert (garch.forecast(garch.shared([None]), still, 60) == baselines.LEAST_VARIANCE).all()


def test_boosting_learns_a_step_and_repeats_itself() -> None:
    rng = np.random.default_rng(3)
    flat = np.full(8000, 1e-8)
    features = features_of(flat, flat, flat)
    features[:, 0] = rng.standard_normal(8000)
    realized = np.where(features[:, 0] > 0, 4e-7, 1e-7) * rng.exponential(size=8000)
    rows = [boosting.Rows(features[part], realized[part], 10) for part in (slice(0, 6000), slice(6000, 8000))]
    forecasts = [boosting.forecast(boosting.fit(*rows), features, 10) for _ in range(2)]
    assert (forecasts[0] == forecasts[1]).all()
    assert np.median(forecasts[0][features[:, 0] > 0.2]) == pytest.approx(4e-7, rel=0.1)
    assert np.median(forecasts[0][features[:, 0] < -0.2]) == pytest.approx(1e-7, rel=0.1)


def test_historical_simulation_by_hand() -> None:
    # The 101 returns before the last are -50 ... 50: the quantile of 1 % is -49, of 2.5 % is -47.5, and those at or
    # below it are -50, -49 and -48.
    found = simulation.simulate(np.append(np.arange(-50.0, 51.0), 7.0), np.array([101]))
    assert (found.var_99[0], found.var_975[0], found.es_975[0]) == pytest.approx((49.0, 47.5, 49.0))


def test_filtered_simulation_follows_the_volatility_of_now() -> None:
    returns, volatility = np.append(np.arange(-50.0, 51.0), 7.0), np.ones(102)
    volatility[101] = 3.0
    found = simulation.simulate(returns, np.array([101]), volatility)
    assert found.var_99[0] == pytest.approx(3 * 49.0)


def test_simulation_with_too_few_scenarios_has_no_answer() -> None:
    found = simulation.simulate(np.arange(200.0), np.array([99, 100]))
    assert np.isnan(found.var_99[0])
    assert np.isfinite(found.var_99[1])
