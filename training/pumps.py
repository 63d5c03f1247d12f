"""The pump alert against organised pumps: which it finds, how soon, and how often it is wrong in the quiet hours.

It runs the kernels of features and alerts that a worker runs. Thresholds are chosen from a grid by the F1 of the
events; of settings that tie, their geometric mean is taken, the middle of the plateau. training/pump_report.py tells
of it.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream import config
from stream.core import alerts
from stream.core import features as kernel
from stream.core.alerts import AlertRules
from stream.errors import TapewatchError
from stream.feeds.files import open_ticks
from stream.pipeline import feature_rules

SECOND: Final = 1_000_000_000
CHUNK: Final = 65_536
EARLY_SECONDS: Final = 60.0
"""An alert so long before the announced start still finds it: the organisers and their friends buy before they call."""
LATE_SECONDS: Final = 25.0
AROUND_SECONDS: Final = 1800.0
"""Quiet is what is farther from the announced start; nearer, further alerts are the same pump."""
DAY: Final = 86_400.0
Thresholds = tuple[float, ...]
"""Of the alert: return, volume, rushes; of the forest: its probability."""


class Tape(NamedTuple):
    """The accepted ticks of a file, as the kernel of alerts reads them."""

    names: list[str]  # of the instruments
    slot: NDArray[np.int32]  # [n]
    exchange_ns: NDArray[np.int64]  # [n]
    features: NDArray[np.float32]  # [n, len(FEATURES)]
    context: NDArray[np.float64]  # [n, len(CONTEXT)]
    row: NDArray[np.int64]  # [n] in the file


class Outcome(NamedTuple):
    """What the alert did about each event."""

    seconds: NDArray[np.float64]  # [events] from the announced start to the first alert that finds it; NaN: not found
    false: NDArray[np.int64]  # [events] alerts in its quiet hours

    def f1(self, which: NDArray[np.bool_]) -> float:
        """Of some of the events: 2 found / (2 found + missed + false)."""
        found = int(np.isfinite(self.seconds[which]).sum())
        wrong = int(which.sum()) - found + int(self.false[which].sum())
        return 2 * found / (2 * found + wrong)


def read(path: Path) -> Tape:
    """Features and context of a file's ticks."""
    rules = feature_rules(config.Settings())
    state = kernel.new_state(0)
    parts: list[tuple[NDArray[np.int32], NDArray[np.int64], kernel.FeatureColumns, NDArray[np.int64]]] = []
    names: list[str] = []
    for batch in open_ticks(path):
        names = [f"{symbol}@{venue}" if venue else symbol for symbol, venue in batch.instruments]
        state = np.concatenate([state, kernel.new_state(len(names) - len(state))])
        good = np.delete(np.arange(len(batch)), list(batch.problems))
        for first in range(0, len(good), CHUNK):
            at = good[first : first + CHUNK]
            columns = (
                batch.instrument,
                batch.exchange_ns,
                batch.price,
                batch.size,
                batch.side,
                batch.trade_id,
            )
            chosen: list[Any] = [*(column[at] for column in columns), batch.first_row + at]
            ticks = kernel.TickColumns(*chosen)
            found = kernel.compute(state, ticks, rules)
            found = found._replace(window=found.window[:0])  # not needed, and most of the memory
            parts.append((ticks.slot[found.row], ticks.exchange_ns[found.row], found, ticks.offset[found.row]))
    slots, times, computed, rows = zip(*parts, strict=True)
    return Tape(
        names,
        np.concatenate(slots),
        np.concatenate(times),
        np.concatenate([one.features for one in computed]),
        np.concatenate([one.context for one in computed]),
        np.concatenate(rows),
    )


def openings(tape: Tape, rules: AlertRules) -> NDArray[np.int64]:
    """Ticks that open a pump alert: int64[k]."""
    events = alerts.compute(
        alerts.new_state(len(tape.names)),
        tape.slot,
        np.arange(len(tape.slot), dtype=np.int64),
        tape.features,
        tape.context,
        np.zeros(len(tape.slot)),
        rules,
    )
    opened: NDArray[np.int64] = events["row"][(events["kind"] == alerts.PUMP) & (events["state"] == alerts.OPENED)]
    return opened


