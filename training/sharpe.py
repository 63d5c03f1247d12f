"""The Sharpe ratio of a series of returns, how sure it is, and what is left of it after so many tries."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from numpy.typing import NDArray
from scipy.stats import norm

EULER: Final = 0.5772156649015329
LEAST_BLOCK: Final = 60
"""Returns in a block, on average: a minute of decisions, the horizon over which positions and volatility last."""


class Interval(NamedTuple):
    """Where the Sharpe ratio lies, by a bootstrap."""

    low: float
    high: float
    block: int  # average length of the blocks


def ratio(returns: NDArray[np.float64]) -> float:
    """Mean over standard deviation, of one period; 0 where nothing ever changes, as of doing nothing."""
    deviation = float(returns.std())
    # The rounding of a mean leaves a constant series a deviation of some 1e-16 of its level.
    return float(returns.mean()) / deviation if deviation > 1e-12 * float(np.abs(returns).max()) else 0.0


def interval(returns: NDArray[np.float64], seed: int, level: float = 0.95, resamples: int = 1000) -> Interval:
    """Percentile interval of the Sharpe ratio by the stationary bootstrap (Politis and Romano 1994).

    Blocks have geometric lengths, so that what follows each other stays together; their mean is the best one for the
    mean of the series (Politis and White 2004, corrected 2009), but at least LEAST_BLOCK.

    Parameters
    ----------
    returns : float64[n]
        Of periods in order.
    level : float
        Share of resamples inside, in (0, 1).
    """
    if ratio(returns) == 0.0:
        return Interval(0.0, 0.0, 0)
    block = max(math.ceil(optimal_block_length(returns)["stationary"].iloc[0]), LEAST_BLOCK)
    drawn = StationaryBootstrap(block, returns, seed=seed).apply(ratio, resamples)
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high), block)


def confidence(found: float, benchmark: float, periods: int, skewness: float = 0.0, kurtosis: float = 3.0) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`, where `found` was measured; all of one period.

    The probabilistic Sharpe ratio of Bailey and Lopez de Prado (2012), with skewness g3 and kurtosis g4 (a normal's
    are 0 and 3) of n returns::

        PSR(SR*) = Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2))

    The returns are taken as independent of each other.
    """
    error = math.sqrt(1.0 - skewness * found + (kurtosis - 1.0) / 4.0 * found**2)
    return float(norm.cdf((found - benchmark) * math.sqrt(periods - 1) / error))


def luckiest(ratios: Sequence[float], tries: int) -> float:
    """Sharpe ratio that the best of so many tries is expected to show where none is worth anything.

    Bailey and Lopez de Prado (2014), equation 1, with Euler's constant g and V the variance of the tries' ratios::

        SR0 = sqrt(V) ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e)))

    Parameters
    ----------
    ratios
        Of tries of one kind, of which the variance is taken; two at least.
    tries : int
        N, all that were tried; 1 gives 0.
    """
    if tries < 1 or len(ratios) < 2:
        raise ValueError(f"need a try and two ratios: {tries=}, {len(ratios)=}")
    if tries == 1:
        return 0.0
    first, second = norm.ppf(1.0 - 1.0 / tries), norm.ppf(1.0 - 1.0 / (tries * math.e))
    return float(np.std(ratios, ddof=1) * ((1.0 - EULER) * first + EULER * second))


def deflated(returns: NDArray[np.float64], least: float) -> float:
    """Probability that the true Sharpe ratio exceeds `least`, what luck gives the best of all tries (`luckiest`).

    The deflated Sharpe ratio of Bailey and Lopez de Prado (2014), equation 2: PSR(SR0), see
    `confidence`. 0.95 and more is usually asked for. Doing nothing has a ratio of 0 for certain: 0 where SR0 is above.
    """
    found = ratio(returns)
    if found == 0.0:
        return float(least < 0.0)
    standard = (returns - returns.mean()) / returns.std()
    return confidence(found, least, len(returns), float((standard**3).mean()), float((standard**4).mean()))
