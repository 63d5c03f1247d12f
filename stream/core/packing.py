"""Where the ticks of a chunk go in the recurrent forecaster: every tick is one step, computed once.

A GRU walks `steps x instruments`; its cost is that area, whatever its shape. Instruments of one chunk have unlike
numbers of ticks, so a single rectangle is mostly padding: 512 ticks of 1,000 instruments with Zipf's frequencies
would fill some 3 % of it. So the instruments are ordered by their number of ticks and the staircase is covered by two
rectangles: all instruments for the first `cut` steps, then the busy ones alone, from the state the first reached.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_NOT_HERE: Final = -1


class Packing(NamedTuple):
    """Positions of the `n` ticks of `m` instruments in two rectangles of steps; padding points at tick 0.

    The steps of both, row by row, the second behind the first, are the flattened output that `carry`, `unpack` and
    `last` index.
    """

    slots: NDArray[np.int64]  # [m] the chunk's instruments, those with most ticks first: rows of the hidden state
    pack: NDArray[np.int64]  # [cut, m] tick of step l of instrument j
    rest: NDArray[np.int64]  # [longest - cut, busy] the same for the steps from `cut` on; [1, 1] when there is none
    carry: NDArray[np.int64]  # [busy] step of the first rectangle from which each busy instrument goes on
    unpack: NDArray[np.int64]  # [n] step of each tick
    last: NDArray[np.int64]  # [m] last step of each instrument


def new_scratch(instruments: int) -> NDArray[np.int64]:
    """Memory that `pack` needs, one number an instrument: int64[instruments]."""
    return np.full(instruments, _NOT_HERE, np.int64)


def pack(slot: NDArray[np.int32], scratch: NDArray[np.int64]) -> Packing:
    """Lay out the ticks of a chunk; O(n), whatever the number of instruments.

    Parameters
    ----------
    slot : int32[n]
        Instrument of each accepted tick, in order; n > 0.
    scratch
        From `new_scratch`; left as it was found.

    Raises
    ------
    ValueError
        If there is no tick: there is nothing to run then.
    """
    if slot.shape[0] == 0:
        raise ValueError("nothing to pack: 0 ticks")
    return Packing(*_pack(slot, scratch))


@njit(cache=True, nogil=True)
def _pack(slot, scratch):  # type: ignore[no-untyped-def]
    n = slot.shape[0]
    local = np.empty(n, np.int64)
    step = np.empty(n, np.int64)
    slots = np.empty(n, np.int64)
    count = np.zeros(n, np.int64)
    m = 0
    for i in range(n):
        j = scratch[slot[i]]
        if j == _NOT_HERE:
            j = m
            scratch[slot[i]] = j
            slots[j] = slot[i]
            m += 1
        local[i] = j
        step[i] = count[j]
        count[j] += 1
    for j in range(m):
        scratch[slots[j]] = _NOT_HERE
    rank = np.argsort(-count[:m], kind="mergesort")
    place = np.empty(m, np.int64)
    for k in range(m):
        place[rank[k]] = k
    cut, busy = _cut(count[rank])
    longest = count[rank[0]]

    first = np.zeros((cut, m), np.int64)
    rest = np.zeros((max(longest - cut, 1), max(busy, 1)), np.int64)
    unpack = np.empty(n, np.int64)
    last = np.empty(m, np.int64)
    for i in range(n):
        k = place[local[i]]
        if step[i] < cut:
            first[step[i], k] = i
            unpack[i] = step[i] * m + k
        else:
            rest[step[i] - cut, k] = i
            unpack[i] = cut * m + (step[i] - cut) * busy + k
        last[k] = unpack[i]
    carry = np.zeros(max(busy, 1), np.int64)
    for k in range(busy):
        carry[k] = (cut - 1) * m + k
    return slots[rank], first, rest, carry, unpack, last


@njit(inline="always")
def _cut(count):  # type: ignore[no-untyped-def]
    """Steps of the first rectangle and width of the second, of least area together; `count` is sorted downwards."""
    m = count.shape[0]
    longest = count[0]
    best = longest * m
    cut = longest
    busy = 0
    for k in range(1, m):
        if count[k] == count[k - 1]:
            continue
        area = count[k] * m + (longest - count[k]) * k
        if area < best:
            best = area
            cut = count[k]
            busy = k
    return cut, busy
