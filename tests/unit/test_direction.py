"""The probability of a rise is calibrated on the validation part, and by nothing else."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from stream.core.results import FORECAST_COLUMNS
from tests.training_data import sample
from training import data, direction, evaluation, export, forecaster
from training.forecasters.contract import Forecaster, Kind

every_kind = pytest.mark.parametrize("kind", list(forecaster.KINDS))


def network(kind: Kind = "mlp") -> Forecaster:
    torch.manual_seed(0)
    net = forecaster.build(forecaster.SETTINGS[kind])
    net.normalise.load_state_dict(forecaster.fit_normalise(sample()).state_dict())
    return net.eval()


def test_scaling_that_was_put_in_is_found() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0.0, 1.0, 200_000)
    outcome = (rng.random(len(odds)) < expit(0.4 * odds + 0.2)).astype(float)
    slope, shift = direction.fit(expit(odds), outcome, np.ones(len(odds)))
    assert slope == pytest.approx(0.4, abs=0.02)
    assert shift == pytest.approx(0.2, abs=0.02)


def test_weights_count() -> None:
    probability, outcome = np.full(4, 0.5), np.array([1.0, 0.0, 0.0, 0.0])
    assert direction.fit(probability, outcome, np.array([3.0, 1.0, 1.0, 1.0])).shift == pytest.approx(0.0, abs=1e-4)
    assert direction.fit(probability, outcome, np.array([1.0, 1.0, 1.0, 0.0])).shift == pytest.approx(
        -np.log(2), abs=1e-3
    )


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_ticks_of_one_direction_make_nothing_certain(outcome: float) -> None:
    probability = np.linspace(0.0, 1.0, 100)
    found = direction.fit(probability, np.full(100, outcome), np.ones(100))
    assert 0.0 <= found.slope <= direction.MOST_SLOPE
    assert abs(found.shift) <= direction.MOST_SHIFT


def test_forecasts_against_what_comes_are_flattened_and_not_turned_round() -> None:
    odds = np.random.default_rng(0).normal(0.0, 1.0, 10_000)
    assert direction.fit(expit(odds), (odds < 0).astype(float), np.ones(len(odds))).slope == 0.0


@every_kind
def test_heads_give_the_scaled_odds_and_all_else_as_before(kind: Kind) -> None:
    net = network(kind)
    features = torch.from_numpy(sample().series[0].features[1000:1300, None])
    hidden = torch.zeros(1, net.state_width)
    with torch.no_grad():
        before, shortfall, _ = net.sequence(features, hidden)
        net.heads.scale_direction([0.5, 2.0], [0.1, -0.3])
        after, shortfall_after, _ = net.sequence(features, hidden)
    found = logit(after[:, 0, evaluation.UP].double().numpy())
    wanted = logit(before[:, 0, evaluation.UP].double().numpy()) * [0.5, 2.0] + [0.1, -0.3]
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    others = [k for k in range(len(FORECAST_COLUMNS)) if k not in evaluation.UP]
    assert torch.equal(before[..., others], after[..., others])
    assert torch.equal(shortfall, shortfall_after)


def moved(part: int) -> tuple[data.Series, ...]:
    """The sample with the returns of one part turned round."""
    (one,) = sample().series
    returns = one.log_return.copy()
    returns[one.part == part] *= -1.0
    return (one._replace(log_return=returns),)


def test_only_the_validation_part_decides() -> None:
    (here, there, elsewhere) = (
        direction.calibrate(network(), series).scalings
        for series in (sample().series, moved(data.TEST), moved(data.VALIDATION))
    )
    assert here == there == direction.calibrate(network(), moved(data.TRAIN)).scalings
    assert here != elsewhere


def test_cross_entropy_of_the_validation_part_falls() -> None:
    net, series = network(), sample().series
    found = direction.calibrate(net, series)
    after = evaluation.forecasts(export.to_onnx(net, "forecaster"), series, net.state_width)
    (one,) = series
    rows = (one.part == data.VALIDATION) & data.usable_rows(one)
    outcome, weight = 0.5 + 0.5 * np.sign(one.log_return[rows]), one.weight[rows, None]

    def cross_entropy(said: list[evaluation.Forecasts]) -> NDArray[np.float64]:
        odds = logit(said[0].forecast[rows][:, evaluation.UP].astype(float))
        mean: NDArray[np.float64] = np.mean(weight * (np.logaddexp(0.0, odds) - outcome * odds), axis=0)
        return mean

    assert (cross_entropy(after) < cross_entropy(found.before)).all()
