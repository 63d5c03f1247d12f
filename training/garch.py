"""GARCH(1,1) (Bollerslev 1986) on the 1 s grid of one instrument, fitted with the package arch.

Zero mean, normal quasi-likelihood, on the last seconds of the training part. The forecast over h seconds is the sum of
the forecasts of its seconds. A pause of a session starts from the long-run variance again.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from arch import arch_model
from numba import njit
from numpy.typing import NDArray

from training import data
from training.baselines import LEAST_VARIANCE

MOST_SECONDS: Final = 20_000  # of the training part that are fitted on: its last five and a half hours
LEAST_SECONDS: Final = 1_000
LEAST_MOVES: Final = 100
MOST_PERSISTENCE: Final = 0.9999  # alpha + beta; at 1 there is no long-run variance


class Garch(NamedTuple):
    """variance' = omega + alpha * r^2 + beta * variance, a second."""

    omega: float  # squared log return; NaN: (1 - alpha - beta) times the mean square seen so far
    alpha: float
    beta: float


def fit(series: data.Series) -> Garch | None:
    """Fit on the training part; None where it holds too few seconds or moves."""
    train = series.part == data.TRAIN
    if not train.any():
        return None
    grid = _grid(*(column[train] for column in _columns(series)))[-MOST_SECONDS:]
    if len(grid) < LEAST_SECONDS or (grid != 0).sum() < LEAST_MOVES:
        return None
    unit = float(grid.std())
    model = arch_model(grid / unit, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    omega, alpha, beta = model.fit(disp="off", show_warning=False).params
    over = max(1.0, (alpha + beta) / MOST_PERSISTENCE)
    return Garch(float(omega) * unit**2, float(alpha / over), float(beta / over))


def shared(fitted: list[Garch | None]) -> Garch:
    """For an instrument without a training part: the median of the others, about its own mean square so far."""
    known = [one for one in fitted if one] or [RISKMETRICS]
    alpha, beta = float(np.median([g.alpha for g in known])), float(np.median([g.beta for g in known]))
    over = max(1.0, (alpha + beta) / MOST_PERSISTENCE)
    return Garch(np.nan, alpha / over, beta / over)


RISKMETRICS: Final = Garch(np.nan, 0.05, 0.94)  # where nothing can be fitted: about the EWMA of RiskMetrics (1996)


def forecast(garch: Garch, series: data.Series, horizon: int) -> NDArray[np.float64]:
    """Variance over the horizon at every tick, by what is known at it: float64[n], at least LEAST_VARIANCE."""
    next_second, long_run = _filter(*_columns(series), *garch)
    persistence = garch.alpha + garch.beta
    decaying = (1.0 - persistence**horizon) / (1.0 - persistence)
    variance: NDArray[np.float64] = horizon * long_run + (next_second - long_run) * decaying
    return np.maximum(variance, LEAST_VARIANCE)


def _columns(series: data.Series) -> tuple[Any, Any, Any]:
    return series.clock_ns // data.SECOND, series.session, series.log_price


def _grid(second: NDArray[np.int64], session: NDArray[np.int64], log_price: NDArray[np.float64]) -> Any:
    """Log returns of one second, within sessions."""
    parts = []
    for number in np.unique(session):
        mine = session == number
        times = np.arange(second[mine][0], second[mine][-1] + 1)
        last = np.searchsorted(second[mine], times, "right") - 1
        parts.append(np.diff(log_price[mine][last]))
    return np.concatenate(parts)


@njit(cache=True)
def _filter(second, session, log_price, omega, alpha, beta):  # type: ignore[no-untyped-def]
    n = second.shape[0]
    variances = np.empty(n)
    long_run = np.empty(n)
    squares = 0.0
    seconds = 0
    known = omega / (1.0 - alpha - beta)
    mean = 0.0 if np.isnan(omega) else known
    variance = mean
    grid = log_price[0]
    for i in range(n):
        if i > 0 and session[i] != session[i - 1]:
            variance = mean
            grid = log_price[i]
        elif i > 0:
            for _ in range(second[i] - second[i - 1]):
                step = log_price[i - 1] - grid
                grid = log_price[i - 1]
                squares += step * step
                seconds += 1
                if np.isnan(omega):
                    mean = squares / seconds
                variance = (1.0 - alpha - beta) * mean + alpha * step * step + beta * variance
        variances[i] = variance
        long_run[i] = mean
    return variances, long_run
