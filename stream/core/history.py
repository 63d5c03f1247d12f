"""The last minutes of each instrument, for people to look at: a point for each second that had a tick.

Seconds are the venue's. A late tick joins the newest point; one that lies further back than all that is kept, as after
a clock that was set back, starts anew. What a chunk holds changes no point.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results

POINTS: Final = 600
"""Seconds kept of an instrument: ten minutes of one that trades in each."""
SECOND: Final = 1_000_000_000
QUANTILES: Final = tuple(FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("01", "05", "50", "95", "99"))
VOLATILITY: Final = FORECAST_COLUMNS.index("volatility_60s")
ANOMALY: Final = RISK_COLUMNS.index("anomaly")
SCORE: Final = RISK_COLUMNS.index("score")

POINT: Final = np.dtype(
    [
        ("second", np.int64),  # since the Unix epoch
        ("price", np.float64),  # of the last tick, as all below but the three largest
        ("quantiles", np.float32, (len(QUANTILES),)),  # of the log return over the next 60 s
        ("volatility", np.float32),  # over the next 60 s
        ("anomaly", np.float32),  # the largest of the second
        ("score", np.float32),  # the largest of the second
        ("level", np.int8),  # the highest of the second
        ("action", np.int8),
        ("gate", np.int8),
        ("warming", np.bool_),
    ],
    align=True,
)

NEWEST: Final = np.dtype(
    [
        ("ticks", np.int64),  # answered so far; 0: there is nothing yet
        ("exchange_ns", np.int64),
        ("heard_ms", np.int64),  # by the worker's clock
        ("price", np.float64),
        ("forecast", np.float64, (len(FORECAST_COLUMNS),)),
        ("risk", np.float64, (len(RISK_COLUMNS),)),
        ("target_position", np.float64),
        ("expected_reward", np.float64),
        ("level", np.int8),
        ("action", np.int8),
        ("gate", np.int8),
        ("warming", np.bool_),
    ],
    align=True,
)


class Rings(NamedTuple):
    """The last points of some instruments, one row each."""

    points: NDArray[np.void]  # POINT[rows, POINTS]
    written: NDArray[np.int64]  # [rows] points begun so far; the newest lies at (written - 1) % POINTS


def new_rings(rows: int) -> Rings:
    """Room for so many instruments."""
    return Rings(np.zeros((rows, POINTS), POINT), np.zeros(rows, np.int64))


def note(newest: NDArray[np.void], rings: Rings, row_of_slot: NDArray[np.int32], results: Results, now_ms: int) -> None:
    """Take the answers of a chunk; `newest` and `rings` are updated in place.

    Parameters
    ----------
    newest : NEWEST[slots]
    rings
        Of the instruments whose course is kept.
    row_of_slot : int32[slots]
        Row of each instrument in `rings`; -1 for those whose course is not kept.
    results
        Their slots must be below `len(newest)`.
    now_ms
        When the chunk was read, ms since the Unix epoch.
    """
    _walk(
        newest,
        rings.points,
        rings.written,
        row_of_slot,
        now_ms,
        results.slot,
        results.exchange_ns,
        results.price,
        results.warming,
        results.forecast,
        results.risk,
        results.level,
        results.action,
        results.target_position,
        results.expected_reward,
        results.gate,
    )


def course(rings: Rings, row: int, since: int = 0) -> NDArray[np.void]:
    """A copy of the points of one instrument, oldest first: POINT[k].

    Parameters
    ----------
    rings
        Of several instruments.
    row
        Of the instrument.
    since
        First second that is wanted.
    """
    written = int(rings.written[row])
    first = max(0, written - POINTS)
    points = rings.points[row].take(np.arange(first, written) % POINTS)
    return points[np.searchsorted(points["second"], since) :]


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    newest: Any,
    points: Any,
    written: Any,
    row_of_slot: Any,
    now_ms: int,
    slot: Any,
    exchange_ns: Any,
    price: Any,
    warming: Any,
    forecast: Any,
    risk: Any,
    level: Any,
    action: Any,
    target: Any,
    reward: Any,
    gate: Any,
) -> None:
    for i in range(slot.shape[0]):
        s = newest[slot[i]]
        s.ticks += 1
        s.exchange_ns = exchange_ns[i]
        s.heard_ms = now_ms
        s.price = price[i]
        for column in range(forecast.shape[1]):
            s.forecast[column] = forecast[i, column]
        for column in range(risk.shape[1]):
            s.risk[column] = risk[i, column]
        s.target_position = target[i]
        s.expected_reward = reward[i]
        s.level = level[i]
        s.action = action[i]
        s.gate = gate[i]
        s.warming = warming[i]
        row = row_of_slot[slot[i]]
        if row < 0:
            continue
        written[row] = _begun(points[row], written[row], exchange_ns[i] // SECOND)
        p = points[row, (written[row] - 1) % POINTS]
        p.price = price[i]
        for k in range(len(QUANTILES)):
            p.quantiles[k] = forecast[i, QUANTILES[k]]
        p.volatility = forecast[i, VOLATILITY]
        p.anomaly = max(p.anomaly, risk[i, ANOMALY])
        p.score = max(p.score, risk[i, SCORE])
        p.level = max(p.level, level[i])
        p.action = action[i]
        p.gate = gate[i]
        p.warming = warming[i]


@njit(inline="always")
def _begun(ring: Any, written: int, second: int) -> int:
    """The number of points begun once one for `second` is there; the ring starts anew where time went far back."""
    if written > 0:
        last = ring[(written - 1) % POINTS].second
        if last - POINTS <= second <= last:
            return written
        if second < last:
            written = 0
    p = ring[written % POINTS]
    p.second = second
    p.anomaly = 0.0
    p.score = 0.0
    p.level = 0
    return written + 1
