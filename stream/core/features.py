"""Features of a tick from the state of its instrument: one compiled kernel for training, backtest and worker alike.

An instrument is a symbol at a venue and owns one fixed-size record of `STATE`; the kernel walks the ticks of a
chunk in their order, so how a stream is cut into chunks changes nothing. Time is the venue's clock. Averages are
exponentially weighted in clock time: an average over tau seconds forgets by exp(-dt / tau), is a rate per second,
and is divided by the weight it has seen so far, so that it is unbiased from the first tick.

Ticks that are not plain:

- late (earlier than the last one): used, with its time clamped to the last one's; counted.
- late by more than a session, `clock_agree` times in a row: the clock was wrong, a new session starts there.
- duplicated (trade id among the last 128 of the instrument): refused.
- outside the price band around the last price: refused until `band_agree` in a row agree with each other.
- after a pause longer than `session_gap_ns`: a new session. The pause is cut out of time: no return across it, no
  decay over it, and the running high starts again.
- without a side: inferred by the tick rule (up: buy, down: sell, unchanged: as before; Lee and Ready 1991).
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

TAUS: Final = (1.0, 10.0, 60.0, 300.0, 1800.0)
"""Time constants of the averages, seconds."""
K1, K10, K60, K300, K1800 = range(5)

FEATURES: Final = {
    "log_return": "log(price / last price), 0 at the start of a session",
    "log_time_gap": "log(seconds since the last trade + 1 ms)",
    "signed_log_size": "side * log(1 + size / mean size over 1800 s)",
    "log_trade_rate_1s": "log(trades per second + 0.001), average over 1 s",
    "log_trade_rate_10s": "log(trades per second + 0.001), average over 10 s",
    "log_trade_rate_60s": "log(trades per second + 0.001), average over 60 s",
    "log_trade_rate_1800s": "log(trades per second + 0.001), average over 1800 s",
    "log_volume_ratio_1s": "log(volume rate over 1 s / over 1800 s), at least log(0.001)",
    "log_volume_ratio_10s": "log(volume rate over 10 s / over 1800 s), at least log(0.001)",
    "log_volume_ratio_60s": "log(volume rate over 60 s / over 1800 s), at least log(0.001)",
    "log_realized_variance_1s": "log of squared trade-to-trade log returns per second over 1 s",
    "log_realized_variance_10s": "log of squared trade-to-trade log returns per second over 10 s",
    "log_realized_variance_60s": "log of squared trade-to-trade log returns per second over 60 s",
    "log_grid_variance_60s": "log of squared 1 s log returns per second over 60 s (RiskMetrics 1996)",
    "log_grid_variance_300s": "log of squared 1 s log returns per second over 300 s",
    "log_grid_variance_1800s": "log of squared 1 s log returns per second over 1800 s: the instrument's own scale",
    "log_coarse_variance_1800s": "log of squared 10 s log returns per second over 1800 s; below the 1 s one: bounce",
    "order_flow_imbalance_1s": "signed volume over volume, average over 1 s, -1 to 1",
    "order_flow_imbalance_10s": "signed volume over volume, average over 10 s, -1 to 1",
    "order_flow_imbalance_60s": "signed volume over volume, average over 60 s, -1 to 1",
    "log_rush_order_rate_10s": "log(1 + 10 s * rush orders per second) over 10 s (La Morgia et al. 2020)",
    "rush_order_imbalance_10s": "(buy - sell rush orders) / (all + 0.1), over 10 s, -1 to 1",
    "log_price_impact_60s": "log(absolute log return per mean trade size of volume) over 60 s (Amihud 2002)",
    "log_price_impact_1800s": "log(absolute log return per mean trade size of volume) over 1800 s",
    "log_roll_spread_300s": "log(2 sqrt(-cov(r_t, r_t-1)) + 1e-6) over 300 s (Roll 1984)",
    "drawdown": "log(price / highest price of the session), at most 0",
    "log_time_since_last_trade": "log(seconds since the last trade at an earlier time + 1 ms)",
    "momentum_1s": "log(price / average price over 1 s)",
    "momentum_10s": "log(price / average price over 10 s)",
    "momentum_60s": "log(price / average price over 60 s)",
}
"""Feature -> unit, in the order of the columns. Logarithms are natural; nothing depends on the price's unit."""

