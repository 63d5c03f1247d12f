"""A tick's way from the producer's hands to a consumer's.

A producer process keeps a schedule (`paced`), the subject answers, and a consumer of its own reads the topic of
actions, the last of the three that is sent. Each answer names the partition and offset of its tick, and so finds the
time at which that was handed to the producer. Producer and consumer are librdkafka's, on the broker's cores. What Kafka
and the two take by themselves is measured by a consumer of the ticks. It reads committed records only, so of a worker
that answers exactly once it sees nothing before the checkpoint.
"""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from numpy.typing import NDArray

from stream.children import Child
from stream.config import ROOT, Settings
from stream.errors import TapewatchError
from tests.benchmark import checkpoints, own_share
from tests.benchmark.own_share import OwnShare
from tests.benchmark.schedule import Phase, bounds, written
from tests.benchmark.stand import PATIENCE_SECONDS, Stand, Subject, environment, fill
from tests.benchmark.tape import Tape, record

PARTITIONS: Final = 4
PRIMING_TICKS: Final = 2000  # answered before the clock runs: everything is loaded, and compiled, and connected
WARM_UP_RATE: Final = 5000.0
READ: Final = {"fetch.wait.max.ms": 5, "isolation.level": "read_committed"}
MOST_AT_ONCE: Final = 1000  # answers that are taken from the consumer's queue with one look at the clock

Measured = Subject | Literal["worker, exactly once", "Kafka alone"]
Identify = Callable[[Message], tuple[int, int]]
"""Partition and offset of the tick that a record on the topic that is read belongs to."""


class Journey(NamedTuple):
    """For each tick, in the order of sending, CLOCK_MONOTONIC in ns."""

    seen: NDArray[np.int64]  # when its answer was in the consumer's hands
    sent: NDArray[np.int64]  # when it was handed to the producer
    late: NDArray[np.int64]  # how long after its time that was
    shares: list[OwnShare | None]  # of the worker, in each phase

    @property
    def taken_ms(self) -> NDArray[np.float64]:
        """From sent to seen."""
        return np.asarray((self.seen - self.sent) * 1e-6, np.float64)


class _Answer(msgspec.Struct):
    partition: int
    offset: int


class _Plan(NamedTuple):
    """What is sent to whom."""

    settings: Settings
    tape: Tape
    phases: Sequence[Phase]
    measured: Child | None  # ends the waiting when it ends
    metrics: str | None  # where the worker tells of its own share

    @property
    def ticks(self) -> int:
        """All of them, the priming ones included."""
        return PRIMING_TICKS + sum(phase.ticks for phase in self.phases)

    def places(self) -> list[list[int]]:
        """places[partition][offset] of a tick among those behind the priming ones, negative for the priming ones."""
        partition = self.tape.partition(PARTITIONS)[: self.ticks]
        return [(np.flatnonzero(partition == number) - PRIMING_TICKS).tolist() for number in range(PARTITIONS)]


def ticks_of(phases: Sequence[Phase]) -> int:
    """How long a tape must be."""
    return PRIMING_TICKS + sum(phase.ticks for phase in phases)


def warm_up(stand: Stand, seconds: float) -> None:
    """Let a worker answer 5,000 ticks a second, exactly once, so that the broker has compiled what it runs.

    Until Java has done that, on the core that it shares with producer and consumer, answers take ten times as long,
    and whoever is measured first seems slow: seen for the first minute, with the worker and the raw loop alike.
    Transactions are code of their own in the broker.
    """
    phases = [Phase(WARM_UP_RATE, seconds)]
    travel(stand, record(ticks_of(phases)), "worker, exactly once", phases)


