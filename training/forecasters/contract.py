"""What every forecaster is: state in, state out, one row of it an instrument, so that the worker knows no kinds.

A kind says how wide its state is (`state_width`; the card's hidden_size) and how it walks ticks in two ways: packed, as
the worker runs it, on the CPU, and in lanes, as it is trained, on any device. A state of zeros is that of an instrument
not seen before.
"""

from abc import ABC, abstractmethod
from typing import Final, Literal, NamedTuple

import msgspec
from torch import Tensor, nn

from training.forecasters.heads import Heads
from training.normalise import Normalise

Kind = Literal["gru", "lstm", "cnn", "mlp"]


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    kind: Kind = "gru"
    hidden: int = 32  # numbers that the network hands to the heads
    head: int = 48
    window: int = 8  # mlp: ticks that it looks at, the last one included
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16)  # cnn: ticks between the two taps of each layer
    segment: int = 4096  # ticks that one lane walks through before it starts anew
    unroll: int = 64  # ticks between two updates
    burn_in: int = 64  # first ticks of a segment, which do not count: the state starts at zero
    lanes: int = 48
    rounds: int = 40  # passes over `lanes` segments; the best on validation is kept
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    averaging: float = 0.99  # of the weights over updates; the average is what is validated and kept
    pinball: float = 1.0
    shortfall: float = 0.05  # FZ0: its gradients, 40 / ES where a loss exceeds the VaR, are the heaviest
    squared_error: float = 0.05
    cross_entropy: float = 0.2


ONLY_FOR: Final[dict[str, Kind]] = {"window": "mlp", "dilations": "cnn"}
"""Hyperparameters that mean something to one kind only."""


class Packed(NamedTuple):
    """The fields of stream.core.packing.Packing that a graph gets, as tensors."""

    pack: Tensor
    rest: Tensor
    carry: Tensor
    unpack: Tensor
    last: Tensor


class Forecaster(nn.Module, ABC):
    """Base of all kinds: normalisation before, heads behind."""

    state_width: int
    """Numbers carried from tick to tick for each instrument."""

    normalise: Normalise
    heads: Heads

    def forward(
        self, features: Tensor, pack: Tensor, rest: Tensor, carry: Tensor, unpack: Tensor, last: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Forecasts of a chunk's ticks.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
        pack, rest, carry, unpack, last
            See stream.core.packing.Packing.
        hidden : float32[m, state_width]

        Returns
        -------
        forecast : float32[n, len(FORECAST_COLUMNS)]
        shortfall : float32[n, len(HORIZONS)]
            ES 97.5 %, log return of a loss.
        hidden_out : float32[m, state_width]
        """
        inputs = self.normalise(features)
        states, hidden_out = self.walk_packed(inputs, Packed(pack, rest, carry, unpack, last), hidden)
        return *self.heads(features, inputs, states), hidden_out

    def sequence(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same on lanes of equal length, for training: float32[steps, lanes, len(FEATURES)]."""
        steps, lanes, _ = features.shape
        flat = features.reshape(steps * lanes, -1)
        inputs = self.normalise(flat)
        states, last = self.walk_lanes(inputs.reshape(steps, lanes, -1), hidden)
        forecast, shortfall = self.heads(flat, inputs, states.reshape(steps * lanes, -1))
        return forecast.reshape(steps, lanes, -1), shortfall.reshape(steps, lanes, -1), last

    @abstractmethod
    def walk_packed(self, inputs: Tensor, at: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs float32[n, len(INPUTS)] -> what the heads get, float32[n, hidden], and the state after the chunk."""

    @abstractmethod
    def walk_lanes(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs float32[steps, lanes, len(INPUTS)] -> float32[steps, lanes, hidden], and the state of the lanes."""
