"""Halts by hand: which ticks they hold for, what is kept of them, and what a worker tells."""

import logging
from typing import cast

import numpy as np
import pytest

from stream import halts, snapshots, switch
from stream.challenger import Shadow
from stream.config import Features, Settings
from stream.encoding import values
from stream.errors import BadMessage, DamagedSnapshot
from stream.halts import NOTHING, Halts, Taken
from stream.inference import Models
from stream.lanes import Lane
from stream.messages import (
    CONTROL_KEY,
    Control,
    ControlName,
    decode_action,
    decode_audit,
    encode,
)
from stream.metrics import Metrics
from stream.pipeline import Output, Pipeline
from stream.sealed import Stored
from stream.telemetry import Scores
from tests.fakes import FakeModels
from tests.golden import snapshot as golden
from tests.ticks import SECOND, START_NS, chunk, message

SETTINGS = Settings(features=Features(warm_ticks=1, warm_seconds=0.01))
NAMES = [("A", ""), ("B", "VENUE"), ("B", "")]


def control(name: ControlName, symbol: str | None = None, **changes: str) -> Control:
    told = {"control_id": f"{name} {symbol}", "by": "anna", "reason": "the feed is wrong"} | changes
    return Control(name, at_ns=START_NS, symbol=symbol, **told)


def in_force(*symbols: str | None) -> Halts:
    found = NOTHING
    for at, symbol in enumerate(symbols):
        found = halts.after(found, control("halt", symbol), at)
    return found


def halted(before: Halts, *controls: tuple[int, Control]) -> list[bool] | None:
    """Of ticks at the offsets 0, 2, 4 and 6, of the slots 0, 1, 2 and 0."""
    found = halts.pass_through(before, controls, np.arange(0, 8, 2), np.array([0, 1, 2, 0], np.int32), NAMES, 0)
    return None if found.halted is None else found.halted.tolist()


def test_without_controls_and_halts_nothing_is_looked_at() -> None:
    assert halted(NOTHING) is None


def test_a_control_holds_for_the_ticks_behind_it() -> None:
    assert halted(NOTHING, (3, control("halt"))) == [False, False, True, True]
    assert halted(in_force(None), (3, control("resume"))) == [True, True, False, False]
    assert halted(NOTHING, (1, control("halt")), (5, control("resume"))) == [False, True, True, False]
    assert halted(NOTHING, (7, control("halt"))) == [False] * 4


def test_a_halt_of_a_symbol_holds_at_every_venue_and_for_no_other_symbol() -> None:
    assert halted(in_force("B")) == [False, True, True, False]
    assert halted(in_force("NEVER SEEN")) == [False] * 4
    assert halted(NOTHING, (3, control("halt", "A"))) == [False, False, False, True]


def test_a_halt_of_all_and_one_of_a_symbol_know_nothing_of_each_other() -> None:
    assert halted(in_force(None, "B"), (1, control("resume"))) == [True, True, True, False]
    assert halted(in_force("B"), (1, control("resume"))) == [False, True, True, False]


def test_what_is_halted_stays_so_for_its_first_reason() -> None:
    before = in_force(None)
    again = halts.after(before, control("halt", reason="another"), 9)
    assert again is before
    assert halts.after(NOTHING, control("resume"), 9) is NOTHING


def test_the_symbols_halted_one_by_one_are_bounded() -> None:
    full = in_force(*(f"S{number}" for number in range(halts.MOST_SYMBOLS)))
    with pytest.raises(BadMessage, match="1000 symbols are halted one by one already: halt all instead"):
        halts.after(full, control("halt", "ONE MORE"), 9)
    assert len(halts.after(full, control("halt"), 9)) == halts.MOST_SYMBOLS + 1


def test_a_record_is_read_as_it_was_written() -> None:
    before = in_force(None, "B")
    value = halts.write(before, 77)
    assert halts.read(Stored(halts.key("g"), value, 3), "state", 1) == (before, 77)
    assert halts.write(NOTHING, 77) == b""


