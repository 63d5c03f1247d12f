"""Snapshots: the state of one instrument as bytes, with its version and checksum, readable by the next release.

A snapshot is what the results of an instrument's further ticks depend on, and the offset that it includes: all ticks of
the partition below `next_offset`. Its layout is written down here, field by field, apart from the arrays that the
worker computes with, so that those may change: reading copies by name, a field that is new stays as in a fresh
instrument, one that is gone is dropped. A changed layout gets a number of its own, and old numbers stay readable.

A layout, all little-endian, without padding: `magic`, `version`, `hidden_size`, `next_offset`, `forecaster` (which one
made the hidden state: that of the instrument's last answered tick), then the parts of the state with the part's name
before each field, `hidden`, and `crc`, a CRC-32C of everything before it.

A snapshot has 2,827 bytes with a hidden state of 32 numbers. `python -m tests.benchmark checkpoints recovery`, one core
of a 2-core virtual machine that others were using too: writing 10,000 of them takes the worker some 7 us each, copying,
checksum and record batches included, and loading them from Kafka 0.4 to 1.8 s.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.features import WINDOW
from stream.errors import DamagedSnapshot
from stream.sealed import SEAL_BYTES, Stored, is_whole, seal

MAGIC: Final = b"TS"
VERSION: Final = 3
"""The layout that is written."""

PARTS: Final = ("features", "conformal", "rarity", "risk", "actions", "alerts")

Field = tuple[str, str, tuple[int, ...]]

# Never change a layout that was released: add the next one. What an int8 holds is one here, whatever the kernels use.
# Of the mirrored window only the first half is kept.
_LAYOUT_1: Final[dict[str, list[Field]]] = {
    "features": [
        ("ticks", "<i8", ()),
        ("last_ns", "<i8", ()),
        ("prior_ns", "<i8", ()),
        ("active_seconds", "<f8", ()),
        ("price", "<f8", ()),
        ("log_price", "<f8", ()),
        ("log_high", "<f8", ()),
        ("last_return", "<f8", ()),
        ("side", "i1", ()),
        ("unseen", "<f8", (5,)),
        ("trades", "<f8", (5,)),
        ("volume", "<f8", (5,)),
        ("signed_volume", "<f8", (5,)),
        ("squared_return", "<f8", (5,)),
        ("absolute_return", "<f8", (5,)),
        ("return_product", "<f8", (5,)),
        ("grid_square", "<f8", (5,)),
        ("coarse_square", "<f8", (5,)),
        ("mean_log_price", "<f8", (5,)),
        ("rush_buy", "<f8", ()),
        ("rush_sell", "<f8", ()),
        ("rush_ns", "<i8", ()),
        ("rush_side", "i1", ()),
        ("rush_trades", "<i4", ()),
        ("grid_second", "<i8", ()),
        ("grid_log_price", "<f8", ()),
        ("coarse_second", "<i8", ()),
        ("coarse_log_price", "<f8", ()),
        ("faults", "<f8", (3,)),
        ("band_count", "<i4", ()),
        ("band_log_price", "<f8", ()),
        ("clock_count", "<i4", ()),
        ("clock_ns", "<i8", ()),
        ("highest_trade_id", "<i8", ()),
        ("trade_id_next", "<u2", ()),
        ("trade_ids", "<i8", (128,)),
        ("window_next", "<u2", ()),
        ("window", "<f4", (32, 3)),
    ],
    "risk": [("started", "?", ()), ("score", "<f8", ()), ("level", "i1", ())],
    "actions": [("held", "?", ()), ("position", "i1", ())],
    "alerts": [
        ("started", "?", ()),
        ("anomaly", "<f8", ()),
        ("normal", "<f8", (30,)),
        ("clock", "<f8", ()),
        ("open", "i1", (7,)),
        ("severity", "i1", (7,)),
        ("opened_offset", "<i8", (7,)),
        ("published", "<f8", (7,)),
        ("calm_since", "<f8", (7,)),
        ("detail", "i1", ()),
    ],
}
_LAYOUT_2: Final[dict[str, list[Field]]] = _LAYOUT_1 | {
    "features": [*_LAYOUT_1["features"], ("volume_4h", "<f8", ()), ("seen_4h", "<f8", ())],
    "conformal": [
        ("started", "?", ()),
        ("last_ns", "<i8", ()),
        ("last_price", "<f8", ()),
        ("scale", "<f8", (2, 4)),
        ("shortfall_scale", "<f8", ()),
        ("running", "i1", (2,)),
        ("start_ns", "<i8", (2,)),
        ("start_price", "<f8", (2,)),
        ("quantiles", "<f8", (2, 4)),
        ("value_at_risk", "<f8", ()),
        ("shortfall", "<f8", ()),
    ],
}
_LAYOUT_3: Final[dict[str, list[Field]]] = _LAYOUT_2 | {"rarity": [("log_factor", "<f8", ())]}
_LAYOUTS: Final = {1: _LAYOUT_1, 2: _LAYOUT_2, 3: _LAYOUT_3}

_HEAD: Final = np.dtype([("magic", "S2"), ("version", "<u2"), ("hidden_size", "<u2")])
_SEPARATOR: Final = "\0"  # cannot be printed, so it stands in no symbol and no venue

Instrument = tuple[str, str]


class Captured(NamedTuple):
    """A copy of the state of some instruments at one moment."""

    names: Sequence[Instrument]  # [n] symbol, venue
    state: Mapping[str, NDArray[Any]]  # each of PARTS, `hidden` and `forecaster`: [n] rows
    next_offset: int  # all ticks of the partition below it are included
    halts: bytes | None = None  # of the partition, as `halts.write` gives them; None: as at the last capture


class Table(NamedTuple):
    """Snapshots of one layout, checked."""

    names: list[Instrument]
    rows: NDArray[np.void]


@cache
def layout(version: int, hidden_size: int) -> np.dtype[np.void]:
    """The bytes of a snapshot with its fields; KeyError for a version that is not known."""
    fields: list[Any] = [
        *((name, _HEAD.fields[name][0]) for name in _HEAD.names or () if _HEAD.fields),
        ("next_offset", "<i8"),
        ("forecaster", "<u8"),
    ]
    for part, its_fields in _LAYOUTS[version].items():
        fields += [(f"{part}.{name}", kind, shape) for name, kind, shape in its_fields]
    return np.dtype([*fields, ("hidden", "<f4", (hidden_size,)), ("crc", "<u4")])


def fingerprint(model: str) -> int:
    """A model's name@version as 64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(model.encode(), digest_size=8).digest(), "little")


