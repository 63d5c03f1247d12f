"""Pump alerts held against announced pumps, by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from stream.errors import TapewatchError
from training import pump_report, pumps
from training.pumps import SECOND, Outcome

TWO = np.ones(2, np.bool_)


def test_an_alert_finds_its_event_from_a_minute_before_to_25_s_after_the_start() -> None:
    since = np.array([-61.0, -60.0, 25.0, 26.0, -3000.0, 1801.0, 900.0])
    event = np.array([0, 0, 0, 0, 0, 1, 1])
    found = pumps.judge(np.arange(7), event, since, 2)
    assert found.seconds[0] == -60.0  # the first of two that count
    assert np.isnan(found.seconds[1])
    assert found.false.tolist() == [1, 1]  # what is within half an hour is the same pump


def test_f1_counts_missed_events_and_false_alerts() -> None:
    outcome = Outcome(np.array([3.0, np.nan]), np.array([1, 0]))
    assert outcome.f1(TWO) == pytest.approx(2 / (2 + 1 + 1))
    assert outcome.f1(np.array([False, True])) == 0.0


def test_the_middle_of_the_best_thresholds_is_chosen_and_not_by_the_event_left_out() -> None:
    good, bad = Outcome(np.array([1.0, 1.0]), np.array([0, 0])), Outcome(np.array([1.0, np.nan]), np.array([0, 0]))
    outcomes: dict[pumps.Thresholds, Outcome] = {
        (0.04, 20.0, 2.0): good,
        (0.04, 80.0, 2.0): good,
        (0.09, 20.0, 8.0): bad,
    }
    assert pumps.choose(outcomes, TWO) == (0.04, 40.0, 2.0)
    assert pumps.choose(outcomes, np.array([True, False])) == pytest.approx((0.0524, 31.7, 3.17))


class Told(pumps.Pumps):
    """Events whose outcome is told by the thresholds."""

    def outcome(self, thresholds: pumps.Thresholds) -> Outcome:
        """The return's threshold as seconds, for every event."""
        return Outcome(np.full(len(self.names), thresholds[0]), np.zeros(len(self.names), np.int64))


def test_events_of_the_same_group_have_no_say_and_the_later_half_is_by_time() -> None:
    start_ns = np.array([30, 10, 40, 20], np.int64)
    events = Told(None, ["A_3", "B_1", "A_4", "C_2"], start_ns, np.zeros(0, np.int64), np.zeros(0))  # type: ignore[arg-type]
    assert events.later().tolist() == [True, False, True, False]
    finds_a = Outcome(np.array([1.0, np.nan, 1.0, np.nan]), np.zeros(4, np.int64))
    finds_others = Outcome(np.array([np.nan, 1.0, np.nan, 1.0]), np.zeros(4, np.int64))
    outcomes: dict[pumps.Thresholds, Outcome] = {(0.04, 20.0, 2.0): finds_a, (0.09, 20.0, 2.0): finds_others}

    def judged(which: NDArray[np.bool_]) -> tuple[Outcome, pumps.Thresholds]:
        thresholds = pumps.choose(outcomes, which)
        return events.outcome(thresholds), thresholds

    found, chosen = pumps.left_out(["A", "B", "A", "C"], judged)
    assert [thresholds[0] for thresholds in chosen] == [0.09, 0.04, 0.09, 0.04]
    assert found.seconds.tolist() == [0.09, 0.04, 0.09, 0.04]


def test_a_made_pump_is_found_where_its_file_says_it_began(tmp_path: Path) -> None:
    start_ns = 1_600_000_000 * SECOND
    quiet = np.arange(-7200.0, 0.0, 5.0)
    rush = np.repeat(np.arange(0.0, 20.0, 0.5), 4)  # four trades a sweep
    price = np.concatenate((np.full(len(quiet), 100.0), 100.0 * np.exp(0.008 * rush)))
    table = {
        "symbol": ["A"] * len(price),
        "exchange_ns": start_ns + (np.concatenate((quiet, rush)) * SECOND).astype(np.int64),
        "price": price,
        "size": np.concatenate((np.ones(len(quiet)), np.full(len(rush), 5.0))),
        "side": ["buy"] * len(price),
        "event": ["A_1"] * len(price),
    }
    pq.write_table(pa.table(table), tmp_path / "ticks.parquet")
    (tmp_path / "events.csv").write_text(f"event,symbol,pump_ns\nA_1,A,{start_ns}\n")
    found = pumps.load(tmp_path / "ticks.parquet", tmp_path / "events.csv")
    assert found.quiet_days(np.array([True])) == pytest.approx(5400 / 86_400)
    outcome = found.outcome((0.05, 30.0, 3.5))
    assert 5.0 < outcome.seconds[0] < 12.0  # the average over 60 s lies 5 % below at about 7 s
    assert outcome.false.tolist() == [0]
    assert np.isnan(found.outcome((0.05, 3000.0, 3.5)).seconds[0])
    (tmp_path / "events.csv").write_text(f"event,symbol,pump_ns\nB_1,B,{start_ns}\n")
    with pytest.raises(TapewatchError, match="does not hold: A_1"):
        pumps.load(tmp_path / "ticks.parquet", tmp_path / "events.csv")


def test_pauses_between_sessions_are_no_time() -> None:
    assert pump_report.pauses_cut_out(np.array([0, 10, 1000, 9000, 9060]) * SECOND) == 1060.0
