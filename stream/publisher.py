"""Puts results on their topics: whole batches, in order, acknowledged by every replica."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, ProducerFenced

from stream import security
from stream.config import Cluster
from stream.errors import PublishFailed
from stream.requests import without_copies
from stream.topics import MAX_MESSAGE_BYTES

MAX_BATCH_BYTES: Final = 1_048_576 - 512  # Kafka's default max.message.bytes is 1 MiB and 12 bytes, the header included
# What our topic of rejects takes, less room for key, headers and the batch's own.
MAX_RAW_BYTES: Final = MAX_MESSAGE_BYTES - 65_536
MAX_KEY_BYTES: Final = 32_768  # a longer key of a refused message is left out

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
    """aiokafka's search for a coordinator, so that a broker that dies during it is waited for.

    aiokafka 0.14 looks again where a connection is not there, but ends the producer, and with it our worker, where one
    breaks between question and answer (Sender._find_coordinator). Both mean the same, so the second is told as the
    first.
    """

    async def patient(kind: Any, key: str) -> int:
        try:
            return await lookup(kind, key)
        except KafkaConnectionError as error:
            raise NodeNotReadyError(str(error)) from error

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
            # Also how long a batch is tried for: Kafka is back 12 s after a kill with its default settings.
            request_timeout_ms=30_000,
            **self._options,
        )
        self._producer = producer  # before it has started: `stop` closes it in any case
        producer.client.coordinator_lookup = tried_again(producer.client.coordinator_lookup)
        producer.client._get_conn = without_copies(producer.client._get_conn)
        await producer.start()
        for topic in topics:
            await producer.partitions_for(topic)

    async def stop(self) -> None:
        """Send what waits, and close."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

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
        try:
            future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        except ProducerFenced:
            raise
        except (KafkaError, AssertionError) as error:  # aiokafka asserts that the partition exists
            raise PublishFailed(f"cannot publish to topic {topic}, partition {partition}: {error!r}") from None
        return future

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
