"""What goes into a transaction, in which order, and what becomes of it where a part fails."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import OffsetAndMetadata

from stream.config import Cluster
from stream.transactions import Checkpoint, Transactions, let_group_in_early

TICKS, RISK = TopicPartition("ticks", 0), TopicPartition("risk", 0)


class Kafka:
    """What Transactions need of aiokafka's producer; each batch and offset is acknowledged when it is told to."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.batches: list[asyncio.Future[None]] = []
        self.offsets: list[asyncio.Future[None]] = []
        self.acknowledges = True
        self.client = SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic=lambda _: {0}))
        self._sender = SimpleNamespace(sender_task=None)

    async def begin_transaction(self) -> None:
        """Noted."""
        self.told.append("begin")

    async def commit_transaction(self) -> None:
        """Noted."""
        self.told.append("commit")

    async def abort_transaction(self) -> None:
        """Noted."""
        self.told.append("abort")

    async def stop(self) -> None:
        """Nothing to close."""

    async def send_batch(self, batch: str, topic: str, *, partition: int) -> asyncio.Future[None]:
        """Queued."""
        assert (topic, partition) == ("risk", 0)
        self.told.append(batch)
        return self._answer(self.batches)

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, int], group: str) -> None:
        """Ends when it is acknowledged."""
        assert group == "g"
        self.told.append(offsets[TICKS])
        await asyncio.shield(self._answer(self.offsets))

    def _answer(self, kept: list[asyncio.Future[None]]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.acknowledges:
            future.set_result(None)
        kept.append(future)
        return future


def play(scene: Callable[[Kafka, Transactions], Awaitable[None]]) -> Kafka:
    """A scene with transactions that write to a Kafka of its own, and the stop that follows."""

    async def run() -> Kafka:
        kafka, transactions = Kafka(), Transactions(Cluster("localhost:9092"), "g", TICKS, 0.1)
        transactions._producer = kafka
        transactions._writer = asyncio.create_task(transactions._write())
        try:
            await scene(kafka, transactions)
        finally:
            await transactions.stop()
        await settle()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"left behind: {others}"
        return kafka

    return asyncio.run(run())


def checkpoint(offset: int | None) -> Checkpoint:
    return Checkpoint("state", (), TICKS, offset, 0)


async def sent(transactions: Transactions, batch: str) -> None:
    await (await transactions.send("risk", 0, batch))


async def settle() -> None:
    """Let everything go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_transaction_ends_with_its_offset_and_one_without_an_offset_leaves_what_was_committed() -> None:
    async def scene(_: Kafka, transactions: Transactions) -> None:
        await sent(transactions, "a")
        await transactions.commit(checkpoint(5))
        await sent(transactions, "b")
        await sent(transactions, "c")
        await transactions.commit(checkpoint(9))
        await sent(transactions, "d")
        await transactions.commit(checkpoint(None))
        await sent(transactions, "e")

    assert " ".join(map(str, play(scene).told)) == ("begin a 5 commit begin b c 9 commit begin d commit begin e abort")


def test_without_results_only_the_offset_of_the_commit_is_sent() -> None:
    async def scene(_: Kafka, transactions: Transactions) -> None:
        await transactions.commit(checkpoint(5))
        await transactions.commit(checkpoint(6))

    assert play(scene).told == ["begin", 5, "commit", "begin", 6, "commit"]


@pytest.mark.parametrize("last", ["batch", "offset"])
def test_the_offset_goes_with_the_last_results_and_the_end_waits_until_all_is_acknowledged(last: str) -> None:
    async def scene(kafka: Kafka, transactions: Transactions) -> None:
        await transactions.commit(checkpoint(5))
        kafka.told.clear()
        kafka.acknowledges = False
        await transactions.send("risk", 0, "a")
        await transactions.send("risk", 0, "b")
        committing = transactions.commit(checkpoint(9))
        await settle()
        parts = [*kafka.batches, kafka.offsets[-1]]
        for part in parts if last == "offset" else reversed(parts):
            assert kafka.told == ["begin", "a", "b", 9]
            assert not committing.done()
            part.set_result(None)
            await settle()
        await committing
        assert kafka.told == ["begin", "a", "b", 9, "commit"]

    play(scene)


@pytest.mark.parametrize("refused", ["batch", "offset"])
def test_where_a_part_is_refused_nothing_of_the_transaction_is_committed_and_nothing_after_it(refused: str) -> None:
    async def scene(kafka: Kafka, transactions: Transactions) -> None:
        await transactions.commit(checkpoint(5))
        kafka.told.clear()
        kafka.acknowledges = False
        await transactions.send("risk", 0, "a")
        committing = transactions.commit(checkpoint(9))
        await settle()
        (kafka.batches[0] if refused == "batch" else kafka.offsets[-1]).set_exception(ProducerFenced())
        with pytest.raises(ProducerFenced):
            await committing
        with pytest.raises(ProducerFenced):
            await (await transactions.send("risk", 0, "b"))
        with pytest.raises(KafkaError):
            await transactions.commit(checkpoint(12))

    told = play(scene).told
    assert "commit" not in told
    assert "b" not in told


def test_a_stop_aborts_what_is_open_and_waits_for_no_answer() -> None:
    async def scene(kafka: Kafka, transactions: Transactions) -> None:
        await transactions.commit(checkpoint(5))
        kafka.acknowledges = False
        await transactions.send("risk", 0, "a")
        transactions.commit(checkpoint(9))
        await settle()

    assert play(scene).told == ["begin", 5, "commit", "begin", "a", 9, "abort"]


def test_the_group_is_named_once_results_are_in_and_never_twice() -> None:
    async def scene() -> None:
        manager = TransactionManager("g-ticks-0", 1000)
        let_group_in_early(manager, "g")
        manager.set_pid_and_epoch(1, 0)
        for _ in range(2):
            manager.begin_transaction()
            assert manager.consumer_group_to_add() is None, "nothing is in the transaction yet"
            manager.maybe_add_partition_to_txn(RISK)
            assert manager.consumer_group_to_add() is None, "the partition goes first"
            manager.partition_added(RISK)
            assert manager.consumer_group_to_add() == "g"
            manager.consumer_group_added("g")
            assert manager.consumer_group_to_add() is None
            manager.committing_transaction()
            manager.complete_transaction()

    asyncio.run(scene())


def test_without_results_the_group_is_named_with_the_offset_and_to_an_abort_not_at_all() -> None:
    async def scene() -> None:
        manager = TransactionManager("g-ticks-0", 1000)
        let_group_in_early(manager, "g")
        manager.set_pid_and_epoch(1, 0)
        manager.begin_transaction()
        manager.add_offsets_to_txn({TICKS: OffsetAndMetadata(5, "")}, "g")
        assert manager.consumer_group_to_add() == "g"
        manager.consumer_group_added("g")
        manager.offset_committed(TICKS, 5, "g")
        manager.committing_transaction()
        manager.complete_transaction()
        manager.begin_transaction()
        manager.maybe_add_partition_to_txn(RISK)
        manager.partition_added(RISK)
        manager.aborting_transaction()
        assert manager.consumer_group_to_add() is None

    asyncio.run(scene())
