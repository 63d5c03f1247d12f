"""What became of the forecasts: each is held against the 60 s that follow it, once they are over.

One test at a time for an instrument: it begins at a tick, ends with the last price at or before 60 s later, and the
next one begins at the tick that closed it. So the tests do not share a horizon and an exception counts once. Times
are the venue's; what a chunk holds changes no test. A test that would span a pause of the session, or a clock set
back, is dropped.
"""

import math
from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results

HORIZON_STEPS: Final = 60  # of one second each: the realized variance is that of training's targets
SECOND: Final = 1_000_000_000
QUANTILES: Final = tuple(FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("01", "05", "50", "95", "99"))
VOLATILITY: Final = FORECAST_COLUMNS.index("volatility_60s")
VAR_99: Final = RISK_COLUMNS.index("var_99")
VOLATILITY_RATIO: Final = RISK_COLUMNS.index("volatility_ratio")

LEAST_VARIANCE: Final = 1e-10
"""(0.1 bp)^2, a floor for forecast and realized variance alike: in a minute without a trade QLIKE stays finite."""

TEST_STATE: Final = np.dtype(
    [
        ("running", np.bool_),
        ("start_ns", np.int64),
        ("last_ns", np.int64),
        ("steps", np.int64),  # seconds of the horizon that are over
        ("start", np.float64),  # log price
        ("before", np.float64),  # log price at the last full second
        ("last", np.float64),  # log price of the last tick
        ("variance", np.float64),  # realized so far
        ("var_99", np.float64),
        ("forecast", np.float64),  # variance over the horizon
        ("usual", np.float64),  # variance over the horizon by the instrument's own 1800 s average
        ("quantiles", np.float64, (len(QUANTILES),)),
    ],
    align=True,
)

WINDOW: Final = 250  # tests that Basel's traffic light looks at
# Basel draws its borders for 250 tests, at 5 and at 10 exceptions; a right model has so many or more with these
# probabilities (1 - P(X <= 4) = 0.1078, 1 - P(X <= 9) = 0.00025). For fewer tests the same probabilities draw them.
YELLOW_CHANCE: Final = 0.108
RED_CHANCE: Final = 0.000251
GREEN, YELLOW, RED = range(3)


class Outcomes(NamedTuple):
    """The tests that have ended, in the order of the ticks that closed them."""

    row: NDArray[np.int32]  # [k] of the state
    log_return: NDArray[np.float64]  # [k] over the horizon
    realized_variance: NDArray[np.float64]  # [k] sum of the squared log returns of its seconds
    var_99: NDArray[np.float64]  # [k] as published when it began
    forecast_variance: NDArray[np.float64]  # [k]
    usual_variance: NDArray[np.float64]  # [k] the plain forecast beside the model's
    quantiles: NDArray[np.float64]  # [k, 5]
    newest: NDArray[np.int64]  # [rows of the state] newest of the chunk's ticks; -1 where it has none

    @property
    def exceptions(self) -> NDArray[np.bool_]:
        """[k] whether the loss was larger than the VaR."""
        return -self.log_return > self.var_99

    @property
    def below(self) -> NDArray[np.bool_]:
        """[k, 5] whether the return was below each quantile."""
        return self.log_return[:, None] < self.quantiles


def new_state(instruments: int) -> NDArray[np.void]:
    """No test running: TEST_STATE[instruments]."""
    return np.zeros(instruments, TEST_STATE)


