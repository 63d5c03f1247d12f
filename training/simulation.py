"""Historical simulation of VaR and ES, plain and filtered (Barone-Adesi, Giannopoulos and Vosper 1999).

The scenarios of a test are the returns of the horizons that ended before it, none of which overlap; filtered, they are
in units of a volatility that was forecast for them, and take the one forecast now.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

SCENARIOS: Final = 500
LEAST_SCENARIOS: Final = 100  # the quantile of 1 % is then about the worst of them


class Tail(NamedTuple):
    """Losses of a long position, log return, positive."""

    var_99: NDArray[np.float64]  # [k]
    var_975: NDArray[np.float64]  # [k]
    es_975: NDArray[np.float64]  # [k] not below var_975


def simulate(
    log_return: NDArray[np.float64], wanted: NDArray[np.int64], volatility: NDArray[np.float64] | None = None
) -> Tail:
    """VaR 99 %, VaR and ES 97.5 % of some horizons by those before them.

    Parameters
    ----------
    log_return : float64[n]
        Of horizons that follow each other.
    wanted : int64[k]
        Numbers of the horizons to forecast.
    volatility : float64[n], optional
        Forecast for each horizon; without it the returns are taken as they are.

    Returns
    -------
    Tail
        NaN where fewer than LEAST_SCENARIOS horizons came before.
    """
    shocks = log_return if volatility is None else log_return / volatility
    tails = np.full((3, len(wanted)), np.nan)
    for column, number in enumerate(wanted):
        scenarios = shocks[max(0, number - SCENARIOS) : number]
        if len(scenarios) >= LEAST_SCENARIOS:
            tails[:, column] = _tail(scenarios) * (1.0 if volatility is None else volatility[number])
    return Tail(*tails)


def _tail(scenarios: NDArray[np.float64]) -> NDArray[np.float64]:
    low, lowest = np.quantile(scenarios, (0.025, 0.01))
    beyond = scenarios[scenarios <= low]
    return -np.array([lowest, low, beyond.mean()])
