"""Streaming equals batch, and cutting changes nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.core import features
from stream.core.features import FEATURES, INDEX, TAUS, TickColumns
from tests.ticks import RULES, START_NS, columns, compute, cut, streams

Floats = NDArray[np.float64]


@given(streams(), st.lists(st.integers(0, 60), max_size=6))
def test_cutting_the_stream_changes_no_bit(ticks: TickColumns, borders: list[int]) -> None:
    whole = compute(ticks)
    state = features.new_state(8)
    pieces = [compute(piece, state=state) for piece in cut(ticks, [min(b, len(ticks.slot)) for b in borders])]
    for name in ("verdict", "features", "window", "context"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert joined.tobytes() == getattr(whole, name).tobytes(), name


@given(streams(instruments=1), streams(instruments=1))
def test_instruments_do_not_see_each_other(one: TickColumns, other: TickColumns) -> None:
    n = len(one.slot)
    both = TickColumns._make(np.concatenate([a, b]) for a, b in zip(one, other, strict=True))
    both.slot[n:] = 1
    order = np.random.default_rng(0).permutation(len(both.slot))
    order = np.concatenate([np.sort(order[order < n]), np.sort(order[order >= n])])  # each one's own order is kept
    mixed = compute(TickColumns._make(column[order] for column in both))
    alone = compute(one)
    assert mixed.features[: len(alone.features)].tobytes() == alone.features.tobytes()


@given(streams())
def test_every_feature_is_finite_and_bounded(ticks: TickColumns) -> None:
    result = compute(ticks)
    assert np.isfinite(result.features).all()
    for name in ("order_flow_imbalance_1s", "order_flow_imbalance_60s", "rush_order_imbalance_10s"):
        assert (np.abs(result.features[:, INDEX[name]]) <= 1.0 + 1e-6).all()
    assert (result.features[:, INDEX["drawdown"]] <= 0.0).all()


@given(
    st.lists(
        st.tuples(st.floats(0.0, 30.0), st.floats(-0.01, 0.01), st.floats(0.1, 10.0), st.sampled_from([-1, 1])),
        min_size=2,
        max_size=40,
    )
)
def test_streaming_equals_batch(rows: list[tuple[float, float, float, int]]) -> None:
    """Every average again, from its definition as a sum over all ticks."""
    gaps, moves, sizes, sides = (list(column) for column in zip(*rows, strict=True))
    ticks = columns(np.cumsum(gaps).tolist(), (100.0 * np.exp(np.cumsum(moves))).tolist(), sizes, sides)
    result = compute(ticks, RULES)
    expected = _batch(ticks)
    for name, value in expected.items():
        assert np.isclose(result.features[-1, INDEX[name]], value, rtol=2e-4, atol=2e-5), (name, value)
    assert set(expected) <= set(FEATURES)


def _batch(ticks: TickColumns) -> dict[str, float]:
    seconds = np.asarray((ticks.exchange_ns - START_NS) * 1e-9, np.float64)
    log_price: Floats = np.log(ticks.price)
    returns = np.diff(log_price, prepend=log_price[0])
    age = seconds[-1] - seconds
    lived = seconds[-1] - seconds[0]
    decay = {tau: np.exp(-age / tau) / tau for tau in TAUS}
    weight = {tau: max(1.0 - np.exp(-lived / tau), 1.0 - np.exp(-1.0 / tau)) for tau in TAUS}
    expected = {}
    usual = (ticks.size * decay[1800.0]).sum() / weight[1800.0]
    for tau in (1.0, 10.0, 60.0):
        name = f"{tau:.0f}s"
        rate = decay[tau].sum() / weight[tau]
        expected[f"log_trade_rate_{name}"] = np.log(rate + 1e-3)
        volume = (ticks.size * decay[tau]).sum() / weight[tau]
        expected[f"log_volume_ratio_{name}"] = np.log(max(volume / usual, 1e-3))
        variance = (returns**2 * decay[tau]).sum() / weight[tau]
        expected[f"log_realized_variance_{name}"] = np.log(variance + 1e-14)
        signed = (ticks.side * ticks.size * decay[tau]).sum()
        expected[f"order_flow_imbalance_{name}"] = signed / (ticks.size * decay[tau]).sum()
        expected[f"momentum_{name}"] = log_price[-1] - _mean_log_price(seconds, log_price, tau)
    second = ticks.exchange_ns // 10**9
    for tau in (60.0, 300.0, 1800.0):
        squares = _grid_squares(second, seconds, log_price, tau, (START_NS // 10**9))
        expected[f"log_grid_variance_{tau:.0f}s"] = np.log(squares / weight[tau] + 1e-14)
    return expected


def _mean_log_price(seconds: Floats, log_price: Floats, tau: float) -> float:
    """The price path held piecewise constant, weighted by exp(-age / tau); before the first tick, its price."""
    now = seconds[-1]
    edges = np.exp(-(now - seconds) / tau)
    mean = log_price[0] * edges[0]
    for k in range(len(seconds) - 1):
        mean += log_price[k] * (edges[k + 1] - edges[k])
    return float(mean)


def _grid_squares(second: np.ndarray, seconds: Floats, log_price: Floats, tau: float, start_second: int) -> float:
    """Squared returns between the last prices of the seconds that held a trade, as of the last tick."""
    last = {int(s): float(p) for s, p in zip(second, log_price, strict=True)}
    total, before = 0.0, float(log_price[0])
    for s, price in last.items():
        if s == int(second[-1]):
            break  # not over yet
        age = seconds[-1] - (s + 1 - start_second)
        total += (price - before) ** 2 * np.exp(-age / tau) / tau
        before = price
    return total
