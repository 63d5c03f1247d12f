"""Which offsets of a partition are done: commit book-keeping by spans instead of single offsets.

Faust counts acknowledged offsets one by one and looks for the first hole among them. A chunk covers many offsets,
and some of these never come (compaction, transaction markers, aborted records), so here the unit is the span: all
offsets from `first` up to, not including, `end`, whether records were found there or not.
"""

from collections import deque


class Span:
    """Offsets `first` <= x < `end` of one partition, handed over together."""

    __slots__ = ("done", "end", "first")

    def __init__(self, first: int, end: int) -> None:
        self.first = first
        self.end = end
        self.done = False

    def __repr__(self) -> str:
        return f"Span({self.first}, {self.end}, done={self.done})"


class Ledger:
    """The spans of one partition that are in flight, in order of offset.

    `point` is the commit point: everything below it is done. It is None until the first position is known; it never
    passes an unfinished span, and goes back only when the partition itself was rewound (`reset`, or a span that
    starts before the end of the last one).
    """

    def __init__(self, position: int | None = None) -> None:
        self.start = position  # where reading began
        self.point = position
        self._end = position
        self._open: deque[Span] = deque()

    def __len__(self) -> int:
        """Number of spans from the commit point on: unfinished ones, and done ones behind an unfinished one."""
        return len(self._open)

    @property
    def position(self) -> int | None:
        """The offset after the last one handed over."""
        return self._end

    def open(self, first: int, end: int) -> Span:
        """Put the next span in flight.

        Parameters
        ----------
        first, end
            Offsets, `first` <= `end`. Offsets between the last span and this one held nothing, and count as done
            with it.

        Returns
        -------
        Span
            To be given to `done`.

        Raises
        ------
        ValueError
            If `end` < `first`.
        """
        if end < first:
            raise ValueError(f"a span cannot end before it starts: {first=}, {end=}")
        if self._end is None or first < self._end:
            self.reset(first)
        span = Span(first, end)
        self._open.append(span)
        self._end = end
        return span

    def done(self, span: Span) -> None:
        """Mark `span` as done. One that `reset` has dropped moves nothing."""
        span.done = True
        while self._open and self._open[0].done:
            self.point = self._open.popleft().end

    def reset(self, position: int | None) -> None:
        """Drop everything in flight and go on from `position`: after a seek, or when the partition was taken away."""
        self._open.clear()
        self.start = self.point = self._end = position
