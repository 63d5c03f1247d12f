"""`tapewatch evaluate`: its statistics by hand, its report from ticks to files, and what it refuses."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stream import roles
from stream.config import ROOT
from stream.core.results import FORECAST_COLUMNS
from stream.errors import TapewatchError
from stream.messages import QUANTILE_LEVELS
from tests.bundles import DQN, GRU, NEXT, add_kind, add_version
from tests.training_data import sample, write_sample
from training import baselines, cli, comparison, data, evaluation, report, samples, simulation, volatility

MODELS = ROOT / "models"
SECOND = data.SECOND


def made_dataset(**columns: Any) -> data.Dataset:
    """20,000 ticks of LTCUSDT, with a file's description for the report."""
    return sample()._replace(**columns)


def plain_forecast(one: data.Series) -> evaluation.Forecasts:
    """The instrument's own EWMA, quantiles and ES of a normal law with it."""
    out = np.zeros((len(one.clock_ns), len(FORECAST_COLUMNS)), np.float32)
    z = (-2.326348, -1.644854, 0.0, 1.644854, 2.326348)
    shortfall = np.zeros((len(one.clock_ns), 2), np.float32)
    for column, seconds in enumerate((10, 60)):
        volatility = np.sqrt(baselines.ewma(one.features, 300)[:, column])
        out[:, FORECAST_COLUMNS.index(f"volatility_{seconds}s")] = volatility
        for k, level in enumerate(QUANTILE_LEVELS):
            out[:, FORECAST_COLUMNS.index(f"quantile_{round(level * 100):02d}_{seconds}s")] = z[k] * volatility
        shortfall[:, column] = 2.3378 * volatility  # E[Z | Z > z_0.975]
    return evaluation.Forecasts(out, shortfall)


def test_diebold_mariano_without_lags_is_the_t_statistic() -> None:
    difference = np.array([1.0, 2.0, 3.0, 2.0])
    # Mean 2, squares about it 1 + 0 + 1 + 0: 8 / sqrt(2).
    assert volatility.diebold_mariano(difference, 0) == pytest.approx(8 / math.sqrt(2))


def test_diebold_mariano_with_one_lag_by_hand() -> None:
    difference = np.array([3.0, 3.0, 1.0, 1.0])
    # About the mean of 2: 1, 1, -1, -1; variance 4 + 2 * 1/2 * (1 - 1 + 1) = 5.
    assert volatility.diebold_mariano(difference, 1) == pytest.approx(8 / math.sqrt(5))


def test_diebold_mariano_of_equal_forecasts_is_zero() -> None:
    assert volatility.diebold_mariano(np.zeros(50), 5) == 0.0


def test_overlapping_horizons_are_not_taken_for_independent_ones() -> None:
    """Sums of 60 seconds of noise: the plain t-test rejects half of all true nulls, Newey and West a few."""
    rng = np.random.default_rng(0)
    found = [
        volatility.diebold_mariano(np.convolve(rng.standard_normal(3000), np.ones(60), "valid"), lags)
        for lags in (0, 120)
        for _ in range(100)
    ]
    rejected = np.abs(np.array(found).reshape(2, 100)) > 1.96
    assert rejected[0].mean() > 0.5
    assert rejected[1].mean() < 0.2


def test_horizons_follow_each_other_without_a_common_moment() -> None:
    clock = np.array([0, 3, 9, 10, 11, 25, 34, 35]) * SECOND
    assert samples.following(clock, 10 * SECOND).tolist() == [0, 3, 5, 7]


def test_last_tick_of_each_second_is_taken() -> None:
    clock = np.array([0.0, 0.5, 1.2, 3.0, 3.9]) * SECOND
    assert samples.last_of_second(clock.astype(np.int64)).tolist() == [False, True, True, False, True]


def test_forecast_tail_is_the_workers() -> None:
    # Losses of 3 with 1 % and 1 with 5 %: b = 2 / log 5; VaR 97.5 % is 1 + b log 2.
    quantiles = np.tile([-3.0, -1.0, 0.0, 1.0, 3.0], (2, 1))
    tail = comparison.forecast_tail(quantiles, np.array([5.0, 1.0]))
    value_at_risk = 1 + 2.0 / math.log(5.0) * math.log(2)
    assert tail.var_99.tolist() == [3.0, 3.0]
    assert tail.var_975.tolist() == pytest.approx([value_at_risk] * 2)
    assert tail.es_975.tolist() == pytest.approx([5.0, value_at_risk])


