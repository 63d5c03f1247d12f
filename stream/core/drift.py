"""Drift of the models' inputs: features of recent ticks against those that a model was trained on.

The population stability index of a feature is the sum over the bins of its training histogram of
(a - e) log(a / e), with the share e of training and a of now (Siddiqi 2006): 0 where both are alike, and at least 0.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

EVERY: Final = 8  # one tick in so many is counted, by its offset: as good for shares of thousands, and cheaper
LARGEST: Final = 3e38  # of a float32, about
LEAST_SHARE: Final = 1e-4  # of a bin: an empty one would make the index infinite
SLOTS: Final = 15


class Window:
    """Counts of the features over the last `seconds`, forgotten in steps of a fifteenth.

    Parameters
    ----------
    edges : float64[features, bins - 1]
        Rising in each row.
    """

    def __init__(self, edges: NDArray[np.float64], seconds: float) -> None:
        self._edges = edges
        self._step = seconds / SLOTS
        self._slots: deque[NDArray[np.int64]] = deque(maxlen=SLOTS)
        self._begun = 0.0

    def add(
        self, features: NDArray[np.float32], offset: NDArray[np.int64], warming: NDArray[np.bool_], now: float
    ) -> None:
        """Count some ticks; those that are warming were not trained on and do not count.

        Parameters
        ----------
        features : float32[n, features]
        offset : int64[n]
        warming : bool[n]
        now
            Seconds of a clock that never goes back.
        """
        self._forget(now)
        _count(features, offset, warming, self._edges, self._slots[-1])

    def counts(self, now: float) -> NDArray[np.int64]:
        """int64[features, bins]."""
        self._forget(now)
        return np.asarray(np.sum(self._slots, axis=0), np.int64)

    def _forget(self, now: float) -> None:
        while not self._slots or now - self._begun >= self._step:
            late = not self._slots or now - self._begun >= SLOTS * self._step
            self._begun = now if late else self._begun + self._step
            if late:
                self._slots.clear()
            self._slots.append(np.zeros((len(self._edges), self._edges.shape[1] + 1), np.int64))


@njit(cache=True, nogil=True)
def _count(features: Any, offset: Any, warming: Any, edges: Any, counts: Any) -> None:
    for i in range(features.shape[0]):
        if warming[i] or offset[i] % EVERY != 0:
            continue
        for j in range(features.shape[1]):
            counts[j, np.searchsorted(edges[j], features[i, j])] += 1


def stability_index(expected: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Population stability index of each feature against the training file that is most like now.

    A model that was trained on several markets meets one of them at a time, which is never like all of them together.

    Parameters
    ----------
    expected : float64[features, files, bins]
        Shares in the training part of each file.
    counts : int64[features, bins]
        Ticks now, at least one for each feature.

    Returns
    -------
    float64[features]
        At least 0.
    """
    now = np.maximum(counts / counts.sum(axis=1, keepdims=True), LEAST_SHARE)[:, np.newaxis]
    then = np.maximum(expected, LEAST_SHARE)
    index: NDArray[np.float64] = ((now - then) * np.log(now / then)).sum(axis=2).min(axis=1)
    return index


def histogram(files: Sequence[NDArray[np.float32]], bins: int) -> tuple[list[float], list[list[float]]]:
    """Edges at the quantiles of a feature over several files, and the shares of each file between them.

    Every file counts alike. A feature with fewer values than bins gets fewer edges; they are filled up with ever larger
    ones, whose bins are empty then and now, so that all features have as many.

    Parameters
    ----------
    files : float32[n] each
        At least one value in one of them; the shares of an empty one are all alike.
    """
    levels = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    values = np.concatenate(files)
    weight = np.concatenate([np.full(len(file), 1.0 / max(1, len(file))) for file in files])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order])
    cuts = values[order][np.searchsorted(below, levels * below[-1])]
    # As a card writes them, before anything is counted: many ticks can lie at one edge.
    edges = np.array(sorted({float(f"{cut:.6g}") for cut in cuts.tolist()}))
    missing = bins - 1 - len(edges)
    rising = edges.tolist() + [float(f"{LARGEST * (1 + k) / (1 + missing):.5g}") for k in range(missing)]
    return rising, [_shares(file, np.array(rising)) for file in files]


def _shares(values: NDArray[np.float32], edges: NDArray[np.float64]) -> list[float]:
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
    shares: list[float] = (counts / len(values) if len(values) else np.full(len(counts), 1.0 / len(counts))).tolist()
    return shares
