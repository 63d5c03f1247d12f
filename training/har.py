"""HAR (Corsi 2009) on intraday scales: what comes is a mix of the variance of the last 60, 300 and 1800 s.

Corsi's day, week and month become 60, 300 and 1800 s, beside the realised variance of the last horizon. Everything is
in units of the instrument's own variance over 1800 s, so that one set of coefficients serves all instruments of a file.
The coefficients are at least 0 and minimise QLIKE (the quasi-likelihood of a multiplicative error model, Engle and
Gallo 2006): least squares would let the few wildest minutes choose them, and would be judged here by another loss than
it was fitted by.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from stream.core.features import INDEX
from training.baselines import LEAST_VARIANCE

_SCALES: Final = [INDEX[f"log_grid_variance_{seconds}s"] for seconds in (1800, 60, 300)]
COEFFICIENTS: Final = ("1800s", "60s", "300s", "last")


def scale(features: NDArray[np.float32], horizon: int) -> NDArray[np.float64]:
    """The instrument's own variance over a horizon of so many seconds: float64[n]."""
    per_second = np.exp(features[:, _SCALES[0]].astype(np.float64))
    own: NDArray[np.float64] = np.maximum(per_second * horizon, LEAST_VARIANCE)
    return own


def fit(
    features: NDArray[np.float32], last: NDArray[np.float64], realized: NDArray[np.float64], horizon: int
) -> NDArray[np.float64]:
    """Coefficients, in the order of COEFFICIENTS: float64[4].

    Parameters
    ----------
    features : float32[n, len(FEATURES)]
    last, realized : float64[n]
        Realised variance of the horizon that ended at the tick, and of the one that begins there.
    horizon
        Seconds.
    """
    own = scale(features, horizon)
    x, y = _regressors(features, last, horizon) / own[:, None], realized / own
    least = LEAST_VARIANCE / own

    def loss(b: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = x @ b
        f = np.maximum(mixed, least)
        slope = np.where(mixed > least, 1.0 / f - y / f**2, 0.0)
        return float((np.log(f) + y / f).mean()), slope @ x / len(y)

    start = np.full(len(COEFFICIENTS), 1.0 / len(COEFFICIENTS))
    # Not all at 0: a forecast that is its own floor everywhere has no slope to leave it by.
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1e-3, None)] + [(0.0, None)] * 3)
    coefficients: NDArray[np.float64] = found.x
    return coefficients


def forecast(
    coefficients: NDArray[np.float64], features: NDArray[np.float32], last: NDArray[np.float64], horizon: int
) -> NDArray[np.float64]:
    """Variance over the horizon: float64[n], at least LEAST_VARIANCE."""
    variance: NDArray[np.float64] = np.maximum(_regressors(features, last, horizon) @ coefficients, LEAST_VARIANCE)
    return variance


def _regressors(features: NDArray[np.float32], last: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """float64[n, 4], each a variance over the horizon."""
    averages = np.exp(features[:, _SCALES].astype(np.float64)) * horizon
    return np.column_stack((averages, last))
