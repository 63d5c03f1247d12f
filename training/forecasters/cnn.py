"""Dilated causal convolutions (WaveNet, van den Oord et al. 2016), streamed: each layer's row of a tick is made once.

A layer sees a tick and the one `dilation` ticks before it. The state is what the layers need of earlier ticks: of each
the last `dilation` rows that it was given, oldest first, layer behind layer.
"""

import torch
from torch import Tensor, nn

from training.forecasters.contract import Forecaster, Packed, Settings
from training.forecasters.heads import Heads
from training.forecasters.past import Past
from training.normalise import INPUTS, Normalise


class Cnn(Forecaster):
    """Inputs -> projection -> residual layers of two taps -> heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.dilations = settings.dilations
        self.channels = settings.hidden
        self.state_width = sum(self.dilations) * self.channels
        self.normalise = Normalise()
        self.project = nn.Linear(len(INPUTS), self.channels)
        self.layers = nn.ModuleList(nn.Linear(2 * self.channels, self.channels) for _ in self.dilations)
        self.heads = Heads(self.channels, settings.head)

    def walk_packed(self, inputs: Tensor, at: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        rows = nn.functional.embedding
        past = Past(at)
        lag = torch.tensor(self.dilations)
        before = past.before(lag, lag).T  # one row a layer: they are taken one by one
        oldest_first = torch.tensor([back for d in self.dilations for back in range(d, 0, -1)])
        carried = past.carried(oldest_first, torch.tensor([d for d in self.dilations for _ in range(d)]))
        states = torch.tanh(self.project(inputs))
        kept = []
        pieces = zip(
            self.layers,
            before,
            torch.split(carried, list(self.dilations), 1),
            self._layers_of(hidden),
            strict=True,
        )
        for layer, mine, keep, given in pieces:
            table = torch.cat((given.reshape(-1, self.channels), states))
            kept.append(rows(keep, table).flatten(1))
            states = _layer(layer, rows(mine, table), states)
        return states, torch.cat(kept, 1)

    def walk_lanes(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        steps, lanes, _ = inputs.shape
        states = torch.tanh(self.project(inputs))
        kept = []
        for layer, mine in zip(self.layers, self._layers_of(hidden), strict=True):
            rows = torch.cat((mine.reshape(lanes, -1, self.channels).transpose(0, 1), states))
            kept.append(rows[steps:].transpose(0, 1).reshape(lanes, -1))
            states = _layer(layer, rows[:steps], states)
        return states, torch.cat(kept, 1)

    def _layers_of(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return torch.split(hidden, [d * self.channels for d in self.dilations], 1)


def _layer(layer: nn.Module, before: Tensor, now: Tensor) -> Tensor:
    added: Tensor = torch.relu(layer(torch.cat((before, now), -1)))
    return now + added
