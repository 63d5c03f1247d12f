"""What finds organised pumps best: `python -m training.pump_report DATA` prints the tables of docs/models/pumps.md.

DATA is the folder of pump_ticks.parquet, pump_events.csv and the other files of ticks, on which no pump is known. Each
event is judged with thresholds chosen from the others alone, from those of other symbols, and the later half with
thresholds chosen from the earlier. A random forest is judged beside the alert in the same ways; it takes most of the
minutes that the program takes.
"""

import itertools
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream import config
from training import pump_forest
from training.pumps import (
    AROUND_SECONDS,
    DAY,
    EARLY_SECONDS,
    LATE_SECONDS,
    SECOND,
    Outcome,
    Pumps,
    Thresholds,
    choose,
    left_out,
    load,
    openings,
    read,
    with_thresholds,
)

RETURNS: Final = (0.03, 0.035, 0.04, 0.045, 0.05, 0.055, 0.06, 0.07)
VOLUMES: Final = (15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0, 100.0)
RUSHES: Final = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0)


def markdown(folder: Path) -> str:
    """The report."""
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
    forests = pump_forest.outcomes(pumps, folder / "pump_ticks.parquet")
    return "\n\n".join(
        (
            "# The pump alert against organised pumps",
            _ABOUT,
            _table(
                ("thresholds", "return", "volume", "rushes", *_JUDGED),
                [
                    _line("each event by the others", None, others, pumps, whole),
                    _line("each event by other symbols", None, other_symbols, pumps, whole),
                    _line("the later half by the earlier", earlier, pumps.outcome(earlier), pumps, later),
                    _line("chosen on all events", best, pumps.outcome(best), pumps, whole),
                    _line("shipped", shipped, pumps.outcome(shipped), pumps, whole),
                    *(_median(split, seeds, pumps) for split, seeds in forests.items()),
                ],
            ),
            _SAID,
            "## Leave one event out",
            "Thresholds are chosen on the other events; seconds are from the announced start to the alert.",
            _table(
                ("event", "return", "volume", "rushes", "seconds", "false in its quiet hours"),
                _rows(pumps.names, chosen, others),
            ),
            "## A random forest instead",
            _FOREST,
            _table(
                ("forest", *_JUDGED), [row for split, seeds in forests.items() for row in _each(split, seeds, pumps)]
            ),
            "## Files without a known pump",
            _table(("file", "instrument", "days", "pump alerts"), _elsewhere(folder, shipped)),
        )
    )


_ABOUT: Final = (
    "Written by `python -m training.pump_report DATA`: the kernels of features and alerts over the ticks around "
    "announced pumps of Binance altcoins, 2020 and 2021. A pump is found if the alert opens from "
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


def _rows(names: list[str], chosen: list[Thresholds], outcome: Outcome) -> list[list[str]]:
    rows = []
    for name, thresholds, seconds, false in zip(names, chosen, outcome.seconds, outcome.false, strict=True):
        shown = "missed" if np.isnan(seconds) else f"{seconds:.1f}"
        rows.append([name, *(f"{value:g}" for value in thresholds), shown, str(false)])
    return rows


def _line(
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


def _judged_on(split: str, pumps: Pumps) -> NDArray[np.bool_]:
    return pumps.later() if split == pump_forest.LATER else np.ones(len(pumps.names), np.bool_)


def _median(split: str, seeds: list[Outcome], pumps: Pumps) -> list[str]:
    """The line of the seed of median F1."""
    which = _judged_on(split, pumps)
    scores = [one.f1(which) for one in seeds]
    median = seeds[np.argsort(scores, kind="stable")[len(scores) // 2]]
    what = f"forest, {split}, the median of {len(scores)} seeds (F1 {min(scores):.3f} to {max(scores):.3f})"
    return _line(what, None, median, pumps, which)


def _each(split: str, seeds: list[Outcome], pumps: Pumps) -> list[list[str]]:
    """A line of every seed, without thresholds."""
    which = _judged_on(split, pumps)
    rows = [
        _line(f"{split}, seed {s}", None, one, pumps, which) for s, one in zip(pump_forest.SEEDS, seeds, strict=True)
    ]
    return [[row[0], *row[4:]] for row in rows]


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


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Rows in Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the report."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m training.pump_report DATA")
    print(markdown(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
