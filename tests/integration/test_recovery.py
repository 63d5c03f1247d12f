"""State that outlives its worker, on a real Kafka with the real pipeline: kills, zombies, and what `verify` says.

The workers are real processes with models by hand (`tests.integration.fake_models`), so that they start fast.
"""

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from typing import cast

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream import clients, snapshots, topics
from stream.app import suited
from stream.children import Child
from stream.config import Alerts, Settings
from stream.errors import ConfigError
from stream.inference import Models
from stream.messages import decode_alert, decode_risk
from stream.pipeline import Pipeline
from stream.verify import LoadModels, MakePipeline, Report, verify
from tests.fakes import FakeModels
from tests.integration.conftest import abort_what_is_open, own_worker
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]
Start = Callable[..., Child]
SYMBOLS = [f"S{number}" for number in range(12)]


@pytest.fixture(params=["at_least_once", "exactly_once"])
def settings(kafka_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Two partitions, small chunks, and a checkpoint every 100 ms."""
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    silent = Alerts(stale_seconds=1.0, gap_ratio=0.1)
    settings = msgspec.structs.replace(kafka_settings, topics=two, alerts=silent)
    settings = own_worker(settings, delivery=request.param, chunk_ticks=16)
    topics.create(settings)
    return settings


class Feed:
    """Puts ticks on both partitions; every 50th message is junk, every 70th a duplicate.

    `padding`: so many blanks behind each tick, so that little makes much to hold.
    """

    def __init__(self, settings: Settings, padding: int = 0) -> None:
        self._topic = settings.topics.ticks
        self._padding = b" " * padding
        options = {"bootstrap.servers": settings.broker, "linger.ms": 5, "batch.size": 65_536}
        self._producer = Producer(options)
        self.sent = 0

    def send(self, count: int) -> None:
        for number in range(self.sent, self.sent + count):
            symbol = SYMBOLS[number % len(SYMBOLS)]
            tick = message(
                symbol=symbol,
                exchange_ns=START_NS + number * SECOND // 10,
                price=100.0 + (number * 7919 % 13) / 10,
                trade_id=number - (number % 70 == 69) * len(SYMBOLS) or 1,
            )
            value = b"junk" if number % 50 == 49 else tick + self._padding
            self._producer.produce(self._topic, key=symbol, value=value, partition=number % len(SYMBOLS) % 2)
            self._producer.poll(0)
        self._producer.flush()
        self.sent += count


def committed(settings: Settings) -> int:
    """Ticks below the committed offsets; 0 while Kafka does not tell: a killed worker's transaction may be open."""
    try:
        found = clients.committed(settings.cluster, settings.worker.group, settings.topics.ticks, range(2))
    except KafkaException as error:
        if error.args[0].code() != KafkaError._TIMED_OUT:
            raise
        return 0
    return sum(found.values())


def read(settings: Settings, topic: str) -> list[bytes]:
    """Values of all that is committed on a topic."""
    options = {"isolation.level": "read_committed", "group.id": "look", "bootstrap.servers": settings.broker}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(2)])
    found = consumer.consume(100_000, 1.0)
    consumer.close()
    return [record.value() or b"" for record in found if record.error() is None]


def kill_behind(settings: Settings, worker: Child, feed: Feed) -> None:
    """Kill a worker that has not done all, however late this process comes to look."""
    os.kill(worker.pid, signal.SIGSTOP)
    feed.send(400)
    worker.kill()
    abort_what_is_open(settings)


def said(child: Child, text: str) -> bool:
    return text in child.log.read_text(encoding="utf-8")


def by_hand(settings: Settings) -> tuple[MakePipeline, LoadModels]:
    """Pipelines and models as those of the workers."""
    models = cast(Models, FakeModels())
    return lambda partition: Pipeline(settings, models, partition), lambda names: models


def verified(settings: Settings, ticks: int) -> Report:
    """What `tapewatch verify` finds; everything must be there and right."""
    report = verify(settings, *by_hand(settings))
    assert report.ok, report
    assert report.ticks == ticks
    assert report.topics["rejected"].expected >= ticks // 50
    if settings.worker.delivery == "exactly_once":
        assert {tally.duplicated for tally in report.topics.values()} == {0}
    return report


def tamper(settings: Settings) -> None:
    """Publish an answer a second time, then another with a changed number: `verify` tells both."""
    role, topic = "risk", settings.topics.risk
    consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "look"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    record = consumer.poll(10)
    consumer.close()
    assert record is not None
    value = record.value() or b""
    producer = Producer({"bootstrap.servers": settings.broker})
    for changed in (value, value.replace(b'"level":"normal"', b'"level":"critical"')):
        producer.produce(topic, key=record.key(), value=changed, partition=0)
        producer.flush()
        report = verify(settings, *by_hand(settings), {0: 0}, {0: 100})
        if changed == value:
            assert report.topics[role].duplicated >= 1
            assert report.ok == (settings.worker.delivery == "at_least_once")
    assert not report.ok
    assert report.topics[role].different == 1
    assert f"{topic}, partition 0, tick {decode_risk(value).offset}: published" in report.first_difference
    assert f"computed {value.decode()}" in report.first_difference


