"""The whole path with models by hand: every message is answered or refused, and stale feeds are told."""

from typing import Any, cast

import msgspec

from stream.config import Features, Settings
from stream.core.results import RISK_COLUMNS
from stream.encoding import values
from stream.inference import Models
from stream.messages import Action, Prediction, Risk, decode_action, decode_prediction, decode_risk
from stream.pipeline import Output, Pipeline
from tests.fakes import FakeModels
from tests.ticks import SECOND, START_NS, chunk, message

SETTINGS = Settings(features=Features(warm_ticks=5, warm_seconds=2.0))


def pipeline(**worker: Any) -> Pipeline:
    settings = msgspec.structs.replace(SETTINGS, worker=msgspec.structs.replace(SETTINGS.worker, **worker))
    return Pipeline(settings, cast(Models, FakeModels()), 0)


def ticks(n: int, first: int = 0, **changes: Any) -> list[bytes | None]:
    """A tick a second."""
    return [message(exchange_ns=START_NS + (first + k) * SECOND, price=100.0 + k % 3, **changes) for k in range(n)]


def records(output: Output) -> tuple[list[Prediction], list[Risk], list[Action]]:
    by_topic = {batch.topic: values(batch) for batch in output.batches}
    return (
        [decode_prediction(value) for value in by_topic.get("predictions", [])],
        [decode_risk(value) for value in by_topic.get("risk", [])],
        [decode_action(value) for value in by_topic.get("actions", [])],
    )


def test_every_accepted_tick_has_three_results_with_its_offset() -> None:
    output = pipeline().process(chunk([*ticks(3), b"junk", *ticks(2, 3)], first=100), 1)
    predictions, risks, taken = records(output)
    expected = [100, 101, 102, 104, 105]
    for answers in (predictions, risks, taken):
        assert [answer.offset for answer in answers] == expected
        assert {(answer.symbol, answer.partition) for answer in answers} == {("A", 0)}
    assert [refusal.offset for refusal in output.rejected] == [103]
    assert predictions[0].exchange_ns == START_NS


def test_duplicate_and_outlier_are_refused_with_their_raw_bytes() -> None:
    raw = [message(trade_id=1), message(trade_id=1), message(price=500.0, trade_id=2)]
    output = pipeline().process(chunk(raw), 1)
    assert [(refusal.offset, refusal.reason, refusal.raw) for refusal in output.rejected] == [
        (1, "duplicate", raw[1]),
        (2, "band", raw[2]),
    ]


def test_refusals_come_in_the_order_of_their_offsets() -> None:
    raw = [message(trade_id=1), message(trade_id=1), b"junk", message(trade_id=1)]
    output = pipeline().process(chunk(raw), 1)
    assert [refusal.offset for refusal in output.rejected] == [1, 2, 3]


def test_chunk_without_a_good_tick_makes_no_batch() -> None:
    output = pipeline().process(chunk([b"a", b"b"]), 1)
    assert output.batches == []
    assert len(output.rejected) == 2


def test_results_say_when_the_instrument_is_warm() -> None:
    predictions, _, taken = records(pipeline().process(chunk(ticks(8)), 1))
    assert [prediction.warming for prediction in predictions] == [True] * 4 + [False] * 4
    assert all(action.action == "flat" for action in taken if action.warming)


def test_state_grows_with_the_instruments_and_keeps_the_old_ones() -> None:
    names = [f"S{k}" for k in range(200)]
    one = pipeline()
    for first in range(0, 200, 50):
        some = names[first : first + 50]
        one.process(chunk([message(symbol=name) for name in some], [name.encode() for name in some]), 1)
    later = [message(symbol=name, exchange_ns=START_NS + SECOND) for name in names]
    one.process(chunk(later, [name.encode() for name in names]), 1)
    assert one.state.features["ticks"][:200].tolist() == [2] * 200


def test_symbol_above_the_limit_is_refused_while_the_others_are_answered() -> None:
    output = pipeline(max_symbols=1).process(chunk([message(), message(symbol="B"), message()], [b"A", b"B", b"A"]), 1)
    assert [refusal.reason for refusal in output.rejected] == ["too_many_symbols"]
    assert len(output.results.slot) == 2


def test_alert_names_who_what_and_the_tick_that_opened_it() -> None:
    values_ = [*ticks(30), message(exchange_ns=START_NS + 200 * SECOND, price=100.0)]
    output = pipeline().process(chunk(values_, first=1000), 1)
    (alert,) = [alert for alert in output.alerts if alert.kind == "feed"]
    assert alert.alert_id == "A@:feed:0-1030"
    assert (alert.state, alert.detail, alert.offset) == ("opened", "gapped", 1030)
    assert alert.reasons[0].feature == "gap_seconds"
    assert alert.reasons[0].value == 171.0


def test_alerts_go_by_the_critics_anomaly_and_results_by_the_instruments_own() -> None:
    sent = ticks(10)
    one, other = pipeline(), pipeline()
    other.state.rarity["log_factor"][:] = -1.0
    first, second = (each.process(chunk(sent), 0) for each in (one, other))
    shown, rarer = (output.results.risk[:, RISK_COLUMNS.index("anomaly")] for output in (first, second))
    assert (rarer > shown).all()
    assert one.state.alerts["anomaly"][0] == other.state.alerts["anomaly"][0] > 0.0


def test_silent_feed_opens_a_stale_alert_once_and_closes_with_its_next_tick() -> None:
    one = pipeline()
    one.process(chunk(ticks(10)), 1_000_000)
    assert one.stale(1_010_000) == []
    (opened,) = one.stale(1_070_000)
    assert (opened.kind, opened.state, opened.detail, opened.offset) == ("feed", "opened", "stale", 9)
    assert one.stale(1_080_000) == []
    output = one.process(chunk(ticks(1, 11), first=10), 1_090_000)
    closed = [alert for alert in output.alerts if alert.detail == "stale"]
    assert [(alert.alert_id, alert.state) for alert in closed] == [(opened.alert_id, "closed")]


def test_time_of_publishing_stands_in_no_result() -> None:
    one, other = pipeline(), pipeline()
    early = one.process(chunk(ticks(8)), 1)
    late = other.process(chunk(ticks(8)), 999_999)
    assert [values(batch) for batch in early.batches] == [values(batch) for batch in late.batches]
