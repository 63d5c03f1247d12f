"""The model confidence set (Hansen, Lunde and Nason 2011): those of which none is told to be worse than the best.

Models are thrown out one by one, the worst first, until the data no longer say that those left differ. The set holds
the best of all with a probability of at least 1 - SIZE, however many models were tried.
"""

from typing import Final

import numpy as np
from arch.bootstrap import MCS
from numpy.typing import NDArray

SIZE: Final = 0.1
RESAMPLES: Final = 1000
BLOCK_HORIZONS: Final = 2
"""Horizons in a block: the variance of a mean over such blocks is that of Bartlett's kernel with as many lags (Politis
and White 2004), so that the set knows the same overlap as Diebold-Mariano does in training/volatility.py."""
LEAST_CELLS: Final = 10
"""Horizons that the rows must hold, as for Diebold-Mariano."""


def p_values(losses: NDArray[np.float64], seconds: int, seed: int = 0) -> NDArray[np.float64] | None:
    """Of each model, that it belongs to the set: it does where it is at least SIZE.

    Rows are summed over a horizon first, for whole horizons are what blocks are made of: of 95,000 rows of 10 s 9,500
    are left, with the same means.

    Parameters
    ----------
    losses : float64[rows, models]
        In order of time, about one row a second.
    seconds
        Of the horizon: rows nearer than this share a part of it.

    Returns
    -------
    float64[models] or None
        None on fewer rows than LEAST_CELLS horizons. A model whose losses are another's has its p-value.
    """
    cells = len(losses) // seconds
    if cells < LEAST_CELLS:
        return None
    summed = np.add.reduceat(losses, np.arange(cells) * len(losses) // cells)
    different, copy = np.unique(summed, axis=1, return_inverse=True)
    if different.shape[1] == 1:
        return np.ones(losses.shape[1])
    found = MCS(different, SIZE, RESAMPLES, BLOCK_HORIZONS, method="R", bootstrap="circular", seed=seed)
    found.compute()
    p: NDArray[np.float64] = found.pvalues["Pvalue"].sort_index().to_numpy(np.float64)[copy.ravel()]
    return p
