"""Which refused messages can be put back."""

import pytest

from stream.publisher import rejected_record
from stream.rejected import Refused, Sorted, place_of, refused_of, sort_out
from stream.topics import MAX_MESSAGE_BYTES


def refused(partition: int, offset: int, cut: bool = False) -> Refused:
    return Refused((partition, offset), "json", "no JSON", b"A", b"{", cut)


def test_a_record_of_the_worker_is_read_as_it_was_refused() -> None:
    record = rejected_record(2, 17, b"key", b"raw", "range", "price <= 0")
    found = refused_of(record.key, record.value, dict(record.headers))
    assert found == Refused((2, 17), "range", "price <= 0", b"key", b"raw", cut=False)


def test_a_record_that_was_cut_says_so() -> None:
    record = rejected_record(0, 1, None, b"x" * MAX_MESSAGE_BYTES, "too_large", "rule")
    found = refused_of(record.key, record.value, dict(record.headers))
    assert found is not None
    assert found.cut


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"partition": b"1", "offset": b"2"},
        {"partition": b"1", "offset": b"-2", "reason": b"json"},
        {"partition": b"\xff", "offset": b"2", "reason": b"json"},
        {"partition": None, "offset": b"2", "reason": b"json"},
    ],
)
def test_what_no_worker_wrote_is_passed_over(headers: dict[str, bytes | None]) -> None:
    assert refused_of(b"key", b"raw", headers) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [("0:12", (0, 12)), ("3:0", (3, 0)), ("", None), ("1", None), ("1:", None), ("-1:2", None), ("²:1", None)],
)
def test_a_place_is_a_partition_and_an_offset(text: str, place: tuple[int, int] | None) -> None:
    assert place_of(text) == place


def test_each_message_is_put_back_once_in_order() -> None:
    again = [refused(1, 5), refused(0, 9), refused(0, 3), refused(0, 9)]
    assert sort_out(again, set(), {}) == Sorted([refused(0, 3), refused(0, 9), refused(1, 5)], 0, 0, 0)
    assert sort_out(again, {(0, 3), (1, 6)}, {}) == Sorted([refused(0, 9), refused(1, 5)], 1, 0, 0)


def test_the_cut_and_those_older_than_the_ticks_are_left_out() -> None:
    found = sort_out([refused(0, 3), refused(0, 4), refused(0, 5, cut=True), refused(1, 3)], set(), {0: 4, 1: 3})
    assert found == Sorted([refused(0, 4), refused(1, 3)], put_back=0, cut=1, too_old=1)
