"""From bytes that a fuzzer makes to messages: some bytes as they are, some ticks with fields drawn from the bytes."""

import json
import struct
from typing import Any, Final, NamedTuple

import msgspec

from stream.messages import CONTROL_KEY

MOST: Final = 6  # messages an input
START_NS: Final = 1_700_000_000_000_000_000
SYMBOLS: Final = ("A", "B", "BTCUSDT", "", "x" * 64, "x" * 65, "ünïcödé", "a b", "\x00", '"', "😀")
FIELDS: Final = ("symbol", "exchange_ns", "price", "size", "side", "trade_id", "venue", "account", "other")
ODD: Final[tuple[Any, ...]] = (
    None, True, "", "1", [], {}, 0, -1, 1.5, 1e308, -1e308, 5e-324, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63),
    float("nan"), float("inf"), "buy", "sell", "hold",
)  # fmt: skip


class Message(NamedTuple):
    """One message on the topic of ticks."""

    key: bytes | None
    value: bytes | None


class Source:
    """Choices, taken from bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found.ljust(count, b"\0")

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1, at most 256."""
        return self.take(1)[0] % limit

    def integer(self) -> int:
        """Any of 64 bits."""
        return int(struct.unpack("<q", self.take(8))[0])

    def real(self) -> float:
        """Any of 64 bits, NaN and infinities too."""
        return float(struct.unpack("<d", self.take(8))[0])


def messages(data: bytes) -> list[Message]:
    """At least one message, at most MOST."""
    source, found = Source(data), list[Message]()
    while not found or (source.left and len(found) < MOST):
        kind = source.below(8)
        if kind == 0:
            raw = source.take(source.below(200))
            found.append(Message(source.take(source.below(8)) if source.below(2) else None, raw))
        elif kind == 1:
            found.append(Message(b"A", None) if source.below(2) else _control(source))
        else:
            found.append(_tick(source, kind))
    return found


def _control(source: Source) -> Message:
    """What has the key of a control, be it one or not."""
    if source.below(4) == 0:
        return Message(CONTROL_KEY, source.take(source.below(60)) or None)
    fields: dict[str, Any] = {"control": ("halt", "resume")[source.below(2)], "control_id": "c", "at_ns": START_NS}
    fields |= {"by": "anna", "reason": "why", "symbol": (None, *SYMBOLS)[source.below(len(SYMBOLS) + 1)]}
    if source.below(3) == 0:
        fields[(*fields, "other")[source.below(len(fields) + 1)]] = ODD[source.below(len(ODD))]
    return Message(CONTROL_KEY, json.dumps(fields).encode())


def _tick(source: Source, kind: int) -> Message:
    symbol = SYMBOLS[source.below(3 if kind < 6 else len(SYMBOLS))]
    tick: dict[str, Any] = {
        "symbol": symbol,
        "exchange_ns": START_NS + source.integer() // (1 << 10 * source.below(6)),
        "price": 100.0 + source.below(200) / 100,
        "size": 1.0 + source.below(9),
    }
    if source.below(2):
        tick["trade_id"] = source.integer() >> source.below(64)
    if kind > 3:
        for _ in range(source.below(4)):
            _change(source, tick)
    value = _packed(tick) if source.below(3) == 0 else json.dumps(tick).encode()
    if kind == 7:
        value = _spoilt(source, value)
    return Message(symbol.encode() if source.below(8) else b"other", value)


def _packed(tick: dict[str, Any]) -> bytes:
    try:
        return msgspec.msgpack.encode(tick)
    except OverflowError:  # MessagePack has no integer beyond 64 bits
        return json.dumps(tick).encode()


def _change(source: Source, tick: dict[str, Any]) -> None:
    field = FIELDS[source.below(len(FIELDS))]
    match source.below(4):
        case 0:
            tick.pop(field, None)
        case 1:
            tick[field] = source.integer()
        case 2:
            tick[field] = source.real()
        case _:
            tick[field] = ODD[source.below(len(ODD))]


def _spoilt(source: Source, value: bytes) -> bytes:
    at = source.below(256) % (len(value) + 1)
    match source.below(4):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + source.take(1 + source.below(4)) + value[at:]
        case 2:
            return value + value
        case _:
            return value[:at] + source.take(1) + value[at + 1 :]
