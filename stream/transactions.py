"""One partition's producer, whose transactions no other worker can take part in: checkpoints, and exactly-once results.

Its transactional id names the group and the partition of ticks, so that the partition's new owner, by starting its
own, fences the old one: whatever that one still sends, Kafka refuses. (aiokafka sends no group generation with the
offsets of a transaction, so that is what keeps a worker that was stopped and goes on from doing harm.)
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.producer.transaction_manager import TransactionManager

from stream.config import Cluster
from stream.errors import PublishFailed
from stream.publisher import Publisher, Record

# A transaction that stays open longer is aborted by Kafka, and its producer fenced. Nobody can read past an open one,
# so this is also how long a worker that died can hold readers up, if no other takes its partitions. A coordinator that
# is away for half a minute, and then reads its log, is waited for.
LEAST_TIMEOUT_SECONDS: Final = 90.0
MOST_TIMEOUT_SECONDS: Final = 900.0  # Kafka's default transaction.max.timeout.ms
STOP_SECONDS: Final = 5.0
# Kafka's verification of transactions (KIP-890) answers the first batch to a partition in each transaction of a client
# as old as aiokafka with NOT_ENOUGH_REPLICAS; the client tries again after so long.
RETRY_MS: Final = 5


class Checkpoint(NamedTuple):
    """What a transaction ends with: the snapshots, and the offset below which all ticks are done."""

    topic: str  # of the snapshots
    pieces: Iterable[list[Record]]  # of a size that does not hold the loop up
    ticks: TopicPartition
    offset: int | None  # None: what was committed stays so
    timestamp_ms: int


class Transactions(Publisher):
    """Everything that is sent goes into the transaction that the next `commit` ends.

    What is sent while a commit is under way waits in a queue, in order, so the caller never waits.
    """

    def __init__(self, cluster: Cluster, group: str, ticks: TopicPartition, interval_seconds: float) -> None:
        name = f"{group}-{ticks.topic}-{ticks.partition}"
        timeout = min(MOST_TIMEOUT_SECONDS, LEAST_TIMEOUT_SECONDS + 2 * interval_seconds)
        super().__init__(
            cluster, name, transactional_id=name, transaction_timeout_ms=int(1000 * timeout), retry_backoff_ms=RETRY_MS
        )
        self._group = group
        self._steps: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = asyncio.Queue()
        self._open: list[asyncio.Future[Any]] = []  # batches of the transaction that is open
        self._in_transaction = False
        self.waiting = False  # something was sent that no commit has been asked for yet
        self._writer: asyncio.Task[None] | None = None

    async def start(self, topics: Iterable[str]) -> None:
        """Connect and fence any earlier producer of the partition; its open transaction is aborted.

        What it has committed can be read from now on, and it can add nothing.
        """
        await super().start(topics)
        assert self._producer is not None
        let_group_in_early(self._producer._txn_manager, self._group)
        self._writer = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Abort what is open, and close."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
            self._writer = None
        while not self._steps.empty():
            _, promise = self._steps.get_nowait()
            promise.cancel()
        # A broker that is away, an epoch that is over; and aiokafka asserts that a transaction can still be aborted.
        with contextlib.suppress(TimeoutError, KafkaError, AssertionError):
            async with asyncio.timeout(STOP_SECONDS):
                if self._in_transaction and self._producer is not None:
                    await self._producer.abort_transaction()
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(STOP_SECONDS):
                await super().stop()

    def abandon(self, error: Exception) -> None:
        """As a publisher's; the transaction that is open will not be committed."""
        super().abandon(error)
        if self._producer is not None and self._in_transaction:
            self._producer._txn_manager.fatal_error(error)

    async def send(self, topic: str, partition: int, batch: Any) -> asyncio.Future[Any]:
        """Queue a finished batch, at once.

        Returns
        -------
        Future
            Done when the broker has acknowledged the batch: visible it is after the next `commit`. Else a KafkaError,
            ProducerFenced where another worker has the partition now, or PublishFailed.
        """
        self.waiting = True
        return self._queue(lambda: self._send(topic, partition, batch))

    def commit(self, checkpoint: Checkpoint) -> asyncio.Future[Any]:
        """End the transaction after everything sent so far, with snapshots and the offset.

        Returns
        -------
        Future
            Done when Kafka has committed all of it; errors as in `send`, and then nothing of it is.
        """
        self.waiting = False
        return self._queue(lambda: self._commit(checkpoint))

    def _queue(self, step: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        promise: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        promise.add_done_callback(_look_at)
        self._steps.put_nowait((step, promise))
        return promise

    async def _write(self) -> None:
        failure: Exception | None = None
        while True:
            step, promise = await self._steps.get()
            try:
                if failure is not None:
                    raise failure
                outcome = await step()
            except asyncio.CancelledError:
                promise.cancel()
                raise
            except Exception as error:  # noqa: BLE001  whoever waits for the promise tells of it
                failure = self._cause(error)
                if not promise.done():
                    promise.set_exception(failure)
            else:
                _pass_on(outcome, promise)

    async def _send(self, topic: str, partition: int, batch: Any) -> asyncio.Future[Any]:
        await self._begin()
        future = await super().send(topic, partition, batch)
        future.add_done_callback(_look_at)
        self._open.append(future)
        return future

    async def _begin(self) -> None:
        if not self._in_transaction:
            assert self._producer is not None, "start() comes first"
            await self._producer.begin_transaction()
            self._in_transaction = True

    async def _commit(self, checkpoint: Checkpoint) -> None:
        await self._begin()
        for piece in checkpoint.pieces:
            for batch in self._packed(piece, checkpoint.timestamp_ms):
                await self._send(checkpoint.topic, checkpoint.ticks.partition, batch)
            await asyncio.sleep(0)
        assert self._producer is not None
        offset = asyncio.create_task(self._add_offset(checkpoint))
        try:
            # aiokafka would commit what it could send and leave out what was refused.
            await asyncio.gather(*self._open, offset)
        finally:
            offset.cancel()
        await self._producer.commit_transaction()
        self._in_transaction = False
        self._open.clear()

    async def _add_offset(self, checkpoint: Checkpoint) -> None:
        assert self._producer is not None
        if checkpoint.offset is not None:
            await self._producer.send_offsets_to_transaction({checkpoint.ticks: checkpoint.offset}, self._group)

    def _cause(self, error: Exception) -> Exception:
        """The error that ended aiokafka's sender, where one has: those that follow from it say less."""
        task = self._producer._sender.sender_task if self._producer is not None else None
        if task is not None and task.done() and not task.cancelled():
            return task.exception() or error
        if isinstance(error, KafkaError | PublishFailed):
            return error
        return PublishFailed(f"cannot go on with the transaction of {self._client_id}: {error!r}")


def is_fenced(error: BaseException) -> bool:
    """Whether another producer with the same transactional id has taken over."""
    return isinstance(error, ProducerFenced)


def let_group_in_early(manager: TransactionManager, group: str) -> None:
    """Have aiokafka name the group to a transaction with its first results, not only with the offset at its end.

    Else the end waits for one request more (AddOffsetsToTxn). That by itself makes no offset pending, so that whoever
    asks for the group's stable offsets is answered. A transaction without results names it with the offset, as ever.
    """
    asked_with_offset = manager.consumer_group_to_add

    def asked() -> str | None:
        early = manager.is_in_transaction() and manager.txn_partitions and manager._txn_consumer_group is None
        return group if early else asked_with_offset()

    manager.consumer_group_to_add = asked


def _look_at(future: asyncio.Future[Any]) -> None:
    """Whoever waits gets the error too; who has stopped waiting need not read of it in the log."""
    if not future.cancelled():
        future.exception()


def _pass_on(outcome: Any, promise: asyncio.Future[Any]) -> None:
    if not isinstance(outcome, asyncio.Future):
        if not promise.done():
            promise.set_result(outcome)
        return

    def copy(future: asyncio.Future[Any]) -> None:
        if promise.done():
            return
        if future.cancelled():
            promise.cancel()
        elif (error := future.exception()) is not None:
            promise.set_exception(error)
        else:
            promise.set_result(future.result())

    outcome.add_done_callback(copy)
