"""MLP on a window: the state is the inputs of the last ticks, as many as it looks back."""

import torch
from torch import Tensor, nn

from training.forecasters.contract import Forecaster, Packed, Settings
from training.forecasters.heads import Heads
from training.forecasters.past import Past
from training.normalise import INPUTS, Normalise


class Mlp(Forecaster):
    """The inputs of the last `window` ticks, end to end -> two layers -> heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.back = settings.window - 1
        self.state_width = self.back * len(INPUTS)
        self.normalise = Normalise()
        self.first = nn.Linear(settings.window * len(INPUTS), settings.hidden)
        self.second = nn.Linear(settings.hidden, settings.hidden)
        self.heads = Heads(settings.hidden, settings.head)

    def walk_packed(self, inputs: Tensor, at: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        rows = nn.functional.embedding
        past = Past(at)
        oldest_first = torch.arange(self.back, 0, -1)
        depth = torch.full_like(oldest_first, self.back)
        table = torch.cat((hidden.reshape(-1, len(INPUTS)), inputs))
        before = rows(past.before(oldest_first, depth), table).reshape(-1, self.state_width)
        carried = rows(past.carried(oldest_first, depth), table).reshape(-1, self.state_width)
        return self._layers(torch.cat((before, inputs), 1)), carried

    def walk_lanes(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        steps, lanes, width = inputs.shape
        rows = torch.cat((hidden.reshape(lanes, self.back, width).transpose(0, 1), inputs))
        window = torch.cat([rows[start : start + steps] for start in range(self.back + 1)], 2)
        return self._layers(window), rows[steps:].transpose(0, 1).reshape(lanes, -1)

    def _layers(self, window: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(window))))
