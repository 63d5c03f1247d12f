"""Markets like real ones, the same from the same seed, and each scenario opens its alert and no other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from stream import inference, messages
from stream.backtest import CHUNK_TICKS, Backtest
from stream.cli import commands
from stream.config import Settings
from stream.core.alerts import KINDS
from stream.errors import TapewatchError
from stream.feeds import simulator
from stream.feeds.files import open_ticks
from stream.feeds.market import SECOND_NS, Instrument, Trades, no_pressure, trade
from stream.feeds.scenarios import CALM, SCENARIOS
from stream.feeds.simulator import LeadIn, Plan, Simulated
from stream.messages import Alert
from stream.pipeline import Pipeline

SETTINGS = Settings()
HOURS = 4
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def models() -> inference.Models:
    return inference.load(Path(SETTINGS.worker.models))


def opened(simulated: Simulated, models: inference.Models) -> list[Alert]:
    """Alerts that the pipeline opens on these ticks."""
    backtest = Backtest(Pipeline(SETTINGS, models, 0), models)
    found: list[Alert] = []
    for batch in simulated.file("simulation"):
        for first in range(0, len(batch), CHUNK_TICKS):
            answers, refusals = backtest.chunk(batch, slice(first, first + CHUNK_TICKS))
            assert refusals == []
            found += [alert for alert in answers.alerts if alert.state == "opened"]
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_opens_its_alert_while_it_lasts_and_no_other(name: str, seed: int, models: inference.Models) -> None:
    simulated = simulator.simulate(Plan(name, seed=seed))
    alerts = opened(simulated, models)
    if name == CALM:
        assert simulated.truth == []
        assert alerts == []
        return
    (injection,) = simulated.truth
    kinds = {alert.kind for alert in alerts}
    assert injection.opens in kinds
    assert kinds <= {injection.opens, *SCENARIOS[name].also}
    assert {(alert.symbol, alert.venue) for alert in alerts} == {(injection.symbol, injection.venue)}
    assert all(injection.begin_ns <= alert.exchange_ns <= injection.end_ns for alert in alerts)


def test_there_is_a_scenario_for_each_kind_of_alert_and_a_calm_one() -> None:
    kinds = [scenario.opens for scenario in SCENARIOS.values()]
    assert sorted(kind for kind in kinds if kind is not None) == sorted(KINDS)
    assert kinds.count(None) == 1


@pytest.fixture(scope="module")
def usual() -> Trades:
    """Hours of usual times."""
    return trade(np.random.default_rng(11), Instrument(), no_pressure(HOURS * 3600))


def returns(trades: Trades, seconds: int = 1) -> NDArray[np.float64]:
    """Log returns over steps of so many seconds; a second without a trade repeats the price before it."""
    ends = np.arange(seconds, HOURS * 3600 + 1, seconds) * SECOND_NS
    last = np.maximum(np.searchsorted(trades.exchange_ns, ends) - 1, 0)
    return np.diff(np.log(trades.price[last]))


def correlation(values: NDArray[np.float64], lag: int) -> float:
    return float(np.corrcoef(values[lag:], values[:-lag])[0, 1])


def test_returns_have_fat_tails_that_thin_out_over_longer_steps(usual: Trades) -> None:
    def kurtosis(values: NDArray[np.float64]) -> float:
        return float(np.mean((values - values.mean()) ** 4) / values.var() ** 2)

    assert kurtosis(returns(usual)) > 4.5  # 3 of a normal distribution
    assert 3.2 < kurtosis(returns(usual, 60)) < kurtosis(returns(usual))


def test_returns_do_not_predict_each_other_but_for_the_bounce_of_the_spread(usual: Trades) -> None:
    step = returns(usual)
    assert -0.12 < correlation(step, 1) < 0.03
    noise = 4.0 / np.sqrt(len(step))  # four standard errors, and half as much for the clustering
    assert all(abs(correlation(step, lag)) < 1.5 * noise for lag in range(2, 21))


def test_volatility_clusters_and_forgets_slowly(usual: Trades) -> None:
    size = np.abs(returns(usual))
    near = [correlation(size, lag) for lag in range(1, 11)]
    far = [correlation(size, lag) for lag in range(100, 111)]
    assert min(near) > 0.08
    assert 0.02 < np.mean(far) < np.mean(near)


def test_arrivals_cluster(usual: Trades) -> None:
    counts = np.bincount(usual.exchange_ns // SECOND_NS, minlength=HOURS * 3600)
    assert counts.var() / counts.mean() > 3.0  # 1 of a Poisson process
    assert correlation(counts.astype(np.float64), 10) > 0.1


def test_busy_times_are_volatile_times_and_buyers_lift_the_price(usual: Trades) -> None:
    minutes = HOURS * 60
    minute = usual.exchange_ns // (60 * SECOND_NS)
    busy = np.bincount(minute, minlength=minutes)
    squares = returns(usual) ** 2
    volatile = np.bincount(np.arange(1, len(squares) + 1) // 60, squares, minutes)
    assert np.corrcoef(np.log(busy), np.log(volatile))[0, 1] > 0.3
    second = usual.exchange_ns // SECOND_NS
    flow = np.bincount(second, usual.side * usual.size, HOURS * 3600)[1:]
    assert np.corrcoef(np.sign(flow), np.sign(returns(usual)))[0, 1] > 0.1


def test_sizes_prices_and_times_are_a_tape_s(usual: Trades) -> None:
    assert (np.diff(usual.exchange_ns) >= 0).all()
    assert usual.size.min() > 0
    assert usual.price.min() > 0
    together = np.diff(usual.exchange_ns) == 0
    assert 0.1 < together.mean() < 0.5  # sweeps
    assert (np.diff(usual.side.astype(int))[together] == 0).all()
    assert (usual.price == np.round(usual.price, 3)).all()  # in a file it stands as 483.924, not 483.92400000000004


def test_orders_that_never_end_are_refused() -> None:
    with pytest.raises(ValueError, match="branching"):
        trade(np.random.default_rng(0), Instrument(branching=1.0), no_pressure(10))


def test_the_same_seed_gives_the_same_ticks_and_another_other_ones() -> None:
    plan = Plan("pump", seed=5, seconds=2000)
    assert simulator.simulate(plan).table.equals(simulator.simulate(plan).table)
    other = simulator.simulate(Plan("pump", seed=6, seconds=2000))
    assert not simulator.simulate(plan).table.equals(other.table)


def test_a_scenario_changes_its_own_symbol_alone() -> None:
    import pyarrow.compute as pc

    pump, calm = (simulator.simulate(Plan(name, seconds=2000)).table for name in ("pump", CALM))
    same = [
        pump.filter(pc.field("symbol") == s).equals(calm.filter(pc.field("symbol") == s)) for s in simulator.SYMBOLS
    ]
    assert same == [False, True, True]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_reads_as_ticks_and_the_truth_lies_beside_it(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"made{suffix}"
    options = ["--out", str(out), "--scenario", "pump", "--seconds", "120", "--at", "20", "--symbol", "X"]
    shown = CliRunner().invoke(commands, ["simulate", *options], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "pump on X from 2026-01-05 00:00:20 to 2026-01-05 00:01:50 UTC" in shown.output
    batches = list(open_ticks(out))
    assert sum(map(len, batches)) > 500
    assert all(batch.problems == {} for batch in batches)
    assert batches[0].instruments == [("X", "simulator")]
    (line,) = (tmp_path / "made.truth.jsonl").read_bytes().splitlines()
    injection = messages.decode_injection(line)
    assert (injection.scenario, injection.opens, injection.symbol) == ("pump", "pump", "X")
    assert (injection.end_ns - injection.begin_ns) == SCENARIOS["pump"].seconds * SECOND_NS
    assert {file.name for file in tmp_path.iterdir()} == {out.name, "made.truth.jsonl"}


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (Plan("earthquake"), "no scenario 'earthquake': name one of calm, "),
        (Plan("pump", seconds=1800), "pump is over after 1890 s, and the ticks end after 1800 s"),
        (Plan(symbols=("A", "A")), "symbol A is named twice"),
        (Plan(symbols=("A\x1b[2J",)), r"symbol 'A\x1b[2J' must be 1 to 64 printable characters"),
        (Plan(seconds=10_000_000), "may be 360,000,000 ticks, above 20,000,000"),
    ],
)
def test_an_impossible_plan_is_one_line(plan: Plan, rule: str) -> None:
    with pytest.raises(TapewatchError) as raised:
        simulator.simulate(plan)
    assert rule in str(raised.value)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a.txt", "must end in .parquet or .csv"),
        ("no/a.parquet", "No such file"),
        ("a/a.csv", "Not a directory|errno 20"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, name: str, rule: str) -> None:
    (tmp_path / "a").write_text("a file, not a folder")
    with pytest.raises(TapewatchError, match=f"cannot write .*{rule}"):
        simulator.to_file(simulator.simulate(Plan(seconds=60)), tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["simulate", "--out", "x.csv", "--broker", "127.0.0.1:1"], "--out writes a file"),
        (["demo", "--scenario", "pump", "--rate", "10"], "--rate ignores the time"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], rule: str) -> None:
    shown = CliRunner().invoke(commands, arguments)
    assert shown.exit_code == 2
    assert rule in shown.output


@pytest.mark.parametrize("command", ["simulate", "demo"])
def test_the_list_names_every_scenario(command: str) -> None:
    shown = CliRunner().invoke(commands, [command, "--scenario", "list"])
    assert [line.split()[0] for line in shown.output.splitlines()] == list(SCENARIOS)


def test_a_show_hurries_through_the_history() -> None:
    pace = LeadIn(history_seconds=100.0, history_speed=50.0, speed=2.0)
    times = np.array([0.0, 50.0, 100.0, 110.0, 130.0]) * SECOND_NS
    assert pace.due(times[:3].astype(np.int64)).tolist() == [0.0, 1.0, 2.0]
    assert pace.due(times[3:].astype(np.int64)).tolist() == [7.0, 17.0]


def test_the_columns_are_those_of_a_file_of_ticks(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    simulator.to_file(simulator.simulate(Plan(seconds=60)), out)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    for row in rows[:10]:
        assert messages.decode_tick(json.dumps(row).encode()).venue == "simulator"
