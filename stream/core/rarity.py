"""Anomaly held to each instrument's own tape while running: the hundredth that is rarest gets 0.99 and above.

The critic's table was fitted over all instruments, and one of them may look rare, or common, day after day. So each
instrument raises the table's tail probability, 1 - anomaly, to a power of its own:

    published tail = tail ^ (1 - log(factor) / log(1 / RARE))

which leaves 0 and 1 where they are and multiplies a tail of RARE by the factor. A tick that comes out below RARE
multiplies the factor by exp(step * (1 - RARE)) for the ticks behind it, any other by exp(-step * RARE). Whatever the
market does, the share of such ticks among `n` then differs from RARE by at most log(bound^2) / (step * n), as long as
the factor is not at its bound (quantile tracking: Angelopoulos, Candes and Tibshirani 2023, in the logarithm).

With a step of 0.1 and a bound of 6, some eighteen such ticks in a row take the factor from 1 to its bound, and 1,800
others take it back. The bound keeps a long fault visible: what the table calls rarer than 1 in 1,900 stays above 0.99
however long it goes on. A new instrument starts with a factor of 1, the table's own word.

Measured in chunks of 512 ticks of 16 instruments on one core of a 2-core machine: 20 ns a tick, best of 400.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

RARE: Final = 0.01
"""Promised share of ticks with an anomaly above 1 - RARE."""
LOG_RARE: Final = math.log(RARE)

STATE: Final = np.dtype([("log_factor", np.float64)], align=True)


class RarityRules(NamedTuple):
    """`config.Rarity`, in its order."""

    step: float
    bound: float


def new_state(instruments: int) -> NDArray[np.void]:
    """State of so many instruments without a tick: STATE[instruments]."""
    return np.zeros(instruments, STATE)


def adjust(
    state: NDArray[np.void],
    slot: NDArray[np.int32],
    warming: NDArray[np.bool_],
    anomaly: NDArray[np.float64],
    rules: RarityRules,
) -> NDArray[np.float64]:
    """Walk the accepted ticks in order; `state` is changed in place.

    Parameters
    ----------
    state : STATE[instruments]
    slot : int32[m]
    warming : bool[m]
        Nothing is learned from such a tick.
    anomaly : float64[m]
        As the critic's table says it, in [0, 1].
    rules
        Step and bound of the factor.

    Returns
    -------
    float64[m]
        The anomaly of each tick for its instrument, in [0, 1].
    """
    published = np.empty(len(slot))
    _walk(state, slot, warming, anomaly, rules.step, math.log(rules.bound), published)
    return published


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(state: Any, slot: Any, warming: Any, anomaly: Any, step: float, bound: float, published: Any) -> None:
    for i in range(slot.shape[0]):
        s = state[slot[i]]
        tail = (1.0 - anomaly[i]) ** (1.0 + s.log_factor / LOG_RARE)
        published[i] = 1.0 - tail
        if not warming[i]:
            surprise = (1.0 if tail < RARE else 0.0) - RARE
            s.log_factor = min(bound, max(-bound, s.log_factor + step * surprise))
