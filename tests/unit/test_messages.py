"""The wire contract: what a tick's decoder lets through, and that everything else is refused with its rule."""

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from stream.decoding import Chunk, Instruments, decode
from stream.messages import (
    DECODE_ERRORS,
    MAX_EXCHANGE_NS,
    MAX_SYMBOL_LENGTH,
    MIN_EXCHANGE_NS,
    Action,
    Alert,
    Prediction,
    Risk,
    Tick,
    decode_tick,
    encode,
    exchange_ns_rule,
    trade_key,
)

NS = 1_723_161_300_000_000_000
GOOD: dict[str, Any] = {"symbol": "BTCUSDT", "exchange_ns": NS, "price": 61_234.5, "size": 0.25}


def raw(**changes: Any) -> bytes:
    """A good tick with fields changed, as JSON."""
    return json.dumps(GOOD | changes).encode()


def test_smallest_tick_has_the_documented_defaults() -> None:
    assert decode_tick(raw()) == Tick("BTCUSDT", NS, 61_234.5, 0.25, None, None, "", None)


def test_every_field_of_a_full_tick_is_kept() -> None:
    tick = decode_tick(raw(side="sell", trade_id=17, venue="binance", account="desk-1"))
    assert (tick.side, tick.trade_id, tick.venue, tick.account) == ("sell", 17, "binance", "desk-1")


def test_unknown_fields_are_ignored() -> None:
    assert decode_tick(raw(colour="red", nested={"deep": [1, None]})) == decode_tick(raw())