INDEX: Final = {name: column for column, name in enumerate(FEATURES)}
WINDOW: Final = 32
"""Trades in a window for the critic."""
WINDOW_COLUMNS: Final = ("log_return", "log_time_gap", "signed_log_size")
CONTEXT: Final = ("gap_seconds", "usual_gap_seconds", "late", "duplicated", "band", "warming", "volume_against_4h")
"""Columns beside the features that risk and alerts read: faults of the feed, decaying over 60 s; the volume rate over
1800 s in units of that over four hours."""
GAP, USUAL_GAP, LATE_FAULTS, DUPLICATE_FAULTS, BAND_FAULTS, WARMING, VOLUME_AGAINST_4H = range(7)

ACCEPTED, LATE, DUPLICATE, BAND = range(4)
"""Verdicts: a tick that is accepted or late is answered, the others are refused."""

TRADE_IDS: Final = 128
MIN_VARIANCE: Final = 1e-14  # (1e-7)^2 a second: below the tick size of anything traded
MIN_VOLUME_RATIO: Final = 1e-3
MIN_SPREAD: Final = 1e-6
MIN_IMPACT: Final = 1e-9
MILLISECOND: Final = 1e-3
N_TAUS: Final = len(TAUS)
FOUR_HOURS: Final = 14_400.0
_LEAST_SEEN: Final = 1.0 - math.exp(-60.0 / FOUR_HOURS)  # a minute: before it an instrument is warming anyway
_TAU: Final = np.array(TAUS)
# An average that has seen less than a second is weighted as if it had seen one.
_LEAST_WEIGHT: Final = 1.0 - np.exp(-1.0 / _TAU)

STATE: Final = np.dtype(
    [
        ("ticks", np.int64),
        ("last_ns", np.int64),
        ("prior_ns", np.int64),  # the last time before last_ns
        ("active_seconds", np.float64),  # of all sessions, pauses cut out
        ("price", np.float64),
        ("log_price", np.float64),
        ("log_high", np.float64),
        ("last_return", np.float64),
        ("side", np.int64),
        ("unseen", np.float64, N_TAUS),  # 1 - weight that the averages have seen
        ("trades", np.float64, N_TAUS),
        ("volume", np.float64, N_TAUS),
        ("signed_volume", np.float64, N_TAUS),
        ("squared_return", np.float64, N_TAUS),
        ("absolute_return", np.float64, N_TAUS),
        ("return_product", np.float64, N_TAUS),
        ("grid_square", np.float64, N_TAUS),
        ("coarse_square", np.float64, N_TAUS),
        ("mean_log_price", np.float64, N_TAUS),
        ("volume_4h", np.float64),
        ("seen_4h", np.float64),  # weight that it has seen; of an old snapshot none
        ("rush_buy", np.float64),
        ("rush_sell", np.float64),
        ("rush_ns", np.int64),
        ("rush_side", np.int64),
        ("rush_trades", np.int64),
        ("grid_second", np.int64),
        ("grid_log_price", np.float64),
        ("coarse_second", np.int64),
        ("coarse_log_price", np.float64),
        ("faults", np.float64, 3),  # late, duplicated, band
        ("band_count", np.int64),
        ("band_log_price", np.float64),
        ("clock_count", np.int64),
        ("clock_ns", np.int64),
        ("highest_trade_id", np.int64),
        ("trade_id_next", np.int64),
        ("trade_ids", np.int64, TRADE_IDS),
        ("window_next", np.int64),
        ("window", np.float32, (2 * WINDOW, len(WINDOW_COLUMNS))),  # each row twice: a window is one slice
    ],
    align=True,
)


class FeatureRules(NamedTuple):
    """`config.Features` in the kernel's units."""

    session_gap_ns: int
    warm_ticks: int
    warm_seconds: float
    band: float
    band_agree: int
    clock_agree: int


class TickColumns(NamedTuple):
    """The decoded ticks of one chunk, one row a tick, in order."""

    slot: NDArray[np.int32]  # [n] row of the instrument's state
    exchange_ns: NDArray[np.int64]  # [n]
    price: NDArray[np.float64]  # [n] > 0
    size: NDArray[np.float64]  # [n] > 0
    side: NDArray[np.int8]  # [n] 1 buy, -1 sell, 0 absent
    trade_id: NDArray[np.int64]  # [n] 0 absent
    offset: NDArray[np.int64]  # [n] in the partition, or row number in the file


class FeatureColumns(NamedTuple):
    """Features of the accepted ticks of a chunk; `m` of its `n` ticks are accepted."""

    verdict: NDArray[np.int8]  # [n]
    row: NDArray[np.int64]  # [m] the tick's row in the chunk
    features: NDArray[np.float32]  # [m, len(FEATURES)]
    window: NDArray[np.float32]  # [m, WINDOW, 3] oldest first; zeros where there was no trade yet
    context: NDArray[np.float64]  # [m, len(CONTEXT)]


