"""Two feeds of one symbol on a real Kafka: each trade is answered once, its repetition refused, and an alert tells."""

import threading
from collections.abc import Callable

import pytest

from stream import clients
from stream.config import Settings
from stream.messages import decode_alert, decode_prediction, encode
from stream.tail import Reader
from tests.integration.conftest import StartModule
from tests.integration.test_recovery import committed, read, verified
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]
TRADES = 512
STEP = 32  # neither feed is further ahead than that; the worker remembers 128 trades of an instrument


def feed(settings: Settings, together: threading.Barrier) -> None:
    """The same trades of one symbol as the other feed's, by a producer of its own."""
    producer = clients.producer(settings.cluster)
    for number in range(1, TRADES + 1):
        if number % STEP == 1:
            producer.flush()
            together.wait(60)
        trade = message(
            symbol="ACME",
            exchange_ns=START_NS + number * SECOND // 10,
            price=100.0 + number * 7919 % 13 / 10,
            trade_id=number,
        )
        producer.send(settings.topics.ticks, key=b"ACME", value=trade)
    producer.close()


@pytest.mark.parametrize("delivery", ["at_least_once"])
def test_two_feeds_of_one_symbol_are_one_and_an_alert(
    small_chunks: Settings, start_module: StartModule, eventually: Eventually
) -> None:
    settings, together = small_chunks, threading.Barrier(2)
    worker = start_module("tests.integration.by_hand", encode(settings).decode())
    feeds = [threading.Thread(target=feed, args=(settings, together)) for _ in range(2)]
    for each in feeds:
        each.start()
    for each in feeds:
        each.join()
    eventually(lambda: committed(settings) == 2 * TRADES)
    assert worker.stop() == 0

    answered = [decode_prediction(value) for value in read(settings, settings.topics.predictions)]
    times = [each.exchange_ns for each in answered]
    assert times == [START_NS + number * SECOND // 10 for number in range(1, TRADES + 1)]
    reader = Reader(settings.cluster, settings.topics.rejected, from_beginning=True)
    try:
        found = reader.records(threading.Event())
        refused = [next(found) for _ in range(TRADES)]
    finally:
        reader.close()
    assert {record.headers["reason"] for record in refused} == {"duplicate"}
    assert len(read(settings, settings.topics.rejected)) == TRADES
    first, *_ = map(decode_alert, read(settings, settings.topics.alerts))
    assert (first.symbol, first.kind, first.detail, first.state) == ("ACME", "feed", "duplicated", "opened")
    (reason,) = first.reasons
    assert (reason.feature, first.threshold) == ("duplicated", 1.0)
    assert reason.value > settings.alerts.faults
    verified(settings, 2 * TRADES)
