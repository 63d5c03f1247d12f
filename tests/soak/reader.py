"""Reads the answers as a desk would: is each there, in order, once, and how long did it take."""

import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from stream.config import Settings
from tests.soak.feed import Feed

WINDOW_SECONDS: Final = 10.0
MILLISECONDS: Final = 1e-6  # of a nanosecond


class Window(msgspec.Struct, frozen=True):
    """Latencies of some seconds, from the producer's hands to a consumer's."""

    seconds: float  # since the start of the run, at the window's end
    answers: int
    p50_ms: float
    p99_ms: float


class _Answer(msgspec.Struct):
    partition: int
    offset: int


class Reader:
    """Reads the topic of actions, the last of the three that is sent, in a thread of its own."""

    def __init__(self, settings: Settings, feed: Feed, now: Callable[[], float]) -> None:
        self._feed = feed
        self._now = now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._consumer = Consumer(
            {"bootstrap.servers": settings.broker, "group.id": "soak-reader", "fetch.wait.max.ms": 5, "log_level": 0}
        )
        partitions = range(settings.topics.partitions)
        self._consumer.assign([TopicPartition(settings.topics.actions, number, 0) for number in partitions])
        self._decode = msgspec.json.Decoder(_Answer).decode
        self._taken: list[int] = []
        self.answered = [0] * settings.topics.partitions
        self.unexpected: list[str] = []  # answers that are not the next of their partition
        self.windows: list[Window] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        ends = time.monotonic() + WINDOW_SECONDS
        while not self._stop.is_set():
            for message in self._consumer.consume(500, 0.02):
                if message.error() is None:
                    self._note(self._decode(message.value() or b""), time.perf_counter_ns())
            if time.monotonic() >= ends:
                self._close_window()
                ends += WINDOW_SECONDS
        self._close_window()

    def _note(self, answer: _Answer, now: int) -> None:
        expected = self.answered[answer.partition]
        if answer.offset != expected:
            self.unexpected.append(f"partition {answer.partition}: offset {answer.offset} instead of {expected}")
        self._taken.append(now - self._feed.handed_over(answer.partition, answer.offset))
        self.answered[answer.partition] = answer.offset + 1

    def _close_window(self) -> None:
        if self._taken:
            p50, p99 = (np.quantile(self._taken, (0.5, 0.99)) * MILLISECONDS).tolist()
            self.windows.append(Window(round(self._now(), 1), len(self._taken), p50, p99))
        self._taken = []
