"""How fast a filled topic is worked off: `python -m tests.benchmark drain`.

The ticks are on the topic before the process starts. Measured is the time from the moment at which a tenth of them
is answered on all three result topics, by the topics' ends, until all are; so starting and the first, cold chunks
do not count. Runs of all subjects take turns, so that what else the machine does falls on all alike.
"""

import math
import time
from typing import Final, NamedTuple

import msgspec

from stream.children import Child
from tests.benchmark.machine import cpu_seconds
from tests.benchmark.stand import Stand, Subject, fill
from tests.benchmark.tape import Tape

WARM_UP_SHARE: Final = 0.1


class Case(NamedTuple):
    """Who drains how much."""

    subject: Subject
    partitions: int
    ticks: int


class Run(msgspec.Struct, frozen=True):
    """One run; a rate is NaN (null in JSON) where the ticks were too few to time them."""

    ticks_per_second: float
    ticks_per_cpu_second: float
    results: list[int]  # on each of the three topics

    @property
    def cpu_share(self) -> float:
        """Of its core."""
        return self.ticks_per_second / self.ticks_per_cpu_second


class Drained(msgspec.Struct, frozen=True):
    """All runs of one case, in their order: run i of all cases belong together."""

    subject: Subject
    partitions: int
    ticks: int
    runs: list[Run]


def cases(ticks: int, naive_ticks: int) -> list[Case]:
    """The worker on one partition and on four; the raw loop and, on fewer ticks, the naive agent on one."""
    return [
        Case("worker", 1, ticks),
        Case("raw loop", 1, ticks),
        Case("naive", 1, naive_ticks),
        Case("worker", 4, ticks),
    ]


def measure(stand: Stand, tape: Tape, wanted: list[Case], runs: int) -> list[Drained]:
    """Drain every case `runs` times, in turns."""
    filled: dict[tuple[int, int], str] = {}
    found: dict[Case, list[Run]] = {case: [] for case in wanted}
    for _ in range(runs):
        for case in wanted:
            found[case].append(_run(stand, case, _filled(stand, tape, case, filled)))
    return [Drained(case.subject, case.partitions, case.ticks, taken) for case, taken in found.items()]


def _filled(stand: Stand, tape: Tape, case: Case, filled: dict[tuple[int, int], str]) -> str:
    """The topic that holds the ticks of a case; filled once, read by each run from its beginning."""
    name = f"ticks.{case.ticks}.{case.partitions}"
    if (case.ticks, case.partitions) not in filled:
        stand.create(name, case.partitions)
        fill(stand.broker, name, tape, case.partitions, slice(case.ticks))
        filled[case.ticks, case.partitions] = name
    return name


def _run(stand: Stand, case: Case, ticks: str) -> Run:
    with stand.topics(case.partitions, ticks) as settings, stand.run(case.subject, settings) as child:
        watch = Watch(child, int(case.ticks * WARM_UP_SHARE))
        counts = stand.await_results(settings, child, case.ticks, watch.look)
        return watch.run(list(counts.values()))


class _Sample(NamedTuple):
    answered: int
    wall: float
    cpu: float


class Watch:
    """Looks at the clocks when the warm-up is over, and when all is done."""

    def __init__(self, child: Child, warm_up: int) -> None:
        self._child = child
        self._warm_up = warm_up
        self._first: _Sample | None = None
        self._last = _Sample(0, 0.0, 0.0)

    def look(self, answered: int) -> None:
        """So many ticks are answered now."""
        if answered > self._last.answered:
            self._last = _Sample(answered, time.perf_counter(), cpu_seconds(self._child.pid))
            if self._first is None and answered >= self._warm_up:
                self._first = self._last

    def run(self, results: list[int]) -> Run:
        """What was seen, with the records that each topic has."""
        first = self._first or self._last
        ticks = self._last.answered - first.answered
        wall, cpu = self._last.wall - first.wall, self._last.cpu - first.cpu
        return Run(ticks / wall if wall else math.nan, ticks / cpu if cpu else math.nan, results)