def follow(state: NDArray[np.void], row_of_slot: NDArray[np.int32], results: Results, session_gap_ns: int) -> Outcomes:
    """Walk the answered ticks in order; `state` is updated in place.

    Parameters
    ----------
    state : TEST_STATE[rows]
    row_of_slot : int32[slots]
        Row of each instrument in `state`; -1 for those that are not followed.
    results
        Answers of one chunk; slots beyond `row_of_slot` are not followed either.
    session_gap_ns
        A longer pause starts a new session.
    """
    count = len(results.slot)
    row = np.empty(count, np.int32)
    newest = np.full(len(state), -1, np.int64)
    numbers = np.empty((count, 5 + len(QUANTILES)))
    ended = _walk(
        state,
        row_of_slot,
        results.slot,
        results.exchange_ns,
        results.price,
        results.warming,
        results.forecast,
        results.risk,
        session_gap_ns,
        row,
        numbers,
        newest,
    )
    log_return, realized, var_99, forecast, usual = numbers[:ended, :5].T
    return Outcomes(row[:ended], log_return, realized, var_99, forecast, usual, numbers[:ended, 5:], newest)


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    state: Any,
    row_of_slot: Any,
    slot: Any,
    exchange_ns: Any,
    price: Any,
    warming: Any,
    forecast: Any,
    risk: Any,
    session_gap_ns: int,
    row: Any,
    numbers: Any,
    newest: Any,
) -> int:
    ended = 0
    for i in range(slot.shape[0]):
        if slot[i] >= row_of_slot.shape[0] or row_of_slot[slot[i]] < 0:
            continue
        s = state[row_of_slot[slot[i]]]
        newest[row_of_slot[slot[i]]] = i
        level = math.log(price[i])
        if s.running and abs(exchange_ns[i] - s.last_ns) > session_gap_ns:
            s.running = False
        now = max(exchange_ns[i], s.last_ns) if s.running else exchange_ns[i]
        if s.running:
            _step(s, now)
            if s.steps == HORIZON_STEPS:
                row[ended] = row_of_slot[slot[i]]
                _write(s, numbers[ended])
                ended += 1
                s.running = False
        if not s.running and not warming[i]:
            _begin(s, now, level, forecast[i], risk[i])
        s.last_ns = now
        s.last = level
    return ended


@njit(inline="always")
def _step(s: Any, now: int) -> None:
    """Close every second that ended before `now`: the last price at or before its end is known."""
    while s.steps < HORIZON_STEPS and s.start_ns + (s.steps + 1) * SECOND < now:
        move = s.last - s.before
        s.variance += move * move
        s.before = s.last
        s.steps += 1


@njit(inline="always")
def _begin(s: Any, now: int, level: float, forecast: Any, risk: Any) -> None:
    s.running = True
    s.start_ns = now
    s.steps = 0
    s.start = level
    s.before = level
    s.variance = 0.0
    s.var_99 = risk[VAR_99]
    s.forecast = forecast[VOLATILITY] * forecast[VOLATILITY]
    usual = forecast[VOLATILITY] / risk[VOLATILITY_RATIO]
    s.usual = usual * usual
    for k in range(len(QUANTILES)):
        s.quantiles[k] = forecast[QUANTILES[k]]


@njit(inline="always")
def _write(s: Any, row: Any) -> None:
    row[0] = s.before - s.start
    row[1] = s.variance
    row[2] = s.var_99
    row[3] = s.forecast
    row[4] = s.usual
    for k in range(len(QUANTILES)):
        row[5 + k] = s.quantiles[k]


def qlike(forecast: NDArray[np.float64], realized: NDArray[np.float64]) -> NDArray[np.float64]:
    """v / h - log(v / h) - 1 (Patton 2011) of variances h and v, each at least LEAST_VARIANCE: [k], 0 at best."""
    ratio = np.maximum(realized, LEAST_VARIANCE) / np.maximum(forecast, LEAST_VARIANCE)
    loss: NDArray[np.float64] = ratio - np.log(ratio) - 1.0
    return loss


class TrafficLight:
    """The last 250 tests of one instrument's VaR, and the zone of Basel's traffic light that they fall in."""

    def __init__(self) -> None:
        self._exceptions: deque[bool] = deque(maxlen=WINDOW)

    def add(self, exception: bool) -> None:
        """One more test."""
        self._exceptions.append(exception)

    @property
    def tests(self) -> int:
        """Tests in the window, at most 250."""
        return len(self._exceptions)

    @property
    def exceptions(self) -> int:
        """How many of them were exceptions."""
        return sum(self._exceptions)

    @property
    def zone(self) -> int:
        """GREEN, YELLOW or RED."""
        return zone(self.tests, self.exceptions)


def zone(tests: int, exceptions: int, chance: float = 0.01) -> int:
    """Zone of Basel's traffic light (Basel Committee 1996): how unlikely so many exceptions are under a right model.

    Parameters
    ----------
    tests, exceptions
        Tests without a shared horizon, and how many lost more than the VaR.
    chance
        Probability of one exception.

    Returns
    -------
    int
        GREEN, YELLOW or RED. Of 250 tests: below 5, from 5, from 10.

    Raises
    ------
    ValueError
        If there are more exceptions than tests.
    """
    if not 0 <= exceptions <= tests:
        raise ValueError(f"need 0 <= exceptions <= tests: {exceptions=}, {tests=}")
    fewer = sum(math.comb(tests, k) * chance**k * (1.0 - chance) ** (tests - k) for k in range(exceptions))
    so_many = 1.0 - fewer
    return RED if so_many <= RED_CHANCE else YELLOW if so_many <= YELLOW_CHANCE else GREEN
