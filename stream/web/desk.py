"""What the board in the browser shows: the newest of each instrument, its last minutes, alerts, models and progress.

Filled a chunk at a time; nothing is turned into text before somebody looks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.core import history
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS
from stream.decoding import Instruments
from stream.messages import ACTIONS, GATES, LEVELS, ActionName, Alert, AlertKind, Contribution, Gate, Level, Severity
from stream.metrics import Head
from stream.pipeline import Output
from stream.switch import InForce

MOST_ROWS: Final = 100
"""Instruments in the table: those of the highest score."""
MOST_ALERTS: Final = 100
SPARKS: Final = 48
"""Points of the small course of the price in the table."""
FIRST_RINGS: Final = 16
MILLISECOND: Final = 1_000_000
_RISK: Final = {name: RISK_COLUMNS.index(name) for name in RISK_COLUMNS}
_VOLATILITY: Final = FORECAST_COLUMNS.index("volatility_60s")
_PROBABILITY_UP: Final = FORECAST_COLUMNS.index("probability_up_60s")
_QUANTILES: Final = slice(history.QUANTILES[0], history.QUANTILES[-1] + 1)


class Row(msgspec.Struct, frozen=True):
    """The newest of one instrument."""

    symbol: str
    venue: str
    partition: int
    exchange_ms: int
    heard_ms: int  # by the worker's clock
    stale: bool  # an alert says that it has fallen silent
    price: float
    change: float | None  # log return over all that is kept of its course
    spark: Sequence[int]  # the price's course between its lowest, 0, and highest, 99
    volatility_60s: float
    volatility_ratio: float
    probability_up_60s: float
    quantiles_60s: Sequence[float]
    var_99: float
    es_975: float
    anomaly: float
    flow: float
    liquidity: float
    score: float
    level: Level
    action: ActionName
    target_position: float
    gated_by: Gate | None
    warming: bool
    alerts: int  # open now


class Course(msgspec.Struct, frozen=True):
    """The last minutes of one instrument, a column each; `whole` if nothing before them is to be kept."""

    symbol: str
    venue: str
    row: Row | None  # None: the worker has not heard of it
    kept: bool  # False: more instruments than rings, and it has none
    whole: bool
    second: Sequence[int] = ()
    price: Sequence[float] = ()
    quantiles: Sequence[Sequence[float]] = ()  # one column for each level, of the log return over the next 60 s
    volatility: Sequence[float] = ()
    anomaly: Sequence[float] = ()
    score: Sequence[float] = ()
    action: Sequence[int] = ()  # -1 short, 0 flat, 1 long
    gated: Sequence[bool] = ()


class Noted(msgspec.Struct, frozen=True):
    """An alert as it stands, with the reasons for which it was opened."""

    alert_id: str
    symbol: str
    venue: str
    kind: AlertKind
    detail: str
    severity: Severity
    open: bool
    opened_ms: int  # the venue's clock, as the next one
    changed_ms: int
    value: float
    threshold: float
    reasons: Sequence[Contribution]


class Alerts:
    """The newest alerts by their id, the newest change last, and how many are open for each instrument."""

    def __init__(self) -> None:
        self.revision = 0
        self._noted: dict[str, Noted] = {}
        self._who: dict[str, tuple[int, str, str]] = {}  # partition, symbol and venue of each alert that is open
        self._open: Counter[tuple[int, str, str]] = Counter()
        self._stale: Counter[tuple[int, str, str]] = Counter()

    def note(self, alerts: Iterable[Alert]) -> None:
        """Take changes of alerts."""
        for alert in alerts:
            self.revision += 1
            self._count(alert)
            before = self._noted.pop(alert.alert_id, None)
            self._noted[alert.alert_id] = _noted(alert, before)
            if len(self._noted) > MOST_ALERTS:
                self._drop_one()

    def of(self, partition: int, symbol: str, venue: str) -> tuple[int, bool]:
        """How many are open for an instrument, and whether one says that it is silent."""
        who = partition, symbol, venue
        return self._open[who], self._stale[who] > 0

    def newest(self) -> list[Noted]:
        """Those that are open first, then the newest."""
        newest = list(self._noted.values())[::-1]
        return [noted for noted in newest if noted.open] + [noted for noted in newest if not noted.open]

    def forget(self, partition: int) -> None:
        """The partition is another worker's now, and so are its alerts."""
        self.revision += 1
        for alert_id, who in list(self._who.items()):
            if who[0] == partition:
                del self._who[alert_id]
                self._noted.pop(alert_id, None)
        for counter in (self._open, self._stale):
            for who in [who for who in counter if who[0] == partition]:
                del counter[who]

    def _count(self, alert: Alert) -> None:
        who = alert.partition, alert.symbol, alert.venue
        was_open = alert.alert_id in self._who
        step = (alert.state != "closed") - was_open
        if step > 0:
            self._who[alert.alert_id] = who
        elif step < 0:
            del self._who[alert.alert_id]
        for counter in (self._open, self._stale) if alert.detail == "stale" else (self._open,):
            counter[who] += step
            if counter[who] <= 0:
                del counter[who]

    def _drop_one(self) -> None:
        """The oldest that is over, or, where all are open, the oldest."""
        over = next((name for name, noted in self._noted.items() if not noted.open), None)
        del self._noted[over or next(iter(self._noted))]


