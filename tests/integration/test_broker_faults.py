"""What the broker can do to a worker: topics that grow, go and come again, and a disk that is full.

After each of them the worker goes on by itself, or it stops with a clear reason and a status that is not 0; what it
committed is answered, rightly. tests/integration/test_cluster.py has what takes three brokers.
"""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from confluent_kafka import Producer
from kafka.admin import NewPartitions

from stream import clients, topics
from stream.broker import KafkaBroker
from stream.children import Child
from stream.config import Alerts, Settings
from stream.verify import Topic, verify
from tests.integration.conftest import own_worker
from tests.integration.test_recovery import Feed, Start, by_hand, read, said
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]
Delivery = Literal["at_least_once", "exactly_once"]


def prepared(settings: Settings, delivery: Delivery = "at_least_once", partitions: int = 2, **options: Any) -> Settings:
    """Settings whose topics are there."""
    several = msgspec.structs.replace(settings.topics, partitions=partitions)
    settings = msgspec.structs.replace(settings, topics=several, alerts=Alerts(stale_seconds=600.0))
    settings = own_worker(settings, delivery=delivery, chunk_ticks=16, **options)
    topics.create(settings)
    return settings


def committed(settings: Settings) -> int:
    """Ticks below the committed offsets."""
    names, group = settings.topics, settings.worker.group
    return sum(clients.committed(settings.cluster, group, names.ticks, range(names.partitions)).values())


def ended(child: Child) -> str:
    """The last line of a worker that has ended by itself, with a status that is not 0."""
    assert child.returncode == 1, child.last_lines()
    line = child.last_lines(1)
    assert line.startswith(("error: ", "tapewatch: ")), child.last_lines()
    return line


def health(worker: Child) -> tuple[int, dict[str, Any]]:
    """Status and content of /health; 0 while it cannot be had."""
    lines = [line for line in worker.log.read_text().splitlines() if "health=" in line]
    if not lines:
        return 0, {}
    try:
        with urllib.request.urlopen(lines[0].partition("health=")[2], timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    except OSError:
        return 0, {}


def answered(settings: Settings, ticks: int) -> None:
    """`verify` finds everything published, and right."""
    report = verify(settings, *by_hand(settings))
    assert report.ok, report
    assert report.ticks == ticks


def delete(settings: Settings, topic: str) -> None:
    with clients.admin(settings.cluster) as admin:
        admin.delete_topics([topic])
        while topic in {each["name"] for each in admin.describe_topics()}:
            time.sleep(0.05)


def test_a_partition_added_to_all_topics_is_worked_at_without_a_restart(
    kafka_settings: Settings, start: Start, eventually: Eventually
) -> None:
    settings = prepared(kafka_settings)
    feed = Feed(settings)
    feed.send(200)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    # That of the ticks first: the worker may hear of it before Kafka has given the others theirs.
    with clients.admin(settings.cluster) as admin:
        for name in topics.names(settings.topics):
            admin.create_partitions({name: NewPartitions(3)})
    settings = msgspec.structs.replace(settings, topics=msgspec.structs.replace(settings.topics, partitions=3))
    producer = Producer({"bootstrap.servers": settings.broker, "topic.metadata.refresh.interval.ms": 100})
    for number in range(40):
        tick = message(symbol="NEW", exchange_ns=START_NS + number * SECOND, price=100.0, trade_id=number + 1)
        producer.produce(settings.topics.ticks, key="NEW", value=tick, partition=2)
    producer.flush()
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent + 40)
    assert worker.stop() == 0
    answered(settings, feed.sent + 40)


@pytest.mark.parametrize("delivery", ["exactly_once", pytest.param("at_least_once", marks=pytest.mark.faults)])
def test_topics_made_again_are_filled_again_and_the_snapshots_too(
    kafka_settings: Settings, start: Start, eventually: Eventually, delivery: Delivery
) -> None:
    settings = prepared(kafka_settings, delivery)
    feed = Feed(settings)
    feed.send(400)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    for topic in (settings.topics.state, settings.topics.risk):
        delete(settings, topic)
    topics.create(settings)
    eventually(lambda: said(worker, f"topic made again topic={settings.topics.state}"))
    assert said(worker, f"topic made again topic={settings.topics.risk}")
    only = SECOND * 41
    producer = Producer({"bootstrap.servers": settings.broker})
    producer.produce(
        settings.topics.ticks, key="S0", value=message(symbol="S0", exchange_ns=START_NS + only), partition=0
    )
    producer.produce(
        settings.topics.ticks, key="S1", value=message(symbol="S1", exchange_ns=START_NS + only), partition=1
    )
    producer.flush()
    eventually(lambda: committed(settings) == feed.sent + 2)
    assert worker.stop() == 0
    # Two of the twelve had ticks since, and all twelve are there: so the next worker goes on as if nothing had been.
    second = start(settings)
    eventually(lambda: said(second, "recovered partitions=0,1 instruments=12"))
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent + 2)
    assert second.stop() == 0
    report = verify(settings, *by_hand(settings))
    assert report.ticks == feed.sent + 2
    assert {role for role, tally in report.topics.items() if tally.missing} == {"risk"}
    assert report.topics["risk"].found >= 150
    assert {(tally.different, tally.unordered) for tally in report.topics.values()} == {(0, 0)}


