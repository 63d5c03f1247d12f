"""Real brokers for the tests: one Kafka for the whole run, an embedded one for each test that asks."""

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from stream.broker import EmbeddedBroker, KafkaBroker
from stream.config import Settings, Topics


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """Apache Kafka on free ports of 127.0.0.1, for the whole run; use topics of your own."""
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    """A new embedded broker."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def own_topics() -> Topics:
    """Topic names that no other test uses."""
    tag = uuid.uuid4().hex[:8]
    return Topics(
        ticks=f"{tag}.ticks",
        predictions=f"{tag}.predictions",
        risk=f"{tag}.risk",
        actions=f"{tag}.actions",
        alerts=f"{tag}.alerts",
        rejected=f"{tag}.rejected",
        state=f"{tag}.state",
        truth=f"{tag}.truth",
        audit=f"{tag}.audit",
    )


@pytest.fixture
def kafka_settings(kafka: KafkaBroker, own_topics: Topics) -> Settings:
    """Settings for the real Kafka with topics of one's own, which are not there yet."""
    return Settings(broker=kafka.address, topics=own_topics)


@pytest.fixture
def embedded_settings(embedded: EmbeddedBroker, own_topics: Topics) -> Settings:
    """Settings for the embedded broker with topics of one's own."""
    return Settings(broker=embedded.address, topics=own_topics)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, for at most 60 seconds."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.02)

    return wait
