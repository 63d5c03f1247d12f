"""The layout of a chunk's ticks in rectangles of steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.packing import Packing, new_scratch, pack


def flattened(packing: Packing) -> list[int]:
    """Tick of every step, as the recurrent network's output is flattened."""
    return [*packing.pack.ravel().tolist(), *packing.rest.ravel().tolist()]


def test_even_instruments_fill_one_rectangle() -> None:
    packing = pack(np.array([4, 2, 4, 2], np.int32), new_scratch(5))
    assert packing.slots.tolist() == [4, 2]
    assert packing.pack.tolist() == [[0, 1], [2, 3]]
    assert packing.unpack.tolist() == [0, 1, 2, 3]
    assert packing.last.tolist() == [2, 3]


def test_busy_instrument_goes_on_in_a_second_rectangle() -> None:
    packing = pack(np.array([1, 0, 0, 0, 2, 0], np.int32), new_scratch(3))
    assert packing.slots.tolist() == [0, 1, 2]
    assert packing.pack.tolist() == [[1, 0, 4]]
    assert packing.rest.tolist() == [[2], [3], [5]]
    assert packing.carry.tolist() == [0]  # slot 0's step of the first rectangle
    assert packing.unpack.tolist() == [1, 0, 3, 4, 2, 5]
    assert packing.last.tolist() == [5, 1, 2]


def test_no_tick_is_refused() -> None:
    with pytest.raises(ValueError, match="0 ticks"):
        pack(np.array([], np.int32), new_scratch(3))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_every_tick_has_its_step_in_the_order_of_its_instrument(slots: list[int]) -> None:
    scratch = new_scratch(31)
    packing = pack(np.array(slots, np.int32), scratch)
    assert (scratch == -1).all(), "scratch is left as it was found"
    assert [flattened(packing)[step] for step in packing.unpack] == list(range(len(slots)))
    first = packing.pack.size
    for j, slot in enumerate(packing.slots):
        ticks = [i for i, other in enumerate(slots) if other == slot]
        cut, width = packing.pack.shape
        walked = packing.pack[:, j].tolist()
        if len(ticks) > cut:
            assert packing.carry[j] == (cut - 1) * width + j
            walked += packing.rest[:, j].tolist()
        assert walked[: len(ticks)] == ticks
        last = packing.last[j]
        assert flattened(packing)[last] == ticks[-1]
        assert (last >= first) == (len(ticks) > cut)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=400))
def test_padding_is_never_more_than_one_rectangle_would_need(slots: list[int]) -> None:
    packing = pack(np.array(slots, np.int32), new_scratch(401))
    counts = np.unique(slots, return_counts=True)[1]
    assert packing.pack.size + packing.rest.size <= counts.max() * len(counts) + 1
