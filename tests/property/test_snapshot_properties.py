"""A worker that stops anywhere and starts from its snapshots answers as one that never stopped, to the last bit."""

from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from stream import snapshots
from stream.core.features import TickColumns
from stream.encoding import values
from stream.inference import Models
from stream.pipeline import Pipeline
from stream.sealed import Stored
from tests.fakes import FakeModels
from tests.property.test_pipeline_properties import EAGER, messages
from tests.ticks import chunk, streams

Topic = dict[bytes, Stored]


def fresh() -> Pipeline:
    return Pipeline(EAGER, cast(Models, FakeModels()), 3)


def feed(pipeline: Pipeline, stream: list[tuple[bytes, bytes]], first: int) -> list[object]:
    """Everything that is published for the ticks from offset `first` on."""
    if not stream:
        return []
    keys, raw = zip(*stream, strict=True)
    output = pipeline.process(chunk(raw, keys, first)._replace(partition=3), 1)
    records = [(batch.topic, value) for batch in output.batches for value in values(batch)]
    return [*sorted(records), *output.alerts, *output.rejected]


def checkpoint(pipeline: Pipeline, topic: Topic, next_offset: int) -> None:
    """Put the changed instruments on the topic; a newer snapshot takes the place of an older one."""
    for key, value in snapshots.write(pipeline.capture(next_offset), "g"):
        topic[key] = Stored(key, value, len(topic))


@settings(max_examples=60)
@given(streams(), st.lists(st.integers(0, 60), max_size=4))
def test_stopping_and_restoring_anywhere_changes_no_bit(ticks: TickColumns, stops: list[int]) -> None:
    stream = messages(ticks)
    edges = sorted({0, len(stream), *(stop for stop in stops if stop < len(stream))})
    steady, stopped, topic = fresh(), fresh(), Topic()
    for first, last in pairwise(edges):
        part = stream[first:last]
        assert feed(steady, part, first) == feed(stopped, part, first)
        checkpoint(stopped, topic, last)
        stopped = fresh()
        restored = stopped.restore(list(topic.values()), "state")
        assert restored.instruments == len(topic)
        assert restored.next_offset == last
