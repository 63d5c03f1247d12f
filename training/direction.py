"""The probability of a rise, calibrated: its log odds stretched and shifted as fits the validation part (Platt 1999).

One slope and one shift for each horizon, for all instruments: with two numbers there is little to fit, and the order of
the forecasts stays. They go into the weights of the heads, so a worker does nothing more for them. An unchanged price
counts as half a rise, ticks as in training, and a file by the root of their number.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from training import data, evaluation, export
from training.forecasters.contract import Forecaster

MOST_SLOPE: Final = 4.0
MOST_SHIFT: Final = 1.0
"""Log odds. A validation part in which prices only rise must not make a rise certain."""
LEAST_CHANCE: Final = 1e-6


class Scaling(NamedTuple):
    """Of the log odds of a rise: calibrated = slope * as trained + shift."""

    slope: float
    shift: float


def fit(probability: NDArray[np.float64], outcome: NDArray[np.float64], weight: NDArray[np.float64]) -> Scaling:
    """The scaling with the least cross-entropy.

    Parameters
    ----------
    probability : float64[n]
        As trained.
    outcome : float64[n]
        1 a rise, 0 a fall, 0.5 neither.
    weight : float64[n]
        Not below 0, not all 0.
    """
    odds = logit(np.clip(probability, LEAST_CHANCE, 1.0 - LEAST_CHANCE))
    share = weight / weight.sum()

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = at[0] * odds + at[1]
        off = share * (expit(scaled) - outcome)
        return float(share @ (np.logaddexp(0.0, scaled) - outcome * scaled)), np.array([off @ odds, off.sum()])

    bounds = [(0.0, MOST_SLOPE), (-MOST_SHIFT, MOST_SHIFT)]
    slope, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Scaling(float(slope), float(shift))


class Fit(NamedTuple):
    """Of a forecaster, on the validation part."""

    scalings: tuple[Scaling, ...]  # one a horizon
    before: list[evaluation.Forecasts]  # what it said of every tick of every series as trained


def calibrate(net: Forecaster, series: tuple[data.Series, ...]) -> Fit:
    """Fit a trained forecaster's probabilities of a rise, and change its heads so that they come out so."""
    said = evaluation.forecasts(export.to_onnx(net, "forecaster"), series, net.state_width)
    rows = [(one.part == data.VALIDATION) & data.usable_rows(one) for one in series]
    held_out = [k for k, mine in enumerate(rows) if mine.any()]
    chances = data.file_chances([series[k] for k in held_out], np.array([float(rows[k].sum()) for k in held_out]))
    weights = [series[k].weight[rows[k]].astype(np.float64) for k in held_out]
    weight = np.concatenate([chance * w / w.sum() for chance, w in zip(chances, weights, strict=True)])
    probability = np.concatenate([said[k].forecast[rows[k]][:, evaluation.UP] for k in held_out]).astype(np.float64)
    outcome = 0.5 + 0.5 * np.sign(np.concatenate([series[k].log_return[rows[k]] for k in held_out]))
    scalings = tuple(fit(p, o, weight) for p, o in zip(probability.T, outcome.T, strict=True))
    net.heads.scale_direction([one.slope for one in scalings], [one.shift for one in scalings])
    return Fit(scalings, said)
