"""Alerts: a condition opens, grows, closes; each change of state is one event.

A condition is measured on every accepted tick as a value with a threshold. It opens when the value reaches the
threshold, and closes when it has stayed below `close_ratio` of it for `hold_seconds`, so that it does not flap. In
between it is updated when its severity rises or its value has grown by `update_ratio`. While an instrument is
warming only feed alerts can open.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stream.core.features import (
    FEATURES,
    GAP,
    INDEX,
    LATE_FAULTS,
    USUAL_GAP,
    VOLUME_AGAINST_4H,
    WARMING,
)

KINDS: Final = ("volatility", "price_jump", "anomaly", "pump", "flow", "liquidity", "feed")
"""Order of messages.ALERT_KINDS."""
VOLATILITY, PRICE_JUMP, ANOMALY, PUMP, FLOW, LIQUIDITY, FEED = range(len(KINDS))
OPENED, UPDATED, CLOSED = range(3)
FEED_DETAILS: Final = ("gapped", "late", "duplicated", "band")
INFO, WARNING, CRITICAL = range(3)

F: Final = len(FEATURES)
_TRADES_60: Final = INDEX["log_trade_rate_60s"]
_VOLUME_10: Final = INDEX["log_volume_ratio_10s"]
_VOLUME_60: Final = INDEX["log_volume_ratio_60s"]
_VARIANCE_60: Final = INDEX["log_grid_variance_60s"]
_VARIANCE_300: Final = INDEX["log_grid_variance_300s"]
_VARIANCE_1800: Final = INDEX["log_grid_variance_1800s"]
_IMBALANCE_10: Final = INDEX["order_flow_imbalance_10s"]
_IMBALANCE_60: Final = INDEX["order_flow_imbalance_60s"]
_RUSH: Final = INDEX["log_rush_order_rate_10s"]
_RUSH_IMBALANCE: Final = INDEX["rush_order_imbalance_10s"]
_IMPACT_60: Final = INDEX["log_price_impact_60s"]
_IMPACT_1800: Final = INDEX["log_price_impact_1800s"]
_SPREAD: Final = INDEX["log_roll_spread_300s"]
_LAST_TRADE: Final = INDEX["log_time_since_last_trade"]
_MOMENTUM_1: Final = INDEX["momentum_1s"]
_MOMENTUM_60: Final = INDEX["momentum_60s"]

# Ratios of averages over a minute mean nothing when it held a handful of trades.
LEAST_TRADES_60: Final = 20.0
# (1e-5)^2 a second: an instrument that stands still is not infinitely calm.
LEAST_VARIANCE: Final = 1e-10
# The anomaly of one tick says little; its mean over about so many does.
ANOMALY_TICKS: Final = 32.0
# An instrument's normal forgets over ten minutes; a burst at one time counts little.
NORMAL_SECONDS: Final = 600.0
LEAST_NORMAL_STEP: Final = 1e-4
WARNING_RATIO: Final = 1.5
CRITICAL_RATIO: Final = 3.0

STATE: Final = np.dtype(
    [
        ("started", np.bool_),
        ("anomaly", np.float64),  # mean over the recent ticks
        ("normal", np.float64, F),  # slow mean of each feature
        ("clock", np.float64),  # seconds of the instrument's time so far
        ("open", np.int64, len(KINDS)),
        ("severity", np.int64, len(KINDS)),
        ("opened_offset", np.int64, len(KINDS)),
        ("published", np.float64, len(KINDS)),
        ("calm_since", np.float64, len(KINDS)),  # clock when the value fell below the closing border; -1: it is above
        ("detail", np.int64),  # of the feed alert
    ],
    align=True,
)

EVENT: Final = np.dtype(
    [
        ("row", np.int64),  # of the tick among the accepted ticks of the chunk
        ("kind", np.int64),
        ("state", np.int64),
        ("severity", np.int64),
        ("value", np.float64),
        ("threshold", np.float64),
        ("opened_offset", np.int64),
        ("detail", np.int64),  # index into FEED_DETAILS
        ("normal", np.float64, F),  # the instrument's normal at that tick
    ],
    align=True,
)


class AlertRules(NamedTuple):
    """`config.Alerts`, in its order."""

    volatility: float
    price_jump: float
    anomaly: float
    pump_return: float
    pump_volume: float
    pump_rushes: float
    flow: float
    flow_volume: float
    liquidity: float
    gap_seconds: float
    gap_ratio: float
    faults: int
    stale_seconds: float
    close_ratio: float
    hold_seconds: float
    update_ratio: float


def new_state(instruments: int) -> NDArray[np.void]:
    """State of so many instruments with no alert open: STATE[instruments]."""
    return np.zeros(instruments, STATE)


def compute(
    state: NDArray[np.void],
    slot: NDArray[np.int32],
    offset: NDArray[np.int64],
    features: NDArray[np.float32],
    context: NDArray[np.float64],
    anomaly: NDArray[np.float64],
    rules: AlertRules,
) -> NDArray[np.void]:
    """Walk the accepted ticks in order; `state` is updated in place.

    Parameters
    ----------
    state : STATE[instruments]
    slot : int32[m]
    offset : int64[m]
        Of the ticks; an alert is named after the tick that opened it.
    features : float32[m, len(FEATURES)]
    context : float64[m, len(CONTEXT)]
    anomaly : float64[m]
        Tail probability, 0 to 1.
    rules
        Thresholds.

    Returns
    -------
    EVENT[events]
        Changes of state, in the order of the ticks.
    """
    events = np.zeros(8, EVENT)
    row = 0
    count = 0
    while row < slot.shape[0]:  # the kernel stops at a tick for which there may be no room, having left it untouched
        row, count = _walk(state, slot, offset, features, context, anomaly, rules, row, events, count)
        if row < slot.shape[0]:
            events = np.concatenate([events, np.zeros_like(events)])
    return events[:count]


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    state: Any,
    slot: Any,
    offset: Any,
    features: Any,
    context: Any,
    anomaly: Any,
    rules: AlertRules,
    row: int,
    events: Any,
    count: int,
) -> tuple[int, int]:
    value = np.empty(len(KINDS))
    threshold = np.empty(len(KINDS))
    for i in range(row, slot.shape[0]):
        if count + len(KINDS) > events.shape[0]:
            return i, count
        s = state[slot[i]]
        _learn(s, features[i], context[i, GAP], anomaly[i])
        detail = _measure_all(features[i], context[i], s.anomaly, rules, value, threshold)
        for kind in range(len(KINDS)):
            may_open = kind == FEED or not context[i, WARMING]
            if not s.open[kind] and not (may_open and value[kind] >= threshold[kind]):
                continue
            change = _change(s, kind, value[kind], threshold[kind], rules)
            if change < 0:
                continue
            if change == OPENED:
                s.opened_offset[kind] = offset[i]
                if kind == FEED:
                    s.detail = detail
            _emit(s, i, kind, change, value[kind], threshold[kind], events[count])
            count += 1
    return slot.shape[0], count


@njit(inline="always")
def _learn(s: Any, f: Any, gap: float, anomaly: float) -> None:
    """Move the instrument's clock, its mean anomaly and its normal on."""
    s.clock += gap
    if not s.started:
        s.started = True
        s.anomaly = 0.5
        for j in range(F):
            s.normal[j] = f[j]
        return
    s.anomaly += (anomaly - s.anomaly) / ANOMALY_TICKS
    step = 1.0 - math.exp(-max(gap / NORMAL_SECONDS, LEAST_NORMAL_STEP))
    for j in range(F):
        s.normal[j] += step * (f[j] - s.normal[j])


