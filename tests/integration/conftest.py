"""Real brokers for the tests: one Kafka for the whole run, an embedded one for each test that asks."""

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from stream import topics
from stream.broker import EmbeddedBroker, KafkaBroker, free_ports
from stream.children import Child
from stream.config import ROOT, Settings, Topics, Worker
from stream.messages import encode

StartModule = Callable[..., Child]


def own_worker(settings: Settings, **options: Any) -> Settings:
    """Settings with a group and a port of one's own."""
    group = settings.topics.ticks.removesuffix(".ticks")
    worker = Worker(group=group, port=free_ports(1)[0], commit_interval_seconds=0.2, **options)
    return msgspec.structs.replace(settings, worker=worker)


def another_port(settings: Settings) -> Settings:
    """The same for another worker of the group."""
    return msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, port=free_ports(1)[0]))


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


@pytest.fixture(params=["at_least_once", "exactly_once"])
def delivery(request: pytest.FixtureRequest) -> str:
    """What the worker of `small_chunks` promises."""
    return str(request.param)


@pytest.fixture
def small_chunks(kafka_settings: Settings, delivery: str) -> Settings:
    """Settings of a worker of one's own on topics of two partitions, which are there, in chunks of 16 ticks."""
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    settings = own_worker(msgspec.structs.replace(kafka_settings, topics=two), delivery=delivery, chunk_ticks=16)
    topics.create(settings)
    return settings


def abort_what_is_open(settings: Settings) -> None:
    """End the transactions of a killed worker, as the next owner would: until then Kafka tells no committed offsets."""
    for partition in range(settings.topics.partitions):
        name = f"{settings.worker.group}-{settings.topics.ticks}-{partition}"
        Producer({"bootstrap.servers": settings.broker, "transactional.id": name}).init_transactions(60)


@pytest.fixture
def start_module(tmp_path: Path) -> Iterator[StartModule]:
    """Starts Python's modules as programs, each with a log of its own; what still runs after the test is ended."""
    started: list[Child] = []

    def run(*arguments: str, environ: Mapping[str, str] | None = None) -> Child:
        log = tmp_path / f"worker{len(started)}.log"
        started.append(Child([sys.executable, "-m", *arguments], log, environ, ROOT))
        return started[-1]

    yield run
    for child in started:
        child.stop()


@pytest.fixture
def embedded_settings(embedded: EmbeddedBroker, own_topics: Topics) -> Settings:
    """Settings for the embedded broker with topics of one's own."""
    return Settings(broker=embedded.address, topics=own_topics)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts workers with models by hand (`by_hand`), each with a port of its own."""
    started: list[Child] = []

    def run(settings: Settings, *options: str) -> Child:
        worker = msgspec.structs.replace(settings.worker, port=free_ports(1)[0])
        text = encode(msgspec.structs.replace(settings, worker=worker)).decode()
        command = [sys.executable, "-m", "tests.integration.by_hand", text, *options]
        started.append(Child(command, tmp_path / f"worker{len(started)}.log", directory=ROOT))
        return started[-1]

    yield run
    for child in started:
        if child.running:
            os.kill(child.pid, signal.SIGCONT)
        child.stop()


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, for at most 60 seconds."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            time.sleep(0.02)

    return wait