def test_a_record_of_the_first_form_stays_readable() -> None:
    """Never change this text: a release has written it."""
    value = (
        b"TH\x01\x00"
        b'{"next_offset":77,"halts":[{"symbol":null,"at_ns":1700000000000000000,"by":"anna","reason":"why",'
        b'"control_id":"c1","offset":5}]}'
        b"\xa0\x0e\x07\xb3"
    )
    found, next_offset = halts.read(Stored(halts.key("g"), value, 3), "state", 1)
    assert (list(found), next_offset) == ([None], 77)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (halts.write(in_force(None), 77)[:-1] + b"?", "its checksum does not match its content"),
        (b"", "its checksum does not match its content"),
        (b"TH\x02\x00{}\xee\xc5\x9c\xbe", "its form 2 is newer than 1, the newest known here"),
    ],
)
def test_a_damaged_record_stops_the_worker_with_its_place(value: bytes, why: str) -> None:
    with pytest.raises(DamagedSnapshot, match=f"topic state, partition 1, offset 3 cannot be used: {why}"):
        halts.read(Stored(halts.key("g"), value, 3), "state", 1)


# --- In a pipeline --------------------------------------------------------------------------------------------------


def pipeline() -> Pipeline:
    return Pipeline(SETTINGS, cast(Models, FakeModels()), 3)


def feed(one: Pipeline, first: int, *what: int | Control | bytes) -> Output:
    """Ticks of A at a price, controls, and raw bytes under the key of controls."""
    keys = [b"A" if isinstance(each, int) else CONTROL_KEY for each in what]
    raw = [
        message(symbol="A", exchange_ns=START_NS + (first + at) * SECOND, price=100.0 + each / 1000)
        if isinstance(each, int)
        else encode(each)
        if isinstance(each, Control)
        else each
        for at, each in enumerate(what)
    ]
    return one.process(chunk(raw, keys, first)._replace(partition=3), 1)


def gates(output: Output) -> list[tuple[int, str, str | None]]:
    found = map(decode_action, values(output.batches[2]))
    return [(each.offset, each.action, each.gated_by) for each in found]


RISING = (100, 101, 102, 103, 104, 105)  # momentum: the agent goes long


def test_a_control_is_no_tick_and_every_action_behind_it_is_flat() -> None:
    output = feed(pipeline(), 0, *RISING, control("halt"), 106, 107, control("resume"), 108)
    assert [taken.offset for taken in output.controls] == [6, 9]
    assert output.rejected == []
    assert gates(output)[5:] == [(5, "long", None), (7, "flat", "halted"), (8, "flat", "halted"), (10, "long", None)]
    assert {decode_action(value).target_position for value in values(output.batches[2])[6:8]} == {0.0}


def test_what_is_flat_anyway_is_said_to_be_halted_too() -> None:
    assert gates(feed(pipeline(), 0, control("halt"), 100)) == [(1, "flat", "halted")]


def test_other_results_do_not_change() -> None:
    ways = feed(pipeline(), 0, *RISING, control("halt"), 106), feed(pipeline(), 0, *RISING, control("resume"), 106)
    assert [batch.to_bytes() for batch in ways[0].batches[:2]] == [batch.to_bytes() for batch in ways[1].batches[:2]]
    assert ways[0].batches[2].to_bytes() != ways[1].batches[2].to_bytes()


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (message(symbol="A"), "unknown field `symbol`|missing required field|unknown field"),
        (encode(control("halt")).replace(b"halt", b"stop", 1), "Invalid enum value 'stop'"),
        (encode(control("halt"))[:-1] + b',"venue":"V"}', "unknown field `venue`"),
        (encode(control("halt", reason="x\n")), "reason holds what cannot be printed"),
        (encode(control("halt", by="\x1b[2J")), "by holds what cannot be printed"),
        (encode(control("halt", reason="x" * 501)), "length <= 500"),
        (b'{"reason":"' + b"x" * 70_000 + b'"}', "70013 bytes, worker.message_max_bytes is 65536"),
    ],
)
def test_a_malformed_control_is_refused_and_changes_nothing(raw: bytes, rule: str) -> None:
    one = pipeline()
    output = feed(one, 0, 100, raw, 101)
    (rejected,) = output.rejected
    assert (rejected.offset, rejected.reason) == (1, "control")
    assert any(text in rejected.rule for text in rule.split("|"))
    assert not output.controls
    assert not one.halts
    assert len(output.results.offset) == 2


def test_one_symbol_too_many_is_refused_as_a_control() -> None:
    one = pipeline()
    feed(one, 0, *(control("halt", f"S{number}") for number in range(halts.MOST_SYMBOLS)))
    (rejected,) = feed(one, 2000, control("halt", "ONE MORE")).rejected
    assert (rejected.offset, rejected.reason) == (2000, "control")
    assert len(one.halts) == halts.MOST_SYMBOLS