def test_exponential_shortfall_is_exact_for_an_exponential_loss_and_near_for_a_normal_one() -> None:
    # P(loss > x) = exp(-x): VaR 97.5 % is log 40, and the mean beyond it one more.
    exponential = -np.log([100.0, 20.0, 2.0, 1.0, 1.0])
    normal = np.array([-2.3263, -1.6449, 0.0, 1.6449, 2.3263])
    assert baselines.value_at_risk(exponential) == pytest.approx(math.log(40.0))
    assert baselines.exponential_shortfall(exponential) == pytest.approx(math.log(40.0) + 1.0)
    assert baselines.exponential_shortfall(normal) == pytest.approx(2.3378, rel=0.02)


def test_coverage_of_a_hundred_by_hand() -> None:
    log_return = np.arange(100.0)
    quantiles = np.tile([2.0, 5.0, 50.0, 80.0, 99.0], (100, 1))
    found = comparison.coverage(log_return, quantiles)
    assert [one.share for one in found] == pytest.approx([0.02, 0.05, 0.50, 0.80, 0.99])
    # Of 100 at 5 % there are 1 to 10 in 95 % of cases, at 50 % 40 to 60.
    assert (found[1].low, found[1].high, found[2].low, found[2].high) == pytest.approx((0.01, 0.10, 0.40, 0.60))
    assert [one.inside for one in found] == [True, True, True, False, True]


def test_tails_have_a_loss_of_var_and_shortfall_where_one_is_published() -> None:
    """VaR 2, ES 4: FZ0 is 2/4 + log 4 - 1, and (3 - 2) / (0.025 * 4) more for each second return, a loss of 3."""
    tail = simulation.Tail(*(np.full(200, value) for value in (3.0, 2.0, 4.0)))
    nothing = np.zeros((200, 5))
    returns = np.tile([0.0, -3.0], 100)
    tested = comparison.Tested(returns, nothing, nothing, {}, {comparison.CHAMPION: tail})
    (found,) = comparison.tails(tested, with_shortfall=True)
    assert found.fissler_ziegel == pytest.approx(0.5 + math.log(4.0) - 1.0 + 5.0)
    (found,) = comparison.tails(tested, with_shortfall=False)
    assert found.fissler_ziegel is None


def test_direction_counts_only_moves() -> None:
    log_return = np.array([1.0, -1.0, 0.0, 2.0, 0.0, 3.0])
    up = np.array([0.9, 0.9, 0.1, 0.6, 0.9, 0.2])
    tested = comparison.Tested(log_return, np.zeros((6, 5)), np.zeros((6, 5)), {"plain@1": up}, {})
    (found,) = comparison.directions(tested)
    assert (found.model, found.tests, found.accuracy, found.majority) == ("plain@1", 4, 0.5, 0.75)
    # At least 2 of 4 right by chance of 3/4 each: 1 - 1/256 - 12/256.
    assert found.p == pytest.approx(243 / 256)


