"""How fast a filled topic is worked off: `tapewatch bench drain`, and also `peers`, `symbols`, `skew` and `workers`.

The ticks are on the topic before the process starts. Measured is the time from the moment at which a part of them, the
warm-up, is answered on all three result topics, by the topics' ends, until all are; so starting and the first, cold
chunks do not count. Runs of all cases take turns, so that what else the machine does falls on all alike.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec

from stream.children import Child
from tests.benchmark.machine import cpu_seconds, load, peak_memory
from tests.benchmark.stand import Stand, Subject, fill, missing
from tests.benchmark.tape import Tape, made, record

WARM_UP_SHARE: Final = 0.1
WARM_UP_SHARE_OF_TWO: Final = 0.4  # the second worker joins later, and the first has more of the ticks until then
SKEW_SYMBOLS: Final = 16
HOT_SHARE: Final = 0.9
MANY: Final = 10_000
NAIVE_SHARE: Final = 60  # the naive agent is slower by more than that
PEER_SHARES: Final[dict[Subject, int]] = {
    "kafka-python": 16,
    "bytewax": 16,
    "faust take": 16,
    "quix": 40,
}
"""They get so many times fewer ticks to drain than the worker: they are slower by about as much."""
TAPES: Final[Mapping[str, Callable[[int], Tape]]] = {
    "recorded": record,
    "even": lambda ticks: made(ticks, SKEW_SYMBOLS),
    "skewed": lambda ticks: made(ticks, SKEW_SYMBOLS, HOT_SHARE),
    "many": lambda ticks: made(ticks, MANY),
}


class Case(NamedTuple):
    """Who drains what."""

    name: str
    subject: Subject
    ticks: int
    partitions: int = 1
    tape: str = "recorded"
    workers: int = 1


class Run(msgspec.Struct, frozen=True):
    """One run; a rate is NaN (null in JSON) where the ticks were too few to time them."""

    ticks_per_second: float
    ticks_per_cpu_second: float  # of all measured processes together
    results: list[int]  # on each of the three topics
    load: float = 0.0  # of the machine before it
    peak_memory_bytes: int = 0  # of the largest process

    @property
    def cpu_share(self) -> float:
        """Of a core."""
        return self.ticks_per_second / self.ticks_per_cpu_second


class Drained(msgspec.Struct, frozen=True):
    """All runs of one case, in their order: run i of all cases belong together."""

    name: str
    subject: Subject
    partitions: int
    ticks: int
    runs: list[Run]
    tape: str = "recorded"
    workers: int = 1

    def median(self, what: str) -> float:
        """Of a field of the runs."""
        return float(median(getattr(run, what) for run in self.runs))


def drain_cases(ticks: int) -> list[Case]:
    """The worker on one partition and on four; the raw loop and, on fewer ticks, the naive agent on one."""
    return [
        Case("worker", "worker", ticks),
        Case("raw loop", "raw loop", ticks),
        Case("naive", "naive", max(1000, ticks // NAIVE_SHARE)),
        Case("worker, 4 partitions", "worker", ticks, partitions=4),
    ]


def symbol_cases(ticks: int) -> list[Case]:
    """Few symbols and many at the same total rate of event time."""
    return [
        Case(f"{SKEW_SYMBOLS} symbols", "worker", ticks, tape="even"),
        Case(f"{MANY:,} symbols", "worker", max(ticks, 2 * MANY), tape="many"),
    ]


def skew_cases(ticks: int) -> list[Case]:
    """All symbols alike, and nine ticks of ten on one of them, so also on one partition."""
    return [Case("even", "worker", ticks, 4, "even"), Case("skewed", "worker", ticks, 4, "skewed")]


def worker_cases(ticks: int) -> list[Case]:
    """One worker on four partitions, and two that share them."""
    return [Case("one worker", "worker", ticks, 4), Case("two workers", "worker", ticks, 4, workers=2)]


def peer_cases(ticks: int) -> tuple[list[Case], list[str]]:
    """The worker and all peers that can run here; of the others, why not."""
    subjects: list[Subject] = ["worker", *PEER_SHARES]
    absent = {subject: why for subject in subjects if (why := missing(subject)) is not None}
    wanted = [
        Case(subject, subject, max(1000, ticks // PEER_SHARES.get(subject, 1)))
        for subject in subjects
        if subject not in absent
    ]
    return wanted, list(absent.values())


def measure(
    stand: Stand, wanted: Sequence[Case], runs: int, tell: Callable[[str], None] = lambda _what: None
) -> list[Drained]:
    """Drain every case `runs` times, in turns."""
    filled: dict[tuple[str, int, int], str] = {}
    found: dict[Case, list[Run]] = {case: [] for case in wanted}
    for number in range(runs):
        for case in wanted:
            tell(f"run {number + 1} of {runs}, {case.name}")
            found[case].append(_run(stand, case, _filled(stand, case, filled)))
    return [
        Drained(case.name, case.subject, case.partitions, case.ticks, taken, case.tape, case.workers)
        for case, taken in found.items()
    ]


def _filled(stand: Stand, case: Case, filled: dict[tuple[str, int, int], str]) -> str:
    """The topic that holds the ticks of a case; filled once, read by each run from its beginning."""
    key = case.tape, case.ticks, case.partitions
    if key not in filled:
        name = stand.name(f"ticks.{case.tape}")
        stand.create(name, case.partitions)
        fill(stand.broker, name, TAPES[case.tape](case.ticks), case.partitions)
        filled[key] = name
    return filled[key]


def _run(stand: Stand, case: Case, ticks: str) -> Run:
    before = load()
    warm_up = WARM_UP_SHARE if case.workers == 1 else WARM_UP_SHARE_OF_TWO
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(stand.topics(case.partitions, ticks))
        children = stack.enter_context(stand.run_all(case.subject, settings, case.workers))
        watch = Watch(children, int(case.ticks * warm_up))
        counts = stand.await_results(settings, children[0], case.ticks, watch.look)
        return watch.run(list(counts.values()), before)


class _Sample(NamedTuple):
    answered: int
    wall: float
    cpu: float


class Watch:
    """Looks at the clocks when the warm-up is over, and when all is done."""

    def __init__(self, children: Sequence[Child], warm_up: int) -> None:
        self._children = children
        self._warm_up = warm_up
        self._first: _Sample | None = None
        self._last = _Sample(0, 0.0, 0.0)

    def look(self, answered: int) -> None:
        """So many ticks are answered now."""
        if answered > self._last.answered:
            cpu = sum(cpu_seconds(child.pid) for child in self._children)
            self._last = _Sample(answered, time.perf_counter(), cpu)
            if self._first is None and answered >= self._warm_up:
                self._first = self._last

    def run(self, results: list[int], load_before: float = 0.0) -> Run:
        """What was seen, with the records that each topic has, and the load of the machine before."""
        first = self._first or self._last
        ticks = self._last.answered - first.answered
        wall, cpu = self._last.wall - first.wall, self._last.cpu - first.cpu
        memory = max(peak_memory(child.pid) for child in self._children)
        rates = ticks / wall if wall else math.nan, ticks / cpu if cpu else math.nan
        return Run(*rates, results, load_before, memory)
