"""What a chunk costs before and behind the pipeline, piece by piece, for `tapewatch bench stages`.

- fetch: a fetched record batch unpacked into columns and cut into deliveries, as the transport does.
- metrics: a chunk told to metrics, watch-list, drift and board.
- book-keeping: the rest of `Worker.take`, with a pipeline that has its answers ready and an outlet that takes them at
  once: slots, flights, tasks, ledger.
- send: three batches from the publisher's hands until they are acknowledged, by the embedded broker, which is a process
  of its own; processor time of our thread alone, so waiting is free.

Not in it: Faust's own 80 to 90 us an event, so a chunk, and aiokafka's reading of the socket.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import faust
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from stream import topics
from stream.app import Worker
from stream.broker import EmbeddedBroker
from stream.config import Cluster, Settings
from stream.decoding import Instruments
from stream.encoding import PackedBatch
from stream.ledger import Ledger
from stream.library import Library
from stream.metrics import Metrics
from stream.pipeline import Output, Pipeline
from stream.publisher import Publisher
from stream.telemetry import Drift, Scores, note_computed, note_published
from stream.transport import Delivery, cut, unpack
from stream.web.desk import Desk
from tests.benchmark.machine import cores, pinned
from tests.benchmark.tape import Tape

EDGES: Final = ("fetch", "metrics", "book-keeping", "send")
TICKS: Final = TopicPartition("ticks", 0)
NOW_MS: Final = 1_763_000_000_000
MOST_TICKS: Final = 50_000  # we and the embedded broker keep their results in memory: 1.2 kB a tick


class Done(NamedTuple):
    """Chunks of one size, with their answers."""

    deliveries: Sequence[Delivery]
    outputs: Sequence[Output]
    instruments: Instruments


def measure(settings: Settings, library: Library, tape: Tape, size: int, ticks: int) -> dict[str, list[float]]:
    """Seconds of each chunk of `size` ticks, by edge."""
    deliveries, fetched = _fetch(tape, size, min(ticks, MOST_TICKS))
    pipeline = Pipeline(settings, library.newest, 0)
    done = Done(deliveries, [pipeline.process(each.chunk, NOW_MS) for each in deliveries], pipeline.instruments)
    told = _tell(settings, library, done)
    taken = asyncio.run(_take(settings, library, done))
    return {
        "fetch": fetched,
        "metrics": told,
        "book-keeping": [max(0.0, whole - part) for whole, part in zip(taken, told, strict=True)],
        "send": asyncio.run(_send(settings, done.outputs)),
    }


def _fetch(tape: Tape, size: int, ticks: int) -> tuple[list[Delivery], list[float]]:
    ledger, deliveries, seconds = Ledger(0), list[Delivery](), []
    for first in range(0, ticks - size + 1, size):
        fetched = _fetched(tape, first, size)
        began = time.perf_counter()
        deliveries += cut(0, unpack(fetched), size, ledger, time.monotonic())
        seconds.append(time.perf_counter() - began)
    return deliveries, seconds


def _fetched(tape: Tape, first: int, size: int) -> PartitionRecords:
    """As a broker hands over what one producer has sent at once."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 24)
    for number in range(size):
        builder.append(number, NOW_MS, tape.keys[first + number], tape.values[first + number], [])
    batch = bytearray(builder.build())
    batch[:8] = first.to_bytes(8, "big")  # its offset, which the checksum does not cover
    return PartitionRecords(TICKS, MemoryRecords(bytes(batch)), [], first, None, None, True, READ_COMMITTED)


def _tell(settings: Settings, library: Library, done: Done) -> list[float]:
    metrics, desk = Metrics(), Desk(settings.web.courses)
    scores, drift = Scores(0), Drift(lambda: library.newest.cards[0])
    desk.open(0, done.instruments)
    seconds = []
    for delivery, output in zip(done.deliveries, done.outputs, strict=True):
        began = time.perf_counter()
        scores.note(output.results)
        drift.note(output, library.newest.names[0])
        note_computed(metrics, delivery, output)
        desk.note(0, output, NOW_MS)
        note_published(metrics, delivery, output, 0.0)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            scores.show(metrics, done.instruments)  # from now on the watch-list is followed
    return seconds


class _Ready:
    """A pipeline that has its answers already."""

    def __init__(self, done: Done, names: tuple[str, str, str]) -> None:
        self.instruments, self.models = done.instruments, names
        self._outputs = iter(done.outputs)

    def process(self, _chunk: Any, _timestamp_ms: int) -> Output:
        return next(self._outputs)


class _AtOnce:
    """An outlet that acknowledges what it is given."""

    async def send(self, _topic: str, _partition: int, _batch: PackedBatch) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send_records(self, *_arguments: Any) -> list["asyncio.Future[None]"]:
        return []


async def _take(settings: Settings, library: Library, done: Done) -> list[float]:
    metrics = Metrics()
    worker = Worker(settings, lambda _: cast(Any, _Ready(done, library.newest.names)), metrics, library)
    worker._publisher = cast(Publisher, _AtOnce())
    lane = worker._lanes[0] = worker._new_lane(0, None)
    ledger, seconds = Ledger(0), []
    for delivery in done.deliveries:
        span = ledger.open(delivery.span.first, delivery.span.end)
        event = SimpleNamespace(value=delivery._replace(span=span), message=None, ack=_ack(ledger, span))
        began = time.perf_counter()
        await worker.take(cast(faust.EventT[Any], event))
        while worker._tasks:  # noqa: ASYNC110 - it is these turns of the loop that are timed
            await asyncio.sleep(0)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            lane.scores.show(metrics, done.instruments)
    return seconds


def _ack(ledger: Ledger, span: Any) -> Callable[[], None]:
    return lambda: ledger.done(span)


async def _send(settings: Settings, outputs: Sequence[Output]) -> list[float]:
    with pinned(cores().others), EmbeddedBroker() as broker:
        publisher = Publisher(Cluster(broker.address))
        await publisher.start(topics.streams(settings.topics)[1:4])
        try:
            with pinned(cores().measured[0]):
                return [await _sent(publisher, list(_batches(output))) for output in outputs]
        finally:
            await publisher.stop()


def _batches(output: Output) -> Iterator[tuple[str, PackedBatch]]:
    return ((batch.topic, batch) for batch in output.batches)


async def _sent(publisher: Publisher, batches: Sequence[tuple[str, PackedBatch]]) -> float:
    began = time.thread_time()
    await asyncio.gather(*[await publisher.send(topic, 0, batch) for topic, batch in batches])
    return time.thread_time() - began