def judge(opened: NDArray[np.int64], event: NDArray[np.int64], since: NDArray[np.float64], events: int) -> Outcome:
    """Hold alerts against the events.

    Parameters
    ----------
    opened : int64[k]
        Ticks that opened an alert, in order.
    event : int64[n]
        Number of the event whose surroundings each tick belongs to.
    since : float64[n]
        Seconds from that event's announced start.
    events
        How many there are.
    """
    seconds = np.full(events, np.nan)
    finds = opened[(since[opened] >= -EARLY_SECONDS) & (since[opened] <= LATE_SECONDS)]
    for tick in finds[::-1]:  # of several the first stays
        seconds[event[tick]] = since[tick]
    false = opened[np.abs(since[opened]) > AROUND_SECONDS]
    return Outcome(seconds, np.bincount(event[false], minlength=events))


def choose(outcomes: dict[Thresholds, Outcome], which: NDArray[np.bool_]) -> Thresholds:
    """The middle of the thresholds with the highest F1 of some of the events, three significant digits."""
    scores = {thresholds: outcome.f1(which) for thresholds, outcome in outcomes.items()}
    best = [thresholds for thresholds, score in scores.items() if score == max(scores.values())]
    middle = np.exp(np.log(np.array(best)).mean(0))
    return tuple(float(f"{value:.3g}") for value in middle)


class Pumps(NamedTuple):
    """The ticks around the events."""

    tape: Tape
    names: list[str]  # of the events, as SYMBOL_2020-11-18_1800
    start_ns: NDArray[np.int64]  # [events] as announced
    event: NDArray[np.int64]  # [n]
    since: NDArray[np.float64]  # [n]

    def outcome(self, thresholds: Thresholds) -> Outcome:
        """What the alert does with these thresholds."""
        return judge(openings(self.tape, with_thresholds(thresholds)), self.event, self.since, len(self.names))

    def later(self) -> NDArray[np.bool_]:
        """The later half of the events."""
        rank = np.argsort(np.argsort(self.start_ns))
        half: NDArray[np.bool_] = rank >= len(rank) // 2
        return half

    def quiet_days(self, which: NDArray[np.bool_]) -> float:
        """Days of quiet hours, of some of the events together."""
        total = 0.0
        for number in np.flatnonzero(which):
            since = self.since[self.event == number]
            total += max(0.0, -AROUND_SECONDS - since.min()) + max(0.0, since.max() - AROUND_SECONDS)
        return total / DAY


def load(ticks: Path, events: Path) -> Pumps:
    """Ticks with a column `event`, and the announced start of each.

    Raises
    ------
    TapewatchError
        If a tick names an event that is not in the file of events.
    """
    with events.open(newline="") as file:
        start = {row["event"]: int(row["pump_ns"]) for row in csv.DictReader(file)}
    tape = read(ticks)
    named: NDArray[np.object_] = pq.read_table(ticks, columns=["event"])["event"].to_numpy()[tape.row]
    unknown = sorted({str(name) for name in set(named) - set(start)})
    if unknown:
        raise TapewatchError(f"{ticks} names events that {events} does not hold: {', '.join(unknown)}")
    names = list(start)
    event = np.array([names.index(name) for name in named])
    start_ns = np.array(list(start.values()))
    return Pumps(tape, names, start_ns, event, (tape.exchange_ns - start_ns[event]) / SECOND)


def with_thresholds(thresholds: Thresholds) -> AlertRules:
    """The default rules with other thresholds of the pump: return, volume, rushes."""
    rules = AlertRules(*(getattr(config.Settings().alerts, name) for name in AlertRules._fields))
    pump_return, pump_volume, pump_rushes = thresholds
    return rules._replace(pump_return=pump_return, pump_volume=pump_volume, pump_rushes=pump_rushes)


def left_out(
    groups: list[str], judged: Callable[[NDArray[np.bool_]], tuple[Outcome, Thresholds]]
) -> tuple[Outcome, list[Thresholds]]:
    """Each event judged by what is fitted on the events of other groups.

    Parameters
    ----------
    groups
        Of each event.
    judged
        Takes the events to fit on, bool[events]; gives the outcome of all and the thresholds chosen.

    Returns
    -------
    tuple
        The outcome of each event and its thresholds.
    """
    events = len(groups)
    seconds, false, chosen = np.full(events, np.nan), np.zeros(events, np.int64), []
    for number, group in enumerate(groups):
        found, thresholds = judged(np.array(groups) != group)
        chosen.append(thresholds)
        seconds[number], false[number] = found.seconds[number], found.false[number]
    return Outcome(seconds, false), chosen
