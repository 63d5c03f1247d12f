"""Earlier ticks of the same instrument, for networks that look a fixed number of ticks back.

What such a network carries for an instrument are its last `depth` rows, oldest first. `Past` finds, for every tick of a
chunk, where the row of `lag` ticks before it stands in a table of the carried rows of all instruments, one instrument
behind the other, with the chunk's own rows behind them. All is whole numbers, made of the packing that the recurrent
networks use; every row is computed once, in the order of the ticks.
"""

import torch
from torch import Tensor

from training.forecasters.contract import Packed


class Past:
    """Where the ticks of a chunk stand among those of their instruments."""

    def __init__(self, at: Packed) -> None:
        self._cut, self._instruments = at.pack.shape
        rest_steps, self._busy = at.rest.shape
        self._ticks = torch.cat((at.pack.reshape(-1), at.rest.reshape(-1)))
        # Number of the step and of the instrument in each cell of the packing's two rectangles, one behind the other.
        first, second = torch.arange(self._cut), self._cut + torch.arange(rest_steps)
        self._number = torch.arange(self._instruments)
        steps = torch.cat((_spread(first[:, None], at.pack), _spread(second[:, None], at.rest)))
        instruments = torch.cat((_spread(self._number, at.pack), _spread(torch.arange(self._busy), at.rest)))
        self.step = steps.index_select(0, at.unpack)
        """int64[n] number of each tick among those of its instrument in the chunk."""
        self.instrument = instruments.index_select(0, at.unpack)
        """int64[n] of each tick: its row of the state."""
        self.count = steps.index_select(0, at.last) + 1
        """int64[m] ticks of each instrument in the chunk."""

    def before(self, lag: Tensor, depth: Tensor) -> Tensor:
        """Rows of the table for each tick and lag: int64[n, lags].

        Parameters
        ----------
        lag : int64[lags]
            How many ticks back, from 1 to `depth`.
        depth : int64[lags]
            Rows that an instrument carries in the table that this lag is for.
        """
        return self._find(self.step[:, None] - lag, self.instrument[:, None], depth)

    def carried(self, lag: Tensor, depth: Tensor) -> Tensor:
        """Rows of the table to carry on, `lag` ticks before the one to come: int64[m, lags]."""
        return self._find(self.count[:, None] - lag, self._number[:, None], depth)

    def _find(self, step: Tensor, instrument: Tensor, depth: Tensor) -> Tensor:
        first = step * self._instruments + instrument
        second = self._cut * self._instruments + (step - self._cut) * self._busy + instrument
        cell = torch.where(step < self._cut, first, second).clamp(min=0)
        tick = torch.nn.functional.embedding(cell, self._ticks[:, None])[..., 0]
        return torch.where(step < 0, (instrument + 1) * depth + step, self._instruments * depth + tick)


def _spread(numbers: Tensor, rectangle: Tensor) -> Tensor:
    return numbers.expand(rectangle.shape).reshape(-1)
