"""What checkpoints cost, and how fast state is back: `tapewatch bench checkpoints recovery`.

Drains the same filled topic in turns without snapshots, with them every second, and exactly once every 100 ms, as
`tests.benchmark.drain` does. Recovery starts a worker on the snapshots that another has left, and reads from its log
how long it took to load them. The ticks are made: `instruments` symbols, each tick of one drawn evenly, so that with
many of them a checkpoint writes nearly all.
"""

import re
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from stream import clients
from stream.children import Child
from stream.config import Settings, Worker
from stream.errors import TapewatchError
from tests.benchmark.drain import WARM_UP_SHARE, Run, Watch
from tests.benchmark.machine import load
from tests.benchmark.stand import LOOK_SECONDS, PATIENCE_SECONDS, Stand, fill
from tests.benchmark.tape import made

RECOVERED: Final = re.compile(r"recovered partitions=\S+ instruments=(\d+) seconds=([0-9.]+)")


class Way(NamedTuple):
    """How a worker keeps its state."""

    name: str
    snapshots: bool = True
    delivery: str = "at_least_once"
    commit_interval_seconds: float = Worker().commit_interval_seconds


PLAIN: Final = Way("no snapshots", snapshots=False)
AT_LEAST_ONCE: Final = Way("at least once, every second")
EXACTLY_ONCE: Final = Way("exactly once, every 100 ms", delivery="exactly_once", commit_interval_seconds=0.1)
WAYS: Final = (PLAIN, AT_LEAST_ONCE, EXACTLY_ONCE)


class Kept(msgspec.Struct, frozen=True):
    """All runs of one way with so many instruments: run i of all ways belong together."""

    way: str
    instruments: int
    ticks: int
    runs: list[Run]


class Recovered(msgspec.Struct, frozen=True):
    """Starts of a worker on the state of so many instruments."""

    instruments: int
    seconds: list[float]


def suited(settings: Settings, way: Way) -> Settings:
    """The settings with a way of keeping state."""
    options = {name: value for name, value in way._asdict().items() if name != "name"}
    return msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, **options))


def measure(stand: Stand, instruments: Iterable[int], ticks: int, runs: int) -> list[Kept]:
    """Drain `ticks` of each number of instruments in all ways, `runs` times, in turns."""
    found = []
    for number in instruments:
        topic = f"ticks.of.{number}"
        stand.create(topic, 1)
        fill(stand.broker, topic, made(max(ticks, number), number), 1)
        taken: dict[Way, list[Run]] = {way: [] for way in WAYS}
        for _ in range(runs):
            for way in WAYS:
                with stand.topics(1, topic) as plain:
                    taken[way].append(_drain(stand, suited(plain, way), max(ticks, number)))
        found += [Kept(way.name, number, max(ticks, number), done) for way, done in taken.items()]
    return found


def recover(stand: Stand, instruments: int, runs: int) -> Recovered:
    """Let a worker answer three ticks of each instrument, stop it, and start another, `runs` times."""
    ticks = 3 * instruments
    with stand.topics(1) as settings:
        fill(stand.broker, settings.topics.ticks, made(ticks, instruments), 1)
        with stand.run("worker", settings) as child:
            await_committed(settings, child, ticks)
        return Recovered(instruments, [_start_again(stand, settings, instruments) for _ in range(runs)])


def await_committed(settings: Settings, child: Child, ticks: int) -> None:
    """Wait until all ticks are done with: by the group's offsets, since ends of topics count transactions as well.

    Raises
    ------
    TapewatchError
        If the worker ends, or has not done it within a minute.
    """
    names, end, done = settings.topics, time.monotonic() + PATIENCE_SECONDS, 0
    while done < ticks:
        done = sum(
            clients.committed(settings.cluster, settings.worker.group, names.ticks, range(names.partitions)).values()
        )
        if not child.running or time.monotonic() > end:
            raise TapewatchError(f"{done} of {ticks} ticks committed; last lines: {child.last_lines(5)}")


def _drain(stand: Stand, settings: Settings, ticks: int) -> Run:
    """One run, from a tenth of the ticks to all of them."""
    before_it = load()
    with stand.run("worker", settings) as child:
        watch, moved, before = Watch([child], int(ticks * WARM_UP_SHARE)), time.monotonic(), -1
        # Ends of topics: the markers of transactions count too, at exactly_once one for each checkpoint.
        while (answered := min((counts := stand.counts(settings)).values())) < ticks:
            watch.look(answered)
            if answered > before:
                before, moved = answered, time.monotonic()
            if not child.running or time.monotonic() - moved > PATIENCE_SECONDS:
                raise TapewatchError(f"{answered} of {ticks} ticks answered; last lines: {child.last_lines(5)}")
            time.sleep(LOOK_SECONDS)
        watch.look(answered)
        await_committed(settings, child, ticks)
        return watch.run(list(counts.values()), before_it)


def _start_again(stand: Stand, settings: Settings, instruments: int) -> float:
    log, end = stand.file("subject.log"), time.monotonic() + PATIENCE_SECONDS
    log.unlink()
    with stand.run("worker", settings) as child:
        while not (found := RECOVERED.search(log.read_text())):
            if not child.running or time.monotonic() > end:
                raise TapewatchError(f"no state was loaded; last lines: {child.last_lines(5)}")
            time.sleep(LOOK_SECONDS)
    if int(found[1]) != instruments:
        raise TapewatchError(f"{found[1]} of {instruments} instruments were loaded")
    return float(found[2])
