"""The networks: their contracts, that they learn, and that their ONNX graphs are they."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.stats import laplace
from torch import nn

from stream.core.features import INDEX, WINDOW
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS
from tests.graphs import words
from tests.training_data import sample
from training import baselines, data, evaluation, export, forecaster, gan
from training.forecasters.contract import Settings
from training.forecasters.heads import Targets, fissler_ziegel, losses
from training.policy.network import Policy
from training.policy.tape import Market

LOWEST = [FORECAST_COLUMNS.index(f"quantile_{level}_{horizon}s") for level in ("01", "05") for horizon in HORIZONS]
SMALL = Settings(rounds=3, lanes=8, segment=512, burn_in=32)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights far from the start, so that a part left out would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def networks() -> dict[str, nn.Module]:
    return {
        "critic": randomised(gan.Critic(gan.Settings())),
        "policy": randomised(Policy(48, Market())),
    }


@pytest.mark.parametrize("family", ["critic", "policy"])
def test_onnx_equals_pytorch(family: str) -> None:
    """Within 1e-5, absolute below 1 and relative above, on inputs that the export did not see."""
    net = networks()[family]
    content = export.to_onnx(net, family)
    assert len(content) < export.LARGEST_BYTES
    for seed, n in ((1, 16), (2, 300), (3, 1000)):
        assert export.difference(net, content, family, seed, n) < export.TOLERANCE


@pytest.mark.parametrize("family", ["critic", "policy"])
def test_graph_names_no_path_of_the_machine(family: str) -> None:
    content = words(export.to_onnx(networks()[family], family))
    assert b".py" not in content
    assert b"/home" not in content


def test_words_of_a_graph_hold_its_notes_but_no_weights() -> None:
    weights = onnx.numpy_helper.from_array(np.frombuffer(b"/of/weights.py  ", np.float32), "w")
    node = onnx.helper.make_node("Identity", ["w"], ["out"], doc_string="made by /home/me/note")
    made = onnx.helper.make_graph([node], "graph", [], [], [weights])
    found = words(onnx.helper.make_model(made).SerializeToString())
    assert b"/home/me/note" in found
    assert b".py" not in found


def test_graph_that_differs_is_not_written() -> None:
    net = networks()["critic"]
    content = export.to_onnx(net, "critic")
    with torch.no_grad():
        next(net.parameters()).mul_(1.01)
    assert export.difference(net, content, "critic") > export.TOLERANCE


def test_training_twice_gives_the_same_weights_and_never_sees_the_test_part() -> None:
    first, _ = forecaster.train(sample(), SMALL, 5)
    (one,) = sample().series
    test = one.part == data.TEST
    changed = one._replace(features=one.features.copy(), log_return=one.log_return.copy())
    changed.features[test] = np.random.default_rng(0).permutation(changed.features[test])
    changed.log_return[test] *= -3.0
    second, _ = forecaster.train(sample()._replace(series=(changed,)), SMALL, 5)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_losses_by_hand() -> None:
    forecast = torch.zeros(1, len(FORECAST_COLUMNS))
    for horizon in HORIZONS:
        forecast[0, FORECAST_COLUMNS.index(f"volatility_{horizon}s")] = 2.0
        forecast[0, FORECAST_COLUMNS.index(f"probability_up_{horizon}s")] = 0.5
    targets = Targets(torch.tensor([[4.0, 4.0]]), torch.tensor([[8.0, 8.0]]), torch.ones(1))
    parts = losses(forecast, torch.tensor([[3.0, 5.0]]), targets)
    assert float(parts["qlike"]) == pytest.approx(np.log(4.0) + 2.0)
    assert float(parts["squared_error"]) == pytest.approx(4.0)  # two volatilities off
    assert float(parts["pinball"]) == pytest.approx(2.0 * 2.5)
    assert float(parts["cross_entropy"]) == pytest.approx(np.log(2.0))
    # VaR 0, ES 1.5 and 2.5 volatilities, no loss: log ES - 1 of each.
    assert float(parts["shortfall"]) == pytest.approx((np.log(1.5) + np.log(2.5)) / 2.0 - 1.0)


def test_fissler_ziegel_by_hand() -> None:
    """VaR 2, ES 4: without a loss beyond 2/4 + log 4 - 1; a loss of 3 costs (3 - 2) / (0.025 * 4) more."""
    plain = 0.5 + np.log(4.0) - 1.0
    returns = np.array([0.5, -2.0, -3.0])
    value_at_risk, shortfall = np.full(3, 2.0), np.full(3, 4.0)
    given = (torch.from_numpy(of) for of in (returns, value_at_risk, shortfall))
    assert fissler_ziegel(*given).tolist() == pytest.approx([plain, plain, plain + 10.0])
    assert baselines.fissler_ziegel(value_at_risk, shortfall, returns).tolist() == pytest.approx(
        [plain, plain, plain + 10.0]
    )


def test_fissler_ziegel_is_least_at_the_true_var_and_shortfall() -> None:
    """Of a Laplace law, whose VaR is log(0.5 / 0.025) and whose ES is one more; learned from a wrong start."""
    returns = torch.from_numpy(laplace.ppf((np.arange(100_000) + 0.5) / 100_000))
    given = torch.tensor([1.0, 1.5], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([given], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = fissler_ziegel(returns, given[0], given[1]).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    assert given.tolist() == pytest.approx([np.log(20.0), np.log(20.0) + 1.0], rel=1e-3)


def test_shortfall_moves_the_quantiles_too_and_never_the_volatility() -> None:
    forecast = torch.full((1, len(FORECAST_COLUMNS)), 0.5, requires_grad=True)
    with torch.no_grad():
        forecast[0, LOWEST] = -1.0
    shortfall = torch.full((1, len(HORIZONS)), 2.0, requires_grad=True)
    parts = losses(forecast, shortfall, Targets(torch.full((1, 2), -3.0), torch.ones(1, 2), torch.ones(1)))
    parts["shortfall"].backward()  # type: ignore[no-untyped-call]
    assert forecast.grad is not None
    assert shortfall.grad is not None
    assert set(torch.nonzero(forecast.grad[0])[:, 0].tolist()) == set(LOWEST)
    assert (shortfall.grad != 0).all()


def test_ticks_that_do_not_count_change_no_loss() -> None:
    rng = np.random.default_rng(0)
    forecast = torch.from_numpy(np.abs(rng.normal(0.3, 0.1, (4, len(FORECAST_COLUMNS)))).astype(np.float32))
    values = torch.rand(4, 2)
    weight = torch.tensor([1.0, 2.0, 0.0, 0.0])
    shortfall = torch.tensor([[0.5, 0.6]]).expand(4, -1)
    whole = losses(forecast, shortfall, Targets(values, values, weight))
    part = losses(forecast[:2], shortfall[:2], Targets(values[:2], values[:2], weight[:2]))
    assert {k: float(v) for k, v in whole.items()} == pytest.approx({k: float(v) for k, v in part.items()})


def test_evaluation_reports_finite_numbers_for_each_horizon() -> None:
    net, _ = forecaster.train(sample(), SMALL, 0)
    predicted = evaluation.forecasts(export.to_onnx(net, "forecaster"), sample().series, net.state_width)
    assert predicted[0].forecast.shape == (20_000, len(FORECAST_COLUMNS))
    assert predicted[0].shortfall.shape == (20_000, len(HORIZONS))
    (report,) = evaluation.evaluate(sample().series, predicted).values()
    for horizon in HORIZONS:
        numbers = report[f"{horizon}s"]
        assert all(np.isfinite(v) for v in numbers.values() if not isinstance(v, dict))
        assert list(numbers["coverage"].values()) == sorted(numbers["coverage"].values())


def test_calibration_error_by_hand() -> None:
    probability = np.repeat([0.2, 0.9], 5 * evaluation.CALIBRATION_BINS)
    rises = np.repeat([0.0, 1.0], 5 * evaluation.CALIBRATION_BINS)
    weight = np.repeat([3.0, 1.0], 5 * evaluation.CALIBRATION_BINS)
    assert evaluation.calibration_error(probability, rises, weight) == pytest.approx((3 * 0.2 + 0.1) / 4)
    order = np.random.default_rng(0).permutation(len(weight))
    mixed = evaluation.calibration_error(probability[order], rises[order], weight[order])
    assert mixed == pytest.approx((3 * 0.2 + 0.1) / 4)
    assert evaluation.calibration_error(rises, rises, weight) == 0.0


def test_report_names_where_the_forecaster_loses() -> None:
    better, worse = {"qlike": -2.0, "qlike_ewma": -1.0}, {"qlike": -1.0, "qlike_ewma": -2.0}
    report = {"a": {"10s": better, "60s": worse}, "b": {"10s": worse}}
    assert evaluation.worse_than_ewma(report) == ["a 60s", "b 10s"]


def test_summary_of_seeds_gives_mean_and_spread() -> None:
    reports: list[dict[str, Any]] = [{"a": {"loss": x, "ticks": 3}} for x in (1.0, 2.0, 3.0)]
    assert evaluation.summarise(reports) == {"a": {"loss": {"shipped": 1.0, "mean": 2.0, "sd": 1.0}, "ticks": 3}}


def windows() -> gan.Windows:
    return gan.sample_windows(sample(), data.TRAIN, 3_000, np.random.default_rng(0))


@pytest.mark.parametrize("generator", ["gru", "conv"])
def test_critic_learns_to_tell_generated_windows(generator: str) -> None:
    settings = gan.Settings(rounds=40, batch=64, generator=generator, faults=0.0, regime_rounds=1)
    critic, maker, distances = gan.train(forecaster.fit_normalise(sample()), windows(), settings, 0)
    with torch.no_grad():
        made = maker(critic.condition(windows().features))
    assert made.shape == (len(windows().series), 3 * WINDOW)
    assert np.isfinite(distances).all()
    assert np.mean(distances[-5:]) > 0.05 + distances[0], "real windows score ever further above generated ones"


def test_score_falls_as_the_critic_finds_a_window_more_real() -> None:
    critic = networks()["critic"]
    assert isinstance(critic, gan.Critic)
    some = windows()
    alike = some._replace(features=some.features[:1].expand(len(some.series), -1))
    with torch.no_grad():
        judged = critic.judge(critic.standard(alike.features, alike.window), critic.condition(alike.features))
    order = np.argsort(judged.numpy())
    assert (np.diff(gan.scores(critic, alike)[order]) <= 1e-6).all()


def test_regimes_make_one_equally_rare_everywhere() -> None:
    settings = gan.Settings(rounds=5, batch=64, regime_rounds=600)
    some = gan.sample_windows(sample(), data.TRAIN, 11_000, np.random.default_rng(0))
    critic, _, _ = gan.train(forecaster.fit_normalise(sample()), some, settings, 0)
    score = gan.scores(critic, some)
    rate = some.features[:, INDEX["log_trade_rate_1800s"]].numpy()
    for half in (rate < np.median(rate), rate >= np.median(rate)):
        assert (score[half] > 1.0).mean() == pytest.approx(0.01, abs=0.008)


@pytest.mark.parametrize("fault", gan.EVERY_FAULT)
def test_fault_changes_only_the_window_it_is_put_in(fault: str) -> None:
    some = windows()
    broken = gan.inject(fault, some.features, some.window, torch.Generator().manual_seed(0))
    assert torch.equal(some.window, windows().window), "the windows given are left as they were"
    assert torch.equal(broken[:, : WINDOW // 2], some.window[:, : WINDOW // 2]), "faults lie in the last half"
    assert (broken != some.window).flatten(1).any(1).float().mean() > 0.9
    assert torch.isfinite(broken).all()


def test_calibration_gives_the_share_below_on_the_scores_it_was_fitted_on() -> None:
    score = np.random.default_rng(0).standard_t(3, 50_000)
    anomaly = np.interp(score, *gan.calibrate(score))
    for probability in (0.1, 0.5, 0.9, 0.99, 0.999):
        assert (anomaly > probability).mean() == pytest.approx(1 - probability, abs=0.002)
    assert anomaly.min() > 0
    assert anomaly.max() < 1


def test_calibration_of_equal_scores_is_still_one() -> None:
    scores, probabilities = gan.calibrate(np.zeros(100))
    assert len(scores) >= 2
    assert (np.diff(scores) > 0).all()
    assert (np.diff(probabilities) > 0).all()


def test_area_under_curve_by_hand() -> None:
    assert gan.area_under_curve(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    assert gan.area_under_curve(np.array([0.0, 2.0]), np.array([1.0, 2.0])) == (0.5 + 0.75) / 2


def test_critic_that_ships_is_a_plain_session_too() -> None:
    """A bundle runs by itself, outside the joined graph."""
    net = networks()["critic"]
    session = onnxruntime.InferenceSession(export.to_onnx(net, "critic"), providers=["CPUExecutionProvider"])
    some = windows()
    (score,) = session.run(None, {"features": some.features.numpy(), "window": some.window.numpy()})
    assert score.shape == (len(some.series), 1)
