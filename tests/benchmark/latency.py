"""From the producer's hands to a consumer's: `python -m tests.benchmark latency`.

A producer process keeps a rate (`paced`), the worker answers, and a consumer of its own reads the topic of actions,
the last of the three that is sent. Each answer names the partition and offset of its tick, and so finds the time at
which that was handed to the producer. Producer and consumer are librdkafka's, on the broker's cores. What Kafka and
the two take by themselves is measured by a consumer of the ticks. It reads committed records only, so of a worker that
answers exactly once it sees nothing before the checkpoint.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, TopicPartition
from numpy.typing import NDArray

from stream.children import Child
from stream.config import ROOT, Settings
from stream.errors import TapewatchError
from tests.benchmark import checkpoints
from tests.benchmark.stand import PATIENCE_SECONDS, Stand, Subject, environment, fill
from tests.benchmark.tape import Tape

PARTITIONS: Final = 4
PRIMING_TICKS: Final = 2000  # answered before the clock runs: everything is loaded, and compiled, and connected
WARM_UP_SECONDS: Final = 3.0
READ: Final = {"fetch.wait.max.ms": 5, "isolation.level": "read_committed"}
MILLISECONDS: Final = 1e-6  # of a nanosecond


Measured = Subject | Literal["worker, exactly once", "Kafka alone"]
Identify = Callable[[Message], tuple[int, int]]
"""Partition and offset of the tick that a record on the topic that is read belongs to."""


class Rate(msgspec.Struct, frozen=True):
    """Latency at one rate, ms; the warm-up left out."""

    subject: Measured
    ticks_per_second: float  # asked for
    sent_per_second: float
    answered: int
    p50: float
    p99: float
    p999: float
    worst: float
    late_p99: float  # how late the producer itself was: what else runs on its core


class _Answer(msgspec.Struct):
    partition: int
    offset: int


class _Plan(msgspec.Struct):
    """What is sent to whom."""

    settings: Settings
    tape: Tape
    rate: float
    ticks: int  # the priming ones included
    measured: Child | None  # ends the waiting when it ends

    def index(self) -> list[list[int]]:
        """index[partition][offset] of a tick among those behind the priming ones, negative for the priming ones."""
        partition = self.tape.partition(PARTITIONS)[: self.ticks]
        return [(np.flatnonzero(partition == number) - PRIMING_TICKS).tolist() for number in range(PARTITIONS)]


def measure(stand: Stand, tape: Tape, subject: Measured, rate: float, seconds: float) -> Rate:
    """One rate, for `seconds` after the warm-up."""
    ticks = PRIMING_TICKS + round(rate * (WARM_UP_SECONDS + seconds))
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(stand.topics(PARTITIONS))
        fill(stand.broker, settings.topics.ticks, tape, PARTITIONS, slice(PRIMING_TICKS))
        if subject == "Kafka alone":
            found = _play(stand, _Plan(settings, tape, rate, ticks, None), settings.topics.ticks, _itself)
        elif subject == "worker, exactly once":
            settings = checkpoints.suited(settings, checkpoints.EXACTLY_ONCE)
            child = stack.enter_context(stand.run("worker", settings))
            checkpoints.await_committed(settings, child, PRIMING_TICKS)
            found = _play(stand, _Plan(settings, tape, rate, ticks, child), settings.topics.actions, _answered())
        else:
            child = stack.enter_context(stand.run(subject, settings))
            stand.await_results(settings, child, PRIMING_TICKS)
            found = _play(stand, _Plan(settings, tape, rate, ticks, child), settings.topics.actions, _answered())
            stand.await_results(settings, child, ticks)
    return _rate(subject, rate, *(column[round(rate * WARM_UP_SECONDS) :] for column in found))


def _rate(
    subject: Measured, rate: float, seen: NDArray[np.int64], sent: NDArray[np.int64], late: NDArray[np.int64]
) -> Rate:
    taken = (seen - sent) * MILLISECONDS
    p50, p99, p999 = np.quantile(taken, (0.5, 0.99, 0.999)).tolist()
    return Rate(
        subject,
        rate,
        (len(sent) - 1) / (float(sent[-1] - sent[0]) * 1e-9),
        len(taken),
        p50,
        p99,
        p999,
        float(taken.max()),
        float(np.quantile(late, 0.99)) * MILLISECONDS,
    )


def _itself(message: Message) -> tuple[int, int]:
    return message.partition() or 0, message.offset() or 0


def _answered() -> Identify:
    decode = msgspec.json.Decoder(_Answer).decode

    def identify(message: Message) -> tuple[int, int]:
        answer = decode(message.value() or b"")
        return answer.partition, answer.offset

    return identify


def _play(
    stand: Stand, plan: _Plan, topic: str, identify: Identify
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each tick behind the priming ones: when its answer was read, when it was sent, how late that was, ns."""
    out = stand.file("sent.npy")
    arguments = (stand.broker, plan.settings.topics.ticks, PARTITIONS, plan.rate, PRIMING_TICKS, plan.ticks, out)
    command = [sys.executable, "-m", "tests.benchmark.paced", *map(str, arguments)]
    with Child(command, stand.file("paced.log"), environment(plan.settings), directory=ROOT) as producer:
        seen = _read(plan, producer, topic, identify)
        while producer.running:
            time.sleep(0.05)
        if producer.returncode:
            raise TapewatchError(f"the producer failed: {producer.last_lines(3)}")
    sent, late = np.load(out)
    return seen, sent, late


def _read(plan: _Plan, producer: Child, topic: str, identify: Identify) -> NDArray[np.int64]:
    """CLOCK_MONOTONIC, ns, at which the answer to each tick was in hands."""
    index = plan.index()
    left = plan.ticks - PRIMING_TICKS
    seen, moved = [0] * left, time.monotonic()
    consumer = Consumer({"bootstrap.servers": plan.settings.broker, "group.id": "read", **READ})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    try:
        while left:
            message = consumer.poll(0.5)
            now = time.perf_counter_ns()
            if message is None or message.error() is not None:
                _check(plan, producer, left, moved)
                continue
            moved = time.monotonic()
            partition, offset = identify(message)
            at = index[partition][offset]
            if at >= 0 and not seen[at]:
                seen[at] = now
                left -= 1
    finally:
        consumer.close()
    return np.array(seen, np.int64)


def _check(plan: _Plan, producer: Child, left: int, moved: float) -> None:
    """Nothing came: see that somebody still works."""
    for child in (producer, plan.measured):
        if child is not None and (child.returncode or time.monotonic() - moved > PATIENCE_SECONDS):
            raise TapewatchError(f"{left} ticks have no answer, and nothing comes; last lines: {child.last_lines(5)}")
