"""GRU (Cho et al. 2014): the state is the hidden state, carried from tick to tick."""

import torch
from torch import Tensor, nn

from training.forecasters.contract import Forecaster, Packed, Settings
from training.forecasters.heads import Heads
from training.normalise import INPUTS, Normalise


class Gru(Forecaster):
    """Inputs -> projection -> GRU -> heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.state_width = settings.hidden
        self.normalise = Normalise()
        self.project = nn.Linear(len(INPUTS), settings.hidden)
        self.gru = nn.GRU(settings.hidden, settings.hidden)
        self.heads = Heads(settings.hidden, settings.head)

    def walk_packed(self, inputs: Tensor, at: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        projected = torch.tanh(self.project(inputs))
        width = projected.shape[1]
        # Rows of a table are an embedding, which exports as one Gather; indexing with [...] would as four nodes.
        rows = nn.functional.embedding
        first, _ = self.gru(rows(at.pack, projected), hidden[None])
        first = first.reshape(-1, width)
        second, _ = self.gru(rows(at.rest, projected), rows(at.carry, first)[None])
        states = torch.cat((first, second.reshape(-1, width)))
        return rows(at.unpack, states), rows(at.last, states)

    def walk_lanes(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        states, last = self.gru(torch.tanh(self.project(inputs)), hidden[None])
        return states, last[0]
