"""Made ticks for tests of the core: columns, messages, and streams drawn by Hypothesis."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import features
from stream.core.features import FeatureColumns, FeatureRules, TickColumns
from stream.decoding import Chunk
from stream.messages import Tick, encode
from stream.pipeline import feature_rules

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
RULES = feature_rules(Settings())


def columns(
    seconds: Sequence[float],
    prices: Sequence[float],
    sizes: Sequence[float] | None = None,
    sides: Sequence[int] | None = None,
    ids: Sequence[int] | None = None,
    slots: Sequence[int] | None = None,
) -> TickColumns:
    """Ticks at so many seconds after START_NS."""
    n = len(seconds)
    return TickColumns(
        np.array(slots if slots is not None else [0] * n, np.int32),
        START_NS + np.round(np.array(seconds, np.float64) * SECOND).astype(np.int64),
        np.array(prices, np.float64),
        np.array(sizes if sizes is not None else [1.0] * n, np.float64),
        np.array(sides if sides is not None else [0] * n, np.int8),
        np.array(ids if ids is not None else [0] * n, np.int64),
        np.arange(n, dtype=np.int64),
    )


def cut(ticks: TickColumns, borders: Sequence[int]) -> list[TickColumns]:
    """The ticks in pieces."""
    edges = [0, *sorted(borders), len(ticks.slot)]
    return [TickColumns._make(c[a:b] for c in ticks) for a, b in pairwise(edges)]


def compute(ticks: TickColumns, rules: FeatureRules = RULES, state: NDArray[np.void] | None = None) -> FeatureColumns:
    """Features from a fresh state."""
    return features.compute(features.new_state(8) if state is None else state, ticks, rules)


def feature(result: FeatureColumns, name: str) -> NDArray[np.float32]:
    """One column by its name."""
    return result.features[:, features.INDEX[name]]


def streams(max_ticks: int = 60, instruments: int = 3) -> st.SearchStrategy[TickColumns]:
    """Streams with sweeps, pauses, late ticks, repeated ids and jumps of the price."""
    tick = st.tuples(
        st.sampled_from([0.0, 0.0, 0.001, 0.3, 1.0, 7.0, 200.0, 4000.0, -0.5, -3000.0]),
        st.sampled_from([0.0, 0.0, 1e-4, -1e-4, 5e-3, -0.02, 0.3]),
        st.sampled_from([0.01, 1.0, 250.0]),
        st.sampled_from([-1, 0, 1]),
        st.integers(0, 30),
        st.integers(0, instruments - 1),
    )
    return st.lists(tick, min_size=1, max_size=max_ticks).map(_stream)


def _stream(rows: list[tuple[float, float, float, int, int, int]]) -> TickColumns:
    step, move, size, side, ids, slot = (list(column) for column in zip(*rows, strict=True))
    prices = 100.0 * np.exp(np.cumsum(move))
    return columns(np.cumsum(step).tolist(), prices.tolist(), size, side, ids, slot)


def message(**changes: Any) -> bytes:
    """A good tick of symbol A as JSON, with some fields changed."""
    tick = Tick("A", START_NS, 100.0, 1.0)
    return encode({name: getattr(tick, name) for name in ("symbol", "exchange_ns", "price", "size")} | changes)


def chunk(values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, first: int = 0) -> Chunk:
    """Messages of partition 0, keyed by A unless told otherwise."""
    keys = [b"A"] * len(values) if keys is None else keys
    return Chunk(0, list(range(first, first + len(values))), keys, values)
