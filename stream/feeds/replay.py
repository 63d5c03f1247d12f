"""`tapewatch replay`: recorded ticks put on Kafka again, in their own time, faster, at a constant rate or at once.

Every row of the file is sent, also those that cannot be a tick: the worker refuses those with the reason that the
reader of the file has for them.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import click
import numpy as np
from kafka.errors import KafkaError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from stream import clients, messages, topics
from stream.config import Cluster, Features, Settings
from stream.errors import BadFile, BrokerUnreachable, TapewatchError
from stream.feeds.files import TickBatch, TickFile
from stream.signals import stop_on_signals
from stream.suggestions import some_of

BLOCK_TICKS: Final = 1024  # encoded ahead: about 2 ms of work
REPORT_SECONDS: Final = 0.2
LINE_SECONDS: Final = 5.0
DELIVERY_SECONDS: Final = 30.0
# kafka-python's producer takes messages without end: now and then wait for one, so that no more than so many times
# MARK_EVERY messages (some 20 MB of ticks) are on their way.
MARKS: Final = 32
MARK_EVERY: Final = 4096
# The embedded broker hands over one produced batch a partition and fetch: where each tick is a batch of its own, a
# consumer gets a thousand a second, and less on a busy machine.
EMBEDDED_LINGER_MS: Final = 20
SESSION_GAP_SECONDS: Final = Features().session_gap_seconds
PRODUCER_OPTIONS: Final[dict[str, Any]] = {
    "linger_ms": 2,
    "batch_size": 262_144,
    "max_request_size": topics.MAX_MESSAGE_BYTES,
    "delivery_timeout_ms": int(DELIVERY_SECONDS * 1000),
    "request_timeout_ms": 10_000,
    "max_block_ms": 15_000,
}


class Block(NamedTuple):
    """Messages ready to be sent, in their order."""

    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    exchange_ns: NDArray[np.int64]  # [n] event time, never falling: a late tick has that of the one before it


class Sink(Protocol):
    """Where messages go."""

    def send(self, key: bytes | None, value: bytes) -> None:
        """Take one message; may return before it is delivered."""


class Clock(Protocol):
    """Time, waiting and being told to stop."""

    def now(self) -> float:
        """Seconds; only differences mean anything."""

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or earlier when told to stop."""

    @property
    def stopped(self) -> bool:
        """Whether to stop."""


