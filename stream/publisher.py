"""Puts results on their topics: whole batches, in order, acknowledged by every replica."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, NodeNotReadyError, ProducerFenced

from stream import security
from stream.config import Cluster
from stream.errors import PublishFailed
from stream.requests import without_copies
from stream.topics import MAX_MESSAGE_BYTES

MAX_BATCH_BYTES: Final = 1_048_576 - 512  # Kafka's default max.message.bytes is 1 MiB and 12 bytes, the header included
# What our topic of rejects takes, less room for key, headers and the batch's own.
MAX_RAW_BYTES: Final = MAX_MESSAGE_BYTES - 65_536
MAX_KEY_BYTES: Final = 32_768  # a longer key of a refused message is left out

CLOSE_SECONDS: Final = 5.0
DELIVERY_SECONDS: Final = 3600.0
METADATA_MS: Final = 5000  # after so long partitions that were added are known; Java's clients take five minutes
UNKNOWN_SECONDS: Final = 10.0  # so long is asked for a partition that nobody knows, as one that was added just now
UNKNOWN_AGAIN_SECONDS: Final = 0.2

Header = tuple[str, bytes]


class Batch(Protocol):
    """A finished record batch that knows where it goes; encoding.PackedBatch is one."""

    topic: str

    def record_count(self) -> int:
        """Records in the batch."""


class Record(NamedTuple):
    """One message to be put in a small batch."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


def rejected_record(partition: int, offset: int, key: bytes | None, raw: bytes, reason: str, rule: str) -> Record:
    """A refused message as it goes to the topic of rejects.

    The value is the message as it was, the key too; headers, UTF-8 text: reason, rule, partition, offset. What is
    longer than the topic takes is cut, and the header `bytes` then says how long the value was.
    """
    headers = [
        ("reason", reason.encode()),
        ("rule", rule.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(offset).encode()),
    ]
    if len(raw) > MAX_RAW_BYTES:
        headers.append(("bytes", str(len(raw)).encode()))
        raw = raw[:MAX_RAW_BYTES]
    if key is not None and len(key) > MAX_KEY_BYTES:
        key = None
    return Record(key, raw, headers)


Lookup = Callable[[Any, str], Awaitable[int]]


def tried_again(lookup: Lookup) -> Lookup:
    """aiokafka's search for a coordinator, so that a broker that dies during it, or is only starting, is waited for.

    aiokafka 0.14 looks again where a connection is not there, but ends the producer, and with it our worker, where one
    breaks between question and answer, or where the broker answers that it is loading (Sender._find_coordinator).
    All of them pass, so they are told as the first.
    """

    async def patient(kind: Any, key: str) -> int:
        try:
            return await lookup(kind, key)
        except KafkaError as error:
            if not error.retriable:
                raise
            raise NodeNotReadyError(repr(error)) from error

    return patient


class Publisher:
    """The worker's producer.

    Idempotent, so that a batch that is sent again after a lost answer is stored once and in its place. One request
    is in flight for each broker, and of each partition one batch a request, so batches of a partition keep the order
    in which `send` was called.
    """

    def __init__(self, cluster: Cluster, client_id: str = "tapewatch", **options: Any) -> None:
        self._cluster = cluster
        self._client_id = client_id
        self._options = options  # aiokafka's
        self._producer: AIOKafkaProducer | None = None

    async def start(self, topics: Iterable[str]) -> None:
        """Connect, and learn where the partitions of `topics` are.

        Raises
        ------
        KafkaError
            If no broker answers.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._cluster.broker.split(","),
            **security.python_options(self._cluster.security),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            request_timeout_ms=30_000,
            metadata_max_age_ms=METADATA_MS,
            **self._options,
        )
        self._producer = producer  # before it has started: `stop` closes it in any case
        producer.client.coordinator_lookup = tried_again(producer.client.coordinator_lookup)
        producer.client._get_conn = without_copies(producer.client._get_conn)
        # aiokafka gives a batch up whose partition has had no leader for `request_timeout_ms`. Two of three brokers may
        # be away for longer; a topic that was deleted is noticed by `presence`.
        producer._message_accumulator._batch_ttl = DELIVERY_SECONDS
        await producer.start()
        for topic in topics:
            await producer.partitions_for(topic)

    async def stop(self) -> None:
        """Send what waits, and close; a broker that does not answer is not waited for."""
        if self._producer is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._producer.stop()
            self._producer = None

    def abandon(self, error: Exception) -> None:
        """Give up what is on its way, and what comes: whoever waits for it gets `error`."""
        if self._producer is not None:
            self._producer._message_accumulator.fail_all(error)

    async def send(self, topic: str, partition: int, batch: Any) -> asyncio.Future[Any]:
        """Queue a finished batch; waits while an earlier one for the same partition has not left yet.

        Returns
        -------
        Future
            Done when the broker has acknowledged the batch, after the client's own retries; else a KafkaError.

        Raises
        ------
        PublishFailed
            If the batch cannot even be queued.
        ProducerFenced
            If another worker has taken the partition over.
        """
        assert self._producer is not None, "start() comes first"
        await self._await_partition(topic, partition)
        try:
            future = await self._queued(topic, partition, batch)
        except ProducerFenced:
            raise
        except KafkaError as error:
            raise PublishFailed(f"cannot publish to topic {topic}, partition {partition}: {error!r}") from None
        return future

    async def _queued(self, topic: str, partition: int, batch: Any) -> asyncio.Future[Any]:
        """As aiokafka's, which gives up after `request_timeout_ms`: a broker may be away for longer."""
        while True:
            assert self._producer is not None
            with contextlib.suppress(KafkaTimeoutError):
                future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
                return future

    async def _await_partition(self, topic: str, partition: int) -> None:
        """Ask until the client knows the partition: aiokafka asserts that it does, and asks only now and then."""
        assert self._producer is not None
        client, end = self._producer.client, time.monotonic() + UNKNOWN_SECONDS
        while partition not in (known := client.cluster.partitions_for_topic(topic) or ()):
            if time.monotonic() > end:
                raise PublishFailed(
                    f"topic {topic} has no partition {partition}: it has {len(known)}, and results go to the partition "
                    "of their tick; give it as many as the topic of ticks, and start again"
                )
            await client.force_metadata_update()
            await asyncio.sleep(UNKNOWN_AGAIN_SECONDS)

    async def send_records(
        self, topic: str, partition: int, records: Sequence[Record], timestamp_ms: int
    ) -> list[asyncio.Future[Any]]:
        """Queue `records`, in batches of at most MAX_BATCH_BYTES; a larger record gets a batch of its own.

        Returns and raises as `send`.
        """
        return [await self.send(topic, partition, batch) for batch in self._packed(records, timestamp_ms)]

    def _packed(self, records: Sequence[Record], timestamp_ms: int) -> Iterator[Any]:
        assert self._producer is not None, "start() comes first"
        batch = None
        for record in records:
            if batch is None or not self._append(batch, record, timestamp_ms):
                if batch is not None:
                    yield batch
                batch = self._producer.create_batch()
                self._append(batch, record, timestamp_ms)
        if batch is not None:
            batch.close()
            yield batch

    @staticmethod
    def _append(batch: Any, record: Record, timestamp_ms: int) -> bool:
        return (
            batch.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=list(record.headers))
            is not None
        )
