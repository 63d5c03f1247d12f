"""Forecasts held against what followed: when a test begins and ends, what it measures, and the traffic light."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core import outcomes
from stream.core.outcomes import GREEN, RED, YELLOW, Outcomes, TrafficLight, zone
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from training import baselines
from training.data import targets

GAP_NS = 1800 * outcomes.SECOND


def answers(
    seconds: Sequence[float],
    log_price: Sequence[float],
    *,
    slot: Sequence[int] | None = None,
    warming: bool = False,
    var_99: float = 0.01,
    volatility: float = 0.02,
    ratio: float = 2.0,
) -> Results:
    """Results of ticks at these times, with the same forecast each."""
    count = len(seconds)
    forecast = np.zeros((count, len(FORECAST_COLUMNS)))
    forecast[:, outcomes.VOLATILITY] = volatility
    forecast[:, list(outcomes.QUANTILES)] = (-0.04, -0.03, 0.0, 0.03, 0.04)
    risk = np.zeros((count, len(RISK_COLUMNS)))
    risk[:, outcomes.VAR_99] = var_99
    risk[:, outcomes.VOLATILITY_RATIO] = ratio
    return Results(
        slot=np.zeros(count, np.int32) if slot is None else np.array(slot, np.int32),
        offset=np.arange(count),
        exchange_ns=(np.array(seconds) * outcomes.SECOND).astype(np.int64) + 1_700_000_000 * outcomes.SECOND,
        price=np.exp(np.array(log_price, float)),
        warming=np.full(count, warming),
        forecast=forecast,
        risk=risk,
        level=np.zeros(count, np.int8),
        action=np.zeros(count, np.int8),
        target_position=np.zeros(count),
        action_values=np.zeros((count, 3)),
        expected_reward=np.zeros(count),
        gate=np.zeros(count, np.int8),
    )


def follow(results: Results, state: NDArray[np.void] | None = None, rows: Sequence[int] = (0,)) -> Outcomes:
    state = outcomes.new_state(1) if state is None else state
    return outcomes.follow(state, np.array(rows, np.int32), results, GAP_NS)


def test_test_ends_with_the_last_price_at_or_before_the_horizon() -> None:
    ended = follow(answers([0, 30, 60, 60.5], [1.0, 1.1, 0.95, 7.0]))
    assert ended.log_return == pytest.approx([-0.05])
    assert ended.realized_variance == pytest.approx([0.1**2 + 0.15**2])
    assert ended.exceptions.tolist() == [True]
    assert ended.below.tolist() == [[True, True, True, True, True]]


def test_nothing_ends_before_a_tick_behind_the_horizon() -> None:
    state = outcomes.new_state(1)
    assert len(follow(answers([0, 59, 60], [1.0, 1.0, 0.9]), state).row) == 0
    assert len(follow(answers([60], [0.8]), state).row) == 0  # a second tick at the very end still belongs to it
    assert follow(answers([61], [5.0]), state).log_return == pytest.approx([-0.2])


def test_next_test_begins_at_the_tick_that_closed_the_last() -> None:
    ended = follow(answers([0, 61, 121, 122], [0.0, 0.002, 0.005, 9.0]))
    assert ended.log_return == pytest.approx([0.0, 0.003])


def test_loss_as_large_as_the_var_is_no_exception() -> None:
    ended = follow(answers([0, 10, 61], [0.0, -0.5, -0.5], var_99=0.5))
    assert ended.log_return == pytest.approx([-0.5])
    assert ended.exceptions.tolist() == [bool(-ended.log_return[0] > 0.5)]
    assert follow(answers([0, 10, 61], [0.0, -0.4, -0.4], var_99=0.5)).exceptions.tolist() == [False]


def test_gain_is_no_exception() -> None:
    assert follow(answers([0, 10, 61], [0.0, 0.9, 0.9], var_99=0.01)).exceptions.tolist() == [False]


def test_warming_tick_begins_no_test() -> None:
    state = outcomes.new_state(1)
    assert len(follow(answers([0, 70], [0.0, 0.1], warming=True), state).row) == 0
    assert len(follow(answers([100, 170], [0.1, 0.2]), state).row) == 1


def test_pause_of_the_session_drops_the_test() -> None:
    ended = follow(answers([0, 1801, 1862], [0.0, 0.5, 0.6]))
    assert ended.log_return == pytest.approx([0.0])  # of the test that began after the pause


def test_clock_set_back_drops_the_test() -> None:
    ended = follow(answers([4000, 100, 161], [0.0, 0.5, 0.6]))
    assert ended.log_return == pytest.approx([0.0])


def test_late_tick_is_taken_at_the_last_time() -> None:
    ended = follow(answers([0, 30, 29, 61], [0.0, 0.1, 0.2, 0.3]))
    assert ended.log_return == pytest.approx([0.2])


def test_instrument_that_is_not_followed_is_passed_over() -> None:
    results = answers([0, 0, 61, 61, 62], [0.0, 1.0, 0.0, 2.0, 3.0], slot=[0, 1, 0, 1, 7])
    ended = follow(results, rows=[-1, 0])
    assert ended.row.tolist() == [0]
    assert ended.log_return == pytest.approx([0.0])
    assert ended.newest.tolist() == [3]


def test_newest_is_absent_for_an_instrument_without_ticks() -> None:
    ended = follow(answers([0, 1], [0.0, 0.0], slot=[0, 0]), outcomes.new_state(2), rows=[0, 1])
    assert ended.newest.tolist() == [1, -1]


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_chunks_change_no_test(chunk: int) -> None:
    random = np.random.default_rng(11)
    seconds = np.cumsum(random.exponential(2.0, 400))
    prices = np.cumsum(random.normal(0.0, 0.001, 400))
    whole = follow(answers(seconds.tolist(), prices.tolist()))
    state = outcomes.new_state(1)
    parts = [
        follow(answers(seconds[k : k + chunk].tolist(), prices[k : k + chunk].tolist()), state)
        for k in range(0, 400, chunk)
    ]
    assert len(whole.row) > 8
    assert np.concatenate([part.log_return for part in parts]).tolist() == whole.log_return.tolist()
    assert np.concatenate([part.realized_variance for part in parts]).tolist() == whole.realized_variance.tolist()


def test_returns_and_variances_are_those_that_training_aims_at() -> None:
    random = np.random.default_rng(5)
    seconds = np.cumsum(random.exponential(0.7, 500))
    prices = np.cumsum(random.normal(0.0, 0.001, 500))
    results = answers(seconds.tolist(), prices.tolist())
    ended = follow(results)
    wanted, variance = targets(results.exchange_ns, np.zeros(500, np.int64), np.log(results.price))
    clock, start = results.exchange_ns, 0
    for log_return, realized in zip(ended.log_return, ended.realized_variance, strict=True):
        assert log_return == pytest.approx(wanted[start, 1], rel=1e-5, abs=1e-9)
        assert realized == pytest.approx(variance[start, 1], rel=1e-5)
        start = int(np.searchsorted(clock, clock[start] + 60 * outcomes.SECOND, "right"))
    assert len(ended.row) > 4


def test_usual_variance_comes_from_the_ratio() -> None:
    ended = follow(answers([0, 61], [0.0, 0.0], volatility=0.02, ratio=2.0))
    assert ended.forecast_variance == pytest.approx([0.0004])
    assert ended.usual_variance == pytest.approx([0.0001])


def test_qlike_is_zero_for_a_right_forecast_and_ranks_the_others() -> None:
    loss = outcomes.qlike(np.array([1e-4, 2e-4, 0.5e-4]), np.full(3, 1e-4))
    assert loss[0] == 0.0
    assert loss[1] == pytest.approx(0.5 - np.log(0.5) - 1)
    assert loss[2] == pytest.approx(2.0 - np.log(2.0) - 1)


def test_qlike_of_a_minute_without_a_trade_is_finite() -> None:
    assert np.isfinite(outcomes.qlike(np.array([1e-6, 0.0]), np.zeros(2))).all()
    assert outcomes.LEAST_VARIANCE == baselines.LEAST_VARIANCE


def test_zones_of_250_tests_are_those_of_the_basel_committee() -> None:
    zones = [zone(250, exceptions) for exceptions in range(13)]
    assert zones == [GREEN] * 5 + [YELLOW] * 5 + [RED] * 3


def test_one_exception_among_few_tests_is_not_red() -> None:
    assert zone(0, 0) == GREEN
    assert zone(1, 1) == YELLOW
    assert zone(60, 1) == GREEN
    assert zone(10, 3) == RED


def test_more_exceptions_than_tests_are_refused() -> None:
    with pytest.raises(ValueError, match="exceptions=3, tests=2"):
        zone(2, 3)


def test_traffic_light_forgets_what_leaves_its_window() -> None:
    light = TrafficLight()
    for number in range(300):
        light.add(number < 20)
    assert (light.tests, light.exceptions, light.zone) == (250, 0, GREEN)
    for _ in range(10):
        light.add(True)
    assert (light.tests, light.exceptions, light.zone) == (250, 10, RED)
