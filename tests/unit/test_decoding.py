"""Every bad input of the wire, each with its reason, and the good ticks around it."""

import math

import msgspec
import pytest

from stream.decoding import Decoded, Instruments, decode
from stream.messages import ENCODERS, decode_any
from tests.ticks import START_NS, chunk, message

LIMIT = 65_536

BAD: dict[str, tuple[bytes | None, str]] = {
    "not JSON": (b"hello", "json"),
    "truncated": (message()[:-1], "json"),
    "empty": (b"", "json"),
    "null value": (None, "json"),
    "a megabyte of junk": (b"x" * 1_048_576, "too_large"),
    "deeply nested": (b'{"symbol":"A","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "json"),
    "an array": (b"[1,2]", "schema"),
    "wrong type": (message(price="100"), "schema"),
    "missing field": (b'{"symbol":"A","price":1,"size":1}', "schema"),
    "unknown side": (message(side="bid"), "schema"),
    "null price": (message(price=None), "schema"),
    "NaN": (message().replace(b"100.0", b"NaN"), "json"),
    "Infinity": (message().replace(b"100.0", b"Infinity"), "json"),
    "overflowing": (message().replace(b"100.0", b"1e400"), "range"),
    "1e308": (message().replace(b"100.0", b"1e308"), "range"),
    "zero price": (message(price=0), "range"),
    "negative price": (message(price=-1), "range"),
    "negative size": (message(size=-1), "range"),
    "seconds": (message(exchange_ns=START_NS // 10**9), "range"),
    "milliseconds": (message(exchange_ns=START_NS // 10**6), "range"),
    "year 2150": (message(exchange_ns=5_680_281_600_000_000_000), "range"),
    "empty symbol": (message(symbol=""), "symbol"),
    "65 characters": (message(symbol="A" * 65), "symbol"),
    "control character": (message(symbol="A\u0007"), "symbol"),
    "non-UTF-8 symbol": (message().replace(b'"A"', b'"\xff"'), "json"),
    "lone surrogate": (message().replace(b'"A"', b'"\\ud800"'), "json"),
}


def packed(**changes: object) -> bytes:
    """A tick in MessagePack."""
    return ENCODERS["msgpack"](decode_any(message()) | changes)


BAD_PACKED: dict[str, tuple[bytes, str]] = {
    "truncated": (packed()[:-1], "msgpack"),
    "trailing bytes": (packed() + b"x", "msgpack"),
    "deeply nested": (b"\x81\xa1x" + b"\x91" * 20_000 + b"\xc0", "msgpack"),
    "non-UTF-8 symbol": (packed().replace(b"\xa1A", b"\xa1\xff"), "msgpack"),
    "an array": (b"\x92\x01\x02", "json"),
    "a key that is no text": (b"\x81\x01\x02", "schema"),
    "wrong type": (packed(price="100"), "schema"),
    "missing field": (b"\x80", "schema"),
    "unknown side": (packed(side="bid"), "schema"),
    "NaN": (packed(price=math.nan), "range"),
    "infinity": (packed(size=math.inf), "range"),
    "negative price": (packed(price=-1), "range"),
    "seconds": (packed(exchange_ns=START_NS // 10**9), "range"),
    "empty symbol": (packed(symbol=""), "symbol"),
}


def decoded(values: list[bytes | None], keys: list[bytes | None] | None = None, limit: int = 10) -> Decoded:
    return decode(chunk(values, keys), Instruments(limit), LIMIT)


@pytest.mark.parametrize("name", BAD)
def test_bad_message_is_refused_with_its_reason_and_its_neighbours_are_kept(name: str) -> None:
    value, reason = BAD[name]
    key = b"A\x07" if name == "control character" else b"A"
    result = decoded([message(), value, message()], [b"A", key, b"A"])
    assert result.row.tolist() == [0, 2]
    assert result.ticks.offset.tolist() == [0, 2]
    (refusal,) = result.rejected
    assert (refusal.offset, refusal.raw, refusal.reason) == (1, value or b"", reason)
    assert refusal.rule


@pytest.mark.parametrize(("divisor", "unit"), [(10**9, "seconds"), (10**6, "milliseconds"), (10**3, "microseconds")])
def test_refused_time_says_which_unit_it_looks_like(divisor: int, unit: str) -> None:
    (refusal,) = decoded([message(exchange_ns=START_NS // divisor)]).rejected
    assert unit in refusal.rule


@pytest.mark.parametrize("key", [None, b"B", b"", b"a"])
def test_key_that_is_not_the_symbol_is_refused(key: bytes | None) -> None:
    result = decoded([message(), message(), message()], [b"A", key, b"A"])
    assert [refusal.reason for refusal in result.rejected] == ["key"]
    assert result.row.tolist() == [0, 2]


def test_unknown_fields_are_ignored() -> None:
    assert decoded([message(note="x", nested={"a": [1]})]).rejected == []


def test_symbol_above_the_limit_is_refused_and_the_known_ones_go_on() -> None:
    instruments = Instruments(2)
    names = ["A", "B", "C", "A"]
    values = [message(symbol=name) for name in names]
    result = decode(chunk(values, [name.encode() for name in names]), instruments, LIMIT)
    assert [refusal.reason for refusal in result.rejected] == ["too_many_symbols"]
    assert result.ticks.slot.tolist() == [0, 1, 0]
    assert len(instruments) == 2


def test_one_symbol_at_two_venues_is_two_instruments() -> None:
    result = decoded([message(venue="x"), message(venue="y"), message(venue="x")])
    assert result.ticks.slot.tolist() == [0, 1, 0]


def test_two_halves_of_a_message_do_not_heal_each_other() -> None:
    whole = message(note=[1, 2])
    at = whole.index(b"1,2") + 1
    result = decoded([whole[:at], whole[at + 1 :]])
    assert [refusal.offset for refusal in result.rejected] == [0, 1]


def test_a_time_out_of_range_in_front_of_broken_json_is_refused_as_json() -> None:
    # Found by `make fuzz`: the rule names the time as it is, and so had the whole message decoded again.
    assert [refusal.reason for refusal in decoded([2 * message(exchange_ns=-1)]).rejected] == ["json"]


def test_text_and_number_of_a_trade_id_are_the_same_id() -> None:
    result = decoded([message(trade_id=42), message(trade_id="42"), message(trade_id="x-42"), message(trade_id="x-42")])
    ids = result.ticks.trade_id.tolist()
    assert ids[0] == ids[1] == 42
    assert ids[2] == ids[3] not in (0, 42)


def test_chunk_of_nothing_but_junk_has_no_ticks() -> None:
    result = decoded([b"{", None, b"1"])
    assert len(result.ticks.slot) == 0
    assert len(result.rejected) == 3


def test_good_message_decodes_to_its_columns() -> None:
    ticks = decoded([message(side="sell", size=0.25, trade_id=7)]).ticks
    assert ticks.exchange_ns.tolist() == [START_NS]
    assert (ticks.price.tolist(), ticks.size.tolist()) == ([100.0], [0.25])
    assert (ticks.side.tolist(), ticks.trade_id.tolist()) == ([-1], [7])


def test_message_helper_makes_the_json_it_says() -> None:
    assert msgspec.json.decode(message(price=5))["price"] == 5


@pytest.mark.parametrize("name", BAD_PACKED)
@pytest.mark.parametrize("neighbour", [message(), packed()])
def test_bad_messagepack_is_refused_with_its_reason_and_its_neighbours_are_kept(name: str, neighbour: bytes) -> None:
    value, reason = BAD_PACKED[name]
    result = decoded([neighbour, value, neighbour], [b"A", b"A", b"A"])
    assert result.row.tolist() == [0, 2]
    (refusal,) = result.rejected
    assert (refusal.offset, refusal.raw, refusal.reason) == (1, value, reason)
    assert refusal.rule


def test_ticks_are_the_same_in_messagepack_and_in_a_mixture() -> None:
    ticks = [message(price=100.0 + row, trade_id=row + 1) for row in range(6)]
    alike = [ENCODERS["msgpack"](decode_any(tick)) for tick in ticks]
    mixed = [one if row % 2 else other for row, (one, other) in enumerate(zip(ticks, alike, strict=True))]
    keys: list[bytes | None] = [b"A"] * 6
    expected = decoded(list(ticks), keys).ticks
    for values in (alike, mixed, mixed[1:] + mixed[:1]):
        found = decoded(list(values), keys)
        assert not found.rejected
        assert found.ticks.slot.tolist() == expected.slot.tolist()
        assert sorted(zip(found.ticks.trade_id, found.ticks.price, strict=True)) == sorted(
            zip(expected.trade_id, expected.price, strict=True)
        )
