"""Ticks made by the generator that ships: by a seed, in its instrument's own scale, without PyTorch, and usable."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from stream import cli, inference
from stream.config import DEFAULT_MODELS, Settings
from stream.core.features import FEATURES, WINDOW
from stream.errors import ModelMismatch, TapewatchError
from stream.feeds import generator, simulator
from stream.feeds.generator import Generator
from stream.feeds.market import SECOND_NS, Instrument, Trades
from stream.inference import NOISE
from tests import bundles

MODELS = Path(DEFAULT_MODELS)
INSTRUMENT = Instrument(price=100.0, volatility=2e-4)


@pytest.fixture(scope="module")
def shipped() -> Generator:
    return simulator.generator_in(MODELS)


def made(shipped: Generator, seed: int = 0, seconds: int = 600, volatility: float = 1.0) -> Trades:
    return generator.trade(np.random.default_rng(seed), INSTRUMENT, shipped, seconds, volatility)


def a_second(trades: Trades) -> float:
    """Volatility of one second, from the last price of each."""
    second = trades.exchange_ns // SECOND_NS
    last = np.flatnonzero(np.diff(second, append=second[-1] + 1))
    steps = np.diff(np.log(trades.price[last]))
    return float(np.sqrt((steps**2).sum() / (second[-1] - second[0] + 1)))


def test_the_same_seed_makes_the_same_trades_and_another_one_others(shipped: Generator) -> None:
    first, again, other = made(shipped), made(shipped), made(shipped, seed=1)
    assert [column.tolist() for column in first] == [column.tolist() for column in again]
    assert not np.array_equal(first.price[:32], other.price[:32])


def test_trades_are_in_order_within_the_time_and_of_sizes_that_can_be(shipped: Generator) -> None:
    trades = made(shipped)
    assert len(trades.price) > 500
    assert (np.diff(trades.exchange_ns) >= 0).all()
    assert trades.exchange_ns[0] >= 0
    assert trades.exchange_ns[-1] < 600 * SECOND_NS
    assert (trades.price > 0).all()
    assert (trades.size > 0).all()
    assert set(trades.side.tolist()) == {-1, 1}


def test_volatility_is_of_the_size_that_was_asked_for(shipped: Generator) -> None:
    usual, stressed = a_second(made(shipped, seconds=1800)), a_second(made(shipped, seconds=1800, volatility=4.0))
    assert INSTRUMENT.volatility / 4 < usual < INSTRUMENT.volatility * 4
    assert 2.0 < stressed / usual < 8.0


def test_noise_and_scale_are_all_that_a_window_depends_on(shipped: Generator) -> None:
    rng = np.random.default_rng(0)
    features = np.tile(np.array(shipped.card.normal, np.float32), (3, 1))
    noise = rng.standard_normal((3, WINDOW, NOISE)).astype(np.float32)
    windows = shipped.windows(features, noise)
    assert windows.shape == (3, WINDOW, 3)
    other = features.copy()
    other[:, list(FEATURES).index("order_flow_imbalance_10s")] = 1.0
    assert np.array_equal(shipped.windows(other, noise), windows)
    other[:, list(FEATURES).index("log_grid_variance_1800s")] += 2.0
    assert not np.array_equal(shipped.windows(other, noise), windows)


def test_the_command_writes_ticks_that_a_worker_takes(tmp_path: Path) -> None:
    file = tmp_path / "made.parquet"
    options = ["simulate", "--generator", "--out", str(file), "--seconds", "600", "--seed", "3", "--symbol", "A"]
    done = CliRunner().invoke(cli.commands, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "made by wgan-generator@3" in done.output
    done = CliRunner().invoke(cli.commands, ["backtest", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert ", 0 rejected," in done.output
    table = pq.read_table(file)
    assert set(table["symbol"].to_pylist()) == {"A"}


def test_what_a_generator_cannot_do_is_refused(shipped: Generator, tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match="knows no scenario"):
        simulator.simulate(simulator.Plan("pump"), shipped)
    with pytest.raises(ModelMismatch, match="holds no generator"):
        generator.newest(tmp_path)
    with pytest.raises(ModelMismatch, match="only a generator makes trades"):
        Generator(bundles.shipped(MODELS, "gru"))
    done = CliRunner().invoke(cli.commands, ["simulate", "--volatility", "2", "--out", str(tmp_path / "a.csv")])
    assert done.exit_code == 2
    assert "are for --generator" in done.output


def test_a_generator_among_the_models_serves_no_head() -> None:
    assert "wgan-generator@3" not in inference.load(Path(Settings().worker.models)).names
