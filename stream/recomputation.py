"""What is computed again after a take-over: the ticks between the snapshots of a partition and its committed offset.

Offsets are committed often, snapshots seldom. So beside the snapshots lies a record that says which offset they
include: every instrument is there as it was when all ticks below that one were computed, for whatever changed since the
record before is written in the transaction that writes this one. From there to the committed offset the ticks are
computed again, and nothing of it is published, for all of it has been.

One record a partition, with a key of its own. Where there is none, the snapshots include all that is committed: so it
is after a stop and before a hand-over, which write everything and take the record away, and an earlier release can go
on.

The content of a record is the offset, eight bytes, little-endian.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from stream.decoding import Chunk
from stream.sealed import Form, Stored
from stream.transport import Delivery

FORM: Final = Form(b"TO", 1, "the offset of the snapshots", "cold")


def key(group: str) -> bytes:
    """Key of the record of a partition; no instrument has it, for none is without a symbol."""
    return f"{group}\0\0snapshots".encode()


def write(offset: int) -> bytes:
    """The value of a record: the snapshots include all ticks below `offset`."""
    return FORM.write(offset.to_bytes(8, "little"))


def read(stored: Stored, topic: str, partition: int) -> int:
    """The offset of a record.

    Raises
    ------
    DamagedSnapshot
        Naming topic, partition and offset, if it is damaged or of a form not known here.
    """
    return int.from_bytes(FORM.read(stored, topic, partition), "little")


def part(stored: Sequence[Stored], group: str) -> tuple[Stored | None, list[Stored]]:
    """The record among all that a partition of the topic holds, if there is one, and the rest."""
    own = key(group)
    return next((each for each in stored if each.key == own), None), [each for each in stored if each.key != own]


def begin(included: int, committed: int, first: int, end: int) -> int:
    """Where reading begins.

    Parameters
    ----------
    included
        The snapshots include all ticks below it.
    committed
        All ticks below it are answered.
    first, end
        Of the topic of ticks: the first offset that is still there, and that behind the last one.
    """
    if included >= committed or end < committed:  # that offset is of other ticks: it is sought, and found to be gone
        return committed
    return min(max(included, first), committed)


def cut(delivery: Delivery, committed: int) -> tuple[Chunk | None, Delivery | None]:
    """A chunk's part that is answered already, all ticks below `committed`, and the part that is not."""
    chunk = delivery.chunk
    row = bisect_left(chunk.offsets, committed)
    if not row:
        return None, delivery
    again = chunk.part(slice(None, row))
    if row == len(chunk.offsets):
        return again, None
    left = slice(row, None)
    return again, delivery._replace(chunk=chunk.part(left), timestamps=delivery.timestamps[left])
