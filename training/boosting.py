"""Gradient boosting (LightGBM) on the same features, one model a horizon, with QLIKE as its loss.

The target is the realised variance in units of the instrument's own over 1800 s. LightGBM's objective "gamma" has a log
link and the loss f + y exp(-f): QLIKE of the variance exp(f). Rounds are chosen on the validation part.
"""

from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training import har
from training.baselines import LEAST_VARIANCE

LEAST_TARGET: Final = 1e-14  # the objective wants more than 0; (0.001 bp)^2 is far below the floor of the forecasts
ROUNDS: Final = 400
PATIENCE: Final = 25
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "gamma",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.8,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


class Rows:
    """Features and realised variance of one part, one horizon."""

    def __init__(self, features: NDArray[np.float32], realized: NDArray[np.float64], horizon: int) -> None:
        self.features = features
        self.target = np.maximum(realized, LEAST_TARGET) / har.scale(features, horizon)


def fit(train: Rows, validation: Rows) -> lightgbm.Booster:
    """Boost until the validation part's QLIKE has not fallen for PATIENCE rounds."""
    known = lightgbm.Dataset(train.features, train.target, free_raw_data=True)
    return lightgbm.train(
        PARAMETERS,
        known,
        ROUNDS,
        valid_sets=[lightgbm.Dataset(validation.features, validation.target, reference=known)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def forecast(model: lightgbm.Booster, features: NDArray[np.float32], horizon: int) -> NDArray[np.float64]:
    """Variance over the horizon: float64[n], at least LEAST_VARIANCE."""
    ratio = np.asarray(model.predict(features, num_threads=1), np.float64)
    variance: NDArray[np.float64] = np.maximum(ratio * har.scale(features, horizon), LEAST_VARIANCE)
    return variance
