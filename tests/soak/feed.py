"""Ticks of many instruments at a steady rate, without end, and when each was handed over."""

import math
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer

from stream.config import Settings
from stream.errors import TapewatchError
from stream.messages import Tick, encode

BURST_SECONDS: Final = 0.005
KEPT: Final = 1 << 16  # hand-over times kept for each partition: 50 s at 5,000 a second and four partitions
FLUSH_SECONDS: Final = 60.0
OPTIONS: Final = {"enable.idempotence": True, "linger.ms": 0, "log_level": 0, "message.timeout.ms": 120_000}


def ticks(instruments: int, seed: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
    """Number of the instrument, key and value, for ever: a walk of one cent a trade around a price of 100."""
    chance = random.Random(seed)
    names = [f"S{number}" for number in range(instruments)]
    cents = [10_000] * instruments
    trade = 0
    while True:
        trade += 1
        at = chance.randrange(instruments)
        cents[at] += chance.choice((-1, 0, 1)) if 9_000 < cents[at] < 11_000 else (cents[at] < 10_000) * 2 - 1
        tick = Tick(names[at], time.time_ns(), cents[at] / 100, 1.0 + trade % 7, trade_id=trade)
        yield at, names[at].encode(), encode(tick)


class Feed:
    """Sends in a thread of its own until it is stopped."""

    def __init__(self, settings: Settings, rate: float, instruments: int) -> None:
        self._topic, self._partitions = settings.topics.ticks, settings.topics.partitions
        self._rate = rate
        self._ticks = ticks(instruments)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._producer = Producer({"bootstrap.servers": settings.broker, **OPTIONS})
        self._handed = np.zeros((self._partitions, KEPT), np.int64)  # time.perf_counter_ns(), by offset
        self._failed: list[str] = []
        self.sent = [0] * self._partitions

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def handed_over(self, partition: int, offset: int) -> int:
        """time.perf_counter_ns() at which the tick was handed to the producer, if that was not long ago."""
        return int(self._handed[partition, offset % KEPT])

    def stop(self) -> None:
        """End, and wait until Kafka has every tick; raises TapewatchError if it has not."""
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(FLUSH_SECONDS)
        if left or self._failed:
            raise TapewatchError(f"Kafka did not take {left + len(self._failed)} ticks: {self._failed[:1]}")

    def _run(self) -> None:
        start, done = time.perf_counter(), 0
        while not self._stop.is_set():
            due = math.floor((time.perf_counter() - start) * self._rate)
            for _ in range(done, due):
                self._send()
            done = due
            self._producer.poll(0)
            self._stop.wait(BURST_SECONDS)

    def _send(self) -> None:
        at, key, value = next(self._ticks)
        partition = at % self._partitions
        # The topic was empty and the producer is idempotent, so the next tick of a partition has the next offset.
        self._handed[partition, self.sent[partition] % KEPT] = time.perf_counter_ns()
        while True:
            try:
                self._producer.produce(self._topic, value, key, partition, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self.sent[partition] += 1

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))
