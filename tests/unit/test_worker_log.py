"""Lines of client libraries do not flood the worker's log, and one of ours says that the broker is away."""

import asyncio
import logging

import pytest

from stream.reach import AWAY_SECONDS, Reach, Repeats


def record(name: str, text: str, *details: object, created: float) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "file", 1, text, details, None)
    made.created = created
    return made


def test_the_same_line_of_a_client_passes_once_in_ten_seconds() -> None:
    repeats = Repeats(10.0)
    assert repeats.filter(record("aiokafka.conn", "no node %s", 1, created=100.0))
    assert not repeats.filter(record("aiokafka.conn", "no node %s", 2, created=109.9))
    assert repeats.filter(record("aiokafka.conn", "other", created=109.9))
    assert repeats.filter(record("aiokafka.conn", "no node %s", 1, created=110.0))


def test_our_own_lines_always_pass() -> None:
    repeats = Repeats(10.0)
    assert repeats.filter(record("tapewatch.worker", "assigned", created=100.0))
    assert repeats.filter(record("tapewatch.worker", "assigned", created=100.0))


class Hand:
    """A reach whose clock and connection are set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.connected = True
        self._reach = Reach("kafka:9092", lambda: self.connected, lambda: self.seconds)

    def look_until(self, seconds: float, connected: bool) -> None:
        """Once a second up to then."""
        self.connected = connected
        while self.seconds < 100.0 + seconds:
            self.seconds += 1.0
            asyncio.run(self._reach.look())


def test_a_broker_that_goes_and_is_back_is_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tapewatch.worker")
    hand = Hand()
    hand.look_until(10.0, connected=True)
    hand.look_until(10.0 + AWAY_SECONDS - 1.0, connected=False)
    assert caplog.messages == []
    hand.look_until(30.0, connected=False)
    assert caplog.messages == ["no broker at kafka:9092: waiting"]
    hand.look_until(40.0, connected=True)
    assert caplog.messages[1:] == ["broker at kafka:9092 is back after 21 s"]
    hand.look_until(50.0, connected=False)
    assert caplog.messages[2:] == ["no broker at kafka:9092: waiting"]


def test_a_client_that_connects_anew_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tapewatch.worker")
    hand = Hand()
    for second in range(0, 40, 4):
        hand.look_until(second, connected=True)
        hand.look_until(second + AWAY_SECONDS - 1.0, connected=False)
    assert caplog.messages == []
