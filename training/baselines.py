"""What a quant would put beside the models: plain forecasts on the same targets and split."""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.conformal import ES_CHANCE, tail_var
from stream.core.features import INDEX
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import data

LEAST_VARIANCE: Final = 1e-10
"""Floor of every variance forecast over a horizon, models and baselines alike: (0.1 bp)^2. QLIKE of a forecast of 0
is infinite, and in a quiet hour the last value and EWMA are 0."""
LEAST_SHORTFALL: Final = 1e-5
"""Floor of every ES, 0.1 bp likewise: FZ0 of an ES of 0 is infinite."""

EWMA_SECONDS: Final = (60, 300, 1800)


def ewma(features: NDArray[np.float32], seconds: int) -> NDArray[np.float64]:
    """RiskMetrics (1996) on the 1 s grid: variance over each horizon, float64[n, horizons]."""
    per_second = np.exp(features[:, INDEX[f"log_grid_variance_{seconds}s"]].astype(np.float64))
    variance: NDArray[np.float64] = per_second[:, None] * np.array(HORIZONS, float)
    return np.maximum(variance, LEAST_VARIANCE)


def last_value(series: data.Series) -> NDArray[np.float64]:
    """The realised variance of the horizon that ended at the tick: float64[n, horizons]; NaN without one."""
    out = np.full((len(series.clock_ns), len(HORIZONS)), np.nan)
    for column, horizon in enumerate(HORIZONS):
        before = np.searchsorted(series.clock_ns, series.clock_ns - horizon * data.SECOND, "right") - 1
        there = (before >= 0) & (series.session[before] == series.session)
        out[there, column] = series.realized_variance[before[there], column]
    return np.where(np.isnan(out), np.nan, np.maximum(out, LEAST_VARIANCE))


class ScaledQuantiles(NamedTuple):
    """Quantiles of the return in units of a volatility, as found on the validation part of the file."""

    levels: NDArray[np.float64]  # [horizons, levels]

    def forecast(self, variance: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[n, horizons, levels]"""
        quantiles: NDArray[np.float64] = np.sqrt(variance)[:, :, None] * self.levels
        return quantiles


def normal_quantiles(
    variance: NDArray[np.float64], log_return: NDArray[np.float64], weight: NDArray[np.float64]
) -> ScaledQuantiles:
    """Normal quantiles of the standard deviation that returns have in units of the volatility (weighted)."""
    z = np.array([NORMAL_QUANTILE[level] for level in QUANTILE_LEVELS])
    ratio = (log_return**2 / variance * weight[:, None]).sum(0) / max(float(weight.sum()), 1e-12)
    return ScaledQuantiles(np.sqrt(ratio)[:, None] * z)


NORMAL_QUANTILE: Final = {0.01: -2.326348, 0.05: -1.644854, 0.50: 0.0, 0.95: 1.644854, 0.99: 2.326348}


def qlike(variance: NDArray[np.float64], realized: NDArray[np.float64]) -> NDArray[np.float64]:
    """log s^2 + rv / s^2 (Patton 2011, up to a term without the forecast): defined for rv = 0 too."""
    loss: NDArray[np.float64] = np.log(variance) + realized / variance
    return loss


def pinball(quantiles: NDArray[np.float64], log_return: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over levels, in log return: float64[n, horizons]; quantiles: float64[n, horizons, levels]."""
    level = np.array(QUANTILE_LEVELS)
    missed = log_return[:, :, None] - quantiles
    loss: NDArray[np.float64] = np.maximum(level * missed, (level - 1.0) * missed).sum(2)
    return loss


def value_at_risk(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """VaR 97.5 % as the worker makes it: float64[...]; quantiles: float64[..., levels]."""
    found: NDArray[np.float64] = tail_var(*_losses(quantiles))
    return found


def exponential_shortfall(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """ES 97.5 % if the tail beyond the loss exceeded with 5 % is exponential: float64[...].

    With b = (loss_01 - loss_05) / log 5, the loss exceeded with p is loss_05 + b log(0.05 / p), and the mean beyond p
    is b more. For a normal distribution this gives 2.36 standard deviations; the exact value is 2.34.
    """
    loss_05, loss_01 = _losses(quantiles)
    return value_at_risk(quantiles) + np.maximum(0.0, loss_01 - loss_05) / math.log(5.0)


def _losses(quantiles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return -quantiles[..., QUANTILE_LEVELS.index(0.05)], -quantiles[..., QUANTILE_LEVELS.index(0.01)]


def fissler_ziegel(
    value_at_risk: NDArray[np.float64], shortfall: NDArray[np.float64], log_return: NDArray[np.float64]
) -> NDArray[np.float64]:
    """FZ0 of VaR and ES 97.5 % (Patton, Ziegel and Chen 2019, eq. 6), lower is better: float64[...].

    Parameters
    ----------
    value_at_risk, shortfall : float64[...]
        Positive losses, log return.
    log_return : float64[...]
    """
    quantile, mean_beyond = -value_at_risk, -np.maximum(shortfall, LEAST_SHORTFALL)
    beyond = np.maximum(0.0, quantile - log_return)
    loss: NDArray[np.float64] = (quantile - beyond / ES_CHANCE) / mean_beyond + np.log(-mean_beyond) - 1.0
    return loss
