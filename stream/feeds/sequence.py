"""Trade ids that a venue counts without a hole: what is there twice, what is missing, what comes after all."""

from collections import OrderedDict
from typing import Final, NamedTuple

REMEMBERED: Final = 10_000
"""Ids of a symbol that are known again: more than a venue repeats when one connects again."""


class Verdict(NamedTuple):
    """On one trade."""

    fresh: bool  # not seen before
    missing: range = range(0)  # ids that were skipped just before it


class Sequence:
    """The ids of one symbol."""

    def __init__(self) -> None:
        self._highest: int | None = None
        self._seen: OrderedDict[int, None] = OrderedDict()

    @property
    def begun(self) -> bool:
        """Whether any id is known."""
        return self._highest is not None

    def note(self, trade_id: int) -> Verdict:
        """Take the next trade."""
        if trade_id in self._seen:
            return Verdict(fresh=False)
        self._seen[trade_id] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if self._highest is None or trade_id < self._highest - REMEMBERED:  # or the venue counts from the start again
            self._highest = trade_id
            return Verdict(fresh=True)
        missing = range(self._highest + 1, trade_id)
        self._highest = max(self._highest, trade_id)
        return Verdict(fresh=True, missing=missing)
