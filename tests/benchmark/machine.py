"""What the figures were taken on, and which of its cores does what."""

import contextlib
import functools
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from stream.config import ROOT

LIBRARIES: Final = ("aiokafka", "faust-streaming", "msgspec", "numba", "numpy", "onnxruntime")
MEASURED: Final = 2  # processes at once, at most
CPU_CLOCK_SCHED: Final = 2  # of Linux's clocks of a process: time in the scheduler, ns


class Cores(NamedTuple):
    """One core for each process that is measured, the others for the broker, the producer and the consumer."""

    measured: list[set[int]]
    others: set[int]


@functools.cache  # as it was before the first `pinned`
def cores() -> Cores:
    """Share out the cores this process may use; where they are too few, a measured process shares the others'."""
    usable = sorted(os.sched_getaffinity(0))
    others = set(usable[:-MEASURED] or usable[:1])
    own = [{core} for core in reversed(usable) if core not in others]
    return Cores(own + [others] * (MEASURED - len(own)), others)


def load() -> float:
    """Processes that want a core, averaged over the last minute: those of this benchmark and all others."""
    return round(os.getloadavg()[0], 2)


@contextlib.contextmanager
def pinned(where: set[int]) -> Iterator[None]:
    """This thread, and the processes started meanwhile, run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, where)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak_memory(pid: int) -> int:
    """The most bytes that the process has had in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used with all its threads."""
    return time.clock_gettime((~pid << 3) | CPU_CLOCK_SCHED)  # as clock_getcpuclockid(3) makes it


def describe() -> dict[str, str]:
    """Cores, processor, versions, date and commit."""
    shared = cores()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": f"{os.cpu_count()}; the measured process on {_listed(shared.measured[0])} (a second one on "
        f"{_listed(shared.measured[1])}), broker, producer and consumer on {_listed(shared.others)}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "load": f"{load():.2f} before the start, 1 minute's average",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "kafka": _kafka(),
    }


def _listed(numbers: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _commit() -> str:
    try:
        found = _git("rev-parse", "--short", "HEAD")
        return found + (" and changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kafka() -> str:
    from stream.broker import kafka_home

    names = sorted(path.stem for path in (kafka_home() / "libs").glob("kafka_2.13-*.jar"))
    return names[0].removeprefix("kafka_2.13-") if names else "unknown"