@njit(cache=True)
def measure(kind: int, f: Any, c: Any, rules: AlertRules) -> float:
    """Value of a condition that is a function of features and context alone; 0 for the anomaly and the feed."""
    if kind == VOLATILITY:
        return _volatility(f)
    if kind == PRICE_JUMP:
        return _price_jump(f)
    if kind == PUMP:
        return _pump(f, c, rules)
    if kind == FLOW:
        return _flow(f, rules)
    if kind == LIQUIDITY:
        return math.exp(f[_IMPACT_60] - f[_IMPACT_1800]) if _busy(f) else 0.0
    return 0.0


@njit(inline="always")
def _measure_all(f: Any, c: Any, anomaly: float, rules: AlertRules, value: Any, threshold: Any) -> int:
    """Values and thresholds by kind; returns which fault of the feed is the largest."""
    value[VOLATILITY], threshold[VOLATILITY] = _volatility(f), rules.volatility
    value[PRICE_JUMP], threshold[PRICE_JUMP] = _price_jump(f), rules.price_jump
    value[ANOMALY], threshold[ANOMALY] = anomaly, rules.anomaly
    value[PUMP], threshold[PUMP] = _pump(f, c, rules), 1.0
    value[FLOW], threshold[FLOW] = _flow(f, rules), rules.flow
    value[LIQUIDITY] = math.exp(f[_IMPACT_60] - f[_IMPACT_1800]) if _busy(f) else 0.0
    threshold[LIQUIDITY] = rules.liquidity
    detail = 0
    fault = c[GAP] / max(rules.gap_seconds, rules.gap_ratio * c[USUAL_GAP])
    for k in range(3):
        faults = c[LATE_FAULTS + k] / rules.faults
        if faults > fault:
            fault = faults
            detail = 1 + k
    value[FEED], threshold[FEED] = fault, 1.0
    return detail


@njit(inline="always")
def _busy(f: Any) -> bool:
    return 60.0 * math.exp(f[_TRADES_60]) >= LEAST_TRADES_60