def key(group: str, symbol: str, venue: str) -> bytes:
    """Key of the snapshots that the workers of a group make of an instrument."""
    return f"{group}{_SEPARATOR}{symbol}{_SEPARATOR}{venue}".encode()


def origin_key(group: str) -> bytes:
    """Key of the record that names the topic of ticks, by its id, that a partition's snapshots were made of."""
    return f"{group}{_SEPARATOR}".encode()


def write(captured: Captured, group: str, first: int = 0, last: int | None = None) -> list[tuple[bytes, bytes]]:
    """Key and value of the snapshots of the instruments `first` to `last`, not included, for workers of `group`.

    A caller that must not stall takes them piece by piece.
    """
    piece = slice(first, last)
    names = captured.names[piece]
    hidden = captured.state["hidden"][piece]
    rows = np.zeros(len(names), layout(VERSION, hidden.shape[1]))
    rows["magic"], rows["version"], rows["hidden_size"] = MAGIC, VERSION, hidden.shape[1]
    rows["next_offset"], rows["forecaster"] = captured.next_offset, captured.state["forecaster"][piece]
    rows["hidden"] = hidden
    for part in PARTS:
        state = captured.state[part][piece]
        for name, _, shape in _LAYOUTS[VERSION][part]:
            rows[f"{part}.{name}"] = state[name][:, : shape[0]] if name == "window" else state[name]
    raw, size = rows.tobytes(), rows.dtype.itemsize
    starts = range(0, len(raw), size)
    return [(key(group, *name), seal(raw[at : at + size - SEAL_BYTES])) for name, at in zip(names, starts, strict=True)]