class EventClock:
    """Real time; an event says when to stop."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.perf_counter()

    def wait(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        self._stop.wait(seconds)

    @property
    def stopped(self) -> bool:
        """Whether the event is set."""
        return self._stop.is_set()


class _Sent(messages.Tick, frozen=True, omit_defaults=True, gc=False):
    """A tick without the fields it does not have."""


class Rounds:
    """The messages of a file, once or again and again; a later round has later times and other trade ids."""

    def __init__(
        self, file: TickFile, symbol: str | None = None, loop: bool = False, form: messages.Format = "json"
    ) -> None:
        """Only ticks of `symbol`, if given; endlessly, if `loop`."""
        self._file = file
        self._form = form
        self._symbol = symbol
        self._loop = loop
        self._ns = _Span()
        self._ids = _Span()
        self._newest_ns = 0
        self._symbols: set[str] = set()  # of the file, as far as it was read

    def __iter__(self) -> Iterator[Block]:
        """Blocks of up to BLOCK_TICKS messages; raises BadFile if the file has no tick of the symbol."""
        number = 0
        while True:
            sent = 0
            for block in self._round(number):
                sent += len(block.values)
                yield block
            if not sent:
                there = some_of(self._symbol or "", self._symbols)
                raise BadFile(f"{self._file.path} has no tick of symbol {self._symbol!r}; it has those of {there}")
            if not self._loop:
                return
            number += 1

    def _round(self, number: int) -> Iterator[Block]:
        for batch in self._file:
            rows = _rows_of(batch, self._symbol)
            self._symbols.update(symbol for symbol, _ in batch.instruments)
            if number == 0:
                self._ns.include(batch.exchange_ns[rows & _valid(batch)])
                self._ids.include(batch.trade_id[rows & (batch.trade_id != 0)])
            shift_ns, shift_id = number * self._ns.width, number * self._ids.width
            chosen = np.flatnonzero(rows)
            for first in range(0, len(chosen), BLOCK_TICKS):
                yield self._block(batch, chosen[first : first + BLOCK_TICKS], shift_ns, shift_id)

    def _block(self, batch: TickBatch, rows: NDArray[np.intp], shift_ns: int, shift_id: int) -> Block:
        times = np.where(_valid(batch)[rows], batch.exchange_ns[rows] + shift_ns, self._newest_ns)
        times = np.maximum.accumulate(np.maximum(times, self._newest_ns))
        self._newest_ns = int(times[-1])
        return Block(*encode(batch, rows, shift_ns, shift_id, self._form), times)


class _Span:
    """From the lowest to the highest of some numbers."""

    def __init__(self) -> None:
        self._low: int | None = None
        self._high = 0

    def include(self, values: NDArray[np.int64]) -> None:
        if values.size:
            low, high = int(values.min()), int(values.max())
            self._low, self._high = (low, high) if self._low is None else (min(self._low, low), max(self._high, high))

    @property
    def width(self) -> int:
        """By how much to move a copy so that it does not overlap."""
        return 0 if self._low is None else self._high - self._low + 1


def _valid(batch: TickBatch) -> NDArray[np.bool_]:
    valid = np.ones(len(batch), np.bool_)
    valid[list(batch.problems)] = False
    return valid


def _rows_of(batch: TickBatch, symbol: str | None) -> NDArray[np.bool_]:
    if symbol is None:
        return np.ones(len(batch), np.bool_)
    wanted = [index for index, (name, _) in enumerate(batch.instruments) if name == symbol]
    return np.isin(batch.instrument, wanted)


def encode(
    batch: TickBatch,
    rows: NDArray[np.intp],
    shift_ns: int = 0,
    shift_id: int = 0,
    form: messages.Format = "json",
) -> tuple[list[bytes | None], list[bytes]]:
    """Keys and values of some rows of a batch, as messages on `ticks`.

    A trade id is sent as its number (`messages.trade_key`), which says the same to the worker as its text.

    Parameters
    ----------
    batch, rows
        Which rows of which batch.
    shift_ns
        Added to the event time, ns.
    shift_id
        Added to trade ids, modulo 2**64.
    form
        How they are written.
    """
    write = messages.ENCODERS[form]
    keys = [symbol.encode() for symbol, _ in batch.instruments]
    sides: dict[int, messages.Side | None] = {1: "buy", -1: "sell", 0: None}
    found_keys: list[bytes | None] = []
    values: list[bytes] = []
    columns = (batch.instrument, batch.exchange_ns, batch.price, batch.size, batch.side, batch.trade_id)
    for row, instrument, ns, price, size, side, trade_id in zip(
        rows.tolist(), *(column[rows].tolist() for column in columns), strict=True
    ):
        found_keys.append(keys[instrument] if instrument >= 0 else None)
        if row in batch.problems:
            values.append(batch.raw(row))
            continue
        symbol, venue = batch.instruments[instrument]
        shifted = _wrap(trade_id + shift_id) if trade_id else None
        values.append(write(_Sent(symbol, ns + shift_ns, price, size, sides[side], shifted, venue)))
    return found_keys, values


def _wrap(value: int) -> int:
    """To 64 bits with sign; never 0, which would say that there is no id."""
    return ((value + 2**63) % 2**64 - 2**63) or 1


class Pace(Protocol):
    """When a message is due."""

    def due(self, exchange_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start for the next messages, never falling; called for each message once, in order."""