@pytest.mark.parametrize("delivery", ["at_least_once", pytest.param("exactly_once", marks=pytest.mark.faults)])
def test_ticks_made_again_stop_the_worker_and_the_next_one_answers_all_of_them(
    kafka_settings: Settings, start: Start, eventually: Eventually, delivery: Delivery
) -> None:
    settings = prepared(kafka_settings, delivery)
    feed = Feed(settings)
    feed.send(200)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    # Stopped meanwhile, so that the new topic has more ticks than the old one when it looks: it cannot tell by offsets.
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        for topic in topics.streams(settings.topics):
            delete(settings, topic)
        topics.create(settings)
        feed = Feed(settings)
        feed.send(600)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    eventually(lambda: not worker.running)
    assert f"topic {settings.topics.ticks} was deleted and made again" in ended(worker)
    second = start(settings)
    eventually(
        lambda: said(
            second, f"topic made again topic={settings.topics.ticks} partition=1: its snapshots are of the old one"
        )
    )
    # Not by committed offsets: the first worker may have read on in the new topic, and committed, before it noticed.
    eventually(lambda: position(second) == feed.sent)
    assert second.stop() == 0
    report = verify(settings, *by_hand(settings))
    assert report.ticks == feed.sent
    assert {tally.missing for tally in report.topics.values()} == {0}


def position(worker: Child) -> int:
    """Ticks that a worker has read of all partitions."""
    return sum(each["position"] for each in health(worker)[1].get("partitions", {}).values())


@pytest.mark.parametrize(
    "role", ["actions", *(pytest.param(role, marks=pytest.mark.faults) for role in ("ticks", "state"))]
)
def test_a_topic_that_stays_away_stops_the_worker_with_its_name(
    kafka_settings: Settings, start: Start, eventually: Eventually, role: str
) -> None:
    settings = prepared(kafka_settings, "exactly_once" if role == "actions" else "at_least_once")
    feed = Feed(settings)
    feed.send(200)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    topic = getattr(settings.topics, role)
    delete(settings, topic)
    if role != "ticks":
        feed.send(200)
    eventually(lambda: not worker.running, 60.0)
    assert f"topic {topic} is not there any more" in ended(worker)
    if role == "actions":
        assert committed(settings) == 200
    if role == "state":  # between two snapshots nothing needs it: answers go on, and may be committed
        answered(settings, feed.sent)


@pytest.mark.faults
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_stop_while_a_commit_hangs_ends_and_the_next_worker_goes_on(
    kafka: KafkaBroker, kafka_settings: Settings, start: Start, eventually: Eventually, delivery: Delivery
) -> None:
    settings = prepared(kafka_settings, delivery)
    feed = Feed(settings)
    feed.send(4000)
    worker = start(settings)
    eventually(lambda: committed(settings) >= 300, 60.0)
    os.kill(kafka.pid, signal.SIGSTOP)
    try:
        os.kill(worker.pid, signal.SIGTERM)
        eventually(lambda: not worker.running, 60.0)
    finally:
        os.kill(kafka.pid, signal.SIGCONT)
    assert "did not stop within" in ended(worker)
    second = start(settings)
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent, 90.0)
    assert second.stop() == 0
    answered(settings, feed.sent)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk takes the right to mount one: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_disk_that_is_full_loses_nothing(
    small_disk: Path, start: Start, eventually: Eventually, own_topics: Any
) -> None:
    with KafkaBroker(properties=f"log.dirs={small_disk / 'data'}\n") as kafka:
        settings = prepared(Settings(kafka.address, topics=own_topics), stall_seconds=2.0)
        feed = Feed(settings)
        feed.send(500)
        worker = start(settings)
        eventually(lambda: committed(settings) == feed.sent)
        before = len(read(settings, settings.topics.actions))
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            fill(file.fileno(), leave=256 * 1024)
        producer = Producer({"bootstrap.servers": settings.broker, "message.timeout.ms": 3000, "log_level": 0})
        taken = 0

        def note(error: Any, _message: Any) -> None:
            nonlocal taken
            taken += error is None

        number = 0
        while kafka.running:
            tick = message(
                symbol="S0", exchange_ns=START_NS + 3600 * SECOND + number * SECOND, trade_id=10_000 + number
            )
            producer.produce(settings.topics.ticks, key="S0", value=tick, partition=0, on_delivery=note)
            number += 1
            producer.flush(0.02)
        producer.flush()
        filler.unlink()
        kafka.kill()
        kafka.start()
        feed.send(200)
        ends = end_of_ticks(settings)
        assert ends >= 700 + taken
        if not worker.running:
            assert ended(worker)
            worker = start(settings)
        eventually(lambda: committed(settings) == ends, 60.0)
        assert worker.stop() == 0
        answered(settings, ends)
        assert len(read(settings, settings.topics.actions)) > before


def fill(file: int, leave: int) -> None:
    """Write until so many bytes are free."""
    while (left := os.fstatvfs(file).f_bavail * os.fstatvfs(file).f_frsize - leave) > 0:
        os.write(file, bytes(min(left, 1 << 20)))


def end_of_ticks(settings: Settings) -> int:
    """Offsets on the topic of ticks."""
    reader = Topic(settings.cluster)
    try:
        return sum(reader.range(settings.topics.ticks, number)[1] for number in range(settings.topics.partitions))
    finally:
        reader.close()
