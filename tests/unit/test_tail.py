"""Records as lines: every topic reads well, and no record steers the terminal."""

import json
from typing import Any

import pytest

from stream import messages, tail
from stream.config import Topics
from stream.errors import MissingTopic
from stream.messages import (
    CONTROL_KEY,
    Action,
    Alert,
    Audit,
    Contribution,
    Control,
    Horizon,
    Injection,
    Prediction,
    Risk,
    Tick,
)
from stream.tail import PATIENCE_SECONDS, Awaited, Record

NS = 1_723_161_257_250_000_000
PLACE: dict[str, Any] = {"symbol": "BTCUSDT", "venue": "spot", "partition": 2, "offset": 41, "exchange_ns": NS}
HEAD = "2024-08-08 23:54:17.250  BTCUSDT @spot              "


def record(message: object, **headers: str) -> Record:
    value = message if isinstance(message, bytes) else messages.encode(message)
    return Record(2, 41, b"BTCUSDT", value, headers)


def test_a_tick() -> None:
    tick = Tick("BTCUSDT", NS, 61602.02, 0.00536, "buy", 3735703162, "spot")
    assert tail.line("ticks", record(tick)).plain == (HEAD + "     61,602.02  buy        0.00536  #3735703162")


def test_a_price_keeps_its_digits() -> None:
    assert tail.number(0.00002972) == "0.00002972"
    assert tail.number(1181888.0) == "1,181,888"
    assert tail.number(61602.02) == "61,602.02"


def test_a_prediction() -> None:
    horizons = [Horizon(10, 1e-5, 2e-4, 0.53, [-5e-4, -3e-4, 0.0, 3e-4, 6e-4])]
    line = tail.line("predictions", record(Prediction(**PLACE, warming=True, horizons=horizons, model="gru@1")))
    assert line.plain == HEAD + " 10 s vol   2.00 bp  up  53%  1-99%   -5.00 to  +6.00    warming"


def test_a_risk_is_coloured_by_its_level() -> None:
    risk = Risk(
        **PLACE,
        warming=False,
        anomaly=0.991,
        var_99=0.0012,
        es_975=0.0013,
        volatility_ratio=3.25,
        flow=0.5,
        liquidity=0.25,
        score=83.2,
        level="critical",
        model="wgan@1",
    )
    line = tail.line("risk", record(risk))
    assert line.plain == (
        HEAD + "score  83.2 critical  VaR   12.0 bp  ES   13.0 bp  anomaly 0.991  vol x3.2  flow 0.50  liquidity 0.25"
    )
    assert "bold red" in {str(span.style) for span in line.spans}


def test_an_action_says_what_overrode_the_agent() -> None:
    action = Action(
        **PLACE,
        warming=False,
        action="flat",
        target_position=0.0,
        action_values=[-1e-4, 0.0, 2e-4],
        expected_reward=0.0,
        gated_by="es_limit",
        model="dqn@1",
    )
    assert tail.line("actions", record(action)).plain == (
        HEAD + "flat   target +0.00  values in bp: short -1.00  flat +0.00  long +2.00  gated by es_limit"
    )


def test_an_alert_names_its_strongest_reasons_first() -> None:
    causes = [Contribution("flow_60s", 0.9, 0.1), Contribution("momentum_60s", 0.02, -0.5)]
    alert = Alert(
        "a-1", **PLACE, kind="pump", severity="critical", state="opened", value=0.03, threshold=0.01, reasons=causes
    )
    line = tail.line("alerts", record(alert))
    assert line.plain == (
        HEAD + "critical pump            opened   0.03 against 0.01  momentum_60s 0.02 (-0.5), flow_60s 0.9 (+0.1)"
    )


def test_the_truth_says_what_was_injected_and_what_must_open() -> None:
    injection = Injection("BTCUSDT", "spot", "flash-crash", NS, NS + 90 * 10**9, "price_jump", 7)
    assert tail.line("truth", record(injection)).plain == (
        HEAD + "flash-crash until 23:55:47.250, opens price_jump  seed 7"
    )


def test_a_reject_shows_reason_rule_and_what_came() -> None:
    rejected = record(b'{"price":NaN', reason="json", rule="it is cut off", partition="3", offset="1234")
    assert tail.line("rejected", rejected).plain == '      3:1234  json       it is cut off  {"price":NaN'


def test_junk_is_cut_and_cannot_steer_the_terminal() -> None:
    junk = b"\x1b[2J\xff\x00\xe2\x80\xae" + b"x" * 1_000_000
    line = tail.line("rejected", record(junk, reason="\x1b]0;title\x07", rule="r")).plain
    assert line.isprintable()
    assert r"\x1b[2J\xff\x00\u202e" in line
    assert r"\x1b]0;title\x07" in line
    assert "(1,000,009 bytes)" in line


