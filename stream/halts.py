"""Halts: where people have stopped the agent's actions, since when, by whom and why. The state of one partition.

A *control* on the topic of ticks (`messages.Control`) halts or resumes them, for all symbols or for one, from its
offset on. So a halt is part of the stream: whoever computes the ticks again meets it at the same one. The halts in
force lie on the topic of snapshots, in a record a partition with a key of its own, committed with the snapshots.

The content of the record is JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import BadMessage
from stream.messages import Audit, Control
from stream.sealed import Form, Stored

FORM: Final = Form(b"TH", 1, "the halts in force", "cold and not halted")
MOST_SYMBOLS: Final = 1000
"""Halted one by one at a time; beyond them one halts all."""
_NAME: Final = b"\0\0halts"


class Halt(msgspec.Struct, frozen=True):
    """Why and since when actions are halted: as the control says that began it."""

    symbol: str | None  # None: all
    at_ns: int  # the clock of who asked
    by: str
    reason: str
    control_id: str
    offset: int  # of the control: it holds for the ticks behind it


Halts = Mapping[str | None, Halt]
"""The halts in force, by symbol; None for all. That of all and those of symbols know nothing of each other."""
NOTHING: Final[Halts] = {}


class Taken(NamedTuple):
    """A control that the partition has taken."""

    offset: int
    control: Control
    changed: bool  # False: it was so before
    known: bool | None  # whether its symbol had a tick in the partition before it; None: it is for all


class Passage(NamedTuple):
    """What a chunk's ticks and controls come to."""

    halted: NDArray[np.bool_] | None  # [n] of each tick; None: no tick is
    after: Halts
    taken: list[Taken]
    refused: list[tuple[int, str]]  # offset, rule


class _Form(msgspec.Struct, frozen=True):
    next_offset: int
    halts: list[Halt]


def pass_through(
    halts: Halts,
    controls: Sequence[tuple[int, Control]],
    offset: NDArray[np.int64],
    slot: NDArray[np.int32],
    names: Sequence[tuple[str, str]],
    known: int,
) -> Passage:
    """Which ticks of a chunk are halted, and what is in force behind them.

    Parameters
    ----------
    halts
        In force before the chunk.
    controls
        Of the chunk, with their offsets, ascending.
    offset, slot : int64[n], int32[n]
        Of the chunk's ticks, ascending offsets.
    names
        Symbol and venue of each slot.
    known
        How many of the slots had a tick before the chunk.
    """
    if not controls:
        return Passage(_halted(halts, slot, names) if halts else None, halts, [], [])
    parts: list[NDArray[np.bool_]] = []
    taken: list[Taken] = []
    refused: list[tuple[int, str]] = []
    begin = 0
    for at, control in controls:
        end = int(np.searchsorted(offset, at))
        parts.append(_halted(halts, slot[begin:end], names))
        begin = end
        try:
            followed = after(halts, control, at)
        except BadMessage as error:
            refused.append((at, error.rule))
        else:
            seen = {*range(known), *slot[:end].tolist()} if control.symbol is not None else None
            is_known = None if seen is None else control.symbol in {names[each][0] for each in seen}
            taken.append(Taken(at, control, followed is not halts, is_known))
            halts = followed
    parts.append(_halted(halts, slot[begin:], names))
    return Passage(np.concatenate(parts), halts, taken, refused)


def after(halts: Halts, control: Control, offset: int) -> Halts:
    """The halts in force behind a control; the same object where it changes nothing.

    What is halted already stays so since when and for the reason that it was.

    Raises
    ------
    BadMessage
        If it would halt more symbols than MOST_SYMBOLS.
    """
    symbol = control.symbol
    if (symbol in halts) == (control.control == "halt"):
        return halts
    if control.control == "resume":
        return {scope: halt for scope, halt in halts.items() if scope != symbol}
    if symbol is not None and len(halts) - (None in halts) >= MOST_SYMBOLS:
        raise BadMessage("control", f"{MOST_SYMBOLS} symbols are halted one by one already: halt all instead")
    halt = Halt(symbol, control.at_ns, control.by, control.reason, control.control_id, offset)
    return {**halts, symbol: halt}


def _halted(halts: Halts, slot: NDArray[np.int32], names: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    if None in halts or not halts:
        return np.full(len(slot), bool(halts))
    slots, where = np.unique(slot, return_inverse=True)
    of_slot = np.array([names[each][0] in halts for each in slots.tolist()], np.bool_)
    return of_slot[where]


def audit(taken: Taken, partition: int) -> Audit:
    """What the topic `audit` is told of a control that a partition has taken; it holds no clock of ours."""
    control = taken.control
    return Audit(
        event="taken",
        control=control.control,
        control_id=control.control_id,
        at_ns=control.at_ns,
        by=control.by,
        reason=control.reason,
        symbol=control.symbol,
        partition=partition,
        offset=taken.offset,
        changed=taken.changed,
        known=taken.known,
    )


def key(group: str) -> bytes:
    """Key of the record of a partition; no instrument has it, for none is without a symbol."""
    return group.encode() + _NAME


def write(halts: Halts, next_offset: int) -> bytes:
    """The value of a record that includes all controls below `next_offset`; empty where nothing is halted."""
    if not halts:
        return b""
    return FORM.write(msgspec.json.encode(_Form(next_offset, list(halts.values()))))


def read(stored: Stored, topic: str, partition: int) -> tuple[Halts, int]:
    """The halts of a record, and its `next_offset`.

    Raises
    ------
    DamagedSnapshot
        Naming topic, partition and offset, if it is damaged or of a form not known here.
    """
    form = msgspec.json.decode(FORM.read(stored, topic, partition), type=_Form)
    return {halt.symbol: halt for halt in form.halts}, form.next_offset


def part(stored: Sequence[Stored]) -> tuple[Stored | None, list[Stored]]:
    """The record among all that a partition of the topic holds of a group, if there is one, and the rest."""
    own = next((each for each in stored if each.key.endswith(_NAME)), None)
    return own, [each for each in stored if each is not own]