def test_whole_numbers_are_prices_too() -> None:
    assert decode_tick(raw(price=61_234, size=1)).price == 61_234.0


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 1e-12},
        {"price": 1e12},
        {"size": 1e-12},
        {"size": 1e15},
        {"exchange_ns": MIN_EXCHANGE_NS},
        {"exchange_ns": MAX_EXCHANGE_NS},
        {"symbol": "A"},
        {"symbol": "A" * MAX_SYMBOL_LENGTH},
        {"symbol": "株式"},
        {"side": None},
        {"trade_id": -(2**63)},
        {"trade_id": 2**63 - 1},
        {"trade_id": "x" * 64},
    ],
    ids=str,
)
def test_value_on_the_border_is_accepted(changes: dict[str, Any]) -> None:
    tick = decode_tick(raw(**changes))
    assert {name: getattr(tick, name) for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"price": 0}, "price"),
        ({"price": -1.0}, "price"),
        ({"price": 1e308}, "price"),
        ({"price": "61234.5"}, "price"),
        ({"price": None}, "price"),
        ({"price": True}, "price"),
        ({"size": 0.0}, "size"),
        ({"size": -0.25}, "size"),
        ({"size": 1e308}, "size"),
        ({"size": [1]}, "size"),
        ({"exchange_ns": NS // 10**9}, "exchange_ns"),
        ({"exchange_ns": NS // 10**6}, "exchange_ns"),
        ({"exchange_ns": NS // 10**3}, "exchange_ns"),
        ({"exchange_ns": MIN_EXCHANGE_NS - 1}, "exchange_ns"),
        ({"exchange_ns": MAX_EXCHANGE_NS + 1}, "exchange_ns"),
        ({"exchange_ns": 10**30}, "exchange_ns"),
        ({"exchange_ns": float(NS)}, "exchange_ns"),
        ({"exchange_ns": "2024-08-08T23:55:00Z"}, "exchange_ns"),
        ({"symbol": ""}, "symbol"),
        ({"symbol": "A" * (MAX_SYMBOL_LENGTH + 1)}, "symbol"),
        ({"symbol": 5}, "symbol"),
        ({"symbol": None}, "symbol"),
        ({"side": "BUY"}, "side"),
        ({"side": 1}, "side"),
        ({"venue": None}, "venue"),
        ({"venue": "v" * 65}, "venue"),
        ({"trade_id": ""}, "trade_id"),
        ({"trade_id": "x" * 65}, "trade_id"),
        ({"trade_id": 2**63}, "trade_id"),
        ({"trade_id": 1.5}, "trade_id"),
        ({"account": 7}, "account"),
    ],
    ids=str,
)
def test_bad_value_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{field}`"):
        decode_tick(raw(**changes))


@pytest.mark.parametrize("field", list(GOOD))
def test_missing_field_is_refused_by_name(field: str) -> None:
    rest = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field}`"):
        decode_tick(json.dumps(rest).encode())


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"nan", b"0x10", b"01", b"1_0"])
@pytest.mark.parametrize("field", ["price", "size"])
def test_number_that_is_no_finite_json_number_is_refused(field: str, number: bytes) -> None:
    value = raw(**{field: 7.5}).replace(b"7.5", number)
    assert number in value
    with pytest.raises(msgspec.DecodeError):
        decode_tick(value)


@pytest.mark.parametrize("value", [b"null", b"[]", b"{}", b"42", b'"BTCUSDT"', b"[" + raw() + b"]", b"true"])
def test_json_that_is_no_tick_is_refused(value: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_tick(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"not json",
        b"\x00\x01\x02\xff",
        b"x" * 1_048_576,
        b"\xef\xbb\xbf" + raw(),  # a byte order mark
        raw() + b"{}",
        raw() + raw(),
        raw().replace(b'"BTCUSDT"', b'"BTC\x01USDT"'),  # a control character that JSON wants escaped
        raw().replace(b'"BTCUSDT"', b'"\\ud800"'),  # half of a surrogate pair
        raw().replace(b'"BTCUSDT"', b"'BTCUSDT'"),
    ],
    ids=range(11),
)
def test_bytes_that_are_no_json_are_refused(value: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_tick(value)


def test_every_truncation_of_a_tick_is_refused() -> None:
    value = raw(side="buy", trade_id="x")
    for length in range(len(value)):
        with pytest.raises(msgspec.DecodeError):
            decode_tick(value[:length])


def test_symbol_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_tick(raw().replace(b"BTCUSDT", b"BTC\xff\xfe"))


@pytest.mark.parametrize("value", [b'{"x":' + b"[" * 60_000, b'{"x":' * 10_000, b"[" * 60_000])
def test_nesting_beyond_reason_raises_what_the_worker_catches(value: bytes) -> None:
    with pytest.raises(DECODE_ERRORS):
        decode_tick(value)


def test_all_decode_errors_of_this_file_are_among_those_that_the_worker_catches() -> None:
    assert issubclass(msgspec.DecodeError, DECODE_ERRORS)
    assert issubclass(msgspec.ValidationError, DECODE_ERRORS)
    assert issubclass(UnicodeDecodeError, DECODE_ERRORS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (NS // 10**9, "looks like seconds"),
        (NS // 10**6, "looks like milliseconds"),
        (NS // 10**3, "looks like microseconds"),
        (0, "is not between"),
        (-NS, "is not between"),
        (MAX_EXCHANGE_NS + 1, "is not between"),
    ],
)
def test_rule_of_a_time_guesses_the_unit_that_was_sent(value: int, said: str) -> None:
    rule = exchange_ns_rule(value)
    assert said in rule
    assert str(value) in rule


@pytest.mark.parametrize(
    ("trade_id", "key"),
    [(None, 0), (17, 17), ("17", 17), ("0017", 17), (-5, -5), ("9" * 18, 999_999_999_999_999_999)],
)
def test_decimal_trade_id_is_its_number(trade_id: int | str | None, key: int) -> None:
    assert trade_key(trade_id) == key


def test_text_trade_ids_hash_to_different_int64s() -> None:
    texts = ["x", "X", "17a", "", " 17", "-17", "9" * 19, "٣"]
    keys = {trade_key(text) for text in texts}
    assert len(keys) == len(texts)
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_text_trade_id_is_the_same_in_another_process() -> None:
    code = "from stream.messages import trade_key; print(trade_key('a-17'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == trade_key("a-17")


@pytest.mark.parametrize("struct", [Tick, Prediction, Risk, Action, Alert])
def test_messages_are_frozen(struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.frozen
    names = {field.name for field in msgspec.structs.fields(struct)}
    assert {"symbol", "venue", "exchange_ns"} <= names
    assert struct is Tick or {"partition", "offset"} <= names  # a result can be joined to its tick


@pytest.mark.parametrize("struct", [Prediction, Risk, Action, Alert])
def test_results_hold_no_clock_of_ours(struct: type[msgspec.Struct]) -> None:
    times = [field.name for field in msgspec.structs.fields(struct) if field.name.endswith(("_ns", "_ms", "time"))]
    assert times == ["exchange_ns"]


def test_encoded_tick_decodes_to_itself() -> None:
    tick = Tick("BTCUSDT", NS, 0.1, 1e-8, "buy", "a-1", "binance")
    assert decode_tick(encode(tick)) == tick


def test_good_ticks_around_one_that_nests_beyond_reason_are_decoded() -> None:
    bomb = b'{"x":' + b"[" * 60_000
    chunk = Chunk(0, [5, 6, 7], [b"BTCUSDT"] * 3, [raw(price=1.0), bomb, raw(price=3.0)])
    decoded = decode(chunk, Instruments(8), max_bytes=65_536)
    assert decoded.ticks.price.tolist() == [1.0, 3.0]
    assert [(refusal.offset, refusal.reason) for refusal in decoded.rejected] == [(6, "json")]
