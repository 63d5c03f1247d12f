"""Packed batches go through aiokafka's producer to both brokers and come back as what msgspec would have written."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream import messages, topics
from stream.config import Settings, Topics
from stream.core.results import Results
from stream.encoding import PackedBatch, ResultEncoder
from tests.results import draw_results, structs

MODELS = ("gru@3", "critic@2", "dqn@1")
INSTRUMENTS = [("BTCUSDT", "binance-usdm"), ("日経225", ""), ('A"B\\C', "x")]
PARTITION = 3
TIMESTAMP_MS = 1_723_161_257_700

Read = tuple[bytes, bytes, int]  # key, value, timestamp


def batches_of(results: Results, names: Topics, **options: Any) -> list[PackedBatch]:
    encoder = ResultEncoder(MODELS, (names.predictions, names.risk, names.actions), **options)
    for slot, instrument in enumerate(INSTRUMENTS):
        encoder.add(slot, *instrument)
    return encoder.encode(results, PARTITION, TIMESTAMP_MS)


def expected(results: Results) -> list[list[Read]]:
    return [
        [(record.symbol.encode(), messages.encode(record), TIMESTAMP_MS) for record in topic]
        for topic in structs(results, INSTRUMENTS, PARTITION, MODELS)
    ]


@asynccontextmanager
async def producing(broker: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", retry_backoff_ms=20, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def publish(producer: AIOKafkaProducer, batches: list[PackedBatch]) -> list[int]:
    """Send, await every acknowledgement, give the offsets of the batches."""
    sent = [await producer.send_batch(batch, batch.topic, partition=batch.partition) for batch in batches]
    return [acknowledged.offset for acknowledged in await asyncio.gather(*sent)]


async def read(broker: str, topic: str, count: int) -> list[Read]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker, isolation_level="read_committed", auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, PARTITION)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        async with asyncio.timeout(30):
            records = [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()
    return [(record.key, record.value, record.timestamp) for record in records]


async def read_all(settings: Settings, count: int) -> list[list[Read]]:
    names = settings.topics
    return [await read(settings.broker, topic, count) for topic in (names.predictions, names.risk, names.actions)]


def test_batches_of_one_partition_follow_each_other_on_the_embedded_broker(embedded_settings: Settings) -> None:
    first, second = draw_results(300, 3, seed=1), draw_results(1, 3, seed=2)

    async def run() -> list[list[Read]]:
        async with producing(embedded_settings.broker) as producer:
            for results in (first, second):
                await publish(producer, batches_of(results, embedded_settings.topics))
        return await read_all(embedded_settings, 301)

    joined = [a + b for a, b in zip(expected(first), expected(second), strict=True)]
    assert asyncio.run(run()) == joined


def test_kafka_takes_the_largest_batches_from_an_idempotent_producer(kafka_settings: Settings) -> None:
    topics.create(kafka_settings)
    results = draw_results(8192, 3)
    batches = batches_of(results, kafka_settings.topics)

    async def run() -> tuple[list[int], list[list[Read]]]:
        async with producing(kafka_settings.broker, enable_idempotence=True) as producer:
            offsets = await publish(producer, batches)
        return offsets, await read_all(kafka_settings, 8192)

    offsets, found = asyncio.run(run())
    assert max(batch.size() for batch in batches) > 900_000
    assert offsets == list(first_offsets(batches))
    assert found == expected(results)


def first_offsets(batches: list[PackedBatch]) -> Iterator[int]:
    end: dict[str, int] = {}
    for batch in batches:
        yield end.get(batch.topic, 0)
        end[batch.topic] = end.get(batch.topic, 0) + batch.record_count()


def test_batches_of_a_transaction_are_seen_when_it_commits_only(kafka_settings: Settings) -> None:
    topics.create(kafka_settings)
    aborted, committed = draw_results(20, 3, seed=1), draw_results(20, 3, seed=2)

    async def run() -> list[list[Read]]:
        name = kafka_settings.topics.ticks
        async with producing(kafka_settings.broker, transactional_id=name) as producer:
            await producer.begin_transaction()
            await publish(producer, batches_of(aborted, kafka_settings.topics, transactional=True))
            await producer.abort_transaction()
            async with producer.transaction():
                await publish(producer, batches_of(committed, kafka_settings.topics, transactional=True))
        return await read_all(kafka_settings, 20)

    assert asyncio.run(run()) == expected(committed)


@pytest.mark.parametrize("rows", [1, 64])
def test_a_producer_may_mix_packed_batches_and_single_records(embedded_settings: Settings, rows: int) -> None:
    results = draw_results(rows, 3)
    topic = embedded_settings.topics.risk

    async def run() -> list[Read]:
        async with producing(embedded_settings.broker) as producer:
            batch = batches_of(results, embedded_settings.topics)[1]
            sent = await producer.send_batch(batch, topic, partition=PARTITION)
            await producer.send_and_wait(topic, b"{}", b"k", partition=PARTITION, timestamp_ms=TIMESTAMP_MS)
            await sent
        return await read(embedded_settings.broker, topic, rows + 1)

    assert asyncio.run(run()) == [*expected(results)[1], (b"k", b"{}", TIMESTAMP_MS)]
