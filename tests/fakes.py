"""Stand-ins with the shapes and the rules of the real thing, for tests that are about something else."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.features import INDEX
from stream.core.packing import Packing
from stream.core.results import FORECAST_COLUMNS
from stream.inference import Inference
from stream.messages import HORIZONS

SHORTFALL: Final = 2.34  # of a normal law, in volatilities
Z: Final = {"quantile_01": -2.33, "quantile_05": -1.64, "quantile_50": 0.0, "quantile_95": 1.64, "quantile_99": 2.33}


class FakeModels:
    """Heads by hand: a normal forecast at the instrument's own volatility, moved by how many ticks it has had.

    Rows depend on their own features and on the carried state alone, as those of real models do.
    """

    names = ("fake@1", "fake@1", "fake@1")
    digests = ("", "", "")
    hidden_size = 4
    calibration = (np.array([0.0, 1.0]), np.array([1e-6, 1.0 - 1e-6]))

    def run(
        self,
        features: NDArray[np.float32],
        window: NDArray[np.float32],
        packing: Packing,
        hidden: NDArray[np.float32],
    ) -> Inference:
        """See `inference.Models.run`."""
        forecast, shortfall, last = forecast_of(features, packing, hidden)
        moved = np.abs(window[:, :, 0]).max(axis=1)
        score = (moved / (moved + np.float32(1e-4))).astype(np.float32)
        momentum = features[:, INDEX["momentum_10s"]]
        row = np.stack([-momentum, np.zeros_like(momentum), momentum], axis=1)
        values = np.tile(row, (1, 3)).astype(np.float32)
        return Inference(forecast, shortfall, last, score, values, values)


class FragileModels(FakeModels):
    """Fail for a chunk in which a price has moved by more than 5 %."""

    failure: Exception = ZeroDivisionError("no such luck")

    def run(
        self,
        features: NDArray[np.float32],
        window: NDArray[np.float32],
        packing: Packing,
        hidden: NDArray[np.float32],
    ) -> Inference:
        """See `inference.Models.run`."""
        if moves_much(features):
            raise self.failure
        return super().run(features, window, packing, hidden)


class StarvedModels(FragileModels):
    """Find no memory for such a chunk."""

    failure = MemoryError("cannot allocate 1 GiB")


def moves_much(features: NDArray[np.float32]) -> bool:
    """Whether a price has moved by more than 5 %."""
    return bool((np.abs(features[:, INDEX["log_return"]]) > 0.05).any())


def forecast_of(
    features: NDArray[np.float32], packing: Packing, hidden: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What the forecaster among the heads says, and the state that it carries on."""
    age = _ages(packing, hidden)
    forecast = np.concatenate([_normal(features, seconds, age) for seconds in (10.0, 60.0)], axis=1)
    last = np.zeros((len(packing.slots), hidden.shape[1]), np.float32)
    last[:, 0] = hidden[:, 0] + _counts(packing)
    shortfall = SHORTFALL * forecast[:, [FORECAST_COLUMNS.index(f"volatility_{horizon}s") for horizon in HORIZONS]]
    return forecast.astype(np.float32), shortfall.astype(np.float32), last


def _counts(packing: Packing) -> NDArray[np.float32]:
    """Ticks of each instrument of the chunk."""
    instrument = _instrument(packing)
    return np.bincount(instrument, minlength=len(packing.slots)).astype(np.float32)


def _instrument(packing: Packing) -> NDArray[np.int64]:
    """Row of `packing.slots` of each tick."""
    cut, width = packing.pack.shape
    busy = packing.rest.shape[1]
    first = packing.unpack < cut * width
    row: NDArray[np.int64] = np.where(first, packing.unpack % width, (packing.unpack - cut * width) % busy)
    return row


def _ages(packing: Packing, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many ticks each tick's instrument has had, itself included."""
    instrument = _instrument(packing)
    age = np.empty(len(instrument), np.float32)
    seen = hidden[:, 0].copy()
    for tick, row in enumerate(instrument):
        seen[row] += 1
        age[tick] = seen[row]
    return age


def _normal(features: NDArray[np.float32], seconds: float, age: NDArray[np.float32]) -> NDArray[np.float64]:
    volatility = np.sqrt(np.exp(features[:, INDEX["log_grid_variance_60s"]].astype(np.float64)) * seconds)
    volatility *= 1.0 + 0.1 / age
    columns = [np.zeros_like(volatility), volatility, np.full_like(volatility, 0.5)]
    columns += [z * volatility for z in Z.values()]
    assert len(columns) == len(FORECAST_COLUMNS) // 2
    return np.stack(columns, axis=1)
