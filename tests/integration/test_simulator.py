"""The simulator puts its ticks on a broker, and first of all the truth."""

import threading

import pytest
from click.testing import CliRunner

from stream.cli import commands
from stream.config import Settings
from stream.messages import decode_injection, decode_tick
from stream.tail import Reader, Record


def records(settings: Settings, topic: str, count: int) -> list[Record]:
    reader = Reader(settings.cluster, topic, from_beginning=True)
    try:
        found = reader.records(threading.Event())
        return [next(found) for _ in range(count)]
    finally:
        reader.close()


def test_ticks_and_truth_are_on_their_topics(embedded_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names = embedded_settings.topics
    monkeypatch.setenv("TAPEWATCH_TOPICS__TICKS", names.ticks)
    monkeypatch.setenv("TAPEWATCH_TOPICS__TRUTH", names.truth)
    options = ["--broker", embedded_settings.broker, "--speed", "max", "--seconds", "120", "--at", "20"]
    shown = CliRunner().invoke(
        commands, ["simulate", *options, "--scenario", "pump", "--symbol", "X"], catch_exceptions=False
    )
    assert shown.exit_code == 0, shown.output
    assert "pump on X from" in shown.output
    (truth,) = records(embedded_settings, names.truth, 1)
    injection = decode_injection(truth.value)
    assert truth.key == b"X"
    assert injection.opens == "pump"
    ticks = [decode_tick(record.value) for record in records(embedded_settings, names.ticks, 500)]
    assert {tick.symbol for tick in ticks} == {"X"}
    assert [tick.trade_id for tick in ticks] == list(range(1, 501))
    assert ticks[0].exchange_ns < injection.begin_ns < injection.end_ns
