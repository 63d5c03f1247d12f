"""A run from its first tick to its verdict: the worker, the load, and who looks at both."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from stream import clients, topics
from stream.children import Child
from stream.config import ROOT, Settings
from stream.errors import TapewatchError
from tests.benchmark import machine
from tests.benchmark.stand import environment
from tests.soak import verdict
from tests.soak.feed import Feed
from tests.soak.reader import Reader
from tests.soak.verdict import Sample, Verdict

SAMPLE_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
TELL_SECONDS: Final = 60.0
# An hour at 5,000 ticks/s would fill 25 GB: the answers are read at once, so old ones may go.
SHORT_LIVED: Final = {"retention.bytes": str(128 * 1_048_576), "segment.bytes": str(32 * 1_048_576)}


class Options(NamedTuple):
    """What a run is to be."""

    command: str
    seconds: float
    rate: float
    instruments: int


def run(options: Options, settings: Settings, folder: Path, stop: threading.Event) -> Verdict:
    """Do it, or as much of it as `stop` allows.

    Raises
    ------
    TapewatchError
        If the worker ends by itself, or nothing is answered for a minute.
    """
    described = machine.describe() | {"cores": f"{os.cpu_count()}, shared by worker, broker, feed and reader"}
    _create(settings)
    began = time.monotonic()
    feed = Feed(settings, options.rate, options.instruments)
    reader = Reader(settings, feed, lambda: time.monotonic() - began)
    with Child(
        [sys.executable, "-m", "stream.cli", "worker"], folder / "worker.log", environment(settings), ROOT
    ) as it:
        feed.start()
        reader.start()
        try:
            _await_answers(it, reader, 1)
            began = time.monotonic()
            samples, load = _watch(it, reader, began, options.seconds, stop)
        finally:
            feed.stop()
        seconds = time.monotonic() - began
        _await_answers(it, reader, sum(feed.sent))
        reader.stop()
        status = it.stop()
    return Verdict(
        command=options.command,
        machine=described,
        load=load,
        seconds=seconds,
        rate=options.rate,
        instruments=options.instruments,
        sent=sum(feed.sent),
        answered=sum(reader.answered),
        unexpected=reader.unexpected[:10],
        status=status,
        samples=samples,
        windows=reader.windows,
    )


def _create(settings: Settings) -> None:
    """The topics, those of ticks and results with a limit to their size."""
    wanted: dict[str, dict[str, Any]] = {
        name: {"num_partitions": settings.topics.partitions, "replication_factor": 1, "configs": SHORT_LIVED}
        for name in topics.streams(settings.topics)[:4]
    }
    with clients.admin(settings.cluster) as admin:
        admin.create_topics(wanted)
    topics.create(settings)


def _watch(
    worker: Child, reader: Reader, began: float, seconds: float, stop: threading.Event
) -> tuple[list[Sample], list[float]]:
    """Look at the worker every few seconds, and see that it goes on."""
    samples: list[Sample] = []
    load: list[float] = []
    told = answered = 0.0
    while (now := time.monotonic() - began) < seconds and not stop.is_set():
        if not worker.running:
            raise TapewatchError(f"the worker ended with {worker.returncode}: {worker.last_lines(3)}")
        samples.append(_sample(worker.pid, now))
        load.append(round(os.getloadavg()[0], 2))
        if now - told >= TELL_SECONDS:
            rate, told, answered = (sum(reader.answered) - answered) / (now - told), now, sum(reader.answered)
            p99 = reader.windows[-1].p99_ms if reader.windows else float("nan")
            memory = samples[-1].rss_bytes / verdict.MIB
            print(f"{now:7.0f} s  {rate:,.0f}/s  {memory:.1f} MiB  p99 {p99:.1f} ms", file=sys.stderr, flush=True)
        stop.wait(SAMPLE_SECONDS)
    samples.append(_sample(worker.pid, time.monotonic() - began))
    return samples, load


def _sample(pid: int, seconds: float) -> Sample:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    files = list(Path(f"/proc/{pid}/fd").iterdir())
    sockets = sum(_target(each).startswith("socket:") for each in files)
    return Sample(
        round(seconds, 1), int(status["VmRSS"].split()[0]) * 1024, len(files), sockets, int(status["Threads"])
    )


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # closed just now
        return ""


def _await_answers(worker: Child, reader: Reader, count: int) -> None:
    before, moved = -1, time.monotonic()
    while (now := sum(reader.answered)) < count:
        if now > before:
            before, moved = now, time.monotonic()
        if not worker.running or time.monotonic() - moved > PATIENCE_SECONDS:
            raise TapewatchError(f"{now} of {count} ticks answered, then nothing; last lines: {worker.last_lines(3)}")
        time.sleep(0.05)
