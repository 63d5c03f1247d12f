"""Rows of the models have the same bits whatever the chunk they came in with."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack

MODELS = inference.load(Path(DEFAULT_MODELS))
TICKS = 600
INSTRUMENTS = 9
_RNG = np.random.default_rng(7)
# Wild ticks among plain ones, so that clipped and unclipped inputs are met; one instrument has most of the ticks.
FEATURE_ROWS = (MODELS.normal + _RNG.standard_t(2, (TICKS, len(FEATURES)))).astype(np.float32)
WINDOWS = (_RNG.standard_t(3, (TICKS, WINDOW, len(WINDOW_COLUMNS))) * [1e-4, 2.0, 1.0]).astype(np.float32)
SLOTS = np.minimum(_RNG.geometric(0.4, TICKS) - 1, INSTRUMENTS - 1).astype(np.int32)


def run(cuts: list[int]) -> list[NDArray[np.float32]]:
    """Forecasts, scores, values and rewards of all ticks, run in chunks of so many, and the state at the end."""
    hidden = np.zeros((INSTRUMENTS, MODELS.hidden_size), np.float32)
    scratch = new_scratch(INSTRUMENTS)
    parts = []
    first = 0
    for size in cuts:
        rows = slice(first, first + size)
        packing = pack(SLOTS[rows], scratch)
        out = MODELS.run(FEATURE_ROWS[rows], WINDOWS[rows], packing, hidden[packing.slots])
        hidden[packing.slots] = out.hidden
        parts.append((out.forecast, out.score, out.action_values, out.rewards))
        first += size
    assert first == TICKS
    return [np.concatenate(column) for column in zip(*parts, strict=True)] + [hidden]


WHOLE = run([TICKS])


def assert_same_bits(cuts: list[int]) -> None:
    for found, expected in zip(run(cuts), WHOLE, strict=True):
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("size", [*range(1, 18), 31, 32, 33, 63, 64, 65, 100, 127, 512])
def test_chunks_of_one_size_change_no_bit(size: int) -> None:
    whole, rest = divmod(TICKS, size)
    assert_same_bits([size] * whole + [rest] * (rest > 0))


@settings(max_examples=30)
@given(st.lists(st.integers(1, TICKS - 1), unique=True, max_size=40).map(sorted))
def test_cuts_anywhere_change_no_bit(borders: list[int]) -> None:
    assert_same_bits(np.diff([0, *borders, TICKS]).tolist())
