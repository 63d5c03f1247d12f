"""Which ticks a conflated result stands for: `verify` compares it without its last field, and counts these."""

import re
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.messages import is_msgpack

_JSON_END: Final = re.compile(rb',"ticks":([1-9][0-9]*)\}\Z')
_PACKED_KEY: Final = b"\xa5ticks"
_FIXED_MAP: Final = 0x80  # MessagePack's mark of a map of up to 15 fields, their number in it
_LARGER_MAP: Final = 0xDE  # of one whose number of fields follows in two bytes


def uncounted(value: bytes) -> tuple[bytes, int | None]:
    """A result as it would be without its last field `ticks`, and that number; None where it has none."""
    if is_msgpack(value):
        return _unpacked(value)
    found = _JSON_END.search(value)
    return (value, None) if found is None else (value[: found.start()] + b"}", int(found[1]))


def _unpacked(value: bytes) -> tuple[bytes, int | None]:
    body, found, number = value.rpartition(_PACKED_KEY)
    try:
        ticks = msgspec.msgpack.decode(number, type=int) if found else None
    except msgspec.DecodeError:  # not the key, but those bytes in another value
        return value, None
    if ticks is None:
        return value, None
    large = body[0] == _LARGER_MAP
    fields = (int.from_bytes(body[1:3], "big") if large else body[0] - _FIXED_MAP) - 1
    head = bytes([_FIXED_MAP + fields]) if fields < 16 else bytes([_LARGER_MAP]) + fields.to_bytes(2, "big")
    return head + body[3 if large else 1 :], ticks


class Spans:
    """The accepted ticks of a range of a partition, by instrument.

    Parameters
    ----------
    slot : int32[n]
        Instrument of each offset of the range; -1 where no tick was accepted.
    before : int64[instruments]
        Accepted ticks of each before the range.
    """

    def __init__(self, slot: NDArray[np.int32], before: NDArray[np.int64]) -> None:
        self._slot = slot
        self._before = before
        self._rows = np.argsort(slot, kind="stable")  # instrument by instrument, each in the order of its ticks
        self._place = np.empty(len(slot), np.int64)
        self._place[self._rows] = np.arange(len(slot))
        self._first = np.searchsorted(slot[self._rows], np.arange(len(before)))  # place of each instrument's first tick

    def instrument(self, row: int) -> int:
        """Of the tick at this place of the range; -1 where none was accepted."""
        return int(self._slot[row])

    def rows(self, row: int, ticks: int) -> NDArray[np.int64]:
        """Those of the last `ticks` accepted ticks of an instrument, up to this one, that lie in the range.

        Empty where it has not had so many.
        """
        slot, last = self.instrument(row), int(self._place[row])
        if slot < 0:
            return np.empty(0, np.int64)
        first = int(self._first[slot])
        if ticks > last - first + 1 + int(self._before[slot]):
            return np.empty(0, np.int64)
        return self._rows[max(first, last - ticks + 1) : last + 1]
