"""Conflation, as desks call it: the newest result of each instrument in an interval, and the ticks it stands for."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.results import Results, concatenate

FIRST_CAPACITY: Final = 64

Names = tuple[str, str, str]
"""name@version of forecaster, critic and policy."""


class Chosen(NamedTuple):
    """Results that are to be published, all of the same models, in the order of their offsets."""

    models: Names
    results: Results
    ticks: NDArray[np.int64]  # [n] accepted ticks of the instrument that each stands for, itself included


class Newest:
    """The newest result of each instrument of a partition since they were last taken.

    The first result of models that were not there before is kept as well, so that what is published names the tick at
    which models change: whoever computes the ticks again needs it.
    """

    def __init__(self) -> None:
        self._models: list[Names] = []  # of what is held, in the order in which they were in force
        self._firsts: list[Chosen | None] = []  # of each of them the first result, where it is kept
        self._last: Names | None = None  # of the newest result ever
        self._rows: Results | None = None  # one row an instrument, and with it ...
        self._reign = np.zeros(0, np.int32)  # ... which models made it
        self._ticks = np.zeros(0, np.int64)  # accepted since the last one was taken; 0: there is no row
        self._at = np.zeros(0, np.int64)  # scratch: the last row of a chunk

    def add(self, models: Names, results: Results) -> None:
        """Hold the newest results of a chunk, or of that part of it which these models made."""
        if not len(results.slot):
            return
        self._grow(results)
        new = models != self._last
        if new or not self._models:
            self._models.append(models)
            self._firsts.append(self._first(models, results) if new else None)
        self._last = models
        self._hold(results.rows(slice(int(new), None)))

    def _first(self, models: Names, results: Results) -> Chosen:
        slot = results.slot[:1]
        ticks = self._ticks[slot] + 1
        self._ticks[slot] = 0
        return Chosen(models, _copy(results.rows(slice(0, 1))), ticks)

    def _hold(self, results: Results) -> None:
        assert self._rows is not None
        slot = results.slot
        np.add.at(self._ticks, slot, 1)
        rows = np.arange(len(slot))
        self._at[slot] = rows  # of several rows of an instrument the last one stays
        newest = np.flatnonzero(self._at[slot] == rows)
        kept = slot[newest]
        self._reign[kept] = len(self._models) - 1
        for name, column in results._asdict().items():
            getattr(self._rows, name)[kept] = column[newest]

    def take(self) -> list[Chosen]:
        """All that is held, by models, in the order of the offsets; nothing is held any more."""
        chosen: list[Chosen] = []
        slots = np.flatnonzero(self._ticks)
        if self._rows is not None and self._models:
            slots = slots[np.argsort(self._rows.offset[slots])]
            for reign, (models, first) in enumerate(zip(self._models, self._firsts, strict=True)):
                own = slots[self._reign[slots] == reign]
                later = Chosen(models, Results._make(held[own] for held in self._rows), self._ticks[own])
                chosen += [_joined(first, later)] if first is not None else [later] if len(own) else []
        self._ticks[slots] = 0
        self._models, self._firsts = [], []
        return chosen

    def _grow(self, results: Results) -> None:
        instruments, capacity = int(results.slot.max()) + 1, len(self._ticks)
        if self._rows is not None and instruments <= capacity:
            return
        more = max(instruments, 2 * capacity, FIRST_CAPACITY) - capacity
        empty = Results._make(np.zeros((more, *column.shape[1:]), column.dtype) for column in results)
        self._rows = empty if self._rows is None else concatenate([self._rows, empty])
        self._reign, self._ticks, self._at = (
            np.concatenate([old, np.zeros(more, old.dtype)]) for old in (self._reign, self._ticks, self._at)
        )


def _copy(results: Results) -> Results:
    return Results._make(column.copy() for column in results)


def _joined(first: Chosen, later: Chosen) -> Chosen:
    return Chosen(first.models, concatenate([first.results, later.results]), np.concatenate([first.ticks, later.ticks]))


def next_moment(now_ms: int, interval_ms: int, last_ms: int | None = None) -> int:
    """The next moment of a grid of the clock, behind now and behind the last one that was used."""
    due = (now_ms // interval_ms + 1) * interval_ms
    return due + interval_ms if due == last_ms else due
