"""Kafka clients for everything outside the worker: who answers at an address, and clients made to suit it.

kafka-python produces and makes topics. Consumers for people to look at are librdkafka's (confluent-kafka): the demo
counts every result while it draws, and librdkafka fetches in threads of its own.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import confluent_kafka
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from stream import probe, security
from stream.config import Cluster
from stream.errors import BrokerUnreachable
from stream.probe import unreachable as unreachable

RETRY_SECONDS: Final = 0.1
# A broker that has just started, or a group that has never been, has no coordinator at once.
_COORDINATOR_ON_ITS_WAY: Final = (
    confluent_kafka.KafkaError.NOT_COORDINATOR,
    confluent_kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
    confluent_kafka.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
LOOKERS: Final = "tapewatch-look"  # librdkafka wants a group, though nothing joins it
_CREATE_TOPICS: Final = 19
# librdkafka's mock cluster answers an ApiVersions request newer than v2 with bytes that kafka-python cannot read,
# and (2, 3) is the newest protocol set for which kafka-python asks with v2. Kafka itself is asked what it speaks.
_EMBEDDED_API: Final = (2, 3)


def is_embedded(cluster: Cluster, seconds: float = probe.PROBE_SECONDS) -> bool:
    """Whether the embedded broker answers (it knows no CreateTopics call), rather than Kafka.

    Raises
    ------
    BrokerUnreachable
        If nothing that speaks the Kafka protocol answers at any address of the cluster.
    NotAdmitted
        If it does not let us in.
    """
    return _CREATE_TOPICS not in probe.calls(cluster, seconds)


def librdkafka(cluster: Cluster) -> dict[str, Any]:
    """The options that every client of confluent-kafka needs; it writes no lines of its own."""
    return {"bootstrap.servers": cluster.broker, "log_level": 0, **security.librdkafka_options(cluster.security)}


def producer(cluster: Cluster, **options: Any) -> KafkaProducer:
    """A kafka-python producer.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    """
    return _kafka_python(KafkaProducer, cluster, options)


@contextlib.contextmanager
def admin(cluster: Cluster) -> Iterator[KafkaAdminClient]:
    """A kafka-python admin client; raises BrokerUnreachable if no broker answers."""
    client = _kafka_python(KafkaAdminClient, cluster, {})
    try:
        yield client
    finally:
        client.close()


def _kafka_python(kind: Any, cluster: Cluster, options: dict[str, Any]) -> Any:
    api = {"api_version": _EMBEDDED_API} if is_embedded(cluster) else {}
    access = security.python_options(cluster.security)
    try:
        return kind(bootstrap_servers=cluster.broker.split(","), **access, **api, **options)
    except KafkaError as error:
        raise BrokerUnreachable(unreachable(cluster.broker, str(error))) from None


def consumer(
    cluster: Cluster, on_error: Callable[[confluent_kafka.KafkaError], None], group: str = LOOKERS
) -> confluent_kafka.Consumer:
    """A librdkafka consumer to assign partitions to; nothing is committed by itself.

    `on_error` is called from `poll` with what librdkafka tells of the connection; it tries again by itself. `group`
    matters only to who commits.
    """
    return confluent_kafka.Consumer(
        {
            **librdkafka(cluster),
            "group.id": group,
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "auto.offset.reset": "earliest",
            # The embedded broker answers a waiting fetch only when this time has passed; Kafka when there is data.
            "fetch.wait.max.ms": 5,
            "error_cb": on_error,
        }
    )


def committed(cluster: Cluster, group: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """Committed offset of each partition for a group; 0 where there is none.

    Raises
    ------
    KafkaException
        If the broker does not answer.
    """
    asker = confluent_kafka.Consumer({**librdkafka(cluster), "group.id": group})
    wanted = [confluent_kafka.TopicPartition(topic, partition) for partition in partitions]
    end = time.monotonic() + probe.PROBE_SECONDS
    try:
        while True:
            try:
                return {each.partition: max(0, each.offset) for each in asker.committed(wanted, probe.PROBE_SECONDS)}
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() not in _COORDINATOR_ON_ITS_WAY or time.monotonic() > end:
                    raise
                time.sleep(RETRY_SECONDS)
    finally:
        asker.close()
