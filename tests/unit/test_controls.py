"""Asking for halts, and reading what `audit` says of them."""

import pytest

from stream import controls
from stream.config import Settings, Worker
from stream.controls import Asked
from stream.errors import TapewatchError
from stream.messages import Audit, Control, ControlName, encode
from tests.ticks import START_NS

SETTINGS = Settings(worker=Worker(snapshots=False))


def audit(
    name: ControlName,
    control_id: str,
    partition: int | None = None,
    offset: int | None = None,
    symbol: str | None = None,
) -> Audit:
    event = "asked" if partition is None else "taken"
    return Audit(event, name, control_id, START_NS, "anna", "why", symbol, partition, offset, True, False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "by", "symbol", "why"),
    [
        ("  ", "anna", None, "length >= 1"),
        ("x" * 501, "anna", None, "length <= 500"),
        ("why", "", None, "length >= 1"),
        ("why", "anna", "", "length >= 1"),
        ("why", "anna", "S" * 65, "length <= 64"),
        ("a\nb", "anna", None, "the reason holds what cannot be printed"),
        ("why", "anna", "\x1b", "the symbol holds what cannot be printed"),
    ],
)
def test_what_a_worker_would_refuse_is_not_sent(reason: str, by: str, symbol: str | None, why: str) -> None:
    with pytest.raises(TapewatchError, match=why):
        controls.made("halt", reason, by, symbol)


def test_each_control_has_an_id_of_its_own() -> None:
    assert controls.made("halt", "why", "anna").control_id != controls.made("halt", "why", "anna").control_id


def test_what_is_in_force_is_what_the_partitions_took_in_their_order() -> None:
    audits = [
        audit("halt", "a"),
        audit("halt", "a", 0, 5),
        audit("halt", "a", 1, 7),
        audit("resume", "b", 0, 9),
        audit("halt", "a", 0, 5),  # published again after a crash
        audit("halt", "c", 1, 8, "S"),
        audit("halt", "d"),  # nobody took it
    ]
    found = controls.in_force(audits, range(3))
    assert {partition: list(there) for partition, there in found.items()} == {0: [], 1: [None, "S"], 2: []}


def test_what_is_no_audit_is_passed_over() -> None:
    assert controls.read(None) is None
    assert controls.read(b"junk") is None
    assert controls.read(encode(Audit("taken", "halt", "a", START_NS, "anna", "why"))) is None
    assert controls.read(encode(audit("halt", "a", 0, 5))) == audit("halt", "a", 0, 5)


def test_the_outcome_says_who_took_it_who_did_not_and_what_looks_wrong() -> None:
    asked = Asked(Control("halt", "a", START_NS, "anna", "why", "TYPO"), {0: 5, 1: 7}, {})
    said = list(controls.outcome(SETTINGS, asked, {0: audit("halt", "a", 0, 5, "TYPO")}, 10.0))
    assert said[0] == "halted symbol TYPO: taken by partition 0 (offset 5)"
    assert said[1] == "no partition has had a tick of TYPO so far: is it spelt right?"
    assert said[2].startswith("not yet taken by partition 1 after 10 s")
    assert said[3].endswith("a restart forgets the halt")


def test_the_history_marks_a_control_that_nobody_asked_for() -> None:
    said = controls._told([audit("halt", "a", 0, 5)], range(2))
    assert said.endswith("all symbols  by anna: why  taken by partitions 0  (not asked for by a command or the board)")
    assert controls._told([audit("halt", "a"), audit("halt", "a", 0, 5)], range(1)).endswith("taken by all partitions")
