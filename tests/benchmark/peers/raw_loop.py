"""The worker's work without Faust: `python -m tests.benchmark.peers.raw_loop`.

A bare loop over aiokafka: the same reading of record batches, the same `Pipeline`, the same finished batches to
`send_batch`, with as many chunks in flight. No group, no commits, no metrics: what is possible with this pipeline.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream import config, inference
from stream.config import Settings
from stream.decoding import Chunk
from stream.pipeline import Pipeline, compile_kernels
from stream.publisher import Publisher
from stream.transport import Columns, unpack


async def columns(consumer: Any, timeout_seconds: float = 1.0) -> AsyncIterator[tuple[int, Columns]]:
    """All that is fetched, partition by partition, without an object for each record."""
    fetcher = consumer._fetcher
    while True:
        for tp in list(fetcher._records):
            result = fetcher._records.pop(tp)
            fetcher._notify(fetcher._wait_consume_future)
            found = unpack(result._partition_records)
            result._partition_records.next_fetch_offset = found.next_offset
            result._update_position()
            yield tp.partition, found
        if not fetcher._records:
            await asyncio.wait([fetcher._create_fetch_waiter()], timeout=timeout_seconds)


async def work(settings: Settings) -> None:
    """Answer every tick from the beginning of the topic on."""
    models = inference.load(Path(settings.worker.models))
    compile_kernels(models, settings)
    partitions = range(settings.topics.partitions)
    pipelines = [Pipeline(settings, models, partition) for partition in partitions]
    publisher = Publisher(settings.cluster)
    await publisher.start([])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.broker,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=settings.worker.fetch_max_bytes,
        fetch_max_wait_ms=settings.worker.fetch_max_wait_ms,
        isolation_level="read_committed",
    )
    await consumer.start()
    consumer.assign([TopicPartition(settings.topics.ticks, partition) for partition in partitions])
    gc.collect()
    gc.freeze()
    in_flight: deque[asyncio.Future[Any]] = deque()
    ticks = settings.worker.chunk_ticks
    async for partition, (offsets, _timestamps, keys, values, _next_offset) in columns(consumer):
        for first in range(0, len(offsets), ticks):
            part = slice(first, first + ticks)
            chunk = Chunk(partition, offsets[part], keys[part], values[part])
            output = pipelines[partition].process(chunk, time.time_ns() // 1_000_000)
            sent = [await publisher.send(batch.topic, partition, batch) for batch in output.batches]
            in_flight.append(asyncio.gather(*sent))
            if len(in_flight) > settings.worker.chunks_in_flight:
                await in_flight.popleft()
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(work(config.load()))
