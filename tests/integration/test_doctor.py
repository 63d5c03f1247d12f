"""`tapewatch doctor` on a real Kafka and on the embedded broker."""

import time

import msgspec
from confluent_kafka import Producer

from stream import doctor, topics
from stream.config import Settings, Worker


def _findings(settings: Settings) -> dict[str, doctor.Finding]:
    settings = msgspec.structs.replace(settings, worker=Worker(port=0))
    return {finding.name: finding for finding in doctor.examine(settings)}


def _grave(findings: dict[str, doctor.Finding]) -> set[str]:
    return {name for name, finding in findings.items() if finding.level == "fail"}


def test_topics_that_are_missing_then_there_and_a_clock_that_is_wrong(kafka_settings: Settings) -> None:
    names = kafka_settings.topics
    wanted = {f"topic {name}" for name in (*topics.streams(names), names.state)}
    missing = _findings(kafka_settings)
    assert _grave(missing) >= wanted
    assert missing["broker"].found.startswith(f"{kafka_settings.broker} is Kafka 4.")
    topics.create(kafka_settings)
    there = _findings(kafka_settings)
    assert not _grave(there), there
    assert {there[name].level for name in wanted} == {"ok"}
    assert "nothing is published yet" in there["clock"].found
    producer = Producer({"bootstrap.servers": kafka_settings.broker})
    producer.produce(names.ticks, b"1", b"A", timestamp=int(1000 * time.time()) - 60_000)
    producer.flush(30)
    assert "s old" in _findings(kafka_settings)["clock"].found
    producer.produce(names.ticks, b"2", b"A", timestamp=int(1000 * time.time()) + 600_000)
    producer.flush(30)
    ahead = _findings(kafka_settings)["clock"]
    assert ahead.level == "fail"
    assert f"the newest record on {names.ticks} is 5" in ahead.found
    assert "NTP" in ahead.advice


def test_the_embedded_broker_is_well(embedded_settings: Settings) -> None:
    found = _findings(embedded_settings)
    assert not _grave(found)
    assert "for trying things out only" in found["broker"].found