def new_state(instruments: int) -> NDArray[np.void]:
    """State of so many instruments that have seen no tick: STATE[instruments]."""
    return np.zeros(instruments, STATE)


def compute(state: NDArray[np.void], ticks: TickColumns, rules: FeatureRules) -> FeatureColumns:
    """Walk the ticks in order; `state` is updated in place.

    Parameters
    ----------
    state : STATE[instruments]
    ticks
        Decoded ticks; slots index `state`.
    rules
        How ticks that are not plain are handled.
    """
    n = ticks.slot.shape[0]
    verdict = np.empty(n, np.int8)
    row = np.empty(n, np.int64)
    features = np.empty((n, len(FEATURES)), np.float32)
    window = np.empty((n, WINDOW, len(WINDOW_COLUMNS)), np.float32)
    context = np.empty((n, len(CONTEXT)))
    m = _walk(state, *ticks[:6], rules, verdict, row, features, window, context)
    return FeatureColumns(verdict, row[:m], features[:m], window[:m], context[:m])


def usual_gaps(state: NDArray[np.void]) -> NDArray[np.float64]:
    """Seconds between trades of each instrument, averaged over 1800 s: float64[instruments], 0 with no history."""
    weight = np.maximum(1.0 - state["unseen"][:, K1800], _LEAST_WEIGHT[K1800])
    trades = state["trades"][:, K1800]
    return np.divide(weight, trades, out=np.zeros(len(state)), where=trades > 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    state: Any,
    slot: Any,
    exchange_ns: Any,
    price: Any,
    size: Any,
    side: Any,
    trade_id: Any,
    rules: FeatureRules,
    verdict: Any,
    row: Any,
    features: Any,
    window: Any,
    context: Any,
) -> int:
    m = 0
    for i in range(slot.shape[0]):
        s = state[slot[i]]
        log_price = math.log(price[i])
        verdict[i] = _judge(s, exchange_ns[i], log_price, trade_id[i], rules)
        if verdict[i] >= DUPLICATE:
            continue
        usual_gap = _usual_gap(s)
        gap = _advance(s, exchange_ns[i], log_price, rules)
        taker = side[i] if side[i] != 0 else _tick_rule(s, log_price)
        _absorb(s, log_price, price[i], size[i], taker)
        _write(s, size[i], taker, gap, features[m])
        _push_window(s, features[m], window[m])
        c = context[m]
        c[GAP] = gap
        c[USUAL_GAP] = usual_gap
        for k in range(3):
            c[LATE_FAULTS + k] = s.faults[k]
        c[VOLUME_AGAINST_4H] = _volume_against_4h(s)
        c[WARMING] = s.ticks < rules.warm_ticks or s.active_seconds < rules.warm_seconds
        row[m] = i
        m += 1
    return m


@njit(inline="always")
def _judge(s: Any, ns: int, log_price: float, trade_id: int, rules: FeatureRules) -> int:
    """Verdict on a tick; counts the faults."""
    if s.ticks == 0:
        _remember_id(s, trade_id)
        return ACCEPTED
    if trade_id != 0 and _seen(s, trade_id):
        s.faults[1] += 1.0
        return DUPLICATE
    if _out_of_band(s, log_price, rules):
        s.faults[2] += 1.0
        return BAND
    _remember_id(s, trade_id)
    if ns < s.last_ns:
        s.faults[0] += 1.0
        _suspect_clock(s, ns, rules)
        return LATE
    s.clock_count = 0
    return ACCEPTED


@njit(inline="always")
def _seen(s: Any, trade_id: int) -> bool:
    if trade_id > s.highest_trade_id:  # ids mostly rise: no search then
        return False
    for k in range(TRADE_IDS):
        if s.trade_ids[k] == trade_id:
            return True
    return False


@njit(inline="always")
def _remember_id(s: Any, trade_id: int) -> None:
    if trade_id == 0:
        return
    s.trade_ids[s.trade_id_next] = trade_id
    s.trade_id_next = (s.trade_id_next + 1) % TRADE_IDS
    if trade_id > s.highest_trade_id or s.ticks == 0:
        s.highest_trade_id = trade_id


@njit(inline="always")
def _out_of_band(s: Any, log_price: float, rules: FeatureRules) -> bool:
    """Whether the price is refused. Ticks outside the band count as long as they agree with the first of them."""
    if abs(log_price - s.log_price) <= rules.band:
        s.band_count = 0
        return False
    if s.band_count == 0 or abs(log_price - s.band_log_price) > rules.band:
        s.band_count = 0
        s.band_log_price = log_price
    s.band_count += 1
    if s.band_count < rules.band_agree:
        return True
    s.band_count = 0
    return False


