"""Forecasts of volatility beside each other on the test rows of a file: forecasters and baselines, loss by loss.

Baselines are fitted on the training part; what is chosen (time constant, rounds of boosting) on the validation part.
"""

import math
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.messages import HORIZONS
from training import baselines, boosting, confidence_set, data, evaluation, har
from training.samples import Sample

BASIS_POINT: Final = 1e-4
LEAST_HORIZONS: Final = 10
"""Rows that Diebold-Mariano needs, in horizons: below it their correlation cannot be estimated."""
MOST_FITTED: Final = 100_000
"""Rows that HAR and boosting are fitted on, every k-th of the training part: more change their QLIKE little."""
BASELINES: Final = ("last value", "EWMA", "HAR", "GARCH(1,1)", "LightGBM")


class Loss(msgspec.Struct, frozen=True):
    """One model's forecasts, one horizon."""

    model: str
    qlike: float  # log s^2 + rv / s^2
    mae: float  # of the volatility, basis points
    mse: float  # of the variance, basis points^4
    pinball: float | None = None  # of published quantiles, mean over levels, basis points; None of baselines
    dm: float | None = None  # Diebold-Mariano on QLIKE; above 0: the champion is better. None of itself or too few rows
    p: float | None = None  # two-sided
    set_p: float | None = None  # of the model confidence set; None where it is not made or on too few rows

    @property
    def in_set(self) -> bool:
        """Whether the model confidence set holds it."""
        return self.set_p is not None and self.set_p >= confidence_set.SIZE


class Candidates(NamedTuple):
    """Fitted baselines of a file, one horizon."""

    ewma_seconds: int
    har: NDArray[np.float64]
    boosting: Any


def fit(samples: list[Sample], column: int) -> Candidates:
    """Fit HAR and boosting on the training part, choose EWMA's time constant on the validation part."""
    train, validation = (_pooled(samples, part, column) for part in (data.TRAIN, data.VALIDATION))
    seconds = HORIZONS[column]
    tuning = {
        tau: float(baselines.qlike(baselines.ewma(validation.features, tau)[:, column], validation.realized).mean())
        for tau in baselines.EWMA_SECONDS
    }
    return Candidates(
        min(tuning, key=lambda tau: tuning[tau]),
        har.fit(train.features, train.last, train.realized, seconds),
        boosting.fit(
            boosting.Rows(train.features, train.realized, seconds),
            boosting.Rows(validation.features, validation.realized, seconds),
        ),
    )


class _Pooled(NamedTuple):
    features: NDArray[np.float32]
    last: NDArray[np.float64]
    realized: NDArray[np.float64]


def _pooled(samples: list[Sample], part: int, column: int) -> _Pooled:
    """Rows of all instruments in one part, at most about MOST_FITTED."""
    step = math.ceil(sum(len(s.rows[part]) for s in samples) / MOST_FITTED)
    rows = [s.rows[part][::step] for s in samples]
    return _Pooled(
        np.concatenate([s.series.features[r] for s, r in zip(samples, rows, strict=True)]),
        np.concatenate([s.last[r, column] for s, r in zip(samples, rows, strict=True)]),
        np.concatenate([s.realized(part, column)[::step] for s in samples]),
    )


def variances(one: Sample, garch_variance: NDArray[np.float64], fitted: Candidates, column: int) -> NDArray[np.float64]:
    """What forecasters and BASELINES say at the test rows of one instrument: float64[models, k]."""
    rows, seconds = one.rows[data.TEST], HORIZONS[column]
    features, last = one.series.features[rows], one.last[rows, column]
    told = [f.forecast[rows, evaluation.VOLATILITY[column]].astype(np.float64) ** 2 for f in one.forecasts.values()]
    return np.stack(
        (
            *(np.maximum(own, baselines.LEAST_VARIANCE) for own in told),
            last,
            baselines.ewma(features, fitted.ewma_seconds)[:, column],
            har.forecast(fitted.har, features, last, seconds),
            garch_variance[rows],
            boosting.forecast(fitted.boosting, features, seconds) if len(rows) else np.empty(0),
        )
    )


class Losses(NamedTuple):
    """Losses of the models on the test rows of one instrument, one horizon."""

    second: NDArray[np.int64]  # [k]
    qlike: NDArray[np.float64]  # [models, k]
    absolute: NDArray[np.float64]  # [models, k] of the volatility, basis points
    squared: NDArray[np.float64]  # [models, k] of the variance, basis points^4
    pinball: NDArray[np.float64]  # [forecasters, k] basis points


def losses(one: Sample, variance: NDArray[np.float64], column: int) -> Losses:
    """Of what the models say, float64[models, k], at the test rows."""
    realized = one.realized(data.TEST, column)
    return Losses(
        one.series.clock_ns[one.rows[data.TEST]] // data.SECOND,
        baselines.qlike(variance, realized),
        np.abs(np.sqrt(variance) - np.sqrt(realized)) / BASIS_POINT,
        ((variance - realized) / BASIS_POINT**2) ** 2,
        one.pinball[:, :, column] / BASIS_POINT,
    )


def table(models: list[str], found: list[Losses], seconds: int, *, with_set: bool) -> list[Loss]:
    """Means over all rows, Diebold-Mariano against the first model, and the model confidence set where it is asked for.

    Instruments that trade in one second are not independent: their losses are summed, second by second.
    """
    qlike, absolute, squared, pinball = (np.concatenate([x[k] for x in found], 1) for k in (1, 2, 3, 4))
    _, inverse = np.unique(np.concatenate([x.second for x in found]), return_inverse=True)
    summed: NDArray[Any] = np.stack([np.bincount(inverse, one) for one in qlike])
    enough = summed.shape[1] >= LEAST_HORIZONS * seconds
    set_p = confidence_set.p_values(summed.T, seconds) if with_set else None
    listed = []
    for k, model in enumerate(models):
        dm = diebold_mariano(summed[k] - summed[0], 2 * seconds) if k > 0 and enough else None
        listed.append(
            Loss(
                model,
                float(qlike[k].mean()),
                float(absolute[k].mean()),
                float(squared[k].mean()),
                float(pinball[k].mean()) if k < len(pinball) else None,
                dm,
                None if dm is None else math.erfc(abs(dm) / math.sqrt(2.0)),
                None if set_p is None else float(set_p[k]),
            )
        )
    return listed


def diebold_mariano(difference: NDArray[np.float64], lags: int) -> float:
    """Mean over its standard error, normal under equal losses (Diebold and Mariano 1995).

    Parameters
    ----------
    difference : float64[n]
        Loss of the other less that of ours, in order of time.
    lags
        Of the Bartlett kernel (Newey and West 1987). Rows that share a part of their horizon are correlated: twice
        the rows of a horizon give the last of these the weight of a half.

    Returns
    -------
    float
        Above 0 if ours is better; 0 if the losses never differ.
    """
    centred = difference - difference.mean()
    variance = float(centred @ centred)
    for lag in range(1, min(lags, len(difference) - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    if variance <= 0.0:
        return 0.0
    return float(difference.sum() / math.sqrt(variance))