def test_killed_in_mid_stream_it_goes_on_as_if_nothing_had_been(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(4000)
    idle = verify(settings, *by_hand(settings))
    assert not idle.ok
    assert (idle.ticks, idle.uncommitted) == (0, 4000)
    first = start(settings)
    eventually(lambda: committed(settings) >= 500)
    kill_behind(settings, first, feed)
    assert 500 <= committed(settings) < feed.sent
    last = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    assert said(last, "recovered partitions=0,1 instruments=12")
    feed.send(600)
    eventually(lambda: committed(settings) == feed.sent)
    eventually(lambda: b'"detail":"stale"' in b"".join(read(settings, settings.topics.alerts)))
    assert last.stop() == 0
    verified(settings, feed.sent)
    tamper(settings)


@pytest.mark.parametrize("settings", ["at_least_once"], indirect=True)
def test_snapshots_decide_where_it_goes_on_and_a_damaged_one_stops_it(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(400)
    first = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    assert first.stop() == 0
    group = Consumer({"bootstrap.servers": settings.broker, "group.id": settings.worker.group})
    group.commit(offsets=[TopicPartition(settings.topics.ticks, number, 5) for number in range(2)], asynchronous=False)
    group.close()
    feed.send(200)
    second = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    assert second.stop() == 0
    assert said(second, "snapshots are ahead partition=0 committed=5: reading goes on where they end, at 200")
    report = verified(settings, feed.sent)
    assert {tally.duplicated for tally in report.topics.values()} == {0}
    producer = Producer({"bootstrap.servers": settings.broker})
    producer.produce(settings.topics.state, key=snapshots.key(settings.worker.group, "S1", ""), value=b"?", partition=1)
    producer.flush()
    third = start(settings)
    eventually(lambda: not third.running)
    assert third.returncode == 1
    assert re.match(
        rf"error: the snapshot of S1 in topic {settings.topics.state}, partition 1, offset \d+ cannot be used: this "
        "is no snapshot of Tapewatch; ",
        third.last_lines(1),
    )


def test_exactly_once_is_refused_on_the_embedded_broker(embedded_settings: Settings) -> None:
    settings = own_worker(embedded_settings, delivery="exactly_once")
    with pytest.raises(
        ConfigError, match=r"worker\.delivery = 'exactly_once' needs Kafka, and the broker at .* embedded"
    ):
        suited(settings)
    assert not suited(own_worker(embedded_settings)).worker.snapshots


@pytest.mark.parametrize("settings", ["at_least_once"], indirect=True)
def test_a_tick_that_cannot_be_computed_is_refused_and_the_others_are_answered(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(300)
    jump = message(symbol="S0", exchange_ns=START_NS + 40 * SECOND, price=107.0)
    producer = Producer({"bootstrap.servers": settings.broker})
    producer.produce(settings.topics.ticks, key="S0", value=jump, partition=0)
    producer.flush()
    feed.send(300)
    worker = start(settings, "fragile")
    eventually(lambda: committed(settings) == feed.sent + 1)
    port = re.findall(r"metrics=(\S+)", worker.log.read_text())[0]
    with urllib.request.urlopen(port, timeout=5) as page:
        assert b'tapewatch_ticks_rejected_total{reason="internal"} 1.0' in page.read()
    assert worker.stop() == 0
    assert jump in read(settings, settings.topics.rejected)
    alerts = [
        alert for alert in map(decode_alert, read(settings, settings.topics.alerts)) if alert.detail == "internal"
    ]
    assert [(alert.symbol, alert.kind, alert.state) for alert in alerts] == [
        ("S0", "feed", "opened"),
        ("S0", "feed", "closed"),
    ]
    assert "ZeroDivisionError: no such luck" in worker.log.read_text()
    report = verified(settings, feed.sent + 1)
    assert report.internal == 1


@pytest.mark.parametrize("when", ["starved", "crammed"])
def test_a_worker_without_memory_says_so_and_commits_nothing_of_that_chunk_and_the_next_one_goes_on(
    settings: Settings, start: Start, eventually: Eventually, when: str
) -> None:
    feed, producer = Feed(settings), Producer({"bootstrap.servers": settings.broker})
    feed.send(300)
    starved = start(settings, when)
    eventually(lambda: committed(settings) == feed.sent)
    spike = message(symbol="S0", exchange_ns=START_NS + 40 * SECOND, price=107.0)
    producer.produce(settings.topics.ticks, key="S0", value=spike, partition=0)
    producer.flush()
    eventually(lambda: not starved.running)
    assert starved.returncode == 1
    assert starved.last_lines(1) == (
        "error: cannot compute partition 0, offsets 150 to 150: MemoryError('cannot allocate 1 GiB'); not committed, "
        "nothing is lost"
    )
    assert committed(settings) == 300
    feed.send(300)
    another = start(settings)
    eventually(lambda: committed(settings) == feed.sent + 1)
    assert another.stop() == 0
    assert spike not in read(settings, settings.topics.rejected)
    verified(settings, feed.sent + 1)


def test_a_zombie_can_neither_publish_nor_commit(settings: Settings, start: Start, eventually: Eventually) -> None:
    feed = Feed(settings)
    feed.send(600)
    zombie = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    feed.send(4000)  # some of it in its hands when it is stopped
    eventually(lambda: committed(settings) > 700)
    os.kill(zombie.pid, signal.SIGSTOP)
    heir = start(settings)
    eventually(lambda: said(heir, "recovered partitions=0,1"), 40.0)
    eventually(lambda: committed(settings) == feed.sent)
    os.kill(zombie.pid, signal.SIGCONT)
    eventually(lambda: zombie.log.read_text().count("assigned topic=") == 2)
    feed.send(1000)
    eventually(lambda: committed(settings) == feed.sent)
    assert zombie.running
    assert zombie.stop() == 0
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent)
    assert heir.stop() == 0
    report = verified(settings, feed.sent)
    assert {tally.unordered for tally in report.topics.values()} == {0}