def travel(stand: Stand, tape: Tape, subject: Measured, phases: Sequence[Phase]) -> Journey:
    """Let the tape's ticks travel as the phases say."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(stand.topics(PARTITIONS))
        fill(stand.broker, settings.topics.ticks, tape, PARTITIONS, slice(PRIMING_TICKS))
        if subject == "Kafka alone":
            return _play(stand, _Plan(settings, tape, phases, None, None), settings.topics.ticks, _itself)
        with _primed(stand, subject, settings) as (adapted, child):
            url = own_share.address(child) if subject.startswith("worker") else None
            return _play(stand, _Plan(adapted, tape, phases, child, url), settings.topics.actions, _answered())


@contextlib.contextmanager
def _primed(
    stand: Stand, subject: Subject | Literal["worker, exactly once"], settings: Settings
) -> Iterator[tuple[Settings, Child]]:
    """The subject, running, with the priming ticks answered."""
    if subject == "worker, exactly once":
        settings = checkpoints.suited(settings, checkpoints.EXACTLY_ONCE)
        with stand.run("worker", settings) as child:
            checkpoints.await_committed(settings, child, PRIMING_TICKS)
            yield settings, child
    else:
        with stand.run(subject, settings) as child:
            stand.await_results(settings, child, PRIMING_TICKS)
            yield settings, child


def _itself(message: Message) -> tuple[int, int]:
    return message.partition() or 0, message.offset() or 0


def _answered() -> Identify:
    decode = msgspec.json.Decoder(_Answer).decode

    def identify(message: Message) -> tuple[int, int]:
        answer = decode(message.value() or b"")
        return answer.partition, answer.offset

    return identify


def _play(stand: Stand, plan: _Plan, topic: str, identify: Identify) -> Journey:
    out = stand.file("sent.npy")
    arguments = (stand.broker, plan.settings.topics.ticks, PARTITIONS, PRIMING_TICKS, out, *written(plan.phases))
    command = [sys.executable, "-m", "tests.benchmark.paced", *map(str, arguments)]
    with Child(command, stand.file("paced.log"), environment(plan.settings), directory=ROOT) as producer:
        seen, shares = _read(plan, producer, topic, identify)
        while producer.running:
            time.sleep(0.05)
        if producer.returncode:
            raise TapewatchError(f"the producer failed: {producer.last_lines(3)}")
    sent, late = np.load(out)
    return Journey(seen, sent, late, shares)


def _read(
    plan: _Plan, producer: Child, topic: str, identify: Identify
) -> tuple[NDArray[np.int64], list[OwnShare | None]]:
    """CLOCK_MONOTONIC, ns, at which the answer to each tick was in hands; the worker's own share of each phase."""
    places, left = plan.places(), plan.ticks - PRIMING_TICKS
    ends = [part.stop for part in bounds(plan.phases)]
    notes = [own_share.note(plan.metrics)]
    seen, answered, moved = [0] * left, 0, time.monotonic()
    consumer = Consumer({"bootstrap.servers": plan.settings.broker, "group.id": "read", **READ})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    try:
        while answered < left:
            first = consumer.poll(0.5)
            if first is None or first.error() is not None:
                _check(plan, producer, left - answered, moved)
                continue
            messages = [first, *consumer.consume(MOST_AT_ONCE, 0.0)]
            now, moved = time.perf_counter_ns(), time.monotonic()
            for message in messages:
                if message.error() is not None:
                    continue
                partition, offset = identify(message)
                at = places[partition][offset]
                if at >= 0 and not seen[at]:
                    seen[at] = now
                    answered += 1
            while len(notes) <= len(ends) and answered >= ends[len(notes) - 1]:
                notes.append(own_share.note(plan.metrics))
    finally:
        consumer.close()
    shares = [own_share.between(before, after) for before, after in itertools.pairwise(notes)]
    return np.array(seen, np.int64), shares


def _check(plan: _Plan, producer: Child, left: int, moved: float) -> None:
    """Nothing came: see that somebody still works."""
    for child in (producer, plan.measured):
        if child is not None and (child.returncode or time.monotonic() - moved > PATIENCE_SECONDS):
            raise TapewatchError(f"{left} ticks have no answer, and nothing comes; last lines: {child.last_lines(5)}")
