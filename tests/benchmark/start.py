"""From exec to the first result: `tapewatch bench start`.

The caches are warm: a run that is not counted comes first. A few ticks wait on the topic, so the first result is there
as soon as the worker can give one.
"""

import time
from typing import Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stream.errors import TapewatchError
from tests.benchmark import tape
from tests.benchmark.machine import load
from tests.benchmark.stand import PATIENCE_SECONDS, Stand, fill

WAITING_TICKS: Final = 100


class Started(msgspec.Struct, frozen=True):
    """Starts of the worker."""

    seconds: list[float]
    loads: list[float]


def measure(stand: Stand, runs: int) -> Started:
    """Start the worker once to warm up, and `runs` times."""
    recorded = tape.record(WAITING_TICKS)
    _start(stand, recorded)
    taken = [(load(), _start(stand, recorded)) for _ in range(runs)]
    return Started([seconds for _, seconds in taken], [before for before, _ in taken])


def _start(stand: Stand, recorded: tape.Tape) -> float:
    with stand.topics(1) as settings:
        fill(stand.broker, settings.topics.ticks, recorded, 1)
        consumer = Consumer({"bootstrap.servers": stand.broker, "group.id": "start", "fetch.wait.max.ms": 5})
        consumer.assign([TopicPartition(settings.topics.actions, 0, 0)])
        try:
            consumer.poll(1.0)  # connects; nothing is there yet
            began = time.perf_counter()
            with stand.run("worker", settings) as child:
                while (message := consumer.poll(0.1)) is None or message.error() is not None:
                    if not child.running or time.perf_counter() - began > PATIENCE_SECONDS:
                        raise TapewatchError(f"no result; last lines: {child.last_lines(5)}")
                return time.perf_counter() - began
        finally:
            consumer.close()
