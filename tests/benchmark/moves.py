"""How long answers stay away when partitions move: `python -m tests.benchmark.moves [--workers 2 7] [--json FILE]`.

A steady load on 8 partitions; one worker joins the group, one is told to stop, one is killed. The pause of a move is
the longest time between two answers of one partition, as a consumer sees them. After a kill nobody knows that the
worker has gone until a session (10 s) after its last sign of life, which was up to a second before: what comes after
that is shown by itself, at its most.
"""

import argparse
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stream import topics
from stream.app import HEARTBEAT_SECONDS, SESSION_SECONDS
from stream.broker import KafkaBroker
from stream.config import Settings, Topics, Worker
from stream.errors import TapewatchError
from tests.benchmark import machine
from tests.chaos.crew import Crew
from tests.soak.feed import Feed

PARTITIONS: Final = 8
RATE: Final = 800.0  # ticks a second: 100 a partition, an answer every 10 ms
PATIENCE_SECONDS: Final = 90.0
KNOWN_SECONDS: Final = SESSION_SECONDS - HEARTBEAT_SECONDS  # at the earliest, a killed worker is known to have gone
SETTLED_SECONDS: Final = 3.0  # all partitions answered for so long: the move is over


class Move(msgspec.Struct, frozen=True):
    """One change of the group."""

    what: str
    workers: int  # before it
    pause_seconds: float  # of the partition that waited longest
    noticed_seconds: float  # of that, after the loss was noticed, at most


class Answers:
    """When each partition was answered; reads in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "moves", "fetch.wait.max.ms": 5})
        self._consumer.assign([TopicPartition(settings.topics.actions, number, 0) for number in range(PARTITIONS)])
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.last = [0.0] * PARTITIONS
        self.longest = [0.0] * PARTITIONS
        self._thread.start()

    def restart(self) -> None:
        """Forget the pauses so far."""
        with self._lock:
            self.longest = [0.0] * PARTITIONS

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(200, 0.01):
                partition, now = message.partition(), time.monotonic()
                if message.error() is None and partition is not None:
                    with self._lock:
                        before, self.last[partition] = self.last[partition] or now, now
                        self.longest[partition] = max(self.longest[partition], now - before)


def await_calm(answers: Answers, crew: Crew) -> None:
    """Wait until all partitions have been answered without a pause for a while."""
    end, calm = time.monotonic() + PATIENCE_SECONDS, time.monotonic()
    while time.monotonic() - calm < SETTLED_SECONDS:
        now = time.monotonic()
        if now > end:
            raise TapewatchError(f"not all partitions are answered: {[round(now - each, 1) for each in answers.last]}")
        if max(now - each for each in answers.last) > 1.0:
            calm = now
        crew.tend()
        time.sleep(0.05)


def measure(settings: Settings, folder: Path, workers: int) -> list[Move]:
    """A join, a stop and a kill with so many workers."""
    found: list[Move] = []
    feed, answers = Feed(settings, RATE, 80), Answers(settings)
    with Crew(settings, folder) as crew:

        def move(what: str, do: Callable[[], None], until: Callable[[], bool], unnoticed: float) -> None:
            answers.restart()
            do()
            end = time.monotonic() + PATIENCE_SECONDS
            while not until():
                if time.monotonic() > end:
                    raise TapewatchError(f"{what} was not seen within {PATIENCE_SECONDS:g} s")
                time.sleep(0.05)
            await_calm(answers, crew)
            pause = max(answers.longest)
            found.append(Move(what, workers, pause, max(0.0, pause - unnoticed)))

        for number in range(workers):
            crew.start(number)
        feed.start()
        try:
            await_calm(answers, crew)
            log = folder / f"worker{workers}.log"
            move(
                "join",
                lambda: crew.start(workers),
                lambda: log.exists() and "assigned topic=" in log.read_text(),
                0.0,
            )
            move("stop", lambda: crew.signal(workers, signal.SIGTERM), lambda: "stopped group=" in log.read_text(), 0.0)
            crew.end(workers)
            before = time.monotonic()
            move("kill", lambda: crew.kill(0), lambda: time.monotonic() > before + SESSION_SECONDS, KNOWN_SECONDS)
        finally:
            feed.stop()
            answers.stop()
            crew.stop()
    return found


def main() -> None:
    """Measure, and print a line a move."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 7], metavar="N", help="before one more joins")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    described, found = machine.describe(), list[Move]()
    for workers in options.workers:
        with tempfile.TemporaryDirectory(prefix="tapewatch-moves-") as folder, KafkaBroker() as broker:
            settings = Settings(
                broker.address, topics=Topics(partitions=PARTITIONS), worker=Worker(group="moves", port=0)
            )
            topics.create(settings)
            for move in measure(settings, Path(folder), workers):
                print(
                    f"{move.workers} workers, {move.what}: {move.pause_seconds:.1f} s without an answer, "
                    f"at most {move.noticed_seconds:.1f} s of it after it was noticed",
                    flush=True,
                )
                found.append(move)
    if options.json:
        tree = {"machine": described, "session_seconds": SESSION_SECONDS, "moves": msgspec.to_builtins(found)}
        options.json.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
