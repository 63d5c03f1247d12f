"""What `tapewatch doctor` says of a topic, a port and the models, and that its exit code follows."""

import json
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from stream import doctor, topics
from stream.config import Settings, Topics, Worker

NAMES = Topics()


def judged(
    name: str, count: int = 4, replicas: int = 3, in_sync: int = 3, brokers: int = 3, **values: str
) -> doctor.Finding:
    known: dict[str, str | None] = dict(topics.configuration(NAMES, name))
    known |= {"min.insync.replicas": "2"} | {key.replace("_", "."): value for key, value in values.items()}
    partitions = [{"replica_nodes": list(range(replicas)), "isr_nodes": list(range(in_sync))} for _ in range(count)]
    return doctor.judge(NAMES, name, partitions, known, 4, brokers)


@pytest.mark.parametrize("name", [*topics.streams(NAMES), NAMES.state])
def test_a_topic_as_it_should_be_is_ok(name: str) -> None:
    assert judged(name).level == "ok"
    assert judged(name).advice == ""


@pytest.mark.parametrize(
    ("finding", "level", "found"),
    [
        (judged("risk", count=3), "fail", "3 partitions, fewer than the 4 of ticks"),
        (judged("state", cleanup_policy="delete"), "fail", "state will be lost"),
        (judged("risk", in_sync=1), "fail", "nothing can be published"),
        (judged("risk", in_sync=2), "warn", "2 of 3 replicas in sync"),
        (judged("risk", retention_ms="1000"), "warn", "retention.ms 1000 instead of 86400000"),
        (judged("ticks", max_message_bytes="1000"), "warn", "max.message.bytes 1000 instead of"),
        (judged("risk", replicas=1, in_sync=1, min_insync_replicas="1"), "warn", "1 replicas on 3 brokers"),
        (judged("risk", min_insync_replicas="1"), "warn", "an acknowledged record may lie once"),
    ],
)
def test_what_is_wrong_with_a_topic_is_told_with_what_to_do(finding: doctor.Finding, level: str, found: str) -> None:
    assert finding.level == level
    assert found in finding.found
    assert finding.advice


@pytest.mark.parametrize(("name", "kept"), [("audit", "kept for ever"), ("risk", "kept 24 h"), ("state", "compacted")])
def test_how_long_a_topic_is_kept_is_said_in_words(name: str, kept: str) -> None:
    assert judged(name).found == f"4 partitions, 3 replicas, {kept}"


def test_one_broker_can_hold_no_more_than_one_replica() -> None:
    assert judged("risk", replicas=1, in_sync=1, brokers=1, min_insync_replicas="1").level == "ok"


def of(findings: Iterable[doctor.Finding], name: str) -> doctor.Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def test_a_port_that_something_else_has_is_a_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)  # what has the port here answers nothing
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = of(doctor._port(Settings(worker=Worker(port=taken.getsockname()[1]))), "port")
    assert found.level == "fail"
    assert "Address already in use" in found.found


def test_models_that_are_not_there_are_a_fail(tmp_path: Path) -> None:
    settings = Settings(worker=Worker(models=str(tmp_path / "absent"), port=0), broker="127.0.0.1:1")
    found = of(doctor._models(settings), "models")
    assert found.level == "fail"
    assert "does not exist" in found.found


def test_another_python_is_a_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    version: Any = (3, 12, 0)
    monkeypatch.setattr(sys, "version_info", version)
    assert of(doctor._versions(Settings()), "python").level == "fail"


def test_json_holds_every_finding_and_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(worker=Worker(port=0), broker="127.0.0.1:1")
    assert doctor.run(settings, True, Console()) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["level"] == "fail"
    assert msgspec.convert(told["findings"], list[doctor.Finding])[-1].name == "broker"