@njit(inline="always")
def _volatility(f: Any) -> float:
    """Volatility over 60 s against the instrument's own over 1800 s."""
    if not _busy(f):
        return 0.0
    return math.sqrt(math.exp(f[_VARIANCE_60]) / (math.exp(f[_VARIANCE_1800]) + LEAST_VARIANCE))


@njit(inline="always")
def _price_jump(f: Any) -> float:
    """Move against the average price of the last second, in standard deviations of the time it had.

    The spread counts as one more deviation: in a wide market a trade at the other side of the book is no jump.
    """
    variance = max(math.exp(f[_VARIANCE_300]), math.exp(f[_VARIANCE_1800])) + LEAST_VARIANCE
    spread = math.exp(f[_SPREAD])
    return abs(f[_MOMENTUM_1]) / math.sqrt(variance * max(1.0, math.exp(f[_LAST_TRADE])) + spread * spread)


@njit(inline="always")
def _pump(f: Any, c: Any, rules: AlertRules) -> float:
    """Buyers in a rush at many times the usual volume, and the price rising: the least of the signs (La Morgia 2020).

    The usual is that of four hours, not of 1800 s: of a quiet instrument the pump itself is most of what they hold. For
    the same reason the rise is held against no volatility. Measured in docs/models/pumps.md.
    """
    buying = (math.exp(f[_RUSH]) - 1.0) * 0.5 * (1.0 + f[_RUSH_IMBALANCE])
    value = min(f[_MOMENTUM_60] / rules.pump_return, buying / rules.pump_rushes)
    return max(0.0, min(value, math.exp(f[_VOLUME_10]) * c[VOLUME_AGAINST_4H] / rules.pump_volume))


@njit(inline="always")
def _flow(f: Any, rules: AlertRules) -> float:
    """One-sidedness of the last minute's volume, where that volume is unusual."""
    if not _busy(f) or math.exp(f[_VOLUME_60]) < rules.flow_volume:
        return 0.0
    return abs(f[_IMBALANCE_60])


@njit(inline="always")
def _change(s: Any, kind: int, value: float, threshold: float, rules: AlertRules) -> int:
    """The change of state that the value makes, or -1."""
    severity = _severity(kind, value, threshold)
    if not s.open[kind]:
        s.open[kind] = 1
        s.severity[kind] = severity
        s.published[kind] = value
        s.calm_since[kind] = -1.0
        return OPENED
    if value < rules.close_ratio * threshold:
        return _calm(s, kind, rules)
    s.calm_since[kind] = -1.0
    if severity > s.severity[kind] or value >= rules.update_ratio * s.published[kind]:
        s.severity[kind] = max(severity, s.severity[kind])
        s.published[kind] = value
        return UPDATED
    return -1


@njit(inline="always")
def _calm(s: Any, kind: int, rules: AlertRules) -> int:
    if s.calm_since[kind] < 0.0:
        s.calm_since[kind] = s.clock
    if s.clock - s.calm_since[kind] < rules.hold_seconds:
        return -1
    s.open[kind] = 0
    return CLOSED


@njit(inline="always")
def _severity(kind: int, value: float, threshold: float) -> int:
    if kind == PUMP:
        return CRITICAL
    # Anomaly and flow are bounded by 1: what counts is how little is left to it.
    ratio = math.log(max(1.0 - value, 1e-9)) / math.log(1.0 - threshold) if threshold < 1.0 else value / threshold
    if ratio >= CRITICAL_RATIO:
        return CRITICAL
    return WARNING if ratio >= WARNING_RATIO else INFO


@njit(inline="always")
def _emit(s: Any, row: int, kind: int, change: int, value: float, threshold: float, event: Any) -> None:
    event.row = row
    event.kind = kind
    event.state = change
    event.severity = s.severity[kind]
    event.value = value
    event.threshold = threshold
    event.opened_offset = s.opened_offset[kind]
    event.detail = s.detail if kind == FEED else -1
    for j in range(F):
        event.normal[j] = s.normal[j]


def contributions(
    kind: int, f: NDArray[np.float32], c: NDArray[np.float64], normal: NDArray[np.float64], rules: AlertRules
) -> NDArray[np.float64]:
    """How much of a condition's value goes away when each feature is put back to the instrument's normal.

    Parameters
    ----------
    kind
        VOLATILITY, PRICE_JUMP, PUMP, FLOW or LIQUIDITY.
    f : float32[len(FEATURES)]
        Features of the tick.
    c : float64[len(CONTEXT)]
        Context of the tick.
    normal : float64[len(FEATURES)]
        Normal of the instrument at that tick.
    rules
        Thresholds.

    Returns
    -------
    float64[len(FEATURES)]
        In units of the value; positive where the feature drove it up.
    """
    base = np.asarray(f, np.float64)
    occluded = np.tile(base, (F, 1))
    np.fill_diagonal(occluded, normal)
    value = measure(kind, base, c, rules)
    return np.array([value - measure(kind, row, c, rules) for row in occluded])