def test_report_from_ticks_and_its_bytes_repeat(tmp_path: Path) -> None:
    dataset = made_dataset()
    forecast = [plain_forecast(one) for one in dataset.series]
    for name in ("once", "again"):
        compared = comparison.compare(dataset, {"plain@1": forecast})
        report.write(compared, tmp_path / name)
    for file in sorted((tmp_path / "once").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    told = json.loads((tmp_path / "once" / "report.json").read_bytes())
    ten = told["instruments"][0]["horizons"][0]
    losses = {one["model"]: one["qlike"] for one in ten["volatility"]}
    assert list(losses) == ["plain@1", *volatility.BASELINES]
    assert losses["HAR"] < losses["last value"]
    assert all(math.isfinite(value) for value in losses.values())
    text = (tmp_path / "once" / "report.md").read_text(encoding="utf-8")
    assert f"{losses['GARCH(1,1)']:.4f}"[:7] in text
    assert " nan" not in text


def test_what_follows_the_test_part_changes_no_fit() -> None:
    """Fitted on training, chosen on validation: a wild test part leaves HAR, boosting and EWMA as they were."""
    (one,) = sample().series
    wild = one.realized_variance.copy()
    wild[one.part == data.TEST] *= 1000.0
    fits = []
    for series in (one, one._replace(realized_variance=wild)):
        fitted = volatility.fit([samples.sample(series, {"plain@1": plain_forecast(series)})], 0)
        fits.append((fitted.ewma_seconds, fitted.har.tolist(), fitted.boosting.model_to_string()))
    assert fits[0] == fits[1]


def test_evaluate_compares_all_forecasters_of_a_folder_the_champion_first(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "ltc.parquet", 40_000)
    models = Path(shutil.copytree(MODELS, tmp_path / "models"))
    add_kind(models, "lstm")
    add_version(models, "lstm", NEXT)
    roles.write(models, roles.Roles("lstm"))
    done = CliRunner().invoke(cli.evaluate, [str(models), str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    written = tmp_path / "out" / "ltc"
    assert {path.name for path in written.iterdir()} == {
        *("report.md", "report.json", "qlike.svg", "qlike.png", "coverage.svg", "coverage.png")
    }
    told = json.loads((written / "report.json").read_bytes())
    assert told["forecasters"] == [f"lstm@{NEXT}", GRU]
    together, alone = (one["horizons"][0] for one in told["instruments"])
    listed = [*told["forecasters"], *volatility.BASELINES]
    assert [one["model"] for one in together["volatility"]] == [one["model"] for one in together["paths"]["models"]]
    assert [one["model"] for one in together["volatility"]] == listed
    assert max(one["set_p"] for one in together["volatility"]) == 1.0
    assert [one["pinball"] is None for one in together["volatility"]] == [False, False, *[True] * 5]
    assert [one["model"] for one in alone["directions"]] == told["forecasters"]
    assert [(one["by"], one["seconds"]) for one in told["breakdowns"]] == [
        (by, seconds) for by in ("hour", "volatility", "liquidity") for seconds in (10, 60)
    ]
    for parted in told["breakdowns"]:
        assert sum(group["rows"] for group in parted["groups"]) <= together["rows"]
        assert all(list(group["qlike"]) == listed for group in parted["groups"])
    text = (written / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"# lstm@{NEXT}, {GRU} on ltc.parquet")
    assert "In the 90% model confidence set: " in text
    overview = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "(ltc/report.md)" in overview
    assert f"| file | horizon | rows | lstm@{NEXT} | {GRU} | last value |" in overview


def test_losses_of_one_second_are_summed_before_they_are_compared() -> None:
    """Two instruments that trade together and disagree tell no model from the other; one alone does."""
    rng = np.random.default_rng(0)
    second, better = np.arange(200), np.abs(rng.standard_normal(200)) + 1.0
    rest: Any = np.zeros((2, 200))
    one, other = (
        volatility.Losses(second, np.stack((rest[0], sign * better)), rest, rest, np.ones((1, 200)))
        for sign in (1.0, -1.0)
    )
    alone = volatility.table(["gru@1", "EWMA"], [one], 10, with_set=True)
    assert alone[1].dm is not None
    assert alone[1].dm > 5.0
    assert [loss.in_set for loss in alone] == [True, False]
    assert (alone[0].pinball, alone[1].pinball) == (1.0, None)
    both = volatility.table(["gru@1", "EWMA"], [one, other], 10, with_set=True)
    assert both[1].dm == pytest.approx(0.0)
    assert [loss.set_p for loss in both] == [1.0, 1.0]
    assert volatility.table(["gru@1", "EWMA"], [one], 60, with_set=True)[1].set_p is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{models}"], "name the files of ticks"),
        ([f"{{models}}/{DQN.replace('@', '/')}", "{file}"], "is a policy: only forecasters"),
        (["{file}"], "ticks to train on"),
        (["{file}", "{tmp}/b/short.parquet"], "two files are named short"),
        (["{tmp}/none.parquet"], "none.parquet"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    file = write_sample(tmp_path / "short.parquet", 3_000)
    given = [one.format(models=MODELS, file=file, tmp=tmp_path) for one in arguments]
    done = CliRunner().invoke(cli.evaluate, [*given, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, TapewatchError), done.output
    assert says in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_too_few_seconds_name_the_part_and_the_need() -> None:
    (one,) = sample().series
    short = one.part.copy()
    short[short == data.VALIDATION] = data.EMBARGO
    dataset = made_dataset(series=(one._replace(part=short),))
    with pytest.raises(TapewatchError, match=r"0 seconds with a trade in the validation part.*30 are needed"):
        comparison.compare(dataset, {"plain@1": [plain_forecast(one)]})
