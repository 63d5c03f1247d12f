"""What a verification counts."""

import numpy as np
import pytest

from stream.spans import Spans
from stream.verify import Comparison, Named, Report, Tally, fingerprint, parse, runs, show

FIRST = 100
WANTED = np.array([11, 0, 13, 14], np.uint64)  # the tick at 101 calls for nothing


def compared(*records: tuple[int, int]) -> tuple[Tally, Comparison, int | None]:
    tally = Tally()
    comparison = Comparison(WANTED, FIRST, tally)
    for offset, found in records:
        comparison.add(offset, found, b"%d" % found)
    return tally, comparison, comparison.end()


def test_all_there_once_in_order() -> None:
    tally, comparison, missing = compared((100, 11), (102, 13), (103, 14))
    assert tally == Tally(expected=3, found=3)
    assert (comparison.differing, missing) == (None, None)


def test_the_first_missing_is_named() -> None:
    tally, _, missing = compared((100, 11))
    assert (tally.expected, tally.found, tally.missing) == (3, 1, 2)
    assert missing == 102


def test_a_repeated_stretch_is_duplicated_and_not_out_of_order() -> None:
    tally, _, _ = compared((100, 11), (102, 13), (100, 11), (102, 13), (103, 14))
    assert tally == Tally(expected=3, found=3, duplicated=2)


def test_a_first_answer_behind_a_later_one_is_out_of_order() -> None:
    tally, _, _ = compared((102, 13), (100, 11), (103, 14))
    assert tally.unordered == 1


@pytest.mark.parametrize("record", [(102, 99), (101, 12), (-1, 0)])
def test_other_content_and_answers_to_nothing_are_different(record: tuple[int, int]) -> None:
    tally, comparison, _ = compared((100, 11), record, (102, 13), (103, 14))
    assert tally.different == 1
    assert comparison.differing == (record[0], b"%d" % record[1])


def test_ticks_outside_the_range_do_not_count() -> None:
    assert compared((99, 5), (104, 5))[0] == Tally(expected=3, missing=3)


TWO_OF = Spans(np.array([0, -1, 1, 0], np.int32), np.array([0, 0]))  # instruments of the ticks 100, 102 and 103


def conflated(*records: tuple[int, int, int]) -> tuple[Tally, int | None]:
    tally = Tally()
    comparison = Comparison(WANTED, FIRST, tally, TWO_OF)
    for offset, found, ticks in records:
        comparison.add(offset, found, b"%d" % found, ticks)
    return tally, comparison.end()


def test_a_conflated_result_answers_the_ticks_that_it_stands_for() -> None:
    assert conflated((102, 13, 1), (103, 14, 2)) == (Tally(expected=3, found=3), None)
    assert conflated((102, 13, 1), (103, 14, 1)) == (Tally(expected=3, found=2, missing=1), 100)


def test_a_tick_that_is_stood_for_twice_is_duplicated() -> None:
    assert conflated((100, 11, 1), (102, 13, 1), (103, 14, 2))[0] == Tally(expected=3, found=3, duplicated=1)


def test_conflated_results_keep_the_order_of_each_instrument() -> None:
    assert conflated((103, 14, 2), (102, 13, 1))[0].unordered == 0
    assert conflated((103, 14, 1), (102, 13, 1), (100, 11, 1))[0].unordered == 1


def test_a_conflated_result_that_stands_for_more_than_there_were_is_different() -> None:
    assert conflated((100, 11, 1), (102, 13, 2), (103, 14, 1))[0].different == 1


def test_a_result_behind_the_range_counts_for_what_it_stands_for_in_it() -> None:
    tally = Tally()
    comparison = Comparison(WANTED, FIRST, tally, TWO_OF, count=3)
    comparison.add(102, 13, b"", 1)
    comparison.add(103, 99, b"", 2)  # what is behind the range is not compared
    comparison.add(103, 14, b"", 2)
    comparison.add(103, 14, b"", 1)
    assert comparison.end() is None
    assert tally == Tally(expected=2, found=2)


def test_duplicates_are_wrong_only_where_none_was_promised() -> None:
    tallies = {"risk": Tally(expected=1, found=1, duplicated=1)}
    assert Report("at_least_once", 1, 1, tallies).ok
    assert not Report("exactly_once", 1, 1, tallies).ok


def test_conflated_results_are_told() -> None:
    tallies = {"risk": Tally(expected=9, found=9)}
    assert "  3 results are conflated: " in show(Report("at_least_once", 9, 9, tallies, conflated=3))


def test_where_nothing_was_checked_nothing_is_verified() -> None:
    report = Report("at_least_once", 0, 0, {"risk": Tally()}, group="desk", uncommitted=7)
    assert not report.ok
    assert "  7 messages more are not committed by desk, and not checked\nNOTHING TO VERIFY: " in show(report)


def test_partitions_that_were_not_asked_for_are_told() -> None:
    report = Report("at_least_once", 1, 1, {"risk": Tally(expected=1, found=1)}, unchecked=[0, 2])
    assert report.ok
    assert show(report).endswith("verified, but partitions 0, 2 were not asked for")


@pytest.mark.parametrize("wrong", [Tally(missing=1), Tally(different=1), Tally(unordered=1)])
def test_what_is_wrong_is_wrong_for_both(wrong: Tally) -> None:
    report = Report("at_least_once", 1, 1, {"risk": wrong})
    assert not report.ok
    assert show(report).endswith("NOT VERIFIED")


def test_parts_of_a_record_are_not_mixed_up() -> None:
    assert (
        len({fingerprint(b"ab", b"c"), fingerprint(b"a", b"bc"), fingerprint(None, b"abc"), fingerprint(b"abc")}) == 4
    )


def named(*answers: tuple[int, str]) -> Named:
    head = Named(100)
    for answer in answers:
        head.add(*answer)
    return head


def test_ticks_are_computed_with_the_models_that_their_results_name() -> None:
    forecaster = named((3, "f@1"), (10, "f@1"), (20, "f@2"), (21, "f@2"), (30, "f@1"))
    critic = named((5, "c@1"), (20, "c@1"), (25, "c@2"))
    policy = named((3, "p@1"))
    assert runs(forecaster, critic, policy) == [
        (0, ("f@1", "c@1", "p@1")),
        (20, ("f@2", "c@1", "p@1")),
        (25, ("f@2", "c@2", "p@1")),
        (30, ("f@1", "c@2", "p@1")),
    ]


def test_of_two_results_for_a_tick_the_first_names_the_model() -> None:
    assert named((1, "f@1"), (2, "f@1"), (1, "f@2"), (200, "f@3"), (-1, "f@3")).changes() == [(1, "f@1")]


def test_without_results_of_a_head_no_model_is_named() -> None:
    assert runs(named(), named((1, "c@1")), named((1, "p@1"))) == []


def test_offsets_are_read() -> None:
    assert parse("0:1000,3:5") == {0: 1000, 3: 5}
    assert parse("beginning") is None


@pytest.mark.parametrize("text", ["", "1", "0:1:2", "a:1", "0:-1", "-1:0"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"below 0|values to unpack|invalid literal"):
        parse(text)