@njit(inline="always")
def _suspect_clock(s: Any, ns: int, rules: FeatureRules) -> None:
    """Count ticks in a row that are a session late and agree; enough of them set the clock back."""
    if s.last_ns - ns <= rules.session_gap_ns:
        s.clock_count = 0
        return
    if s.clock_count == 0 or abs(ns - s.clock_ns) > rules.session_gap_ns:
        s.clock_count = 0
    s.clock_count += 1
    s.clock_ns = ns


@njit(inline="always")
def _usual_gap(s: Any) -> float:
    """Seconds between trades, as averaged over 1800 s before this tick; 0 with no history."""
    if s.ticks == 0:
        return 0.0
    return _weight(s, K1800) / s.trades[K1800]


@njit(inline="always")
def _advance(s: Any, ns: int, log_price: float, rules: FeatureRules) -> float:
    """Move the instrument's clock to the tick, decay the averages; returns the gap in seconds, pauses included."""
    if s.ticks == 0:
        for k in range(N_TAUS):
            s.unseen[k] = 1.0
        _start_session(s, ns, log_price)
        return 0.0
    gap = max(0, ns - s.last_ns)
    wrong_clock = s.clock_count >= rules.clock_agree
    if gap > rules.session_gap_ns or wrong_clock:
        _start_session(s, ns, log_price)
        return gap * 1e-9
    if gap > 0:
        _decay(s, gap * 1e-9)
        s.prior_ns = s.last_ns
        s.last_ns = ns
        _close_grid(s)
    return gap * 1e-9


@njit(inline="always")
def _start_session(s: Any, ns: int, log_price: float) -> None:
    s.last_ns = ns
    s.prior_ns = ns
    s.clock_count = 0
    s.log_price = log_price
    s.log_high = log_price
    s.last_return = 0.0
    s.rush_trades = 0
    s.grid_second = ns // 1_000_000_000
    s.grid_log_price = log_price
    s.coarse_second = s.grid_second // 10
    s.coarse_log_price = log_price
    for k in range(N_TAUS):
        s.mean_log_price[k] = log_price


@njit(inline="always")
def _decay(s: Any, seconds: float) -> None:
    s.active_seconds += seconds
    keep_4h = math.exp(-seconds / FOUR_HOURS)
    s.volume_4h *= keep_4h
    s.seen_4h = 1.0 - (1.0 - s.seen_4h) * keep_4h
    for k in range(N_TAUS):
        keep = math.exp(-seconds / _TAU[k])
        s.unseen[k] *= keep
        s.trades[k] *= keep
        s.volume[k] *= keep
        s.signed_volume[k] *= keep
        s.squared_return[k] *= keep
        s.absolute_return[k] *= keep
        s.return_product[k] *= keep
        s.grid_square[k] *= keep
        s.coarse_square[k] *= keep
        # The last price stood all through the gap.
        s.mean_log_price[k] = s.log_price + (s.mean_log_price[k] - s.log_price) * keep
        if k == K10:
            s.rush_buy *= keep
            s.rush_sell *= keep
        if k == K60:
            s.faults[0] *= keep
            s.faults[1] *= keep
            s.faults[2] *= keep


@njit(inline="always")
def _close_grid(s: Any) -> None:
    """Add the squared return of the 1 s and 10 s steps that ended before this tick, decayed since their end."""
    second = s.last_ns // 1_000_000_000
    if second == s.grid_second:
        return
    step = s.log_price - s.grid_log_price
    age = (s.last_ns - (s.grid_second + 1) * 1_000_000_000) * 1e-9
    for k in range(K60, N_TAUS):
        s.grid_square[k] += step * step * math.exp(-age / _TAU[k]) / _TAU[k]
    s.grid_log_price = s.log_price
    s.grid_second = second
    if second // 10 == s.coarse_second:
        return
    step = s.log_price - s.coarse_log_price
    age = (s.last_ns - (s.coarse_second + 1) * 10_000_000_000) * 1e-9
    for k in range(K300, N_TAUS):
        s.coarse_square[k] += step * step * math.exp(-age / _TAU[k]) / _TAU[k]
    s.coarse_log_price = s.log_price
    s.coarse_second = second // 10


@njit(inline="always")
def _tick_rule(s: Any, log_price: float) -> int:
    if log_price > s.log_price:
        return 1
    if log_price < s.log_price:
        return -1
    return s.side


