"""What the board shows: rows by score, courses within their bound, alerts as they stand."""

from collections.abc import Sequence

import msgspec
import numpy as np

from stream.core.results import Results
from stream.decoding import Instruments, Rejected
from stream.messages import Alert, AlertState, Contribution
from stream.pipeline import Output
from stream.web.desk import MOST_ALERTS, MOST_ROWS, SPARKS, Desk, spark
from tests.unit.test_history import answers


def named(*names: str) -> Instruments:
    instruments = Instruments(10_000)
    for name in names:
        instruments.add(name, "V")
    return instruments


def output(results: Results, alerts: Sequence[Alert] = (), rejected: Sequence[Rejected] = ()) -> Output:
    return Output([], list(alerts), list(rejected), results, 0, {})


def alert(
    number: int = 0, state: AlertState = "opened", symbol: str = "A", detail: str = "", partition: int = 0
) -> Alert:
    why = [Contribution("momentum_1s", 0.01, 2.0)] if state == "opened" else []
    return Alert(
        f"{symbol}-{detail}-{number}",
        *(symbol, "V", "feed" if detail else "flow", "warning", state),
        *(partition, number, 1_700_000_000_000_000_000 + number, 2.0, 1.0),
        why,
        detail,
    )


def test_rows_of_all_partitions_stand_by_score() -> None:
    desk = Desk(10)
    desk.open(0, named("A", "B"))
    desk.open(1, named("C", "never heard"))
    desk.note(0, output(answers([1.0, 1.0], [20.0, 40.0], slots=[0, 1])), 5)
    desk.note(1, output(answers([1.0], [30.0])), 6)
    assert [(row.symbol, row.score, row.partition) for row in desk.rows()] == [
        ("B", 40.0, 0),
        ("C", 30.0, 1),
        ("A", 20.0, 0),
    ]
    assert desk.symbols() == 3
    assert desk.ticks == 3


def test_table_holds_only_the_highest_scores() -> None:
    count = MOST_ROWS + 20
    desk = Desk(4)
    desk.open(0, named(*(f"S{number}" for number in range(count))))
    desk.note(0, output(answers([1.0] * count, [float(number) for number in range(count)], slots=range(count))), 5)
    rows = desk.rows()
    assert [row.symbol for row in rows] == [f"S{number}" for number in range(count - 1, count - 1 - MOST_ROWS, -1)]
    assert desk.symbols() == count


def test_courses_are_bounded_over_all_partitions_and_come_free_with_one() -> None:
    desk = Desk(3)
    desk.open(0, named("A", "B"))
    desk.open(1, named("C", "D"))
    for partition in (0, 1):
        desk.note(partition, output(answers([1.0, 1.0], slots=[0, 1])), 5)
    kept = {name: desk.course(name, "V").kept for name in "ABCD"}
    assert kept == {"A": True, "B": True, "C": True, "D": False}
    assert desk.course("D", "V").row is not None
    desk.close(0)
    assert desk.course("A", "V").row is None
    desk.open(0, named("E"))
    desk.note(0, output(answers([1.0])), 5)
    assert desk.course("E", "V").kept


def test_rings_grow_and_keep_what_they_hold() -> None:
    desk = Desk(100)
    instruments = named("S0")
    desk.open(0, instruments)
    for number in range(60):
        instruments.add(f"S{number}", "V")
        desk.note(0, output(answers([1.0, 2.0], [float(number + 1)] * 2, slots=[number] * 2)), 5)
    assert [desk.course(f"S{number}", "V").price for number in range(60)] == [
        [number + 1.0, number + 1.0] for number in range(60)
    ]


def test_course_is_complete_or_what_came_since() -> None:
    desk = Desk(1)
    desk.open(0, named("A"))
    desk.note(0, output(answers([1.0, 2.0, 3.0], [10.0, 11.0, 12.0])), 5)
    whole, since = desk.course("A", "V"), desk.course("A", "V", 3)
    assert (whole.whole, list(whole.second), list(whole.price)) == (True, [1, 2, 3], [10.0, 11.0, 12.0])
    assert (since.whole, list(since.second)) == (False, [3])
    assert len(whole.quantiles) == 5
    assert whole.row is not None
    assert whole.row.change == np.log(1.2)
    msgspec.json.encode(whole)


def test_an_instrument_unknown_or_without_a_tick_has_no_row() -> None:
    desk = Desk(1)
    desk.open(0, named("A"))
    assert desk.course("A", "V").row is None
    assert desk.course("nobody", "").row is None
    assert desk.rows() == []


def test_chunk_without_answers_counts_its_rejects() -> None:
    desk = Desk(1)
    desk.open(0, named())
    desk.note(0, output(answers([]), rejected=[Rejected(0, None, b"", "json", "r")]), 5)
    assert desk.rejected == {"json": 1}
    assert desk.rows() == []


def test_alert_keeps_its_reasons_and_closes() -> None:
    desk = Desk(1)
    desk.alerts.note([alert(), alert(state="updated")])
    (noted,) = desk.alerts.newest()
    assert (noted.open, [reason.feature for reason in noted.reasons]) == (True, ["momentum_1s"])
    assert desk.alerts.of(0, "A", "V") == (1, False)
    desk.alerts.note([alert(state="closed")])
    (noted,) = desk.alerts.newest()
    assert (noted.open, [reason.feature for reason in noted.reasons]) == (False, ["momentum_1s"])
    assert desk.alerts.of(0, "A", "V") == (0, False)


def test_stale_alert_makes_the_row_stale_until_it_closes() -> None:
    desk = Desk(1)
    desk.open(0, named("A"))
    desk.note(0, output(answers([1.0])), 5)
    desk.alerts.note([alert(detail="stale")])
    assert [(row.stale, row.alerts) for row in desk.rows()] == [(True, 1)]
    desk.alerts.note([alert(detail="stale", state="closed")])
    assert [(row.stale, row.alerts) for row in desk.rows()] == [(False, 0)]


def test_closing_of_an_alert_opened_before_the_start_counts_nothing() -> None:
    desk = Desk(1)
    desk.alerts.note([alert(state="closed")])
    assert desk.alerts.of(0, "A", "V") == (0, False)
    assert [noted.open for noted in desk.alerts.newest()] == [False]


def test_alerts_are_bounded_and_those_over_go_first() -> None:
    desk = Desk(1)
    desk.alerts.note([alert(0)])
    for number in range(1, MOST_ALERTS + 10):
        desk.alerts.note([alert(number), alert(number, "closed")])
    newest = desk.alerts.newest()
    assert len(newest) == MOST_ALERTS
    assert newest[0].alert_id == "A--0"
    assert newest[0].open
    assert newest[1].alert_id == f"A--{MOST_ALERTS + 9}"


def test_alerts_of_a_partition_that_went_away_are_no_more_open_here() -> None:
    desk = Desk(1)
    desk.open(0, named("A"))
    desk.alerts.note([alert(), alert(symbol="B", partition=1)])
    desk.close(0)
    assert desk.alerts.of(0, "A", "V") == (0, False)
    assert [noted.symbol for noted in desk.alerts.newest()] == ["B"]


def test_spark_runs_from_lowest_to_highest_and_ends_with_the_last_price() -> None:
    assert spark(np.array([1.0, 3.0, 2.0])) == [0, 99, 50]
    assert spark(np.array([])) == []
    assert spark(np.array([5.0, 5.0])) == [50, 50]
    long = spark(np.arange(600.0))
    assert (len(long), long[0], long[-1]) == (SPARKS, 0, 99)
