"""Changes of an alert's state as messages, with the features that drove it.

The contribution of a feature is what goes away of the alert's value when that feature alone is put back to the
instrument's own normal (occlusion). It is computed only when an alert opens.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream import messages
from stream.core import alerts
from stream.core.alerts import AlertRules
from stream.core.features import CONTEXT, FEATURES, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack
from stream.inference import Models
from stream.messages import ALERT_KINDS, SEVERITIES, Alert, AlertState, Contribution

STATES: Final[tuple[AlertState, ...]] = ("opened", "updated", "closed")
MOST_REASONS: Final = 5
LEAST_SHARE: Final = 0.01
"""A contribution below this part of the largest one is no reason."""
FEED_CONTEXT: Final = ("gap_seconds", "late", "duplicated", "band")
"""The context column behind each of alerts.FEED_DETAILS."""


def message(
    event: Any,
    symbol: str,
    venue: str,
    partition: int,
    offset: int,
    exchange_ns: int,
    reasons: list[Contribution],
) -> Alert:
    """The record on topic `alerts` for one event of `alerts.compute`."""
    kind = ALERT_KINDS[event["kind"]]
    return Alert(
        alert_id=alert_id(symbol, venue, kind, partition, int(event["opened_offset"])),
        symbol=symbol,
        venue=venue,
        kind=kind,
        severity=SEVERITIES[event["severity"]],
        state=STATES[event["state"]],
        partition=partition,
        offset=offset,
        exchange_ns=exchange_ns,
        value=_six_digits(event["value"]),
        threshold=_six_digits(event["threshold"]),
        reasons=reasons,
        detail=alerts.FEED_DETAILS[event["detail"]] if event["kind"] == alerts.FEED else "",
    )


def stale(
    symbol: str,
    venue: str,
    partition: int,
    offset: int,
    exchange_ns: int,
    silent_seconds: float,
    threshold: float,
    opened_offset: int,
) -> Alert:
    """The record for an instrument that has fallen silent, or, with 0 s of silence, is heard again."""
    silent = silent_seconds > 0.0
    return Alert(
        alert_id=alert_id(symbol, venue, "feed-stale", partition, opened_offset),
        symbol=symbol,
        venue=venue,
        kind="feed",
        severity="warning",
        state="opened" if silent else "closed",
        partition=partition,
        offset=offset,
        exchange_ns=exchange_ns,
        value=_six_digits(silent_seconds),
        threshold=_six_digits(threshold),
        reasons=[Contribution("silent_seconds", _six_digits(silent_seconds), _six_digits(silent_seconds))]
        if silent
        else [],
        detail="stale",
    )


def internal(partition: int, offset: int, raw: bytes) -> list[Alert]:
    """The records for a message that we could not compute, whose fault it need not be: opened and closed at once."""
    try:
        tick = messages.decode_tick(raw)
        symbol, venue, exchange_ns = tick.symbol, tick.venue, tick.exchange_ns
    except messages.DECODE_ERRORS:
        symbol, venue, exchange_ns = "?", "", messages.MIN_EXCHANGE_NS
    opened = Alert(
        alert_id=alert_id(symbol, venue, "feed-internal", partition, offset),
        symbol=symbol,
        venue=venue,
        kind="feed",
        severity="critical",
        state="opened",
        partition=partition,
        offset=offset,
        exchange_ns=exchange_ns,
        value=1.0,
        threshold=1.0,
        reasons=[Contribution("internal", 1.0, 1.0)],
        detail="internal",
    )
    return [opened, msgspec.structs.replace(opened, state="closed", reasons=[])]


def alert_id(symbol: str, venue: str, kind: str, partition: int, opened_offset: int) -> str:
    """Name of an alert, the same in every run: who, what, and the tick that opened it."""
    return f"{symbol}@{venue}:{kind}:{partition}-{opened_offset}"


def reasons(
    event: Any,
    features: NDArray[np.float32],
    window: NDArray[np.float32],
    context: NDArray[np.float64],
    models: Models,
    rules: AlertRules,
) -> list[Contribution]:
    """What drove the alert that `event` opens, the largest contribution first.

    Parameters
    ----------
    event : EVENT
        An opening.
    features : float32[len(FEATURES)]
    window : float32[WINDOW, 3]
    context : float64[len(CONTEXT)]
        All three of the tick that opened it.
    models
        For the anomaly's contributions, in powers of ten of the tail probability.
    rules
        Thresholds.
    """
    if event["kind"] == alerts.FEED:
        fault = FEED_CONTEXT[event["detail"]]
        amount = _six_digits(context[CONTEXT.index(fault)])
        return [Contribution(fault, amount, _six_digits(event["value"]))]
    if event["kind"] == alerts.ANOMALY:
        shares = anomaly_contributions(features, window, event["normal"], models)
    else:
        shares = alerts.contributions(int(event["kind"]), features, context, event["normal"], rules)
    return _largest(features, shares)


def anomaly_contributions(
    features: NDArray[np.float32], window: NDArray[np.float32], normal: NDArray[np.float64], models: Models
) -> NDArray[np.float64]:
    """Fall of -log10(1 - anomaly) with each feature at its normal, in the window too where it is a channel there.

    Parameters
    ----------
    features : float32[len(FEATURES)]
    window : float32[WINDOW, 3]
    normal : float64[len(FEATURES)]
    models
        With the critic that is asked.

    Returns
    -------
    float64[len(FEATURES)]
        In powers of ten of the tail probability.
    """
    count = len(FEATURES)
    occluded = np.tile(features, (count + 1, 1))
    windows = np.tile(window, (count + 1, 1, 1))
    for column, name in enumerate(FEATURES):
        occluded[column, column] = normal[column]
        if name in WINDOW_COLUMNS:
            windows[column, :, WINDOW_COLUMNS.index(name)] = normal[column]
    alone = pack(np.arange(count + 1, dtype=np.int32), new_scratch(count + 1))
    hidden = np.zeros((count + 1, models.hidden_size), np.float32)
    score = models.run(occluded, windows, alone, hidden).score
    tail = -np.log10(1.0 - np.interp(score, *models.calibration))
    return np.asarray(tail[-1] - tail[:-1])


def _largest(features: NDArray[np.float32], shares: NDArray[np.float64]) -> list[Contribution]:
    names = list(FEATURES)
    order = np.argsort(-np.abs(shares), kind="stable")[:MOST_REASONS]
    least = LEAST_SHARE * abs(shares[order[0]])
    return [
        Contribution(names[column], _six_digits(features[column]), _six_digits(shares[column]))
        for column in order
        if shares[column] != 0.0 and abs(shares[column]) >= least
    ]


def _six_digits(x: Any) -> float:
    return float(f"{float(x):.6g}")