class Recorded:
    """The recorded timing, `speed` times as fast. Nobody waits for a pause in which a session ends."""

    def __init__(self, speed: float = 1.0, longest_pause_seconds: float = SESSION_GAP_SECONDS) -> None:
        self._speed = speed
        self._longest_ns = int(longest_pause_seconds * 1e9)
        self._start_ns: int | None = None  # event time at the start, pauses that are left out added
        self._last_ns = 0

    def due(self, exchange_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start."""
        if self._start_ns is None:
            self._start_ns = self._last_ns = int(exchange_ns[0])
        steps = np.diff(exchange_ns, prepend=self._last_ns)
        left_out = np.cumsum(np.where(steps > self._longest_ns, steps, 0))
        due: NDArray[np.float64] = (exchange_ns - self._start_ns - left_out) / (1e9 * self._speed)
        self._start_ns += int(left_out[-1])
        self._last_ns = int(exchange_ns[-1])
        return due


class Constant:
    """`rate` messages a second; infinity sends all at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._count = 0

    def due(self, exchange_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds after the start."""
        numbers = np.arange(self._count, self._count + len(exchange_ns))
        self._count += len(exchange_ns)
        return numbers / self._rate


class Progressed(NamedTuple):
    """How far a replay is."""

    sent: int
    seconds: float  # since the start
    behind_seconds: float  # how late the newest message is with the producer
    exchange_ns: int  # event time of the newest message


def play(blocks: Iterable[Block], pace: Pace, sink: Sink, clock: Clock) -> Iterator[Progressed]:
    """Send each message when it is due; gives progress a few times a second and at the end.

    Ends early when the clock says stop.
    """
    start = clock.now()
    sent, behind, newest_ns, reported = 0, 0.0, 0, -math.inf
    for block in blocks:
        due = pace.due(block.exchange_ns)
        at = 0
        while at < len(due) and not clock.stopped:
            now = clock.now() - start
            ready = int(np.searchsorted(due, now, side="right"))
            for index in range(at, ready):
                sink.send(block.keys[index], block.values[index])
            if ready > at:
                sent += ready - at
                behind = clock.now() - start - float(due[ready - 1])
                newest_ns, at = int(block.exchange_ns[ready - 1]), ready
            else:
                clock.wait(min(float(due[at]) - now, REPORT_SECONDS))
            if now - reported >= REPORT_SECONDS:
                reported = now
                yield Progressed(sent, now, behind, newest_ns)
        if clock.stopped:
            break
    yield Progressed(sent, clock.now() - start, behind, newest_ns)


class KafkaSink:
    """A topic of a broker, through kafka-python."""

    def __init__(self, cluster: Cluster, topic: str, **options: Any) -> None:
        """Connect, with options of kafka-python's producer beside PRODUCER_OPTIONS; raises BrokerUnreachable."""
        linger = {"linger_ms": EMBEDDED_LINGER_MS} if clients.is_embedded(cluster) else {}
        self._producer = clients.producer(cluster, **PRODUCER_OPTIONS | linger | options)
        self._broker = cluster.broker
        self._topic = topic
        self._sent = 0
        self._marks: deque[Any] = deque()
        self.failed = 0
        self.first_error = ""

    def send(self, key: bytes | None, value: bytes) -> None:
        """Hand one message to the producer; raises BrokerUnreachable when it cannot take it."""
        self.send_then(key, value, None)

    def send_then(self, key: bytes | None, value: bytes, delivered: Callable[[Any], None] | None) -> None:
        """As `send`; `delivered` is called with kafka-python's RecordMetadata, on the producer's thread."""
        try:
            future = self._producer.send(self._topic, value=value, key=key)
        except KafkaError as error:
            raise BrokerUnreachable(clients.unreachable(self._broker, str(error))) from None
        if delivered is not None:
            future.add_callback(delivered)
        future.add_errback(self._fail)
        self._sent += 1
        if self._sent % MARK_EVERY == 0:
            self._hold_back(future)

    def _hold_back(self, future: Any) -> None:
        self._marks.append(future)
        if len(self._marks) > MARKS:
            with contextlib.suppress(KafkaError):  # counted by _fail
                self._marks.popleft().get(DELIVERY_SECONDS)

    def close(self) -> None:
        """Wait until every message is delivered or has failed."""
        try:
            self._producer.flush(timeout=DELIVERY_SECONDS)
        except KafkaError as error:
            self._fail(error)
        self._producer.close(timeout=1)

    def _fail(self, error: Any) -> None:
        self.first_error = self.first_error or str(error)
        self.failed += 1


def pace_of(speed: str | None, rate: float | None) -> Pace:
    """The pace that the command line names: --speed X, --speed max or --rate N."""
    if rate is not None:
        return Constant(rate)
    if speed == "max":
        return Constant(math.inf)
    return Recorded(float(speed or 1.0))


def run(
    ticks: TickFile,
    settings: Settings,
    speed: str | None = None,
    rate: float | None = None,
    loop: bool = False,
    symbol: str | None = None,
) -> None:
    """`tapewatch replay`.

    Raises
    ------
    BadFile
        If the file holds no tick of the symbol.
    BrokerUnreachable, MissingTopic
        If there is nowhere to send to.
    TapewatchError
        If messages could not be delivered.
    """
    topics.partitions_of(settings.cluster, [settings.topics.ticks])
    send(ticks, settings, pace_of(speed, rate), loop, symbol)


def send(ticks: TickFile, settings: Settings, pace: Pace, loop: bool = False, symbol: str | None = None) -> None:
    """Put ticks on Kafka at their pace until they end or a signal comes, with progress and a last line; see `run`."""
    clock = EventClock(stop_on_signals())
    sink = KafkaSink(settings.cluster, settings.topics.ticks)
    try:
        rounds = Rounds(ticks, symbol, loop, settings.format)
        last = _show(play(rounds, pace, sink, clock), _total(ticks, symbol, loop))
    finally:
        sink.close()
    _summarise(last, sink, settings, clock.stopped)


def _total(ticks: TickFile, symbol: str | None, loop: bool) -> int | None:
    return None if loop or symbol is not None else ticks.rows


def _summarise(last: Progressed, sink: KafkaSink, settings: Settings, stopped: bool) -> None:
    rate = last.sent / max(last.seconds, 1e-9)
    ending = "stopped: " if stopped else ""
    click.echo(
        f"{ending}sent {last.sent:,} ticks to {settings.topics.ticks} at {settings.broker} in {last.seconds:,.1f} s "
        f"({rate:,.0f} a second)"
    )
    if sink.failed:
        raise TapewatchError(f"{sink.failed:,} of {last.sent:,} messages were not delivered: {sink.first_error}")


def _show(progress: Iterator[Progressed], total: int | None) -> Progressed:
    console = Console(stderr=True)
    return _show_bar(progress, total, console) if console.is_terminal else _show_lines(progress)


def _show_bar(progress: Iterator[Progressed], total: int | None, console: Console) -> Progressed:
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    last = Progressed(0, 0.0, 0.0, 0)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        for last in progress:
            bar.update(task, completed=last.sent, description=describe(last))
    return last


def _show_lines(progress: Iterator[Progressed]) -> Progressed:
    last, shown = Progressed(0, 0.0, 0.0, 0), 0.0
    for last in progress:
        if last.seconds - shown >= LINE_SECONDS:
            shown = last.seconds
            click.echo(describe(last), err=True)
    return last


def describe(progress: Progressed) -> str:
    """Progress in a line."""
    when = datetime.fromtimestamp(progress.exchange_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    rate = progress.sent / max(progress.seconds, 1e-9)
    late = f", {progress.behind_seconds:.1f} s behind" if progress.behind_seconds > 1.0 else ""
    return f"{progress.sent:,} ticks, {rate:,.0f} a second, at {when} UTC{late}"