def _noted(alert: Alert, before: Noted | None) -> Noted:
    changed_ms = alert.exchange_ns // MILLISECOND
    return Noted(
        alert_id=alert.alert_id,
        symbol=alert.symbol,
        venue=alert.venue,
        kind=alert.kind,
        detail=alert.detail,
        severity=alert.severity if alert.state != "closed" or before is None else before.severity,
        open=alert.state != "closed",
        opened_ms=before.opened_ms if before is not None else changed_ms,
        changed_ms=changed_ms,
        value=alert.value,
        threshold=alert.threshold,
        reasons=alert.reasons or (before.reasons if before is not None else ()),
    )


class Rings:
    """How many courses may still be kept, by all partitions together."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, wanted: int) -> int:
        """So many of those wanted."""
        taken = min(wanted, self.left)
        self.left -= taken
        return taken


class Book:
    """The instruments of one partition."""

    def __init__(self, partition: int, instruments: Instruments, rings: Rings) -> None:
        self.partition: Final = partition
        self.instruments: Final = instruments
        self.newest = np.zeros(0, history.NEWEST)
        self._allowed = rings
        self._kept = 0
        self._rings = history.new_rings(0)
        self._row_of_slot = np.full(0, -1, np.int32)

    def note(self, output: Output, now_ms: int) -> None:
        """Take the answers of a chunk."""
        if not len(output.results.slot):
            return
        if len(self.instruments) > len(self._row_of_slot):
            self._grow()
        history.note(self.newest, self._rings, self._row_of_slot, output.results, now_ms)

    def close(self) -> None:
        """Give the rings back."""
        self._allowed.left += self._kept
        self._kept = 0

    def slot(self, symbol: str, venue: str) -> int | None:
        """The instrument's slot, if it had a tick."""
        slot = self.instruments.find(symbol, venue)
        return slot if slot is not None and slot < len(self.newest) and self.newest["ticks"][slot] else None

    def keeps(self, slot: int) -> bool:
        """Whether the instrument's course is kept."""
        return bool(self._row_of_slot[slot] >= 0)

    def course(self, slot: int, since: int = 0) -> NDArray[np.void]:
        """Its points from second `since` on; none where its course is not kept."""
        row = int(self._row_of_slot[slot])
        return history.course(self._rings, row, since) if row >= 0 else np.empty(0, history.POINT)

    def _grow(self) -> None:
        known, count = len(self._row_of_slot), len(self.instruments)
        taken = self._allowed.take(count - known)
        rows = np.full(count - known, -1, np.int32)
        rows[:taken] = np.arange(self._kept, self._kept + taken)
        self._row_of_slot = np.concatenate([self._row_of_slot, rows])
        self._kept += taken
        if count > len(self.newest):
            self.newest = _longer(self.newest, max(count, 2 * len(self.newest)))
        room = len(self._rings.written)
        if self._kept > room:
            room = max(self._kept, FIRST_RINGS, min(2 * room, room + self._allowed.left + taken))
            self._rings = history.Rings._make(_longer(rows, room) for rows in self._rings)


def _longer(rows: NDArray[Any], count: int) -> NDArray[Any]:
    longer = np.zeros((count, *rows.shape[1:]), rows.dtype)
    longer[: len(rows)] = rows
    return longer