def test_a_null_under_the_key_of_controls_is_refused() -> None:
    output = pipeline().process(chunk([b""], [CONTROL_KEY])._replace(values=[None]), 1)
    assert [each.reason for each in output.rejected] == ["control"]


def test_only_a_change_is_captured_and_an_end_too() -> None:
    one = pipeline()
    feed(one, 0, 100)
    assert one.capture(1).halts is None
    feed(one, 1, control("halt", "A"))
    captured = one.capture(2)
    assert captured.names == []
    assert captured.halts == halts.write(one.halts, 2)
    feed(one, 2, control("halt", "A"), 101)
    assert one.capture(4).halts is None
    one.recapture()
    assert one.capture(4).halts == halts.write(one.halts, 4)
    feed(one, 4, control("resume", "A"))
    assert one.capture(5).halts == b""


def test_a_halt_goes_on_where_its_snapshot_ends() -> None:
    one = pipeline()
    feed(one, 0, 100, control("halt"), 101, control("halt", "B"))
    captured = one.capture(4)
    assert captured.halts
    stored = [Stored(key, value, at) for at, (key, value) in enumerate(snapshots.write(captured, "g"))]
    other = pipeline()
    restored = other.restore([*stored, Stored(halts.key("g"), captured.halts, 9)], "state")
    assert (restored.instruments, restored.next_offset) == (1, 4)
    assert other.halts == one.halts
    assert other.capture(4).halts is None
    assert gates(feed(other, 4, 102)) == [(4, "flat", "halted")]


def test_a_halt_alone_is_a_snapshot_too() -> None:
    one = pipeline()
    restored = one.restore([Stored(halts.key("g"), halts.write(in_force(None), 40), 9)], "state")
    assert (restored.instruments, restored.next_offset) == (0, 40)


def test_snapshots_from_before_there_were_halts_halt_nothing() -> None:
    one = pipeline()
    one.restore(golden.read(golden.file(1)), "state")
    assert not one.halts


# --- What a worker tells --------------------------------------------------------------------------------------------


def test_the_worker_shows_the_widest_halt_of_its_partitions(caplog: pytest.LogCaptureFixture) -> None:
    lanes = {number: Lane(pipeline(), Scores(number, 60.0), 0, 4, Shadow(SETTINGS)) for number in (0, 1)}
    metrics = Metrics()
    shown = switch.Switch(lanes, metrics)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"tapewatch_{name}")

    shown.show()
    assert (value("actions_halted"), shown.in_force()) == (0.0, [])
    with caplog.at_level(logging.WARNING):
        for number, lane in lanes.items():
            shown.note(number, feed(cast(Pipeline, lane.pipeline), 0, control("halt", "A")).controls)
    shown.show()
    assert value("actions_halted") == 1.0
    feed(cast(Pipeline, lanes[1].pipeline), 1, control("halt", by="otto"))
    shown.show()
    assert value("actions_halted") == 2.0
    assert [(each.symbol, each.by, each.partitions) for each in shown.in_force()] == [
        (None, "otto", [1]),
        ("A", "anna", [0, 1]),
    ]
    assert "halted partition=1 offset=0 scope='A' changed=True by='anna'" in caplog.text
    assert metrics.registry.get_sample_value("tapewatch_controls_total", {"control": "halt"}) == 2.0


def test_the_audit_names_partition_and_offset() -> None:
    (record,) = switch.records(3, [Taken(5, control("halt", "A"), changed=True, known=False)])
    found = decode_audit(record.value or b"")
    assert record.key == b"halt A"
    assert (found.event, found.control, found.symbol, found.partition, found.offset) == ("taken", "halt", "A", 3, 5)
    assert (found.by, found.reason, found.changed, found.known) == ("anna", "the feed is wrong", True, False)


def test_a_symbol_that_had_no_tick_before_the_control_is_said_to_be_unknown() -> None:
    one = pipeline()
    output = feed(one, 0, control("halt"), control("halt", "A"), 100, control("resume", "A"), control("halt", "TYPO"))
    assert [taken.known for taken in output.controls] == [None, False, True, False]
    assert [taken.known for taken in feed(one, 5, control("halt", "A")).controls] == [True]