def test_a_symbol_cannot_steer_the_terminal() -> None:
    line = tail.line("ticks", record(b'{"symbol":"A\\u001b[2J","exchange_ns":%d,"price":1,"size":1}' % NS))
    assert r"A\x1b[2J" in line.plain


@pytest.mark.parametrize("kind", list(tail.LINES))
def test_a_record_that_cannot_be_read_is_shown_as_it_is(kind: str) -> None:
    line = tail.line(kind, record(b"not json\n")).plain
    assert r"not json\n" in line
    assert line.isprintable()


def test_json_is_one_object_a_line_whatever_came() -> None:
    good = json.loads(tail.json_line(record(b'{"a":1}', reason="x")))
    assert good == {"partition": 2, "offset": 41, "key": "BTCUSDT", "headers": {"reason": "x"}, "value": {"a": 1}}
    text = tail.json_line(record(b"\x1b\xff\n"))
    assert text.isprintable()
    assert json.loads(text)["value"] == "\x1b\\xff\n"


def test_a_topic_goes_by_either_name() -> None:
    renamed = Topics(risk="desk.risk")
    assert tail.kind_of(renamed, "risk") == tail.kind_of(renamed, "desk.risk") == "risk"
    assert tail.kind_of(renamed, "ticks.rejected") == tail.kind_of(renamed, "rejected") == "rejected"
    with pytest.raises(MissingTopic, match=r"positions is no topic of ours: name one of ticks, .*desk\.risk"):
        tail.kind_of(renamed, "positions")


def test_a_control_and_its_audit_say_who_and_why() -> None:
    control = Control("halt", "c1", NS, "anna@desk", "the feed\x1b is wrong", "ACME")
    said = r"halt    ACME  by anna@desk: the feed\x1b is wrong"
    on_ticks = record(control)._replace(key=CONTROL_KEY)
    assert tail.line("ticks", on_ticks).plain.endswith(said)
    taken = Audit("taken", "halt", "c1", NS, "anna@desk", "the feed\x1b is wrong", "ACME", 1, 7, changed=False)
    assert tail.line("audit", record(taken)).plain.endswith(said + "  taken by 1:7, as before")


class Hand:
    """A clock that is set by hand, and what was said."""

    def __init__(self, symbol: str | None) -> None:
        self.seconds = 0.0
        self.said: list[str] = []
        self.awaited = Awaited(symbol, "risk", self.said.append, lambda: self.seconds)


def test_of_a_symbol_that_does_not_come_one_line_names_those_that_do_the_nearest_first() -> None:
    hand = Hand("BTCUSD")
    for key in (
        b"ETHUSDT",
        b"LTCUSDT",
        None,
        CONTROL_KEY,
        b"",
        b"btcusdt",
        b"ETHUSDT",
        b"A",
        b"B",
        b"C",
        b"D",
        b"E\x1b",
    ):
        assert not hand.awaited.shows(key)
    hand.seconds = PATIENCE_SECONDS - 0.1
    hand.awaited.look()
    assert hand.said == []
    hand.seconds = PATIENCE_SECONDS
    assert not hand.awaited.shows(b"F")
    hand.seconds = 100.0
    hand.awaited.look()
    (line,) = hand.said
    assert line == (
        "no record of BTCUSD has come on risk in 5 s; there are records of btcusdt, LTCUSDT, ETHUSDT, B, C, D, "
        "E\\x1b, A and 1 more; waiting on"
    )


def test_where_nothing_comes_the_line_says_that_too() -> None:
    hand = Hand("A\x1b")
    hand.seconds = PATIENCE_SECONDS
    hand.awaited.look()
    assert hand.said == ["no record of A\\x1b has come on risk in 5 s; nor one of any other symbol; waiting on"]


def test_of_a_symbol_that_comes_nothing_is_said() -> None:
    hand = Hand("A")
    assert [hand.awaited.shows(key) for key in (b"B", b"A", None)] == [False, True, False]
    hand.seconds = 100.0
    hand.awaited.look()
    assert hand.said == []


def test_where_all_are_shown_and_nothing_comes_the_line_says_so_once() -> None:
    hand = Hand(None)
    hand.seconds = PATIENCE_SECONDS - 0.1
    hand.awaited.look()
    assert hand.said == []
    for hand.seconds in (PATIENCE_SECONDS, 100.0):
        hand.awaited.look()
    assert hand.said == ["no record has come on risk in 5 s; waiting on"]


def test_where_all_are_shown_any_record_will_do() -> None:
    hand = Hand(None)
    assert hand.awaited.shows(None)
    assert hand.awaited.shows(b"A")
    hand.seconds = 100.0
    hand.awaited.look()
    assert hand.said == []
