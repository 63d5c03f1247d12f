"""Where the stream is cut changes no bit of what comes out."""

from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import Alerts, Features, Settings
from stream.core.features import TickColumns
from stream.encoding import values
from stream.inference import Models
from stream.messages import Alert, Tick, encode
from stream.pipeline import Pipeline
from tests.fakes import FakeModels
from tests.ticks import chunk, streams

# So eager that made streams of a few ticks open and close alerts.
EAGER = Settings(
    features=Features(warm_ticks=2, warm_seconds=0.1),
    alerts=Alerts(price_jump=1.0, volatility=1.1, flow=0.5, flow_volume=1.01, gap_seconds=5.0, hold_seconds=0.5),
)
NAMES = ("A", "B", "C")
SIDES = {1: "buy", -1: "sell", 0: None}


def messages(ticks: TickColumns) -> list[tuple[bytes, bytes]]:
    rows = zip(*(column.tolist() for column in ticks), strict=True)
    return [
        (NAMES[slot].encode(), encode(Tick(NAMES[slot], ns, price, size, SIDES[side], trade_id or None)))  # type: ignore[arg-type]
        for slot, ns, price, size, side, trade_id, _ in rows
    ]


def run(
    stream: list[tuple[bytes, bytes]], borders: list[int]
) -> tuple[dict[str, list[bytes]], list[Alert], list[object]]:
    pipeline = Pipeline(EAGER, cast(Models, FakeModels()), 3)
    records: dict[str, list[bytes]] = {"predictions": [], "risk": [], "actions": []}
    alerts: list[Alert] = []
    rejected: list[object] = []
    edges = sorted({0, len(stream), *(border for border in borders if border < len(stream))})
    for first, last in pairwise(edges):
        keys, raw = zip(*stream[first:last], strict=True)
        output = pipeline.process(chunk(raw, keys, first)._replace(partition=3), 1)
        for batch in output.batches:
            records[batch.topic] += values(batch)
        alerts += output.alerts
        rejected += output.rejected
    return records, alerts, rejected


@settings(max_examples=60)
@given(streams(), st.lists(st.integers(1, 60), max_size=8), st.booleans())
def test_cutting_the_stream_changes_no_byte(ticks: TickColumns, borders: list[int], junk: bool) -> None:
    stream = messages(ticks)
    if junk:
        stream.insert(len(stream) // 2, (b"A", b"junk"))
    assert run(stream, borders) == run(stream, [])