def read(stored: Sequence[Stored], topic: str, partition: int) -> list[Table]:
    """Check snapshots and lay them out, one table for each layout among them.

    Raises
    ------
    DamagedSnapshot
        Naming topic, partition, offset and instrument, if one is damaged or of a layout not known here.
    """
    groups: dict[tuple[int, int], list[Stored]] = {}
    for each in stored:
        groups.setdefault(_check(each, topic, partition), []).append(each)
    return [
        Table([_instrument(each.key) for each in group], np.frombuffer(b"".join(each.value for each in group), kind))
        for (version, hidden_size), group in groups.items()
        for kind in [layout(version, hidden_size)]
    ]


def _check(stored: Stored, topic: str, partition: int) -> tuple[int, int]:
    """Version and size of the hidden state of a sound snapshot."""
    value = stored.value
    if len(value) < _HEAD.itemsize + SEAL_BYTES or value[:2] != MAGIC:
        raise _damaged(stored, topic, partition, "this is no snapshot of Tapewatch")
    if not is_whole(value):
        raise _damaged(stored, topic, partition, "its checksum does not match its content")
    head = np.frombuffer(value, _HEAD, 1)[0]
    version, hidden_size = int(head["version"]), int(head["hidden_size"])
    if version not in _LAYOUTS:
        raise _damaged(stored, topic, partition, f"its layout {version} is newer than {VERSION}, the newest known here")
    if len(value) != layout(version, hidden_size).itemsize:
        raise _damaged(stored, topic, partition, f"it has {len(value)} bytes, which is not what its layout has")
    return version, hidden_size


def _damaged(stored: Stored, topic: str, partition: int, why: str) -> DamagedSnapshot:
    symbol, venue = (*stored.key.decode(errors="replace").split(_SEPARATOR)[1:], "?", "?")[:2]
    return DamagedSnapshot(
        f"the snapshot of {symbol}{'@' if venue else ''}{venue} in topic {topic}, partition {partition}, offset "
        f"{stored.offset} cannot be used: {why}; restore the topic, run the release that wrote it, or, to start cold, "
        "name another topic in topics.state"
    )


def _instrument(stored_key: bytes) -> Instrument:
    _, symbol, venue = stored_key.decode().split(_SEPARATOR)
    return symbol, venue


def fill(state: Mapping[str, NDArray[Any]], slots: NDArray[np.int64], rows: NDArray[np.void]) -> None:
    """Copy snapshots into the rows `slots` of a state, whose fields they do not have stay as they are.

    The state's `hidden` must be as wide as theirs at least.
    """
    names = set(rows.dtype.names or ())
    for part in PARTS:
        for name in state[part].dtype.names or ():
            if f"{part}.{name}" in names:
                _copy(state[part][name], slots, rows[f"{part}.{name}"], name == "window")
    state["hidden"][slots, : rows["hidden"].shape[1]] = rows["hidden"]
    state["forecaster"][slots] = rows["forecaster"]


def _copy(into: NDArray[Any], slots: NDArray[np.int64], values: NDArray[Any], is_window: bool) -> None:
    if is_window:  # the kernel keeps each row twice
        into[slots] = np.concatenate([values, values], axis=1)
        assert into.shape[1] == 2 * WINDOW
    else:
        into[slots] = values


def pieces(captured: Captured, group: str, instruments: int = 256) -> Iterator[list[tuple[bytes, bytes]]]:
    """`write` in pieces of so many instruments."""
    for first in range(0, len(captured.names), instruments):
        yield write(captured, group, first, first + instruments)
