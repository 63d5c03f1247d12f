"""Raw messages to columns: validation, instruments and their slots, and the reason for every refusal."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.core.features import TickColumns
from stream.errors import BadMessage
from stream.messages import (
    CONTROL_KEY,
    MAX_SYMBOL_LENGTH,
    TICK_DECODERS,
    Control,
    Reason,
    Tick,
    decode_any,
    decode_control,
    decode_tick,
    exchange_ns_rule,
    is_msgpack,
    trade_key,
)

SIDES: Final = {"buy": 1, "sell": -1, None: 0}


class Chunk(NamedTuple):
    """Records of one partition as they were fetched, in the order of their offsets."""

    partition: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def part(self, rows: slice) -> "Chunk":
        """Some of the records."""
        return Chunk(self.partition, self.offsets[rows], self.keys[rows], self.values[rows])


class Rejected(NamedTuple):
    """A message that is refused: its raw bytes, and which rule it broke."""

    offset: int
    key: bytes | None
    raw: bytes
    reason: Reason
    rule: str


class Decoded(NamedTuple):
    """A chunk after decoding: columns of the ticks that are well formed, and the rest with reasons."""

    ticks: TickColumns
    row: NDArray[np.int64]  # [n] the tick's place in the chunk
    rejected: list[Rejected]
    controls: list[tuple[int, Control]]  # row in the chunk; they are no ticks


class Instruments:
    """The instruments of a partition and their slots, in the order in which they were first seen.

    An instrument is a symbol at a venue. What is costly to check (printable symbol, key, capacity) is checked once,
    when it is first seen: the lookup is by key, symbol and venue together.
    """

    def __init__(self, limit: int) -> None:
        self.names: list[tuple[str, str]] = []
        self._limit = limit
        self._slots: dict[tuple[str, str], int] = {}
        self._known: dict[tuple[bytes | None, str, str], int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def slot(self, key: bytes | None, symbol: str, venue: str) -> int:
        """Slot of the instrument of a message.

        Raises
        ------
        BadMessage
            If the key is not the symbol, a name cannot be printed, or there are too many instruments.
        """
        slot = self._known.get((key, symbol, venue))
        if slot is None:
            _check_key(key, symbol)
            slot = self._known[key, symbol, venue] = self.add(symbol, venue)
        return slot

    def slots(self, keys: Sequence[bytes | None], ticks: Sequence[Tick]) -> list[int]:
        """Slots of messages whose instruments have all been seen; KeyError if one has not."""
        known = self._known
        return [known[key, tick.symbol, tick.venue] for key, tick in zip(keys, ticks, strict=True)]

    def find(self, symbol: str, venue: str) -> int | None:
        """Slot of an instrument; None if it was never seen."""
        return self._slots.get((symbol, venue))

    def add(self, symbol: str, venue: str) -> int:
        """Slot of an instrument that has no key, as in a file; errors as in `slot`."""
        slot = self._slots.get((symbol, venue))
        if slot is not None:
            return slot
        _check_name("symbol", symbol)
        _check_name("venue", venue)
        if len(self.names) >= self._limit:
            raise BadMessage(
                "too_many_symbols",
                f"{symbol!r} would be instrument {len(self.names) + 1} of the partition, worker.max_symbols is "
                f"{self._limit}",
            )
        slot = self._slots[symbol, venue] = len(self.names)
        self.names.append((symbol, venue))
        return slot


def decode(chunk: Chunk, instruments: Instruments, max_bytes: int) -> Decoded:
    """Decode every message of the chunk alone: two broken ones cannot heal each other.

    Parameters
    ----------
    chunk
        Messages as fetched.
    instruments
        Of the partition; new ones are added.
    max_bytes
        A longer message is refused undecoded.
    """
    try:
        if max(map(len, chunk.values), default=0) > max_bytes:  # type: ignore[arg-type]
            raise BadMessage("too_large", "")
        ticks = list(map(_tick_decoder(chunk.values), chunk.values))  # type: ignore[arg-type]
        slots = instruments.slots(chunk.keys, ticks)
    except (BadMessage, KeyError, TypeError, ValueError, RecursionError):
        # A message of the chunk is bad or a control, or an instrument is new: look at each of them.
        return _decode_each(chunk, instruments, max_bytes)
    return Decoded(_columns(ticks, slots, chunk.offsets), np.arange(len(ticks)), [], [])


def _tick_decoder(values: Sequence[bytes | None]) -> Callable[[bytes], Tick]:
    """For all that is written as the first one is; another one is an error, after which each is looked at."""
    return TICK_DECODERS["msgpack" if values and values[0] and is_msgpack(values[0]) else "json"]


def _decode_each(chunk: Chunk, instruments: Instruments, max_bytes: int) -> Decoded:
    ticks: list[Tick] = []
    slots: list[int] = []
    rows: list[int] = []
    rejected: list[Rejected] = []
    controls: list[tuple[int, Control]] = []
    for row, (key, value) in enumerate(zip(chunk.keys, chunk.values, strict=True)):
        try:
            if key == CONTROL_KEY:
                controls.append((row, _control(value, max_bytes)))
                continue
            tick = _decode_one(value, max_bytes)
            slots.append(instruments.slot(key, tick.symbol, tick.venue))
        except BadMessage as error:
            rejected.append(Rejected(chunk.offsets[row], key, value or b"", error.reason, error.rule))
            continue
        ticks.append(tick)
        rows.append(row)
    columns = _columns(ticks, slots, [chunk.offsets[row] for row in rows])
    return Decoded(columns, np.array(rows, np.int64), rejected, controls)


def _decode_one(value: bytes | None, max_bytes: int) -> Tick:
    if not value:
        raise BadMessage("json", "the message is empty")
    if len(value) > max_bytes:
        raise BadMessage("too_large", f"{len(value)} bytes, worker.message_max_bytes is {max_bytes}")
    try:
        return decode_tick(value)
    except msgspec.ValidationError as error:
        raise _broken_rule(value, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if is_msgpack(value):
            raise BadMessage("msgpack", str(error)) from None
        hint = "; JSON has no NaN and no Infinity" if b"NaN" in value or b"Infinity" in value else ""
        raise BadMessage("json", f"{error}{hint}") from None


def _control(value: bytes | None, max_bytes: int) -> Control:
    if value is not None and len(value) > max_bytes:
        raise BadMessage("control", f"{len(value)} bytes, worker.message_max_bytes is {max_bytes}")
    try:
        control = decode_control(value or b"")
    except (ValueError, RecursionError) as error:
        raise BadMessage("control", f"no control as messages.Control has it: {error}") from None
    for field in ("control_id", "by", "reason", "symbol"):
        if not (getattr(control, field) or "").isprintable():
            raise BadMessage("control", f"{field} holds what cannot be printed")
    return control


def _broken_rule(value: bytes, rule: str) -> BadMessage:
    """Reason and rule of a message that can be read but is no tick."""
    if "$.symbol" in rule and "length" in rule:
        return BadMessage("symbol", rule)
    if "$.side" in rule:
        return BadMessage("schema", f"{rule}: buy, sell, null or absent")
    if ">=" not in rule and "<=" not in rule and "out of range" not in rule:
        return BadMessage("schema", rule)
    if "$.exchange_ns" not in rule:
        return BadMessage("range", rule)
    try:
        return BadMessage("range", exchange_ns_rule(decode_any(value)["exchange_ns"]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # behind the field that is out of range
        return BadMessage("msgpack" if is_msgpack(value) else "json", str(error))


def _check_key(key: bytes | None, symbol: str) -> None:
    if key is None:
        raise BadMessage("key", f"the key is null, it must be the symbol {symbol!r}: order and state live by key")
    if key != symbol.encode():
        raise BadMessage("key", f"the key {key[:80]!r} is not the symbol {symbol!r}")


def _check_name(field: str, name: str) -> None:
    if not name.isprintable() or len(name) > MAX_SYMBOL_LENGTH or (field == "symbol" and not name):
        raise BadMessage("symbol", f"{field} {name[:80]!r} must be 1 to {MAX_SYMBOL_LENGTH} printable characters")


def _columns(ticks: Sequence[Tick], slots: Sequence[int], offsets: Sequence[int]) -> TickColumns:
    return TickColumns(
        np.array(slots, np.int32),
        np.array([tick.exchange_ns for tick in ticks], np.int64),
        np.array([tick.price for tick in ticks], np.float64),
        np.array([tick.size for tick in ticks], np.float64),
        np.array([SIDES[tick.side] for tick in ticks], np.int8),
        np.array([trade_key(tick.trade_id) for tick in ticks], np.int64),
        np.array(offsets, np.int64),
    )
