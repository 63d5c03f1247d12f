"""How long answers take at several rates: `tapewatch bench latency`.

One journey a run takes each subject through its rates, rising; the first second of each rate is left out.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

import msgspec
import numpy as np

from tests.benchmark import journey, tape
from tests.benchmark.journey import Journey, Measured
from tests.benchmark.machine import load
from tests.benchmark.own_share import OwnShare
from tests.benchmark.schedule import Phase, bounds
from tests.benchmark.stand import Stand

SETTLING_SECONDS: Final = 1.0
WARM_UP: Final = Phase(1000.0, 1.0)
RATES: Final[dict[Measured, list[float]]] = {
    "worker": [1000.0, 5000.0, 20_000.0, 50_000.0],
    "raw loop": [1000.0, 5000.0, 20_000.0, 50_000.0],
    "worker, exactly once": [5000.0],
    "Kafka alone": [5000.0],
    "naive": [500.0],  # about half of what it can do
}


class Run(msgspec.Struct, frozen=True):
    """One run of one rate, ms."""

    sent_per_second: float
    answered: int
    p50: float
    p99: float
    p999: float
    worst: float
    late_p99: float  # how late the producer itself was: what else runs on its core
    load: float  # of the machine before the run
    answered_per_second: float | None = None
    own: OwnShare | None = None


class Rated(msgspec.Struct, frozen=True):
    """All runs of one subject at one rate."""

    subject: Measured
    ticks_per_second: float
    runs: list[Run]

    def median(self, what: str) -> float:
        """Of a field of the runs."""
        return float(median(getattr(run, what) for run in self.runs))


def measure(
    stand: Stand, rates: dict[Measured, list[float]], seconds: float, runs: int, tell: Callable[[str], None]
) -> list[Rated]:
    """Each rate for `seconds`, `runs` times; the subjects take turns."""
    phases = {
        subject: [WARM_UP, *(Phase(rate, SETTLING_SECONDS + seconds) for rate in wanted)]
        for subject, wanted in rates.items()
    }
    recorded = tape.record(max(journey.ticks_of(each) for each in phases.values()))
    found: dict[tuple[Measured, float], list[Run]] = {}
    for number in range(runs):
        for subject, each in phases.items():
            tell(f"latency: run {number + 1} of {runs}, {subject}")
            before = load()
            seen = journey.travel(stand, recorded, subject, each)
            for phase, run in zip(each[1:], _runs(seen, each, before)[1:], strict=True):
                found.setdefault((subject, phase.rate), []).append(run)
    return [Rated(subject, rate, taken) for (subject, rate), taken in found.items()]


def _runs(seen: Journey, phases: Sequence[Phase], before: float) -> list[Run]:
    """One for each phase."""
    found = []
    for phase, part, own in zip(phases, bounds(phases), seen.shares, strict=True):
        settled = slice(part.start + (round(phase.rate * SETTLING_SECONDS) if phase is not WARM_UP else 0), part.stop)
        taken, sent = seen.taken_ms[settled], seen.sent[settled]
        p50, p99, p999 = np.quantile(taken, (0.5, 0.99, 0.999)).tolist()
        late = float(np.quantile(seen.late[settled], 0.99)) * 1e-6
        rate = (len(sent) - 1) / (float(sent[-1] - sent[0]) * 1e-9)
        seen_ns = seen.seen[settled]
        answered = len(taken) / (float(np.ptp(seen_ns)) * 1e-9)
        found.append(Run(rate, len(taken), p50, p99, p999, float(taken.max()), late, before, answered, own))
    return found
