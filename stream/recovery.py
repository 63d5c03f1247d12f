"""Reads the newest snapshot of each instrument from the topic of snapshots, before the first tick of a partition."""

import logging
import time
from collections.abc import Collection
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream import security
from stream.config import Cluster
from stream.errors import WorkerFailed
from stream.sealed import Stored
from stream.transport import arrival, consume

FETCH_BYTES: Final = 8 * 1_048_576  # a partition and fetch
PROGRESS_SECONDS: Final = 1.0
log = logging.getLogger("tapewatch.worker")

Newest = dict[bytes, Stored]


async def read(
    cluster: Cluster, topic: str, partitions: Collection[int], group: str, seconds: float
) -> dict[int, list[Stored]]:
    """The newest snapshot of each instrument of some partitions, committed ones only.

    Parameters
    ----------
    group
        Whose snapshots: other groups may keep theirs on the same topic.
    seconds
        After so long without anything read it is given up.

    Raises
    ------
    WorkerFailed
        If the topic cannot be read to its end.
    """
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    consumer = _consumer(cluster, group)
    try:
        await consumer.start()
        consumer.assign(wanted)
        await consumer.seek_to_beginning()
        found = await _read_to(consumer, await consumer.end_offsets(wanted), f"{group}\0".encode(), seconds)
    except (KafkaError, TimeoutError) as error:
        raise WorkerFailed(f"cannot read the snapshots on topic {topic} at {cluster.broker}: {error!r}") from None
    finally:
        await consumer.stop()
    return {tp.partition: list(newest.values()) for tp, newest in found.items()}


async def spans(cluster: Cluster, topic: str, partitions: Collection[int], group: str) -> dict[int, tuple[int, int]]:
    """The first offset of each partition that is still there, and that behind the last one.

    Raises
    ------
    WorkerFailed
        If Kafka does not tell.
    """
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    consumer = _consumer(cluster, group)
    try:
        await consumer.start()
        first, end = await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)
    except (KafkaError, TimeoutError) as error:
        raise WorkerFailed(f"cannot learn where topic {topic} begins at {cluster.broker}: {error!r}") from None
    finally:
        await consumer.stop()
    return {tp.partition: (first[tp], end[tp]) for tp in wanted}


def _consumer(cluster: Cluster, group: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=cluster.broker.split(","),
        **security.python_options(cluster.security),
        client_id=f"{group}-recovery",
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=FETCH_BYTES,
        auto_offset_reset="earliest",
    )


async def _read_to(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], prefix: bytes, seconds: float
) -> dict[TopicPartition, Newest]:
    found: dict[TopicPartition, Newest] = {tp: {} for tp in ends}
    left = {tp for tp, end in ends.items() if await consumer.position(tp) < end}
    fetcher = consumer._fetcher
    told, count = time.monotonic(), 0
    with fetcher._subscriptions.fetch_context():
        while left:
            for tp in list(fetcher._records):
                columns = consume(fetcher, tp)
                if columns is None:
                    continue
                count += len(columns.offsets)
                _take(found[tp], columns.keys, columns.values, columns.offsets, prefix)
                if columns.next_offset >= ends[tp]:
                    left.discard(tp)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                log.info("recovering records=%d partitions_left=%d", count, len(left))
            if left and not fetcher._records and not await arrival(fetcher, seconds):
                raise TimeoutError(f"nothing came for {seconds:g} s")
    return found


def _take(
    newest: Newest, keys: list[bytes | None], values: list[bytes | None], offsets: list[int], prefix: bytes
) -> None:
    for key, value, offset in zip(keys, values, offsets, strict=True):
        if key is None or not key.startswith(prefix):
            continue
        if value is None:
            newest.pop(key, None)
        else:
            newest[key] = Stored(key, value, offset)
