"""Conflated results on a real Kafka: few, none lost with a worker that is killed, and understood by `verify`."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from stream import topics
from stream.children import Child
from stream.config import Settings
from stream.messages import decode_prediction, decode_risk
from stream.verify import verify
from tests.integration.conftest import own_worker
from tests.integration.test_recovery import SYMBOLS, Feed, by_hand, committed, kill_behind

Eventually = Callable[..., None]
Start = Callable[..., Child]
INTERVAL_MS = 100
STARTS = 2


@pytest.fixture(params=[("at_least_once", "json"), ("exactly_once", "msgpack")], ids="-".join)
def settings(kafka_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Two partitions, small chunks, a checkpoint every 200 ms."""
    delivery, form = request.param
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    settings = msgspec.structs.replace(kafka_settings, topics=two, format=form)
    settings = own_worker(settings, delivery=delivery, chunk_ticks=16, conflate_ms=INTERVAL_MS)
    topics.create(settings)
    return settings


def read(settings: Settings, topic: str) -> list[Any]:
    """All committed records of a topic."""
    options = {"isolation.level": "read_committed", "group.id": "look", "bootstrap.servers": settings.broker}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(2)])
    found = consumer.consume(100_000, 1.0)
    consumer.close()
    return [record for record in found if record.error() is None]


def together(settings: Settings) -> Counter[tuple[str, int]]:
    """Risks by symbol and interval of the clock."""
    found = (
        (decode_risk(record.value()).symbol, record.timestamp()[1]) for record in read(settings, settings.topics.risk)
    )
    return Counter((symbol, published_ms // INTERVAL_MS) for symbol, published_ms in found)


def test_killed_in_mid_stream_it_goes_on_and_every_tick_is_stood_for(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(4000)
    first = start(settings)
    eventually(lambda: committed(settings) >= 500)
    kill_behind(settings, first, feed)
    assert 500 <= committed(settings) < feed.sent
    last = start(settings)
    eventually(lambda: committed(settings) == feed.sent)
    for _ in range(20):
        feed.send(12)  # of each symbol one
    eventually(lambda: committed(settings) == feed.sent)
    assert last.stop() == 0

    each = together(settings)
    assert set(SYMBOLS) == {symbol for symbol, _ in each}
    # Of each partition the first result of a worker comes beside the newest of its symbol.
    assert max(each.values()) <= 2
    assert sum(count - 1 for count in each.values()) <= 2 * STARTS
    ticks = [decode_prediction(record.value()).ticks for record in read(settings, settings.topics.predictions)]
    assert max(ticks) > 1
    assert len(ticks) < feed.sent / 2

    every = msgspec.structs.replace(settings.worker, conflate_ms=0)
    pipelines = by_hand(msgspec.structs.replace(settings, worker=every))
    report = verify(settings, *pipelines)
    assert report.ok, report
    assert report.ticks == feed.sent
    assert report.conflated > 0
    if settings.worker.delivery == "exactly_once":
        assert {tally.duplicated for tally in report.topics.values()} == {0}
        assert sum(ticks) == report.answered
