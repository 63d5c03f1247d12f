"""A challenger changes no bit of what the champion answers, whatever it forecasts and whenever it fails."""

from itertools import pairwise
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.challenger import Challenger, Shadow
from stream.core.features import TickColumns
from stream.encoding import values
from stream.inference import Models
from stream.messages import Alert
from stream.metrics import Metrics
from stream.pipeline import Pipeline
from tests.fakes import FakeModels
from tests.property.test_pipeline_properties import EAGER, messages
from tests.ticks import chunk, streams
from tests.unit.test_challenger import FakeChallenger

WATCHED = np.array([0, -1, 1], np.int32)  # the second instrument is not
Answered = tuple[list[tuple[str, bytes]], list[Alert], dict[str, bytes]]


def answered(stream: list[tuple[bytes, bytes]], borders: list[int], challengers: list[Challenger | None]) -> Answered:
    """Records, alerts and state after a stream, the challenger another one in each chunk."""
    pipeline, metrics, now = Pipeline(EAGER, cast(Models, FakeModels()), 3), Metrics(), [None, *challengers]
    shadow = Shadow(EAGER, lambda: now[-1])
    records: list[tuple[str, bytes]] = []
    alerts: list[Alert] = []
    for first, last in pairwise(sorted({0, len(stream), *(border for border in borders if border < len(stream))})):
        keys, raw = zip(*stream[first:last], strict=True)
        output = pipeline.process(chunk(raw, keys, first)._replace(partition=3), 1)
        before = [column.tobytes() for column in (*output.results, output.features)]
        shadow.note(output.results, output.features, WATCHED[: int(output.results.slot.max(initial=-1)) + 1])
        shadow.show(metrics)
        assert [column.tobytes() for column in (*output.results, output.features)] == before
        records += [(batch.topic, value) for batch in output.batches for value in values(batch)]
        alerts += output.alerts
        if len(now) > 2:
            now.pop()
    return records, alerts, {name: rows.tobytes() for name, rows in vars(pipeline.state).items()}


made = st.builds(
    lambda factor, fails: cast(Challenger, FakeChallenger(factor, ArithmeticError() if fails else None)),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.booleans(),
)


@settings(max_examples=60)
@given(streams(), st.lists(st.integers(1, 60), max_size=6), st.lists(st.none() | made, min_size=1, max_size=6))
def test_with_a_challenger_and_without_one_every_bit_is_the_same(
    ticks: TickColumns, borders: list[int], challengers: list[Challenger | None]
) -> None:
    stream = messages(ticks)
    assert answered(stream, borders, challengers) == answered(stream, borders, [None])
