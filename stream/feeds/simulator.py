"""`tapewatch simulate`: made markets with something out of the ordinary in one of them, and the truth about it.

The first symbol is the one that a scenario befalls; the others go on as if nothing were. The same seed, symbols and
scenario give the same ticks.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from stream import messages, topics
from stream.config import Settings
from stream.errors import BrokerUnreachable, TapewatchError
from stream.feeds import generator as made
from stream.feeds import replay
from stream.feeds.files import BATCH_ROWS, SCHEMA, TickFile
from stream.feeds.generator import Generator
from stream.feeds.market import SECOND_NS, Instrument, Trades, no_pressure, trade
from stream.feeds.scenarios import CALM, SCENARIOS
from stream.inference import Trust
from stream.messages import Injection
from stream.suggestions import did_you_mean

SYMBOLS: Final = ("ALPHA", "BRAVO", "CHARLIE")
VENUE: Final = "simulator"
BEGIN_SECONDS: Final = 1800  # of history before a scenario: alerts judge by the last 30 minutes
SECONDS: Final = 2700
START_NS: Final = 1_767_571_200_000_000_000  # 2026-01-05 00:00:00 UTC, of files; what goes to Kafka starts now
MOST_TICKS: Final = 20_000_000  # they are made at once: about 4 GB
TICKS_A_SECOND: Final = 12.0  # of one instrument, at most about
TRUTH_SUFFIX: Final = ".truth.jsonl"


class Plan(msgspec.Struct, frozen=True):
    """What to simulate."""

    scenario: str = CALM
    symbols: tuple[str, ...] = SYMBOLS
    seed: int = 0
    seconds: int = SECONDS
    begin_seconds: int = BEGIN_SECONDS  # when the scenario begins
    start_ns: int = START_NS
    volatility: float = 1.0  # times the usual; of a generator's markets only


class Simulated(NamedTuple):
    """The ticks of all symbols, sorted by time, and what was injected."""

    table: pa.Table
    truth: list[Injection]

    def file(self, name: str) -> TickFile:
        """The ticks as if read from a file of this name."""
        return TickFile(Path(name), self.table.num_rows, lambda: iter(self.table.to_batches(BATCH_ROWS)))


def simulate(plan: Plan, generator: Generator | None = None) -> Simulated:
    """Make the ticks, by the market of `market`, or by the generator of a GAN.

    Raises
    ------
    TapewatchError
        If the plan has no such scenario, a symbol twice, no room for the scenario, or too many ticks; or one that a
        generator does not know.
    """
    _check(plan)
    if generator is not None and plan.scenario != CALM:
        raise TapewatchError(f"a generator knows no scenario, so not {plan.scenario}: stress it by its volatility")
    tables = [
        table_of(symbol, _trades(plan, index, generator), plan.start_ns) for index, symbol in enumerate(plan.symbols)
    ]
    table = pa.concat_tables(tables)
    order = np.argsort(table["exchange_ns"].to_numpy(), kind="stable")
    return Simulated(table.take(order).combine_chunks(), _truth(plan))


def generator_in(models: Path, trust: Trust | None = None) -> Generator:
    """The newest generator in a folder of models; raises ModelMismatch where there is none that fits."""
    return Generator(made.newest(models), trust)


def _check(plan: Plan) -> None:
    if plan.scenario not in SCENARIOS:
        meant = did_you_mean(plan.scenario, SCENARIOS)
        raise TapewatchError(f"no scenario {plan.scenario!r}: {meant}name one of {', '.join(SCENARIOS)}")

    for symbol in plan.symbols:
        if not (1 <= len(symbol) <= messages.MAX_SYMBOL_LENGTH and symbol.isprintable()):
            raise TapewatchError(
                f"symbol {symbol[:80]!a} must be 1 to {messages.MAX_SYMBOL_LENGTH} printable characters"
            )
        if plan.symbols.count(symbol) > 1:
            raise TapewatchError(f"symbol {symbol} is named twice")
    needed = plan.begin_seconds + SCENARIOS[plan.scenario].seconds
    if plan.scenario != CALM and plan.seconds < needed:
        raise TapewatchError(f"{plan.scenario} is over after {needed} s, and the ticks end after {plan.seconds} s")
    expected = len(plan.symbols) * plan.seconds * TICKS_A_SECOND
    if expected > MOST_TICKS:
        raise TapewatchError(
            f"{len(plan.symbols)} symbols for {plan.seconds} s may be {expected:,.0f} ticks, above {MOST_TICKS:,}"
        )


def _trades(plan: Plan, index: int, generator: Generator | None) -> Trades:
    """Of one symbol; each has a stream of randomness of its own, so that another symbol more changes nothing."""
    rng = np.random.default_rng([plan.seed, index])
    instrument = _instrument(rng)
    if generator is not None:
        return made.trade(rng, instrument, generator, plan.seconds, plan.volatility)
    pressure = no_pressure(plan.seconds)
    scenario = SCENARIOS[plan.scenario if index == 0 else CALM]
    begin, end = plan.begin_seconds, plan.begin_seconds + scenario.seconds
    if scenario.press is not None:
        scenario.press(pressure, slice(begin, end), instrument)
    trades = trade(rng, instrument, pressure)
    return trades if scenario.change is None else scenario.change(trades, begin * SECOND_NS, end * SECOND_NS)


def _instrument(rng: np.random.Generator) -> Instrument:
    """Markets differ in price, size, and a little in how busy and volatile they are."""
    price = 10.0 ** rng.uniform(-0.5, 4.5)
    return Instrument(
        price=float(f"{price:.4g}"),
        orders_per_second=rng.uniform(3.0, 5.0),
        volatility=rng.uniform(0.8e-4, 1.2e-4),
        size=float(f"{50.0 / price:.2g}"),
    )


def table_of(symbol: str, trades: Trades, start_ns: int) -> pa.Table:
    """The trades of one symbol as rows of a file of ticks."""
    count = len(trades.price)
    columns = [
        pa.array([symbol]).take(pa.array(np.zeros(count, np.int8))),
        start_ns + trades.exchange_ns,
        trades.price,
        trades.size,
        pa.array(["sell", "buy"]).take(pa.array((trades.side > 0).astype(np.int8))),
        np.arange(1, count + 1),
        pa.array([VENUE]).take(pa.array(np.zeros(count, np.int8))),
    ]
    return pa.table(columns, schema=SCHEMA)


def _truth(plan: Plan) -> list[Injection]:
    scenario = SCENARIOS[plan.scenario]
    if scenario.opens is None:
        return []
    begin_ns = plan.start_ns + plan.begin_seconds * SECOND_NS
    end_ns = begin_ns + scenario.seconds * SECOND_NS
    return [Injection(plan.symbols[0], VENUE, plan.scenario, begin_ns, end_ns, scenario.opens, plan.seed)]


def to_file(simulated: Simulated, out: Path) -> Path:
    """Write the ticks as Parquet or CSV, by the name of the file, and beside them the truth; gives its path.

    Raises
    ------
    TapewatchError
        If the name is of another kind, or the folder cannot be written.
    """
    writers: dict[str, Callable[[pa.Table, Path], None]] = {
        ".parquet": pyarrow.parquet.write_table,
        ".csv": pyarrow.csv.write_csv,
    }
    if out.suffix not in writers:
        raise TapewatchError(f"cannot write {out}: its name must end in {' or '.join(writers)}")
    truth = out.with_name(out.name.removesuffix(out.suffix) + TRUTH_SUFFIX)
    part = out.with_name(out.name + ".part")
    try:
        writers[out.suffix](simulated.table, part)
        os.replace(part, out)
        truth.write_bytes(b"".join(messages.encode(each) + b"\n" for each in simulated.truth))
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise TapewatchError(f"cannot write {out}: {error.strerror or error}") from None
    return truth


def tell(settings: Settings, truth: Sequence[Injection]) -> None:
    """Put the truth on its topic; raises BrokerUnreachable, MissingTopic, or TapewatchError if it is not delivered."""
    topics.partitions_of(settings.cluster, [settings.topics.truth])
    sink = replay.KafkaSink(settings.cluster, settings.topics.truth)
    try:
        for each in truth:
            sink.send(each.symbol.encode(), messages.ENCODERS[settings.format](each))
    finally:
        sink.close()
    if sink.failed:
        raise TapewatchError(f"the truth was not delivered to {settings.topics.truth}: {sink.first_error}")


def in_words(truth: Sequence[Injection]) -> str:
    """What was injected, for people."""
    if not truth:
        return f"{CALM}: {SCENARIOS[CALM].what}"
    return "; ".join(
        f"{each.scenario} on {each.symbol} from {_clock(each.begin_ns)} to {_clock(each.end_ns)} UTC "
        f"({SCENARIOS[each.scenario].what}), which opens {each.opens}"
        for each in truth
    )


def _clock(ns: int) -> str:
    return datetime.fromtimestamp(ns / SECOND_NS, UTC).strftime("%Y-%m-%d %H:%M:%S")


def run_to_file(plan: Plan, out: Path, generator: Generator | None = None) -> None:
    """`tapewatch simulate --out`."""
    simulated = simulate(plan, generator)
    truth = to_file(simulated, out)
    click.echo(
        f"{simulated.table.num_rows:,} ticks of {', '.join(plan.symbols)} written to {out}, the truth to {truth}"
    )
    click.echo(in_words(simulated.truth) if generator is None else f"made by {generator.name}")


def run_to_kafka(plan: Plan, settings: Settings, speed: str | None, generator: Generator | None = None) -> None:
    """`tapewatch simulate` to the topic of ticks, from now on; the truth comes first, on a topic of its own.

    Raises
    ------
    BrokerUnreachable, MissingTopic, TapewatchError
        As `replay.run` does.
    """
    try:
        topics.partitions_of(settings.cluster, [settings.topics.ticks, settings.topics.truth])
    except BrokerUnreachable as error:
        raise BrokerUnreachable(f"{error}; or write a file with --out FILE") from None
    simulated = simulate(msgspec.structs.replace(plan, start_ns=time.time_ns()), generator)
    click.echo(in_words(simulated.truth) if generator is None else f"made by {generator.name}")
    tell(settings, simulated.truth)
    replay.send(simulated.file("simulation"), settings, replay.pace_of(speed, None))


class LeadIn:
    """The pace of a show: the history at one speed, what comes behind it at another."""

    def __init__(self, history_seconds: float, history_speed: float, speed: float) -> None:
        self._recorded = replay.Recorded()
        self._history = history_seconds
        self._history_speed = history_speed
        self._speed = speed

    def due(self, exchange_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start."""
        at = self._recorded.due(exchange_ns)
        history = np.minimum(at, self._history) / self._history_speed
        due: NDArray[np.float64] = history + np.maximum(at - self._history, 0.0) / self._speed
        return due


def show_scenarios() -> None:
    """`tapewatch simulate --scenario list`."""
    for name, scenario in SCENARIOS.items():
        opens = f"opens {scenario.opens}" if scenario.opens else "opens nothing"
        click.echo(f"{name:<18} {opens:<17} {scenario.what}")
