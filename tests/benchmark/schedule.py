"""When each tick is due: rates, one after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Phase(NamedTuple):
    """A rate that is kept for a while."""

    rate: float  # ticks a second
    seconds: float

    @property
    def ticks(self) -> int:
        """In all of it."""
        return round(self.rate * self.seconds)


def due_ns(phases: Sequence[Phase]) -> NDArray[np.int64]:
    """Nanoseconds after the start at which each tick is due: int64[n], rising."""
    parts, start = [np.empty(0)], 0.0
    for phase in phases:
        parts.append(start + np.arange(1, phase.ticks + 1) / phase.rate)
        start += phase.seconds
    return (np.concatenate(parts) * 1e9).astype(np.int64)


def bounds(phases: Sequence[Phase]) -> list[slice]:
    """The ticks of each phase."""
    ends = np.cumsum([phase.ticks for phase in phases]).tolist()
    return [slice(end - phase.ticks, end) for end, phase in zip(ends, phases, strict=True)]


def written(phases: Sequence[Phase]) -> list[str]:
    """As arguments of a command line."""
    return [f"{phase.rate}:{phase.seconds}" for phase in phases]


def read(text: str) -> Phase:
    """One argument of a command line; ValueError if it is none."""
    rate, seconds = text.split(":")
    return Phase(float(rate), float(seconds))
