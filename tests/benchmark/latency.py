"""From the producer's hands to a consumer's: `python -m tests.benchmark latency`.

A producer process keeps a rate (`paced`), the worker answers, and a consumer of its own reads the topic of actions,
the last of the three that is sent. Each answer names the partition and offset of its tick, and so finds the time at
which that was handed to the producer. Producer and consumer are librdkafka's, on the broker's cores.
"""

import sys
import time
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray

from stream.children import Child
from stream.config import ROOT, Settings
from stream.errors import TapewatchError
from tests.benchmark.stand import PATIENCE_SECONDS, Stand, Subject, environment, fill
from tests.benchmark.tape import Tape

PARTITIONS: Final = 4
PRIMING_TICKS: Final = 2000  # answered before the clock runs: everything is loaded, and compiled, and connected
WARM_UP_SECONDS: Final = 3.0
MILLISECONDS: Final = 1e-6  # of a nanosecond


class Rate(msgspec.Struct, frozen=True):
    """Latency at one rate, ms; the warm-up left out."""

    subject: Subject
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


def measure(stand: Stand, tape: Tape, subject: Subject, rate: float, seconds: float) -> Rate:
    """One rate, for `seconds` after the warm-up."""
    ticks = PRIMING_TICKS + round(rate * (WARM_UP_SECONDS + seconds))
    with stand.topics(PARTITIONS) as settings, stand.run(subject, settings) as child:
        fill(stand.broker, settings.topics.ticks, tape, PARTITIONS, slice(PRIMING_TICKS))
        stand.await_results(settings, child, PRIMING_TICKS)
        seen, sent, late = _play(stand, settings, child, tape, rate, ticks)
        counts = stand.await_results(settings, child, ticks)
    skipped = round(rate * WARM_UP_SECONDS)
    taken = (seen - sent)[skipped:] * MILLISECONDS
    p50, p99, p999 = np.quantile(taken, (0.5, 0.99, 0.999)).tolist()
    return Rate(
        subject,
        rate,
        (len(taken) - 1) / ((sent[-1] - sent[skipped]) * 1e-9),
        min(counts.values()) - PRIMING_TICKS - skipped,
        p50,
        p99,
        p999,
        float(taken.max()),
        float(np.quantile(late[skipped:], 0.99)) * MILLISECONDS,
    )


def _play(
    stand: Stand, settings: Settings, child: Child, tape: Tape, rate: float, ticks: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each tick behind the priming ones: when its answer was read, when it was sent, how late that was, ns."""
    out = stand.file("sent.npy")
    arguments = (stand.broker, settings.topics.ticks, PARTITIONS, rate, PRIMING_TICKS, ticks, out)
    command = [sys.executable, "-m", "tests.benchmark.paced", *map(str, arguments)]
    with Child(command, stand.file("paced.log"), environment(settings), directory=ROOT) as producer:
        seen = _read(settings, child, producer, _first_index(tape, ticks), ticks - PRIMING_TICKS)
        while producer.running:
            time.sleep(0.05)
        if producer.returncode:
            raise TapewatchError(f"the producer failed: {producer.last_lines(3)}")
    sent, late = np.load(out)
    return seen, sent, late


def _first_index(tape: Tape, ticks: int) -> list[list[int]]:
    """index[partition][offset] of the tick among those behind the priming ones, negative for the priming ones."""
    partition = tape.partition(PARTITIONS)[:ticks]
    return [(np.flatnonzero(partition == number) - PRIMING_TICKS).tolist() for number in range(PARTITIONS)]


def _read(settings: Settings, child: Child, producer: Child, index: list[list[int]], answers: int) -> NDArray[np.int64]:
    """CLOCK_MONOTONIC, ns, at which the answer to each tick was in hands."""
    seen = [0] * answers
    decode = msgspec.json.Decoder(_Answer).decode
    consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "read", "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(settings.topics.actions, number, 0) for number in range(PARTITIONS)])
    left, moved = answers, time.monotonic()
    try:
        while left:
            message = consumer.poll(0.5)
            now = time.perf_counter_ns()
            if message is None:
                if time.monotonic() - moved > PATIENCE_SECONDS or not child.running or producer.returncode:
                    last = (child if producer.running else producer).last_lines(5)
                    raise TapewatchError(f"{left} of {answers} ticks have no answer; last lines: {last}")
                continue
            moved = time.monotonic()
            answer = decode(message.value() or b"")
            at = index[answer.partition][answer.offset]
            if at >= 0 and not seen[at]:
                seen[at] = now
                left -= 1
    finally:
        consumer.close()
    return np.array(seen, np.int64)
