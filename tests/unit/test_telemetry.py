"""What a partition shows of its watch-list, once a second."""

from stream.decoding import Instruments
from stream.metrics import Metrics
from stream.telemetry import Scores
from tests.unit.test_metrics import read, samples
from tests.unit.test_outcomes import answers


def instruments(*symbols: str) -> Instruments:
    known = Instruments(100)
    for symbol in symbols:
        known.add(symbol, "")
    return known


def test_newest_tick_of_each_instrument_is_shown() -> None:
    metrics, scores = Metrics(), Scores(0)
    scores.note(answers([0, 0, 1], [0.0, 1.0, 2.0], slot=[0, 1, 0]))
    scores.show(metrics, instruments("A", "B"))  # both are new: they are on the list from now on
    price = read(metrics, "price", symbol="A", venue="")
    assert price is not None
    assert round(price, 6) == 7.389056  # e^2
    scores.note(answers([2], [0.0], slot=[1]))
    scores.show(metrics, instruments("A", "B"))
    assert read(metrics, "price", symbol="B", venue="") == 1.0
    assert read(metrics, "price", symbol="A", venue="") == price
    assert read(metrics, "return_quantile", symbol="A", venue="", quantile="0.05") == -0.03
    assert read(metrics, "volatility", symbol="A", venue="") == 0.02


def test_instrument_beyond_the_list_is_neither_shown_nor_followed() -> None:
    metrics, scores = Metrics(watch=["B"], watch_limit=1), Scores(0)
    known = instruments("A", "B")
    scores.note(answers([0, 0], [0.0, 0.0], slot=[0, 1]))
    scores.show(metrics, known)
    scores.note(answers([1, 1, 62, 62], [0.0, 0.0, 0.0, 0.0], slot=[0, 1, 0, 1]))
    scores.show(metrics, known)
    assert {dict(labels).get("symbol") for _, labels in samples(metrics)} == {None, "B"}
    assert read(metrics, "forecast_tests_total") == 1


def test_exception_of_the_var_reaches_counter_window_and_zone() -> None:
    metrics, scores = Metrics(), Scores(0)
    known = instruments("A")
    scores.note(answers([0], [0.0]))
    scores.show(metrics, known)
    scores.note(answers([1, 30, 62], [0.0, -0.035, -0.035], var_99=0.01))
    scores.show(metrics, known)
    assert read(metrics, "var_exceptions_total") == 1
    assert read(metrics, "forecast_below_total", quantile="0.01") == 0  # -0.04 is the first of the quantiles
    assert read(metrics, "forecast_below_total", quantile="0.05") == 1
    shown = {name: read(metrics, name, symbol="A", venue="") for name in ("var_window_tests", "var_zone")}
    assert shown == {"var_window_tests": 1, "var_zone": 1}
    scores.show(metrics, known)
    assert read(metrics, "forecast_tests_total") == 1  # told once


def test_pause_longer_than_the_session_gap_ends_no_test() -> None:
    metrics, scores = Metrics(), Scores(0, session_gap_seconds=100.0)
    known = instruments("A")
    scores.show(metrics, known)
    scores.note(answers([0, 101], [0.0, 0.0]))
    scores.show(metrics, known)
    assert read(metrics, "forecast_tests_total") == 0


def test_chunk_without_answers_changes_nothing() -> None:
    metrics, scores = Metrics(), Scores(0)
    scores.note(answers([], []))
    scores.show(metrics, instruments())
    assert not [name for name, labels in samples(metrics) if dict(labels).get("symbol")]
