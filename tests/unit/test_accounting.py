"""Messages and their answers, in every order in which they can meet."""

import itertools

import pytest

from stream.accounting import Accounts, Latency, Tally


def answer(accounts: Accounts, partition: int, offset: int, at: float = 1.0) -> None:
    for topic in range(3):
        accounts.answered(topic, partition, offset, at)


def test_answered_and_rejected_ticks_are_complete() -> None:
    accounts = Accounts()
    for offset in range(3):
        accounts.sent(1, offset, 0.0)
    answer(accounts, 1, 0)
    answer(accounts, 1, 2)
    accounts.rejected(1, 1, 1.0)
    assert accounts.tally() == Tally(3, 1, 2, 2, 2, missing=0, duplicates=0)
    assert accounts.tally().complete
    assert accounts.open == 0


def test_partitions_do_not_mix() -> None:
    accounts = Accounts()
    accounts.sent(0, 7, 0.0)
    answer(accounts, 1, 7)
    assert accounts.tally() == Tally(1, 0, 0, 0, 0, missing=3, duplicates=0)


def test_each_missing_result_counts() -> None:
    accounts = Accounts()
    accounts.sent(0, 0, 0.0)
    accounts.sent(0, 1, 0.0)
    answer(accounts, 0, 0)
    accounts.answered(1, 0, 1, 1.0)
    tally = accounts.tally()
    assert (tally.risk, tally.missing, tally.complete) == (2, 2, False)
    assert accounts.open == 1


def test_a_result_twice_is_a_duplicate() -> None:
    accounts = Accounts()
    accounts.sent(0, 0, 0.0)
    answer(accounts, 0, 0)
    accounts.answered(2, 0, 0, 2.0)
    assert accounts.tally() == Tally(1, 0, 1, 1, 1, missing=0, duplicates=1)
    assert not accounts.tally().complete


def test_a_rejection_twice_is_a_duplicate() -> None:
    accounts = Accounts()
    accounts.sent(0, 0, 0.0)
    accounts.rejected(0, 0, 1.0)
    accounts.rejected(0, 0, 1.0)
    assert accounts.tally().duplicates == 1


def test_a_rejected_tick_that_is_answered_too_is_not_complete() -> None:
    accounts = Accounts()
    accounts.sent(0, 0, 0.0)
    accounts.rejected(0, 0, 1.0)
    accounts.answered(0, 0, 0, 1.0)
    assert accounts.tally().duplicates == 1
    assert not accounts.tally().complete


def test_results_of_others_are_passed_over() -> None:
    accounts = Accounts()
    answer(accounts, 0, 99)
    answer(accounts, 0, 99)
    assert accounts.tally() == Tally(0, 0, 0, 0, 0, missing=0, duplicates=0)
    assert accounts.open == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_latency_is_to_the_last_result_whatever_comes_first(order: tuple[int, ...]) -> None:
    accounts = Accounts()
    for step, what in enumerate(order):
        if what == 3:
            accounts.sent(0, 0, 10.0)
        else:
            accounts.answered(what, 0, 0, 10.001 + step * 0.001)
    last = max(step for step, what in enumerate(order) if what != 3)
    assert accounts.latency().p99 == pytest.approx(1 + last)
    assert accounts.open == 0


def test_rejections_have_no_latency() -> None:
    accounts = Accounts()
    accounts.sent(0, 0, 0.0)
    accounts.rejected(0, 0, 5.0)
    assert accounts.latency() == accounts.recent_latency() == Latency(0.0, 0.0)


def test_percentiles_are_of_all_ticks() -> None:
    accounts = Accounts()
    for offset in range(101):
        accounts.sent(0, offset, 0.0)
        answer(accounts, 0, offset, at=offset / 1000)
    assert accounts.latency() == Latency(50.0, 99.0)
