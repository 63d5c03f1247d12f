"""Kafka clients for everything outside the worker: who answers at an address, and clients made to suit it.

kafka-python produces and makes topics. Consumers for people to look at are librdkafka's (confluent-kafka): the demo
counts every result while it draws, and librdkafka fetches in threads of its own.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import confluent_kafka
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from stream.errors import BrokerUnreachable

PROBE_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.1
# A broker that has just started, or a group that has never been, has no coordinator at once.
_COORDINATOR_ON_ITS_WAY: Final = (
    confluent_kafka.KafkaError.NOT_COORDINATOR,
    confluent_kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
    confluent_kafka.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
LOOKERS: Final = "tapewatch-look"  # librdkafka wants a group, though nothing joins it
_API_VERSIONS: Final = 18
_CREATE_TOPICS: Final = 19
# librdkafka's mock cluster answers an ApiVersions request newer than v2 with bytes that kafka-python cannot read,
# and (2, 3) is the newest protocol set for which kafka-python asks with v2. Kafka itself is asked what it speaks.
_EMBEDDED_API: Final = (2, 3)


def is_embedded(broker: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the embedded broker answers at `broker` (it knows no CreateTopics call), rather than Kafka.

    Raises
    ------
    BrokerUnreachable
        If nothing that speaks the Kafka protocol answers at any address of `broker`.
    """
    problem: OSError | struct.error | None = None
    for address in broker.split(","):
        try:
            return _CREATE_TOPICS not in _api_keys(address, seconds)
        except (OSError, struct.error) as error:
            problem = error
    raise BrokerUnreachable(unreachable(broker, str(problem)))


def unreachable(broker: str, why: str) -> str:
    """One line for a person: what does not answer, and what to do."""
    return (
        f"no Kafka broker answers at {broker} ({why}); start one with `tapewatch broker`, or name yours with "
        "--broker HOST:PORT"
    )


def _api_keys(address: str, seconds: float) -> set[int]:
    """Calls the broker knows: an ApiVersions request v0, whose layout every version of Kafka answers."""
    host, _, port = address.rpartition(":")
    request = struct.pack(">hhih", _API_VERSIONS, 0, 1, -1)
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (length,) = struct.unpack(">i", stream.read(4))
            answer = stream.read(min(length, 65_536))
    _, error, count = struct.unpack_from(">ihi", answer)
    if error or not 0 < count < 1000:
        raise struct.error(f"ApiVersions answered with error {error}")
    return {struct.unpack_from(">hhh", answer, 10 + 6 * i)[0] for i in range(count)}


def producer(broker: str, **options: Any) -> KafkaProducer:
    """A kafka-python producer for `broker`.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    """
    return _kafka_python(KafkaProducer, broker, options)


@contextlib.contextmanager
def admin(broker: str) -> Iterator[KafkaAdminClient]:
    """A kafka-python admin client for `broker`; raises BrokerUnreachable if no broker answers."""
    client = _kafka_python(KafkaAdminClient, broker, {})
    try:
        yield client
    finally:
        client.close()


def _kafka_python(kind: Any, broker: str, options: dict[str, Any]) -> Any:
    api = {"api_version": _EMBEDDED_API} if is_embedded(broker) else {}
    try:
        return kind(bootstrap_servers=broker.split(","), **api, **options)
    except KafkaError as error:
        raise BrokerUnreachable(unreachable(broker, str(error))) from None


def consumer(
    broker: str, on_error: Callable[[confluent_kafka.KafkaError], None], group: str = LOOKERS
) -> confluent_kafka.Consumer:
    """A librdkafka consumer for `broker` to assign partitions to; nothing is committed by itself.

    `on_error` is called from `poll` with what librdkafka tells of the connection; it tries again by itself. `group`
    matters only to who commits.
    """
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": group,
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
            "auto.offset.reset": "earliest",
            # The embedded broker answers a waiting fetch only when this time has passed; Kafka when there is data.
            "fetch.wait.max.ms": 5,
            "error_cb": on_error,
            "log_level": 0,
        }
    )


def committed(broker: str, group: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """Committed offset of each partition for a group; 0 where there is none.

    Raises
    ------
    KafkaException
        If the broker does not answer.
    """
    asker = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": group, "log_level": 0})
    wanted = [confluent_kafka.TopicPartition(topic, partition) for partition in partitions]
    end = time.monotonic() + PROBE_SECONDS
    try:
        while True:
            try:
                return {each.partition: max(0, each.offset) for each in asker.committed(wanted, PROBE_SECONDS)}
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() not in _COORDINATOR_ON_ITS_WAY or time.monotonic() > end:
                    raise
                time.sleep(RETRY_SECONDS)
    finally:
        asker.close()
