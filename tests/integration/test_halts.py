"""A halt in the middle of a stream, and a worker that is killed around it: on a real Kafka, with the real pipeline."""

import os
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stream import controls
from stream.children import Child
from stream.config import Alerts, Settings
from stream.messages import ControlName, decode_action, encode
from tests.integration.conftest import StartModule, another_port
from tests.integration.test_recovery import Feed, committed, read, said, verified

Eventually = Callable[..., None]
Start = Callable[[], Child]


@pytest.fixture
def settings(small_chunks: Settings) -> Settings:
    """No instrument is silent so soon."""
    return msgspec.structs.replace(small_chunks, alerts=Alerts(stale_seconds=3600.0))


@pytest.fixture
def start(settings: Settings, start_module: StartModule) -> Start:
    """Starts workers with models by hand, each with a port of its own."""
    return lambda: start_module("tests.integration.by_hand", encode(another_port(settings)).decode())


def ask(settings: Settings, name: ControlName, symbol: str | None = None) -> controls.Asked:
    return controls.send(settings, controls.made(name, "a test", "anna", symbol))


def board(worker: Child) -> str:
    """Address of a worker's pages."""
    return worker.log.read_text(encoding="utf-8").split("metrics=")[1].split("/metrics")[0]


def pressed(address: str, **wish: str) -> dict[str, Any]:
    """What a worker answers to its page's own "Halt actions"."""
    request = urllib.request.Request(
        f"{address}/control", msgspec.json.encode(wish), {"Content-Type": "application/json", "Origin": address}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = msgspec.json.decode(answer.read())
        return found


def gates(settings: Settings) -> dict[tuple[int, int], tuple[str, str | None]]:
    """Partition and offset of each action -> symbol and gate; all that repeat are alike."""
    found: dict[tuple[int, int], tuple[str, str | None]] = {}
    for action in map(decode_action, read(settings, settings.topics.actions)):
        told = action.symbol, action.gated_by
        assert found.setdefault((action.partition, action.offset), told) == told
        assert action.gated_by != "halted" or (action.action, action.target_position) == ("flat", 0.0)
    return found


def halted(settings: Settings, at: tuple[int, int], symbol: str, asked: list[controls.Asked]) -> bool:
    """Whether the controls say that an action at a place is halted."""
    scopes: set[str | None] = set()
    for control, offsets, _ in asked:
        if offsets[at[0]] < at[1]:
            scopes = scopes | {control.symbol} if control.control == "halt" else scopes - {control.symbol}
    return bool(scopes & {None, symbol})


@pytest.mark.timeout(240)
def test_a_halt_and_a_kill_around_it_leave_every_action_as_the_controls_say(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed, asked = Feed(settings), list[controls.Asked]()

    def all_done() -> None:
        eventually(lambda: committed(settings) >= feed.sent + 2 * len(asked))

    feed.send(200)
    first = start()
    all_done()
    asked.append(ask(settings, "halt"))
    feed.send(100)
    eventually(lambda: said(first, "halted partition=1"))
    os.kill(first.pid, signal.SIGKILL)  # what it has published since the last checkpoint comes again
    feed.send(100)
    asked.append(ask(settings, "halt", "S3"))
    feed.send(50)
    second = start()
    all_done()
    assert second.stop() == 0  # the third goes on from the record on `state` alone
    asked.append(ask(settings, "resume"))
    feed.send(100)
    third = start()
    told = controls.taken(settings, asked[-1], 60.0)
    assert {(each.partition, each.changed) for each in told.values()} == {(0, True), (1, True)}
    all_done()
    with urllib.request.urlopen(f"{board(third)}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    assert 'tapewatch_controls_total{control="resume"} 2.0' in page
    assert "tapewatch_ticks_total 100.0" in page  # controls are no ticks
    assert third.stop() == 0

    found = gates(settings)
    wrong = [at for at, (symbol, gate) in found.items() if (gate == "halted") != halted(settings, at, symbol, asked)]
    assert wrong == []
    assert {gate for _, gate in found.values()} >= {"halted", "warming"}
    report = verified(settings, feed.sent)
    assert report.controls == 6
    if settings.worker.delivery == "exactly_once":
        assert {tally.duplicated for tally in report.topics.values()} == {0}
    audits = controls.history(settings)
    assert [each.control for each in audits if each.event == "asked"] == ["halt", "halt", "resume"]
    assert {(each.control_id, each.partition, each.offset) for each in audits if each.event == "taken"} == {
        (each.control.control_id, partition, offset) for each in asked for partition, offset in each.offsets.items()
    }
    assert [list(scopes) for scopes in controls.in_force(audits, range(2)).values()] == [["S3"], ["S3"]]


@pytest.mark.parametrize("delivery", ["at_least_once"])
def test_a_halt_by_the_board_is_on_kafka_in_force_and_on_audit(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed = Feed(settings)
    feed.send(100)
    worker = start()
    eventually(lambda: committed(settings) == 100)
    answer = pressed(board(worker), control="halt", reason="the feed is wrong", typed="HALT", by="anna", symbol="S3")
    assert answer["partitions"] == [0, 1]
    eventually(lambda: committed(settings) == 102)  # a control is a record among the ticks
    feed.send(100)
    eventually(lambda: committed(settings) == 202)
    assert worker.stop() == 0
    assert verified(settings, feed.sent).controls == 2
    after = [(symbol, gate) for (_, offset), (symbol, gate) in gates(settings).items() if offset > 50]
    assert {symbol for symbol, gate in after if gate == "halted"} == {"S3"}
    assert {gate for symbol, gate in after if symbol == "S3"} == {"halted"}
    asked, *taken = controls.history(settings)
    assert (asked.event, asked.control_id, asked.control, asked.symbol) == ("asked", answer["control_id"], "halt", "S3")
    assert (asked.by, asked.reason) == ("anna (board, not signed in)", "the feed is wrong")
    assert {(each.event, each.control_id, each.partition, each.offset) for each in taken} == {
        ("taken", asked.control_id, partition, 50) for partition in (0, 1)
    }
