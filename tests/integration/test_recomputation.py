"""Workers killed long after their last snapshots: the ticks since are computed again, and none is published again."""

import re
import urllib.request
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import TopicPartition as Place

from stream import clients, recomputation, topics
from stream.children import Child
from stream.config import Alerts, Settings
from stream.messages import decode_risk
from tests.integration.conftest import own_worker
from tests.integration.test_halts import ask, gates, halted
from tests.integration.test_recovery import Feed, Start, committed, kill_behind, read, said, verified
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]


@pytest.fixture(params=["at_least_once", "exactly_once"])
def settings(kafka_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Two partitions, small chunks, a commit every 200 ms, and snapshots once an hour."""
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    settings = msgspec.structs.replace(kafka_settings, topics=two, alerts=Alerts(stale_seconds=3600.0))
    settings = own_worker(settings, delivery=request.param, chunk_ticks=16, snapshot_interval_seconds=3600.0)
    topics.create(settings)
    return settings


def offsets(settings: Settings) -> dict[int, int]:
    """Committed ones."""
    return clients.committed(settings.cluster, settings.worker.group, settings.topics.ticks, range(2))


def recomputed(worker: Child) -> dict[int, tuple[int, int]]:
    """From where to where each partition was computed again, as the log says."""
    found = re.findall(r"recomputing partition=(\d) from=(\d+) to=(\d+)", worker.log.read_text(encoding="utf-8"))
    return {int(partition): (int(first), int(last)) for partition, first, last in found}


def counted(worker: Child) -> float:
    """Ticks computed again, as the metric says."""
    address = worker.log.read_text(encoding="utf-8").split("metrics=")[1].split()[0]
    with urllib.request.urlopen(address, timeout=5) as answer:
        page: str = answer.read().decode()
    return float(re.findall(r"^tapewatch_recomputed_ticks_total (\S+)$", page, re.MULTILINE)[0])


def answers(settings: Settings) -> Counter[tuple[int, int]]:
    """How often each tick was answered, by partition and offset."""
    return Counter((each.partition, each.offset) for each in map(decode_risk, read(settings, settings.topics.risk)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "settings", ["exactly_once", pytest.param("at_least_once", marks=pytest.mark.faults)], indirect=True
)
def test_a_kill_between_two_snapshots_loses_nothing_and_answers_nothing_committed_twice(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed, producer = Feed(settings), Producer({"bootstrap.servers": settings.broker})
    feed.send(200)
    first = start(settings)
    eventually(lambda: committed(settings) == feed.sent)  # with snapshots; those that follow have none
    begun = offsets(settings)
    halt = ask(settings, "halt")
    for number in range(60):  # an instrument that no snapshot knows
        tick = message(symbol="NEW", exchange_ns=START_NS + number * SECOND, price=100.0, trade_id=number + 1)
        producer.produce(settings.topics.ticks, key="NEW", value=tick, partition=1)
    producer.flush()
    feed.send(2000)
    eventually(lambda: committed(settings) > 800)
    kill_behind(settings, first, feed)
    done = offsets(settings)
    assert all(begun[partition] < done[partition] for partition in range(2))

    last = start(settings)
    eventually(lambda: committed(settings) == feed.sent + 62)
    again = recomputed(last)
    assert {partition: end for partition, (_, end) in again.items()} == done
    assert all(again[partition][0] <= begun[partition] for partition in range(2))
    controls = sum(first <= halt.offsets[partition] < end for partition, (first, end) in again.items())
    assert controls == 2
    assert counted(last) == sum(end - first for first, end in again.values()) - controls
    answered = answers(settings)
    assert {count for (partition, offset), count in answered.items() if offset < done[partition]} == {1}
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent + 62)
    assert last.stop() == 0
    # A stop writes all there is, so that nobody computes anything again.
    next_one = start(settings)
    eventually(lambda: said(next_one, "recovered partitions=0,1 instruments=13"))
    feed.send(100)
    eventually(lambda: committed(settings) == feed.sent + 62)
    assert recomputed(next_one) == {}
    assert counted(next_one) == 0
    assert next_one.stop() == 0

    verified(settings, feed.sent + 60)  # byte for byte what a run of all ticks computes; with exactly_once each once
    found = gates(settings)
    assert [
        at for at, (symbol, gate) in found.items() if (gate == "halted") != halted(settings, at, symbol, [halt])
    ] == []


@pytest.mark.faults
@pytest.mark.parametrize("settings", ["at_least_once"], indirect=True)
def test_ticks_that_are_deleted_cannot_be_computed_again_and_that_is_said(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(200)
    first = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    feed.send(1000)
    eventually(lambda: committed(settings) == feed.sent)
    first.kill()
    with clients.admin(settings.cluster) as admin:
        admin.delete_records({Place(settings.topics.ticks, 0): 400})
    second = start(settings)
    eventually(lambda: said(second, "recovered partitions=0,1"))
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent)
    again = recomputed(second)
    assert again[0] == (400, 600)
    assert again[1][1] == 600
    assert re.search(
        r"ticks are gone that the snapshots do not include partition=0 snapshots=\d+ first=400 committed=600",
        second.log.read_text(encoding="utf-8"),
    )
    assert second.stop() == 0
    assert set(answers(settings).values()) == {1}


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("settings", ["exactly_once"], indirect=True)
def test_a_worker_that_is_killed_while_it_computes_again_leaves_it_to_the_next(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(200)
    first = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    feed.send(3000)
    eventually(lambda: committed(settings) > 1000)
    kill_behind(settings, first, feed)
    done = offsets(settings)
    second = start(settings)
    eventually(lambda: said(second, "recomputing partition=1"))
    second.kill()
    assert all(offset >= done[partition] for partition, offset in offsets(settings).items())
    third = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    assert third.stop() == 0
    verified(settings, feed.sent)
    assert recomputation.key(settings.worker.group) not in keys(settings)


def keys(settings: Settings) -> set[bytes]:
    """Keys of the topic of snapshots whose last record is none that deletes."""
    consumer = Consumer({"isolation.level": "read_committed", "group.id": "look", "bootstrap.servers": settings.broker})
    consumer.assign([TopicPartition(settings.topics.state, number, 0) for number in range(2)])
    found = consumer.consume(100_000, 2.0)
    consumer.close()
    last = {(record.partition(), record.key()): record.value() for record in found if record.error() is None}
    return {key or b"" for (_, key), value in last.items() if value is not None}