class Desk:
    """Everything that this worker's board can show."""

    def __init__(self, courses: int) -> None:
        self.alerts: Final = Alerts()
        self.ticks = 0
        self.rejected: Counter[str] = Counter()
        self._rings = Rings(courses)
        self._books: dict[int, Book] = {}

    @property
    def partitions(self) -> list[int]:
        """The partitions of this worker."""
        return sorted(self._books)

    def open(self, partition: int, instruments: Instruments) -> Book:
        """A new book for a partition, in place of any before."""
        self.close(partition)
        book = self._books[partition] = Book(partition, instruments, self._rings)
        return book

    def close(self, partition: int) -> None:
        """The partition is another worker's now."""
        book = self._books.pop(partition, None)
        if book is not None:
            book.close()
            self.alerts.forget(partition)

    def note(self, partition: int, output: Output, now_ms: int) -> None:
        """Take what a chunk came to."""
        book = self._books.get(partition)
        if book is None:
            return
        self.ticks += len(output.results.slot)
        if output.rejected:
            self.rejected.update(refusal.reason for refusal in output.rejected)
        if output.alerts:
            self.alerts.note(output.alerts)
        book.note(output, now_ms)

    def symbols(self) -> int:
        """Instruments that had a tick."""
        return sum(int(np.count_nonzero(book.newest["ticks"])) for book in self._books.values())

    def rows(self) -> list[Row]:
        """The instruments of the highest score, the highest first."""
        found = [(book, slot) for book in self._books.values() for slot in _highest(book.newest).tolist()]
        found.sort(key=lambda each: -each[0].newest["risk"][each[1], _RISK["score"]])
        return [self._row(book, slot) for book, slot in found[:MOST_ROWS]]

    def course(self, symbol: str, venue: str, since: int = 0) -> Course:
        """The last minutes of an instrument; `since` 0 for all of them."""
        for book in self._books.values():
            slot = book.slot(symbol, venue)
            if slot is not None:
                points = book.course(slot, since)
                return _course(self._row(book, slot), book.keeps(slot), since == 0, points)
        return Course(symbol, venue, None, kept=False, whole=True)

    def _row(self, book: Book, slot: int) -> Row:
        s = book.newest[slot]
        symbol, venue = book.instruments.names[slot]
        prices = book.course(slot)["price"]
        forecast, risk = s["forecast"].tolist(), s["risk"].tolist()
        alerts, stale = self.alerts.of(book.partition, symbol, venue)
        return Row(
            symbol=symbol,
            venue=venue,
            partition=book.partition,
            exchange_ms=int(s["exchange_ns"]) // MILLISECOND,
            heard_ms=int(s["heard_ms"]),
            stale=stale,
            price=float(s["price"]),
            change=float(np.log(prices[-1] / prices[0])) if len(prices) else None,
            spark=spark(prices),
            volatility_60s=forecast[_VOLATILITY],
            probability_up_60s=forecast[_PROBABILITY_UP],
            quantiles_60s=forecast[_QUANTILES],
            **{name: risk[column] for name, column in _RISK.items()},
            level=LEVELS[s["level"]],
            action=ACTIONS[s["action"]],
            target_position=float(s["target_position"]),
            gated_by=GATES[s["gate"]],
            warming=bool(s["warming"]),
            alerts=alerts,
        )


def _highest(newest: NDArray[np.void]) -> NDArray[np.int64]:
    """Slots of the highest scores among those that had a tick."""
    heard = np.flatnonzero(newest["ticks"])
    if len(heard) <= MOST_ROWS:
        return heard
    score = newest["risk"][heard, _RISK["score"]]
    return heard[np.argpartition(-score, MOST_ROWS)[:MOST_ROWS]]


def spark(prices: NDArray[np.float64]) -> list[int]:
    """Some of the prices, evenly taken, the last among them, on a scale from their lowest, 0, to their highest, 99."""
    if not len(prices):
        return []
    taken = prices[np.linspace(0, len(prices) - 1, min(len(prices), SPARKS)).astype(np.int64)]
    low, high = float(taken.min()), float(taken.max())
    if high == low:
        return [50] * len(taken)
    found: list[int] = np.rint((taken - low) / (high - low) * 99).astype(np.int64).tolist()
    return found


def _course(row: Row, kept: bool, whole: bool, points: NDArray[np.void]) -> Course:
    return Course(
        symbol=row.symbol,
        venue=row.venue,
        row=row,
        kept=kept,
        whole=whole,
        second=points["second"].tolist(),
        price=points["price"].tolist(),
        quantiles=_short(points["quantiles"].T),
        volatility=_short(points["volatility"]),
        anomaly=_short(points["anomaly"]),
        score=_short(points["score"]),
        action=(points["action"].astype(np.int64) - 1).tolist(),
        gated=(points["gate"] != 0).tolist(),
    )


def _short(numbers: NDArray[np.float32]) -> list[Any]:
    """As float64 with the seven digits that float32 holds."""
    found: list[Any] = np.round(numbers.astype(np.float64), 8).tolist()
    return found


class Partition(msgspec.Struct, frozen=True):
    """How far one partition is; `lag` is None until it is known."""

    partition: int
    lag: int | None
    commit_age_seconds: float | None


class Snapshot(msgspec.Struct, frozen=True):
    """What all viewers see alike."""

    at_ms: int  # the worker's clock
    started_ms: int
    refresh_seconds: float
    group: str
    status: str
    partitions: Sequence[Partition]
    partitions_in_all: int | None
    models: Mapping[Head, str]
    ticks_per_second: float
    rejected: Mapping[str, int]
    symbols: int
    rows: Sequence[Row]
    halts: Sequence[InForce] = ()
    kill_switch: bool = False  # whether this board halts and resumes
    asks_name: bool = True  # nobody signs in here, so who halts must say who they are
