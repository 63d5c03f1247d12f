"""Commit book-keeping by spans."""

import pytest

from stream.ledger import Ledger


def test_point_is_unknown_before_the_first_span() -> None:
    assert Ledger().point is None


def test_point_stays_at_the_start_while_nothing_is_done() -> None:
    ledger = Ledger(100)
    ledger.open(100, 200)
    assert ledger.point == 100
    assert ledger.position == 200


def test_point_follows_the_done_prefix() -> None:
    ledger = Ledger(0)
    first, second, third = ledger.open(0, 10), ledger.open(10, 30), ledger.open(30, 35)
    ledger.done(second)
    assert ledger.point == 0
    ledger.done(first)
    assert ledger.point == 30
    ledger.done(third)
    assert ledger.point == 35
    assert len(ledger) == 0


def test_offsets_that_hold_nothing_are_done_with_the_span_behind_them() -> None:
    ledger = Ledger(0)
    before = ledger.open(0, 5)
    after = ledger.open(8, 9)
    ledger.done(after)
    assert ledger.point == 0
    ledger.done(before)
    assert ledger.point == 9


def test_an_empty_span_carries_the_point_over_markers_at_the_end() -> None:
    ledger = Ledger(0)
    data = ledger.open(0, 5)
    ledger.done(ledger.open(5, 6))
    assert ledger.point == 0
    ledger.done(data)
    assert ledger.point == 6


def test_a_span_of_an_older_generation_moves_nothing() -> None:
    ledger = Ledger(0)
    old = ledger.open(0, 10)
    ledger.reset(4)
    new = ledger.open(4, 20)
    ledger.done(old)
    assert ledger.point == 4
    ledger.done(new)
    assert ledger.point == 20


def test_done_twice_is_done_once() -> None:
    ledger = Ledger(0)
    span = ledger.open(0, 10)
    other = ledger.open(10, 20)
    ledger.done(span)
    ledger.done(span)
    assert ledger.point == 10
    ledger.done(other)
    assert ledger.point == 20


def test_a_rewound_partition_starts_afresh() -> None:
    ledger = Ledger(1000)
    lost = ledger.open(1000, 1010)
    again = ledger.open(0, 10)
    assert ledger.point == 0
    ledger.done(lost)
    assert ledger.point == 0
    ledger.done(again)
    assert ledger.point == 10


def test_a_span_cannot_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="first=5, end=4"):
        Ledger().open(5, 4)
