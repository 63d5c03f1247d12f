"""How like the path of the forecast volatility is to that of the realised one: by correlation, and by DTW.

Paths go from horizon to horizon of one instrument, none of which overlap; pauses of a session are cut out. Both are
logs of a volatility, so that a wild minute does not outweigh a day, and in units of their own mean and deviation: a
forecast that is too high throughout is as like as any, and QLIKE is what minds it.
"""

import math
from typing import Final, NamedTuple

import msgspec
import numpy as np
from dtaidistance import dtw
from numpy.typing import NDArray

from stream.messages import HORIZONS
from training import data
from training.baselines import LEAST_VARIANCE
from training.samples import LEAST_ROWS, Sample, following

BAND_SECONDS: Final = 300
"""Farthest that dynamic time warping may shift a moment: what comes later than this is of no use to anybody."""
LEAST_DEVIATION: Final = 1e-9  # of a log: below it is rounding


class Likeness(msgspec.Struct, frozen=True):
    """Of one model's path to the realised one."""

    model: str
    correlation: float  # Pearson's
    distance: float  # of dynamic time warping, root mean square of a horizon, in standard deviations; 0: the same shape


class Paths(msgspec.Struct, frozen=True):
    """Of one instrument, or the mean over instruments by their steps."""

    steps: int  # horizons
    models: list[Likeness]


class Measured(NamedTuple):
    """Correlation and distance of the models on one instrument."""

    steps: int  # horizons; 0: too few
    likeness: NDArray[np.float64]  # [models, 2]


def measure(one: Sample, variance: NDArray[np.float64], column: int) -> Measured:
    """Walk the test rows of one instrument.

    Parameters
    ----------
    variance : float64[models, k]
        Forecasts at the test rows.

    Returns
    -------
    Measured
        Of no steps where there are fewer than LEAST_ROWS horizons, or a path never moves.
    """
    rows, seconds = one.rows[data.TEST], HORIZONS[column]
    steps = following(one.series.clock_ns[rows], seconds * data.SECOND)
    if len(steps) < LEAST_ROWS:
        return Measured(0, np.zeros((len(variance), 2)))
    realized, *forecasts = _standard(np.vstack((one.realized(data.TEST, column), variance))[:, steps])
    if not np.isfinite((realized, *forecasts)).all():
        return Measured(0, np.zeros((len(variance), 2)))
    found = [(float((path * realized).mean()), warped(path, realized, seconds)) for path in forecasts]
    return Measured(len(steps), np.array(found))


def _standard(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log volatilities of mean 0 and deviation 1, NaN where a path never moves: float64[paths, k] as given."""
    path = 0.5 * np.log(np.maximum(variance, LEAST_VARIANCE))
    centred = path - path.mean(1, keepdims=True)
    deviation = path.std(1, keepdims=True)
    standard: NDArray[np.float64] = centred / np.where(deviation > LEAST_DEVIATION, deviation, np.nan)
    return standard


def warped(path: NDArray[np.float64], other: NDArray[np.float64], seconds: int) -> float:
    """Distance of dynamic time warping within a band (Sakoe and Chiba 1978), over the root of the number of steps."""
    # The library's window is the first shift that is too far. Its pruning takes the distance without warping for a
    # bound, and gives infinity where rounding puts the best path, that one, above it.
    window = BAND_SECONDS // seconds + 1
    return float(dtw.distance_fast(path, other, use_pruning=False, window=window)) / math.sqrt(len(path))


def paths(models: list[str], measured: list[Measured]) -> Paths | None:
    """Of one instrument or of several; None where none has a path."""
    there = [one for one in measured if one.steps]
    if not there:
        return None
    weights = [one.steps for one in there]
    average = np.average([one.likeness for one in there], axis=0, weights=weights)
    return Paths(sum(weights), [Likeness(m, float(c), float(d)) for m, (c, d) in zip(models, average, strict=True)])
