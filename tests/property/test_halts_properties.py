"""Halts anywhere, with the stream cut and the worker restarted anywhere: not a byte changes."""

from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from stream import halts, snapshots
from stream.core.features import TickColumns
from stream.encoding import values
from stream.inference import Models
from stream.messages import CONTROL_KEY, Control, decode_action, decode_control, encode
from stream.pipeline import Pipeline
from stream.sealed import Stored
from tests.fakes import FakeModels, FragileModels
from tests.property.test_pipeline_properties import EAGER, NAMES, messages
from tests.ticks import START_NS, chunk, streams

Stream = list[tuple[bytes, bytes]]


def with_controls(ticks: TickColumns, controls: list[tuple[int, bool, str | None]]) -> Stream:
    """The ticks, with controls put in at some places."""
    stream = messages(ticks)
    for number, (at, resume, symbol) in enumerate(controls):
        record = Control("resume" if resume else "halt", f"c{number}", START_NS, "anna", "why", symbol)
        stream.insert(min(at, len(stream)), (CONTROL_KEY, encode(record)))
    return stream


def published(stream: Stream, borders: list[int], stops: list[int], models: FakeModels) -> list[tuple[str, bytes]]:
    """All that comes out, audit included, where chunks end at `borders` and workers at `stops`."""
    edges = sorted({0, len(stream), *(each for each in (*borders, *stops) if each < len(stream))})
    one, topic, records = Pipeline(EAGER, cast(Models, models), 3), dict[bytes, bytes](), list[tuple[str, bytes]]()
    for first, last in pairwise(edges):
        if first in stops:
            one = Pipeline(EAGER, cast(Models, models), 3)
            one.restore([Stored(key, value, 0) for key, value in topic.items() if value], "state")
        keys, raw = zip(*stream[first:last], strict=True)
        output = one.process(chunk(raw, keys, first)._replace(partition=3), 1)
        records += [(batch.topic, value) for batch in output.batches for value in values(batch)]
        records += [("alerts", encode(alert)) for alert in output.alerts]
        records += [("rejected", b"%d" % each.offset) for each in output.rejected]
        records += [("audit", encode(halts.audit(taken, 3))) for taken in output.controls]
        captured = one.capture(last)
        topic.update(snapshots.write(captured, "g"))
        if captured.halts is not None:
            topic[halts.key("g")] = captured.halts
    return sorted(records)


controls = st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.sampled_from([None, *NAMES, "D"])), max_size=6)
places = st.lists(st.integers(1, 60), max_size=6)


@settings(max_examples=60)
@given(streams(), controls, places, places)
def test_cutting_and_stopping_anywhere_changes_no_byte(
    ticks: TickColumns, asked: list[tuple[int, bool, str | None]], borders: list[int], stops: list[int]
) -> None:
    stream = with_controls(ticks, asked)
    assert published(stream, borders, stops, FakeModels()) == published(stream, [], [], FakeModels())


@settings(max_examples=40)
@given(streams(), controls)
def test_halted_actions_are_flat_and_the_others_are_as_the_controls_before_them_say(
    ticks: TickColumns, asked: list[tuple[int, bool, str | None]]
) -> None:
    stream = with_controls(ticks, asked)
    wanted: dict[int, set[str | None]] = {}
    scopes: set[str | None] = set()
    for offset, (key, value) in enumerate(stream):
        if key == CONTROL_KEY:
            asked_for = decode_control(value)
            own = {asked_for.symbol}
            scopes = scopes | own if asked_for.control == "halt" else scopes - own
        wanted[offset] = scopes
    for topic, value in published(stream, [], [], FakeModels()):
        if topic == "actions":
            action = decode_action(value)
            expected = bool(wanted[action.offset] & {None, action.symbol})
            assert (action.gated_by == "halted") == expected
            assert not expected or (action.action, action.target_position) == ("flat", 0.0)


@settings(max_examples=20)
@given(streams(), controls)
def test_a_fault_of_ours_beside_a_control_costs_no_control(
    ticks: TickColumns, asked: list[tuple[int, bool, str | None]]
) -> None:
    stream = with_controls(ticks, asked)
    found = published(stream, [], [], FragileModels())
    assert sum(topic == "audit" for topic, _ in found) == len(asked)
    alone = published(stream, list(range(len(stream))), [], FragileModels())
    assert [each for each in found if each[0] == "actions"] == [each for each in alone if each[0] == "actions"]
