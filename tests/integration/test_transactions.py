"""One partition's transactions on a real Kafka."""

import asyncio

from aiokafka import TopicPartition

from stream import clients, topics
from stream.config import Settings
from stream.publisher import Record
from stream.transactions import Checkpoint, Transactions
from tests.integration.conftest import own_worker

PATIENCE_SECONDS = 20.0


def test_a_group_that_is_let_in_with_the_first_result_has_no_offset_pending(kafka_settings: Settings) -> None:
    settings = own_worker(kafka_settings, delivery="exactly_once")
    topics.create(settings)
    ticks = TopicPartition(settings.topics.ticks, 0)

    async def committed() -> dict[int, int]:
        """As anybody sees it who wants stable offsets; raises KafkaException while one is pending."""
        return await asyncio.to_thread(clients.committed, settings.cluster, settings.worker.group, ticks.topic, [0])

    async def scene(transactions: Transactions) -> None:
        for offset in (5, 9):
            before = await committed()
            for future in await transactions.send_records(settings.topics.risk, 0, [Record(b"S", b"{}")], 0):
                await future
            assert transactions._producer is not None
            manager = transactions._producer._txn_manager
            while manager._txn_consumer_group != settings.worker.group:  # noqa: ASYNC110  aiokafka tells nobody
                await asyncio.sleep(0.005)
            assert await committed() == before
            await transactions.commit(Checkpoint(settings.topics.state, (), ticks, offset, 0))
            assert await committed() == {0: offset}

    async def run() -> None:
        transactions = Transactions(settings.cluster, settings.worker.group, ticks, 0.1)
        await transactions.start([settings.topics.risk, settings.topics.state])
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await scene(transactions)
        finally:
            await transactions.stop()

    asyncio.run(run())
