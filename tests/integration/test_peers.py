"""What the worker is compared with does the worker's work: the same results to the last digit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from stream import inference, topics
from stream.children import Child
from stream.config import ROOT, Settings, Worker
from stream.decoding import Chunk
from stream.encoding import values
from stream.pipeline import Pipeline
from tests.benchmark import tape
from tests.benchmark.stand import COMMANDS, Subject, environment, fill, missing, python_of, result_topics

TICKS = 300


@pytest.mark.parametrize("peer", ["kafka-python", "faust take", "quix", "bytewax"])
def test_a_peer_says_what_the_pipeline_says(
    peer: Subject, kafka_settings: Settings, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    if (why := missing(peer)) is not None:
        pytest.skip(why)
    names = msgspec.structs.replace(kafka_settings.topics, partitions=1)
    settings = msgspec.structs.replace(kafka_settings, topics=names, worker=Worker(group=names.ticks))
    topics.create(settings)
    recorded = tape.record(TICKS)
    fill(settings.broker, settings.topics.ticks, recorded, 1)
    command = [python_of(peer), *COMMANDS[peer]]
    with Child(command, tmp_path / "peer.log", environment(settings), directory=ROOT) as child:
        found = read(settings, child, eventually)
    pipeline = Pipeline(settings, inference.load(Path(settings.worker.models)), 0)
    batches = pipeline.process(Chunk(0, range(TICKS), recorded.keys, recorded.values), 0).batches
    for topic, batch in zip(result_topics(settings), batches, strict=True):
        assert found[topic] == [json.loads(value) for value in values(batch)]


def read(settings: Settings, child: Child, eventually: Callable[..., None]) -> dict[str, list[Any]]:
    """The records of each result topic, once there are as many as ticks."""
    found: dict[str, list[Any]] = {topic: [] for topic in result_topics(settings)}
    consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "peers"})
    consumer.assign([TopicPartition(topic, 0, 0) for topic in found])

    def complete() -> bool:
        for message in consumer.consume(3 * TICKS, 0.1):
            assert message.error() is None, message.error()
            found[message.topic() or ""].append(json.loads(message.value() or b""))
        assert child.running, child.last_lines()
        return all(len(records) >= TICKS for records in found.values())

    try:
        eventually(complete, 120.0)
    finally:
        consumer.close()
    return found
