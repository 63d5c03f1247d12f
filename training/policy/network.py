"""The network that ships, whatever trained it.

From one decision every action is known to be worth

    Q(state, held, action) = V(state, action) - cost(state) * |action - held|

with V the value of coming out with a position. So a network gives three values, not nine, and no exploration is needed
to learn them. Named parts: `encoder` (features and forecast -> state), `decoder` (state -> V), `predictor` (state ->
expected log return over `reward_seconds`, from which the rewards after costs follow).

Dueling (Wang et al. 2016: one stream for what all actions share, one for their differences) is left out: it spares
actions that were seldom taken from being learned apart, and here all three are learned at every decision. Behind one
encoder, with linear streams, it would be the same three numbers written otherwise.

A policy gradient shares the form: its logits are Q in units of a temperature, so that the most probable action is the
best by Q. Of its values only the differences mean something.
"""

from typing import Final

import torch
from torch import Tensor, nn

from stream.core.results import FORECAST_COLUMNS
from training.normalise import INPUTS, Normalise, inverse_volatility
from training.policy.tape import BASIS_POINT, POSITIONS, Market, half_spread

MOST: Final = 6.0
"""An input lies between so much and its negative."""
_FORECAST: Final = (
    *("expected_return_10s", "expected_return_60s", "volatility_10s", "volatility_60s"),
    *("quantile_01_60s", "quantile_05_60s", "quantile_50_60s", "quantile_95_60s", "quantile_99_60s"),
)
_UP: Final = ("probability_up_10s", "probability_up_60s")
WIDTH: Final = len(INPUTS) + len(_FORECAST) + len(_UP)


class Policy(nn.Module):
    """Contract of the family: float32[n, 30], float32[n, 16] -> action values and rewards, float32[n, 9] each."""

    returns: Tensor
    up: Tensor
    up_shift: Tensor
    moved: Tensor
    repeat: Tensor
    position: Tensor

    def __init__(self, hidden: int, market: Market) -> None:
        super().__init__()
        self.market = market
        self.normalise = Normalise()
        # Returns in units of ten volatilities of one second, probabilities from -2 to 2.
        self.register_buffer("returns", 0.1 * _pick(_FORECAST))
        self.register_buffer("up", 4.0 * _pick(_UP))
        self.register_buffer("up_shift", torch.full((len(_UP),), -2.0))
        position = torch.tensor(POSITIONS)
        self.register_buffer("moved", (position[None, :] - position[:, None]).abs().flatten()[None])
        self.register_buffer("repeat", torch.eye(3).repeat(1, 3))
        self.register_buffer("position", position.repeat(3)[None])
        self.encoder = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.decoder = nn.Linear(hidden, len(POSITIONS))
        self.predictor = nn.Linear(hidden, 1)

    def inputs(self, features: Tensor, forecast: Tensor) -> Tensor:
        """What the encoder sees: float32[n, WIDTH]; forecasts in units of the instrument's own volatility."""
        units = torch.clamp(forecast @ self.returns * inverse_volatility(features), -MOST, MOST)
        up = torch.addmm(self.up_shift, forecast, self.up)
        return torch.cat((self.normalise(features), units, up), 1)

    def state(self, features: Tensor, forecast: Tensor) -> Tensor:
        """float32[n, hidden]."""
        state: Tensor = self.encoder(self.inputs(features, forecast))
        return state

    def forward(self, features: Tensor, forecast: Tensor) -> tuple[Tensor, Tensor]:
        """Action values and expected rewards in log return after costs, rows of [held][action]."""
        # One product from the state to all eighteen: the weights are joined once, when the graph is made.
        weight = torch.cat((self.decoder.weight.T @ self.repeat, self.predictor.weight.T @ self.position), 1)
        bias = torch.cat((self.decoder.bias @ self.repeat, self.predictor.bias @ self.position))
        moved = self.moved.repeat(1, 2)
        start = bias * BASIS_POINT - self.market.fee * moved[0]
        cost = torch.addmm(start, half_spread(features, self.market), -moved)
        both = torch.addmm(cost, self.state(features, forecast), weight * BASIS_POINT)
        return both[:, :9], both[:, 9:]


def _pick(names: tuple[str, ...]) -> Tensor:
    """Matrix that picks forecasts: float32[len(FORECAST_COLUMNS), len(names)]."""
    return torch.eye(len(FORECAST_COLUMNS))[:, [FORECAST_COLUMNS.index(name) for name in names]]
