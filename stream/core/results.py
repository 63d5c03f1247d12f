"""The answers to the accepted ticks of one chunk, as columns."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FORECAST_COLUMNS: Final = tuple(
    f"{name}_{horizon}s"
    for horizon in (10, 60)
    for name in (
        "expected_return",
        "volatility",
        "probability_up",
        "quantile_01",
        "quantile_05",
        "quantile_50",
        "quantile_95",
        "quantile_99",
    )
)
RISK_COLUMNS: Final = ("anomaly", "var_99", "es_975", "volatility_ratio", "flow", "liquidity", "score")


class Results(NamedTuple):
    """One row for each accepted tick, in the order of their offsets.

    Every float is finite and already rounded to six significant digits, so a decimal text of six digits and the
    column hold the same number.
    """

    slot: NDArray[np.int32]  # [n] instrument
    offset: NDArray[np.int64]  # [n] of the tick in its partition, or row number in its file
    exchange_ns: NDArray[np.int64]  # [n] as the venue sent it
    price: NDArray[np.float64]  # [n]
    warming: NDArray[np.bool_]  # [n]
    forecast: NDArray[np.float64]  # [n, len(FORECAST_COLUMNS)]
    risk: NDArray[np.float64]  # [n, len(RISK_COLUMNS)]
    level: NDArray[np.int8]  # [n] index into messages.LEVELS
    action: NDArray[np.int8]  # [n] index into messages.ACTIONS
    target_position: NDArray[np.float64]  # [n] -1 to 1
    action_values: NDArray[np.float64]  # [n, 3] of short, flat, long
    expected_reward: NDArray[np.float64]  # [n]
    gate: NDArray[np.int8]  # [n] index into messages.GATES

    def rows(self, wanted: slice) -> Self:
        """Some of the rows, as views."""
        return type(self)._make(column[wanted] for column in self)


def concatenate(parts: Sequence[Results]) -> Results:
    """The rows of all parts, one after the other."""
    return Results._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
