"""A halt in the middle of a stream, and a worker that is killed around it: on a real Kafka, with the real pipeline."""

import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from stream import controls, topics
from stream.broker import free_ports
from stream.children import Child
from stream.config import ROOT, Alerts, Settings
from stream.messages import ControlName, decode_action, encode
from tests.integration.test_recovery import Feed, committed, read, said, verified
from tests.integration.test_worker import own_worker

Eventually = Callable[..., None]
Start = Callable[[], Child]


@pytest.fixture(params=["at_least_once", "exactly_once"])
def settings(kafka_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Two partitions, small chunks, and a checkpoint every 100 ms."""
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    settings = msgspec.structs.replace(kafka_settings, topics=two, alerts=Alerts(stale_seconds=3600.0))
    settings = own_worker(settings, delivery=request.param, chunk_ticks=16)
    topics.create(settings)
    return settings


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Starts workers, each with a port of its own."""
    started: list[Child] = []

    def run() -> Child:
        worker = msgspec.structs.replace(settings.worker, port=free_ports(1)[0])
        text = encode(msgspec.structs.replace(settings, worker=worker)).decode()
        command = [sys.executable, "-m", "tests.integration.by_hand", text]
        started.append(Child(command, tmp_path / f"worker{len(started)}.log", directory=ROOT))
        return started[-1]

    yield run
    for child in started:
        child.stop()


def ask(settings: Settings, name: ControlName, symbol: str | None = None) -> controls.Asked:
    return controls.send(settings, controls.made(name, "a test", "anna", symbol))


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
    with urllib.request.urlopen(third.log.read_text().split("metrics=")[1].split()[0], timeout=5) as answer:
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
