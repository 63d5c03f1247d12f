"""Swaps at any tick, with the stream cut and the worker restarted anywhere: the bytes are those that verify computes.

`verify` knows of the swaps only what the results name, so this is also a test that the names say all.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from stream import snapshots
from stream.core.features import TickColumns
from stream.encoding import values
from stream.inference import Models
from stream.messages import Action, Prediction, Risk, decode_action, decode_prediction, decode_risk
from stream.pipeline import Pipeline
from stream.sealed import Stored
from stream.succession import Names, Reign, Succession
from stream.verify import Named, runs
from tests.fakes import FakeModels
from tests.property.test_pipeline_properties import EAGER, messages
from tests.ticks import chunk, streams

Records = list[tuple[str, bytes]]
HIDDEN = (4, 6, 3)  # of the forecasters 1, 2 and 3
DECODERS: dict[str, Callable[[bytes], Prediction | Risk | Action]] = {
    "predictions": decode_prediction,
    "risk": decode_risk,
    "actions": decode_action,
}


def models(forecaster: int, critic: int) -> FakeModels:
    made = FakeModels()
    made.names = (f"f@{forecaster}", f"c@{critic}", "p@1")
    made.hidden_size = HIDDEN[forecaster - 1]
    return made


def load(names: Names) -> Models:
    return cast(Models, models(int(names[0][2:]), int(names[1][2:])))


def fresh() -> Pipeline:
    return Pipeline(EAGER, load(("f@1", "c@1", "p@1")), 3)


def feed(pipeline: Pipeline, stream: list[tuple[bytes, bytes]], first: int) -> Records:
    keys, raw = zip(*stream, strict=True)
    output = pipeline.process(chunk(raw, keys, first)._replace(partition=3), 1)
    return [(batch.topic, value) for batch in output.batches for value in values(batch)]


def worked(
    stream: list[tuple[bytes, bytes]], swaps: list[tuple[int, Names]], stops: list[int], killed: frozenset[int]
) -> Records:
    """What a worker publishes that stops at some offsets, and is told of all swaps by the record of them.

    Where it is killed it has committed, but taken no snapshots: the next one computes the ticks since the last again.
    """
    reigns = Succession((Reign(0, ("f@1", "c@1", "p@1"), ("", "", "")),))
    for first, names in swaps:
        reigns = reigns.followed(Reign(first, names, ("", "", "")), first)
    topic: dict[bytes, Stored] = {}
    records: Records = []
    included = 0
    for first, last in pairwise(sorted({0, len(stream), *(stop for stop in stops if stop < len(stream))})):
        pipeline = fresh()
        pipeline.succeed(included, [(max(included, each.first), load(each.models)) for each in reigns.since(included)])
        pipeline.restore(list(topic.values()), "state")
        if included < first:
            feed(pipeline, stream[included:first], included)
        records += feed(pipeline, stream[first:last], first)
        if last in killed:
            continue
        included = last
        for key, value in snapshots.write(pipeline.capture(last), "g"):
            topic[key] = Stored(key, value, len(topic))
    return records


def verified(stream: list[tuple[bytes, bytes]], published: Records) -> Records:
    """What verify computes, tick by tick, with the models that the published results name."""
    heads = {topic: Named(len(stream)) for topic in DECODERS}
    for topic, value in published:
        result = DECODERS[topic](value)
        heads[topic].add(result.offset, result.model)
    pipeline = fresh()
    pipeline.succeed(0, [(first, load(names)) for first, names in runs(*heads.values())])
    return [record for offset, tick in enumerate(stream) for record in feed(pipeline, [tick], offset)]


SWAPS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3), st.integers(1, 2)), max_size=5)


@settings(max_examples=80)
@given(streams(), SWAPS, st.lists(st.integers(1, 60), max_size=3), st.frozensets(st.integers(1, 60)))
def test_swapping_and_stopping_anywhere_gives_what_verify_computes(
    ticks: TickColumns, changes: list[tuple[int, int, int]], stops: list[int], killed: frozenset[int]
) -> None:
    stream = messages(ticks)
    in_order = [(first, load((f"f@{f}", f"c@{c}", "p@1")).names) for first, f, c in sorted(changes)]
    published = worked(stream, in_order, stops, killed)
    assert sorted(published) == sorted(verified(stream, published))
    assert sorted(published) == sorted(worked(stream, in_order, [], frozenset()))