@njit(inline="always")
def _absorb(s: Any, log_price: float, price: float, size: float, taker: int) -> None:
    """Add the trade to the averages."""
    log_return = log_price - s.log_price
    for k in range(N_TAUS):
        tau = _TAU[k]
        s.trades[k] += 1.0 / tau
        s.volume[k] += size / tau
        s.signed_volume[k] += taker * size / tau
        s.squared_return[k] += log_return * log_return / tau
        s.absolute_return[k] += abs(log_return) / tau
        s.return_product[k] += log_return * s.last_return / tau
    s.volume_4h += size / FOUR_HOURS
    _count_rush(s, taker)
    s.ticks += 1
    s.price = price
    s.log_price = log_price
    s.log_high = max(s.log_high, log_price)
    s.last_return = log_return
    s.side = taker


@njit(inline="always")
def _count_rush(s: Any, taker: int) -> None:
    """A rush order shows as several trades at one time on one side; it counts once, at its second trade."""
    if s.rush_trades == 0 or s.rush_ns != s.last_ns or s.rush_side != taker:
        s.rush_ns = s.last_ns
        s.rush_side = taker
        s.rush_trades = 0
    s.rush_trades += 1
    if s.rush_trades == 2:
        if taker > 0:
            s.rush_buy += 1.0 / _TAU[K10]
        elif taker < 0:
            s.rush_sell += 1.0 / _TAU[K10]


@njit(inline="always")
def _weight(s: Any, k: int) -> float:
    return max(1.0 - s.unseen[k], _LEAST_WEIGHT[k])


@njit(inline="always")
def _volume_against_4h(s: Any) -> float:
    return s.volume[K1800] / _weight(s, K1800) * max(s.seen_4h, _LEAST_SEEN) / s.volume_4h


@njit(inline="always")
def _write(s: Any, size: float, taker: int, gap: float, f: Any) -> None:
    """The features of the tick just absorbed, in the order of FEATURES."""
    mean_size = s.volume[K1800] / s.trades[K1800]
    usual_volume = s.volume[K1800] / _weight(s, K1800)
    # A pause is cut out of time, so the gap that starts a session is none.
    f[0] = s.last_return
    f[1] = math.log((gap if s.prior_ns < s.last_ns else 0.0) + MILLISECOND)
    f[2] = taker * math.log1p(size / mean_size)
    f[3] = math.log(s.trades[K1] / _weight(s, K1) + 1e-3)
    f[4] = math.log(s.trades[K10] / _weight(s, K10) + 1e-3)
    f[5] = math.log(s.trades[K60] / _weight(s, K60) + 1e-3)
    f[6] = math.log(s.trades[K1800] / _weight(s, K1800) + 1e-3)
    for k in range(3):
        f[7 + k] = math.log(max(s.volume[k] / _weight(s, k) / usual_volume, MIN_VOLUME_RATIO))
        f[10 + k] = math.log(s.squared_return[k] / _weight(s, k) + MIN_VARIANCE)
        f[13 + k] = math.log(s.grid_square[K60 + k] / _weight(s, K60 + k) + MIN_VARIANCE)
        f[17 + k] = s.signed_volume[k] / s.volume[k]
        f[27 + k] = s.log_price - s.mean_log_price[k]
    f[16] = math.log(s.coarse_square[K1800] / _weight(s, K1800) + MIN_VARIANCE)
    rush = s.rush_buy + s.rush_sell
    f[20] = math.log1p(10.0 * rush)
    f[21] = (s.rush_buy - s.rush_sell) / (rush + 0.1)
    f[22] = math.log(s.absolute_return[K60] / s.volume[K60] * mean_size + MIN_IMPACT)
    f[23] = math.log(s.absolute_return[K1800] / s.volume[K1800] * mean_size + MIN_IMPACT)
    covariance = s.return_product[K300] / s.trades[K300]
    f[24] = math.log(2.0 * math.sqrt(max(0.0, -covariance)) + MIN_SPREAD)
    f[25] = s.log_price - s.log_high
    f[26] = math.log((s.last_ns - s.prior_ns) * 1e-9 + MILLISECOND)


@njit(inline="always")
def _push_window(s: Any, f: Any, window: Any) -> None:
    p = s.window_next
    for c in range(3):
        s.window[p, c] = f[c]
        s.window[p + WINDOW, c] = f[c]
    s.window_next = (p + 1) % WINDOW
    for j in range(WINDOW):
        for c in range(3):
            window[j, c] = s.window[p + 1 + j, c]
