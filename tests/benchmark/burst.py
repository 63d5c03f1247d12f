"""A burst on top of a steady rate: `tapewatch bench burst`.

The busiest second of UTP in 2024 held 119,536 trades. So many ticks are added within one second to a steady rate, and
the lag is followed: of the ticks that were sent in each tenth of a second, the longest and the median time until a
consumer had the answer. Normal is what the tenths before the burst had; it is back at the first tenth behind the burst
from which on half a second has medians no longer than the longest of those.
"""

from collections.abc import Callable
from statistics import median
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.benchmark import journey, tape
from tests.benchmark.journey import Journey
from tests.benchmark.machine import load
from tests.benchmark.schedule import Phase
from tests.benchmark.stand import Stand, Subject

PEAK_TICKS: Final = 119_536  # of UTP's busiest second of 2024
STEADY: Final = 5000.0  # ticks a second before, meanwhile and after
WARM_UP_SECONDS: Final = 1.0
BEFORE_SECONDS: Final = 3.0
AFTER_SECONDS: Final = 5.0
BIN_SECONDS: Final = 0.1
CALM_BINS: Final = 5


class Run(msgspec.Struct, frozen=True):
    """One burst; lists have a value for each tenth of a second from its start less BEFORE_SECONDS on."""

    longest_ms: list[float]
    median_ms: list[float]
    before_p50_ms: float
    before_p99_ms: float
    worst_seconds: float  # the longest lag of all
    sent_in_seconds: float  # the ticks of the burst: more than 1 if the producer had not enough of its core
    normal_after_seconds: float | None  # the end of the burst; None if not while it was looked at
    load: float


class Burst(msgspec.Struct, frozen=True):
    """All runs of one subject."""

    subject: Subject
    ticks: int
    ticks_per_second: float  # the steady rate
    runs: list[Run]

    def median(self, what: str) -> float:
        """Of a field of the runs."""
        return float(median(getattr(run, what) for run in self.runs))


def measure(stand: Stand, ticks: int, runs: int, tell: Callable[[str], None]) -> list[Burst]:
    """The worker and the raw loop, in turns."""
    phases = [
        Phase(STEADY, WARM_UP_SECONDS + BEFORE_SECONDS),
        Phase(STEADY + ticks, 1.0),
        Phase(STEADY, AFTER_SECONDS),
    ]
    recorded = tape.record(journey.ticks_of(phases))
    subjects: tuple[Subject, ...] = ("worker", "raw loop")
    found: dict[Subject, list[Run]] = {subject: [] for subject in subjects}
    for number in range(runs):
        for subject in subjects:
            tell(f"burst: run {number + 1} of {runs}, {subject}")
            before = load()
            found[subject].append(assess(journey.travel(stand, recorded, subject, phases), phases, before))
    return [Burst(subject, ticks, STEADY, taken) for subject, taken in found.items()]


def assess(seen: Journey, phases: list[Phase], load_before: float) -> Run:
    """Lag over time, and what it says."""
    first = round(phases[0].rate * WARM_UP_SECONDS)
    burst = slice(phases[0].ticks, phases[0].ticks + phases[1].ticks)
    taken, sent = seen.taken_ms[first:], (seen.sent[first:] - seen.sent[first]) * 1e-9
    bins = [taken[place] for place in _places(sent)]
    longest = [float(each.max(initial=0.0)) for each in bins]
    middle = [float(np.median(each)) if len(each) else 0.0 for each in bins]
    calm = taken[: burst.start - first]
    end = float(sent[burst.stop - 1 - first])
    p50, p99 = np.quantile(calm, (0.5, 0.99)).tolist()
    normal = _normal_after(middle, float(sent[burst.start - first]), end)
    sent_in = float(seen.sent[burst.stop - 1] - seen.sent[burst.start]) * 1e-9
    return Run(longest, middle, p50, p99, float(taken.max()) * 1e-3, sent_in, normal, load_before)


def _places(sent: NDArray[np.float64]) -> list[slice]:
    """The ticks that were sent in each tenth of a second."""
    edges = np.searchsorted(sent, np.arange(0.0, sent[-1] + BIN_SECONDS, BIN_SECONDS)).tolist()
    return [slice(low, high) for low, high in zip(edges, [*edges[1:], len(sent)], strict=True)]


def _normal_after(middle: list[float], start: float, end: float) -> float | None:
    """Seconds from the end of the burst to the first tenth from which on the medians are calm."""
    usual = max(middle[: max(1, int(start / BIN_SECONDS))])
    first = int(np.ceil(end / BIN_SECONDS))
    for at in range(first, len(middle) - CALM_BINS):
        if max(middle[at : at + CALM_BINS]) <= usual:
            return max(0.0, at * BIN_SECONDS - end)
    return None
