"""A run from its first tick to its verdict: Kafka, the workers, the load, and who strikes them when."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from confluent_kafka import KafkaException

from stream import clients, topics
from stream.broker import KafkaBroker
from stream.config import DEFAULT_MODELS, Settings, Topics, Worker
from stream.errors import TapewatchError
from stream.verify import Report, Topic, fingerprint, verify, with_models
from tests.benchmark import machine
from tests.bundles import CHANGE, add_version, shipped
from tests.chaos.crew import Crew
from tests.chaos.load import Load, Memory
from tests.chaos.plan import Event, Fault, timeline
from tests.chaos.verdict import Kept, Verdict, compare

LOOK_SECONDS: Final = 0.1
POLL_SECONDS: Final = 0.5  # of the folder of models
TAIL_SECONDS: Final = 2.0  # of load after the last fault
SWAP_SECONDS: Final = 60.0  # the longest that is waited for the last models to be in force
FIRST_SECONDS: Final = 60.0  # the first ticks are committed by then, or something is wrong before any fault
PATIENCE_SECONDS: Final = 60.0  # without anything being committed, at the end

Tell = Callable[[str], None]


class Options(NamedTuple):
    """What a run is to be."""

    seed: int
    command: str
    faults: list[Fault]
    rate: float
    delivery: Literal["at_least_once", "exactly_once"]
    workers: int
    partitions: int
    snapshots: bool = True  # without them the verdict must be bad: the control of the harness itself


def run(options: Options, folder: Path, stop: threading.Event, tell: Tell) -> Verdict | None:
    """Do it; None if it was told to stop.

    Raises
    ------
    TapewatchError
        If Kafka does not start or does not come back, or no tick is ever committed.
    """
    models = Path(shutil.copytree(DEFAULT_MODELS, folder / "models"))
    with KafkaBroker() as broker:
        settings = Settings(
            broker=broker.address,
            topics=Topics(partitions=options.partitions),
            worker=Worker(
                group="chaos",
                port=0,
                delivery=options.delivery,
                snapshots=options.snapshots,
                models=str(models),
                models_poll_seconds=POLL_SECONDS,
            ),
        )
        topics.create(settings)
        with Crew(settings, folder) as crew:
            return _Stage(options, settings, broker, crew, stop, tell).run()


class _Stage:
    def __init__(
        self, options: Options, settings: Settings, broker: KafkaBroker, crew: Crew, stop: threading.Event, tell: Tell
    ) -> None:
        self._options = options
        self._settings = settings
        self._broker = broker
        self._crew = crew
        self._stop = stop
        self._tell = tell
        self._load = Load(settings, options.rate)
        self._swapped = 0
        self._added: list[str] = []  # name@version of the models swapped in
        shared = f"{os.cpu_count()}, shared by workers, broker, load and verdict"
        self._machine = machine.describe() | {"cores": shared}

    def run(self) -> Verdict | None:
        for number in range(self._options.workers):
            self._crew.start(number)
        self._load.start()
        try:
            self._await_first()
            began = time.monotonic()
            self._strike(began)
        finally:
            self._load.stop()
        seconds = time.monotonic() - began
        if self._stop.is_set():
            return None
        uncommitted, catch_up = self._catch_up()
        self._crew.stop()
        return None if self._stop.is_set() else self._verdict(seconds, uncommitted, catch_up)

    def _await_first(self) -> None:
        end = time.monotonic() + FIRST_SECONDS
        while not self._committed() and not self._stop.is_set():
            if time.monotonic() > end:
                raise TapewatchError(f"nothing was committed within {FIRST_SECONDS:g} s, before any fault")
            self._crew.tend()
            self._stop.wait(LOOK_SECONDS)

    def _strike(self, began: float) -> None:
        """Do what the plan says when it is due.

        While something takes its time, as Kafka's start does, the clock of the plan stands still: else what comes
        next would come all at once, and a freeze would end before the session does.
        """
        start = began
        for event in timeline(self._options.faults):
            self._wait(start + event.at)
            if self._stop.is_set():
                return
            due = time.monotonic()
            self._do(event, due - began)
            start += time.monotonic() - due
        self._await_swaps()
        self._wait(time.monotonic() + TAIL_SECONDS)

    def _await_swaps(self) -> None:
        """Give the last models time to be in force while there is load: on a crowded machine faults hold them up."""
        end = time.monotonic() + SWAP_SECONDS
        while not self._crew.said(self._added) and time.monotonic() < end and not self._stop.is_set():
            self._wait(time.monotonic() + LOOK_SECONDS)

    def _wait(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            self._crew.tend()
            self._stop.wait(min(left, LOOK_SECONDS))

    def _do(self, event: Event, now: float) -> None:
        fault = event.fault
        whom = fault.kind if fault.target < 0 else f"{fault.kind} worker {fault.target}"
        self._tell(f"{now:7.1f} s  {whom}: {'begins' if event.begins else 'is over'}")
        match fault.kind, event.begins:
            case "kill", True:
                self._crew.kill(fault.target)
            case ("kill", False) | ("join", True):
                self._crew.start(fault.target)
            case "terminate", True:
                self._crew.signal(fault.target, signal.SIGTERM)
            case "terminate", False:
                self._crew.end(fault.target)
                self._crew.start(fault.target)
            case "freeze", _:
                self._crew.signal(fault.target, signal.SIGSTOP if event.begins else signal.SIGCONT)
            case "join", False:
                self._crew.signal(fault.target, signal.SIGTERM)
            case "swap", True:
                self._swap()
            case "broker", True:
                self._broker.kill()
            case "broker", False:
                self._broker.start()

    def _swap(self) -> None:
        """A new version of one of the models, each in its turn, for all workers."""
        models = Path(self._settings.worker.models)
        name = sorted(folder.name for folder in models.iterdir())[self._swapped % 3]
        turn = 1 + self._swapped // 3
        version = int(shipped(models, name).name) + turn
        add_version(models, name, str(version), CHANGE**turn)
        self._swapped += 1
        self._added.append(f"{name}@{version}")

    def _committed(self) -> int:
        """Messages below the committed offsets."""
        names, worker = self._settings.topics, self._settings.worker
        try:
            found = clients.committed(self._settings.cluster, worker.group, names.ticks, range(names.partitions))
        except KafkaException:
            return 0  # Kafka has just started; `PATIENCE_SECONDS` bounds it
        return sum(found.values())

    def _catch_up(self) -> tuple[int, float]:
        """Wait until everything is committed; what is not, and how long it took."""
        began = moved = time.monotonic()
        total, last = self._load.memory.acknowledged, -1
        while (now := self._committed()) < total and not self._stop.is_set():
            if now > last:
                last, moved = now, time.monotonic()
            elif time.monotonic() - moved > PATIENCE_SECONDS:
                break
            self._crew.tend()
            self._stop.wait(LOOK_SECONDS)
        self._tell(f"{now:,} of {total:,} messages committed")
        return total - now, time.monotonic() - began

    def _verdict(self, seconds: float, uncommitted: int, catch_up: float) -> Verdict:
        memory = self._load.memory
        return Verdict(
            seed=self._options.seed,
            command=self._options.command,
            machine=self._machine,
            workers=self._options.workers,
            rate=self._options.rate,
            seconds=seconds,
            sent=self._load.sent,
            refused=memory.refused[:10],
            kept=kept(self._settings, memory),
            uncommitted=uncommitted,
            catch_up_seconds=catch_up,
            faults=self._options.faults,
            exits=self._crew.exits,
            report=self._verify(),
            swapped=self._added,
        )

    def _verify(self) -> Report:
        self._tell("verifying")
        settings = self._settings
        reader = Topic(settings.cluster)
        try:
            ends = {
                number: reader.range(settings.topics.ticks, number)[1] for number in range(settings.topics.partitions)
            }
        finally:
            reader.close()
        return verify(settings, *with_models(settings), stop=ends)


def kept(settings: Settings, memory: Memory) -> Kept:
    """What Kafka holds of the ticks, against what it acknowledged."""
    found, reader = Kept(), Topic(settings.cluster)
    try:
        for partition in range(settings.topics.partitions):
            compare(memory.of(partition), dict(_held(reader, settings.topics.ticks, partition)), found)
    finally:
        reader.close()
    return found


def _held(reader: Topic, topic: str, partition: int) -> Iterator[tuple[int, int]]:
    _, end = reader.range(topic, partition)
    for records in reader.read(topic, partition, end):
        for record in records:
            yield record.offset(), fingerprint(record.key(), record.value())
