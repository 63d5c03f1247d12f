"""The rows of a file on which forecasters and baselines are compared, and what the forecasters say at them.

Rows are the last tick of each second in which an instrument trades.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import TapewatchError
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import baselines, data, evaluation

LEAST_ROWS: Final = 30
"""Seconds with a trade that each part needs at least: below it a mean says nothing."""
Forecasts = dict[str, list[evaluation.Forecasts]]
"""name@version of a forecaster -> its forecasts of every tick, one a series; the champion first."""


class Sample(NamedTuple):
    """Rows of one instrument."""

    series: data.Series
    forecasts: dict[str, evaluation.Forecasts]  # the champion first
    published: evaluation.Published  # of the champion
    pinball: NDArray[np.float64]  # [forecasters, k, horizons] of published quantiles at test rows, mean over levels
    last: NDArray[np.float64]  # [n, horizons] realised variance before
    rows: dict[int, NDArray[np.int64]]  # by part

    @property
    def said(self) -> evaluation.Forecasts:
        """The champion's."""
        return next(iter(self.forecasts.values()))

    def realized(self, part: int, column: int) -> NDArray[np.float64]:
        """float64[k]"""
        realized: NDArray[np.float64] = self.series.realized_variance[self.rows[part], column].astype(np.float64)
        return realized


def sample(series: data.Series, forecasts: dict[str, evaluation.Forecasts]) -> Sample:
    """The rows of a series."""
    last = baselines.last_value(series)
    good = data.usable_rows(series) & np.isfinite(last).all(1) & last_of_second(series.clock_ns)
    parts = (data.TRAIN, data.VALIDATION, data.TEST)
    rows = {part: np.flatnonzero(good & (series.part == part)) for part in parts}
    published = [evaluation.publish(series, forecast) for forecast in forecasts.values()]
    log_return = series.log_return[rows[data.TEST]].astype(np.float64)
    quantiles = [one.forecast[rows[data.TEST]][:, np.array(evaluation.QUANTILES)] for one in published]
    pinball = np.stack([baselines.pinball(one, log_return) for one in quantiles]) / len(QUANTILE_LEVELS)
    return Sample(series, forecasts, published[0], pinball, last, rows)


def last_of_second(clock_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a tick is the last of its second: bool[n]."""
    second = clock_ns // data.SECOND
    return np.append(second[1:] != second[:-1], np.True_)


def following(clock_ns: NDArray[np.int64], horizon_ns: int) -> NDArray[np.int64]:
    """Rows that start at or after the end of the horizon of the row before: int64[k]."""
    rows = []
    row = 0
    while row < len(clock_ns):
        rows.append(row)
        row = int(np.searchsorted(clock_ns, clock_ns[row] + horizon_ns))
    return np.array(rows, np.int64)


def refuse_too_little(file: str, samples: list[Sample]) -> None:
    """Every part of a file needs rows.

    Raises
    ------
    TapewatchError
        If one holds fewer than LEAST_ROWS.
    """
    for part, what in ((data.TRAIN, "training"), (data.VALIDATION, "validation"), (data.TEST, "test")):
        rows = sum(len(s.rows[part]) for s in samples)
        if rows < LEAST_ROWS:
            raise TapewatchError(
                f"{file}: {rows:,} seconds with a trade in the {what} part, past warming and with "
                f"{max(HORIZONS)} s of the same session before and after; {LEAST_ROWS:,} are needed: give a longer file"
            )
