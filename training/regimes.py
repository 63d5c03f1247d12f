"""QLIKE apart: by hour of the day, by how volatile and by how liquid the instrument was when the forecast was made.

The borders of the regimes are terciles of a feature over the training rows of the instrument, so that neither a model
nor the test part has a say in them; an instrument with too few of them takes the file's.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.core.features import INDEX
from stream.messages import HORIZONS
from training import data
from training.samples import LEAST_ROWS, Sample
from training.volatility import Losses

TERCILES: Final = (1 / 3, 2 / 3)
HOUR_NS: Final = 3600 * data.SECOND
HOURS: Final = tuple(f"{hour:02d}:00" for hour in range(24))


class Regime(NamedTuple):
    """A feature in three."""

    feature: str
    names: tuple[str, str, str]  # from the lowest third on


REGIMES: Final = {
    "volatility": Regime("log_grid_variance_300s", ("calm", "usual", "wild")),
    "liquidity": Regime("log_roll_spread_300s", ("narrow spread", "usual spread", "wide spread")),
}


class Group(msgspec.Struct, frozen=True):
    """Test rows that have something in common."""

    name: str
    rows: int
    qlike: dict[str, float]  # by model


class Breakdown(msgspec.Struct, frozen=True):
    """One horizon, all instruments together."""

    by: str
    seconds: int
    groups: list[Group]  # of at least LEAST_ROWS rows each


def breakdowns(models: list[str], samples: list[Sample], losses: list[list[Losses]]) -> list[Breakdown]:
    """By hour and by each regime, horizon by horizon; losses are by horizon, then by instrument."""
    parted = {"hour": (HOURS, [hour(one) for one in samples])}
    parted |= {by: (regime.names, thirds(samples, regime.feature)) for by, regime in REGIMES.items()}
    return [
        Breakdown(by, seconds, _groups(models, names, np.concatenate(group), found))
        for by, (names, group) in parted.items()
        for seconds, found in zip(HORIZONS, losses, strict=True)
    ]


def hour(one: Sample) -> NDArray[np.int64]:
    """Of the day, UTC, of each test row: int64[k]."""
    of_day: NDArray[np.int64] = one.series.clock_ns[one.rows[data.TEST]] // HOUR_NS % len(HOURS)
    return of_day


def thirds(samples: list[Sample], feature: str) -> list[NDArray[np.int64]]:
    """0, 1 or 2 of each test row of each instrument: int64[k] each."""
    column = INDEX[feature]
    seen = [one.series.features[one.rows[data.TRAIN], column] for one in samples]
    shared = np.quantile(np.concatenate(seen), TERCILES)
    borders = [np.quantile(values, TERCILES) if len(values) >= LEAST_ROWS else shared for values in seen]
    return [
        np.searchsorted(border, one.series.features[one.rows[data.TEST], column])
        for one, border in zip(samples, borders, strict=True)
    ]


def _groups(models: list[str], names: Sequence[str], group: NDArray[np.int64], losses: list[Losses]) -> list[Group]:
    qlike = np.concatenate([one.qlike for one in losses], 1)
    found = []
    for number, name in enumerate(names):
        mine = group == number
        if mine.sum() >= LEAST_ROWS:
            means = qlike[:, mine].mean(1).tolist()
            found.append(Group(name, int(mine.sum()), dict(zip(models, means, strict=True))))
    return found
