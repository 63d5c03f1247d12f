"""What a run came to: what grew, what is missing, and whether it was long enough to be judged."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np

from tests.soak.reader import Window

MIB: Final = 1_048_576
SLOPE_MIB: Final = 1.0  # most growth an hour for each thousand instruments, over the last half of a run
FILES: Final = 2  # connections may come and go; a leak is more than this
SLOWER: Final = 1.5  # the last windows' p99 against the first ones', ...
SLOWER_MS: Final = 5.0  # ... and so much more before it counts
JUDGED_SECONDS: Final = 900.0  # a slope over less says nothing
SHARE: Final = 0.1  # of the windows, at the start and at the end
WARM_UP_WINDOWS: Final = 3


class Sample(msgspec.Struct, frozen=True):
    """The worker at one moment."""

    seconds: float
    rss_bytes: int
    files: int
    sockets: int
    threads: int


class Verdict(msgspec.Struct, kw_only=True):
    """All figures of a run."""

    command: str
    machine: dict[str, str]
    load: list[float]  # averages over a minute, at each sample
    seconds: float
    rate: float
    instruments: int
    sent: int
    answered: int
    unexpected: list[str]
    status: int  # of the worker, told to stop at the end
    samples: list[Sample]
    windows: list[Window]

    @property
    def judged(self) -> bool:
        """Whether it was long enough for slopes and latencies."""
        return self.seconds >= JUDGED_SECONDS

    @property
    def slope_mib(self) -> float:
        """Growth of the resident memory over the last half, MiB an hour."""
        last = [sample for sample in self.samples if sample.seconds >= self.seconds / 2]
        return slope([each.seconds for each in last], [each.rss_bytes for each in last]) * 3600 / MIB

    @property
    def p99_ms(self) -> tuple[float, float]:
        """p99 at the start, warm-up left out, and at the end: medians of a tenth of the windows each."""
        warm = self.windows[WARM_UP_WINDOWS:] or self.windows
        count = max(1, round(len(warm) * SHARE))
        first, last = warm[:count], warm[-count:]
        return median(each.p99_ms for each in first), median(each.p99_ms for each in last)

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each."""
        return [*_lost(self), *_leaks(self), *(_grown(self) if self.judged else ())]


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line through the points by least squares; 0 for fewer than two."""
    return float(np.polyfit(times, values, 1)[0]) if len(times) > 1 else 0.0


def _lost(verdict: Verdict) -> Iterator[str]:
    if verdict.answered != verdict.sent:
        yield f"{verdict.sent - verdict.answered} of {verdict.sent} ticks have no answer"
    if verdict.unexpected:
        yield f"{len(verdict.unexpected)} answers out of place, the first: {verdict.unexpected[0]}"
    if verdict.status:
        yield f"the worker ended with {verdict.status}"


def _leaks(verdict: Verdict) -> Iterator[str]:
    half = [each for each in verdict.samples if each.seconds >= verdict.seconds / 2]
    for name in ("files", "sockets", "threads"):
        counts = [getattr(each, name) for each in half]
        if counts and counts[-1] > counts[0] + FILES:
            yield f"{counts[-1]} {name} at the end, {counts[0]} in the middle"


def _grown(verdict: Verdict) -> Iterator[str]:
    allowed = SLOPE_MIB * verdict.instruments / 1000
    if verdict.slope_mib > allowed:
        yield f"memory grows by {verdict.slope_mib:.2f} MiB an hour, more than {allowed:.2f}"
    first, last = verdict.p99_ms
    if last > SLOWER * first + SLOWER_MS:
        yield f"p99 {last:.1f} ms at the end, {first:.1f} ms at the start"


def show(verdict: Verdict) -> str:
    """For a reader."""
    first, last = verdict.p99_ms
    begin, end = verdict.samples[0], verdict.samples[-1]
    lines = [
        f"{verdict.sent:,} ticks of {verdict.instruments:,} instruments in {verdict.seconds:,.0f} s, "
        f"{verdict.answered:,} answered in order",
        f"memory {begin.rss_bytes / MIB:.1f} MiB at first, {end.rss_bytes / MIB:.1f} MiB at last; over the last half "
        f"{verdict.slope_mib:+.2f} MiB an hour",
        f"files {begin.files} and {end.files}, sockets {begin.sockets} and {end.sockets}, threads {begin.threads} and "
        f"{end.threads}",
        f"p99 {first:.1f} ms at the start, {last:.1f} ms at the end",
    ]
    if not verdict.judged:
        lines.append(f"too short for slope and latency to be judged: that takes {JUDGED_SECONDS:g} s")
    lines += [f"PROBLEM {problem}" for problem in verdict.problems]
    return "\n".join([*lines, "FAILED" if verdict.problems else "PASSED"])


def write_json(verdict: Verdict, file: Path) -> None:
    """Every figure, for programs."""
    first, last = verdict.p99_ms
    figures = {"slope_mib_an_hour": verdict.slope_mib, "p99_ms_first": first, "p99_ms_last": last}
    tree = {"ok": not verdict.problems, "problems": verdict.problems, "judged": verdict.judged, **figures}
    tree |= msgspec.to_builtins(verdict)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n")
