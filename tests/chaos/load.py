"""The ticks of a run: recorded trades at a rate, malformed messages among them, and the memory of all that Kafka took.

The memory is this process's own: what is later read from the topic is held against it, so that a tick which Kafka
acknowledged and lost is told apart from one that a worker passed over.
"""

import threading
from array import array
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import Producer

from stream.config import Settings
from stream.errors import TapewatchError
from stream.feeds import sample
from stream.feeds.replay import Block, Constant, EventClock, Rounds, play
from stream.verify import fingerprint

FAULT_EVERY: Final = 50  # one message in so many is followed by a malformed one
FLUSH_SECONDS: Final = 60.0
OPTIONS: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "partitioner": "murmur2_random",  # as Java's: all ticks of a symbol in one partition
    "queue.buffering.max.messages": 200_000,
    "message.timeout.ms": 120_000,  # longer than any outage of the broker
    "log_level": 0,
}


class Memory:
    """Fingerprints of key and value of every message that Kafka has acknowledged, by partition and offset."""

    def __init__(self, partitions: int) -> None:
        self._offsets = [array("q") for _ in range(partitions)]
        self._fingerprints = [array("Q") for _ in range(partitions)]
        self.refused: list[str] = []  # why Kafka did not take a message

    def note(self, partition: int, offset: int, found: int) -> None:
        """Kafka has it."""
        self._offsets[partition].append(offset)
        self._fingerprints[partition].append(found)

    def of(self, partition: int) -> dict[int, int]:
        """Offset -> fingerprint."""
        return dict(zip(self._offsets[partition], self._fingerprints[partition], strict=True))

    @property
    def acknowledged(self) -> int:
        """Messages that Kafka has."""
        return sum(map(len, self._offsets))


class Sink:
    """Where `replay.play` puts messages; what Kafka says of each goes to the memory."""

    def __init__(self, settings: Settings, memory: Memory) -> None:
        self._topic = settings.topics.ticks
        self._memory = memory
        self._producer = Producer({"bootstrap.servers": settings.broker, **OPTIONS})
        self.sent = 0

    def send(self, key: bytes | None, value: bytes) -> None:
        """Hand over one message; waits while the producer's queue is full, as it is when the broker is away."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self.sent += 1
        self._producer.poll(0)

    def close(self) -> None:
        """Wait until Kafka has all of them, or has refused."""
        left = self._producer.flush(FLUSH_SECONDS)
        if left:
            self._memory.refused.append(f"{left} messages got no answer within {FLUSH_SECONDS:g} s")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._memory.refused.append(str(error))
        else:
            self._memory.note(message.partition(), message.offset(), fingerprint(message.key(), message.value()))


class Load:
    """Sends in a thread of its own until it is stopped."""

    def __init__(self, settings: Settings, rate: float) -> None:
        self._settings = settings
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: Exception | None = None
        self.memory = Memory(settings.topics.partitions)
        self.sent = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until Kafka has answered for every message; raises TapewatchError if the thread failed."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise TapewatchError(f"the load ended early: {self._error!r}")

    def _run(self) -> None:
        try:
            self._send()
        except Exception as error:  # noqa: BLE001  told by stop()
            self._error = error

    def _send(self) -> None:
        sink = Sink(self._settings, self.memory)
        for _ in play(messages(), Constant(self._rate), sink, EventClock(self._stop)):
            pass
        sink.close()
        self.sent = sink.sent


def messages() -> Iterator[Block]:
    """The bundled trades again and again, malformed ones among them."""
    yield from sample.with_faults(Rounds(sample.bundled(), loop=True), FAULT_EVERY)
