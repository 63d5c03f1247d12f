"""The pump alert against 20 organised pumps: which it finds, how soon, and how often it is wrong in the quiet hours.

`python -m training.pumps DATA` prints the tables of docs/models/pumps.md: DATA is the folder of pump_ticks.parquet,
pump_events.csv and the other files of ticks, on which no pump is known. It runs the kernels of features and alerts
that a worker runs.

The three thresholds are chosen from a grid by the F1 of the events; of settings that tie, their geometric mean is
taken, the middle of the plateau. For the table each event is judged with thresholds chosen from the others alone, from
those of other symbols, and the later half with thresholds chosen from the earlier. A random forest (pump_forest.py) is
judged beside it in the same ways; it takes most of the minutes that the program takes.
"""

import csv
import itertools
import sys
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
RETURNS: Final = (0.03, 0.035, 0.04, 0.045, 0.05, 0.055, 0.06, 0.07)
VOLUMES: Final = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0, 100.0)
RUSHES: Final = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
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


def markdown(folder: Path) -> str:
    """The report."""
    from training import pump_forest  # here, since it is judged by this module

    pumps = load(folder / "pump_ticks.parquet", folder / "pump_events.csv")
    outcomes: dict[Thresholds, Outcome] = {t: pumps.outcome(t) for t in itertools.product(RETURNS, VOLUMES, RUSHES)}
    whole, later = np.ones(len(pumps.names), np.bool_), pumps.later()
    best, earlier = choose(outcomes, whole), choose(outcomes, ~later)
    rules = config.Settings().alerts
    shipped: Thresholds = (rules.pump_return, rules.pump_volume, rules.pump_rushes)

    def by(which: NDArray[np.bool_]) -> tuple[Outcome, Thresholds]:
        """Judged by thresholds chosen on some of the events."""
        thresholds = choose(outcomes, which)
        return pumps.outcome(thresholds), thresholds

    others, chosen = left_out(pumps.names, by)
    other_symbols, _ = left_out([name.split("_")[0] for name in pumps.names], by)
    forest, forests = pump_forest.report(pumps, folder / "pump_ticks.parquet")
    return "\n\n".join(
        (
            "# The pump alert against organised pumps",
            _ABOUT,
            table(
                ("thresholds", "return", "volume", "rushes", *_JUDGED),
                [
                    line("each event by the others", None, others, pumps, whole),
                    line("each event by other symbols", None, other_symbols, pumps, whole),
                    line("the later half by the earlier", earlier, pumps.outcome(earlier), pumps, later),
                    line("chosen on all events", best, pumps.outcome(best), pumps, whole),
                    line("shipped", shipped, pumps.outcome(shipped), pumps, whole),
                    *forest,
                ],
            ),
            _SAID,
            "## Leave one event out",
            "Thresholds are chosen on the other events; seconds are from the announced start to the alert.",
            table(
                ("event", "return", "volume", "rushes", "seconds", "false in its quiet hours"),
                _rows(pumps.names, chosen, others),
            ),
            "## A random forest instead",
            _FOREST,
            table(("forest", *_JUDGED), [[row[0], *row[4:]] for row in forests]),
            "## Files without a known pump",
            table(("file", "instrument", "days", "pump alerts"), _elsewhere(folder, shipped)),
        )
    )


_ABOUT: Final = (
    "Written by `python -m training.pumps DATA`: the kernels of features and alerts over the ticks around announced "
    "pumps of Binance altcoins, 2020 and 2021. A pump is found if the alert opens from "
    f"{EARLY_SECONDS:.0f} s before to {LATE_SECONDS:.0f} s after the announced start; an alert farther than "
    f"{AROUND_SECONDS / 60:.0f} min from it is false. F1 counts events and false alerts: 2 found / (2 found + missed + "
    "false)."
)
_FOREST: Final = (
    "Features of the 25 s up to each tick (rush orders, trades, volume, price, each against the four hours before; "
    "training/pump_forest.py), 100 trees 5 deep, judged as the alert is. The threshold of the probability is chosen on "
    "the training events, by trees that did not see the event they speak of."
)
_JUDGED: Final = ("found", "after the start", "median seconds", "false", "a symbol-day", "F1")
_SAID: Final = (
    "La Morgia et al. report F1 of 0.92 (2020) and 0.945 (2021) for random forests on 25 s, on other pumps: the "
    "numbers are near each other, not comparable."
)


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


def _rows(names: list[str], chosen: list[Thresholds], outcome: Outcome) -> list[list[str]]:
    rows = []
    for name, thresholds, seconds, false in zip(names, chosen, outcome.seconds, outcome.false, strict=True):
        shown = "missed" if np.isnan(seconds) else f"{seconds:.1f}"
        rows.append([name, *(f"{value:g}" for value in thresholds), shown, str(false)])
    return rows


def line(
    what: str, thresholds: Thresholds | None, outcome: Outcome, pumps: Pumps, which: NDArray[np.bool_]
) -> list[str]:
    """A row of the report: what was judged on some of the events, its thresholds if there is one set, and figures."""
    found = np.isfinite(outcome.seconds) & which
    false = int(outcome.false[which].sum())
    return [
        what,
        *([f"{value:g}" for value in thresholds] if thresholds else ["", "", ""]),
        f"{int(found.sum())} of {int(which.sum())}",
        str(int((outcome.seconds[found] >= 0).sum())),
        f"{np.median(outcome.seconds[found]):.1f}" if found.any() else "",
        str(false),
        f"{false / pumps.quiet_days(which):.3f}",
        f"{outcome.f1(which):.3f}",
    ]


def _elsewhere(folder: Path, thresholds: Thresholds) -> list[list[str]]:
    rows = []
    for path in sorted(folder.glob("*.parquet")):
        if path.name == "pump_ticks.parquet" or not {"symbol", "price", "size"} <= set(pq.read_schema(path).names):
            continue
        tape = read(path)
        opened = np.bincount(tape.slot[openings(tape, with_thresholds(thresholds))], minlength=len(tape.names))
        for slot, name in enumerate(tape.names):
            times = tape.exchange_ns[tape.slot == slot]
            days = pauses_cut_out(times) / DAY
            rows.append([path.name, name, f"{days:.2f}", str(opened[slot])])
    return rows


def pauses_cut_out(exchange_ns: NDArray[np.int64]) -> float:
    """Seconds that sessions last, all together."""
    gap = np.diff(exchange_ns) / SECOND
    return float(gap[gap <= config.Settings().features.session_gap_seconds].sum())


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Rows in Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the report."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m training.pumps DATA")
    print(markdown(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
