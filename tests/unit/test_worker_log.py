"""Lines of client libraries do not flood the worker's log."""

import logging

from stream.app import Repeats


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
