"""The heads that all forecasters share, and what they are trained on: one tick's state and inputs -> its forecast.

Losses, in units of the forecast volatility, ticks weighted so that every second in which an instrument trades counts
the same:

- volatility: QLIKE (Patton 2011), log s^2 + rv / s^2, on the root of the realised variance of a 1 s grid;
- quantiles: pinball; they cannot cross, for each is the next inner one plus a positive step;
- expected shortfall, together with the VaR that the quantiles make: FZ0, see `fissler_ziegel`; it is that VaR plus a
  positive step;
- expected return: squared error, returns beyond 20 volatilities clipped;
- probability up: cross-entropy; an unchanged price counts half. Calibrated after training: training/direction.py.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from stream.core.conformal import ES_CHANCE, TAIL_SHARE
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training.normalise import INPUTS, inverse_volatility

MOST_VOLATILITIES: Final = 20.0
LEAST_SHORTFALL: Final = 0.1
"""In volatilities: FZ0 grows without bound towards an ES of 0."""


_DIRECTION: Final = slice(2, 4)
"""Among what the heads make: the log odds of a rise over each horizon."""


class Heads(nn.Module):
    """State and inputs of each tick -> forecast in final units."""

    assemble: Tensor
    ones: Tensor
    spread: Tensor
    place_up: Tensor

    def __init__(self, states: int, width: int) -> None:
        super().__init__()
        horizons = len(HORIZONS)
        self.inner = nn.Linear(states + len(INPUTS), width)
        self.head = nn.Linear(width, horizons * 9)
        # Straight from the inputs: on its own a log-linear forecast over several scales, as HAR (Corsi 2009).
        self.straight = nn.Parameter(torch.zeros(len(INPUTS), horizons * 9))
        # The forecasts are put in their columns by products with 0 and 1, which cost less than moving them.
        self.register_buffer("assemble", _assembly())
        self.register_buffer("ones", _places("volatility").sum(0))
        root_seconds = torch.tensor(HORIZONS).sqrt()
        self.register_buffer("spread", root_seconds[:, None] * _places(""))
        self.register_buffer("place_up", _places("probability_up"))

    def forward(self, features: Tensor, inputs: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Forecasts of `n` ticks.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
        inputs : float32[n, len(INPUTS)]
            The features, normalised.
        states : float32[n, states]
            What the network made of the instrument's ticks up to this one.

        Returns
        -------
        forecast : float32[n, len(FORECAST_COLUMNS)]
        shortfall : float32[n, len(HORIZONS)]
            ES 97.5 %, log return of a loss.
        """
        inner = torch.relu(self.inner(torch.cat((states, inputs), 1)))
        raw = torch.addmm(self.head(inner), inputs, self.straight)
        volatility = torch.exp(torch.clamp(raw[:, 0:2], -6.0, 6.0)) / inverse_volatility(features)
        steps = raw[:, 8:18]
        # Squareplus (Barron 2021): positive like softplus, of exactly rounded operations.
        steps = steps + torch.sqrt(steps * steps + 1.0)
        units = torch.addmm(self.ones, torch.cat((raw[:, 4:8], steps), 1), self.assemble)
        found = units * (volatility @ self.spread) + torch.sigmoid(raw[:, _DIRECTION]) @ self.place_up
        forecast, shortfall = torch.split(found, [len(FORECAST_COLUMNS), len(HORIZONS)], 1)
        return forecast, shortfall

    @torch.no_grad()
    def scale_direction(self, slopes: Sequence[float], shifts: Sequence[float]) -> None:
        """Make the log odds of a rise `slope` times what they are plus `shift`, each for its horizon."""
        slope = torch.tensor(slopes, dtype=torch.float32)
        self.head.weight[_DIRECTION] *= slope[:, None]
        self.head.bias[_DIRECTION] = self.head.bias[_DIRECTION] * slope + torch.tensor(shifts, dtype=torch.float32)
        self.straight[:, _DIRECTION] *= slope


_COLUMNS: Final = (*FORECAST_COLUMNS, *(f"shortfall_{horizon}s" for horizon in HORIZONS))
_PARTS: Final = ("expected_return", "quantile_50", "below_05", "below_01", "above_95", "above_99", "beyond_var")
_SUMS: Final = {
    "expected_return": {"expected_return": 1.0},
    "quantile_01": {"quantile_50": 1.0, "below_05": -1.0, "below_01": -1.0},
    "quantile_05": {"quantile_50": 1.0, "below_05": -1.0},
    "quantile_50": {"quantile_50": 1.0},
    "quantile_95": {"quantile_50": 1.0, "above_95": 1.0},
    "quantile_99": {"quantile_50": 1.0, "above_95": 1.0, "above_99": 1.0},
    # VaR 97.5 % as stream.core.conformal.tail_var makes it of the quantiles, and a step.
    "shortfall": {"quantile_50": -1.0, "below_05": 1.0, "below_01": TAIL_SHARE, "beyond_var": 1.0},
}
"""A forecast in units of the volatility -> the parts of which it is the sum; the steps below and above are positive."""


def _places(name: str) -> Tensor:
    """1 where each horizon's `name` (or, for "", all of its columns but probability up) stands in _COLUMNS."""
    places = torch.zeros(len(HORIZONS), len(_COLUMNS))
    for row, horizon in enumerate(HORIZONS):
        for column, text in enumerate(_COLUMNS):
            wanted = text == f"{name}_{horizon}s" if name else not text.startswith("probability")
            places[row, column] = float(wanted and text.endswith(f"_{horizon}s"))
    return places


def _assembly() -> Tensor:
    """Matrix from _PARTS, each a pair of horizons, to _COLUMNS."""
    matrix = torch.zeros(len(_PARTS), len(HORIZONS), len(_COLUMNS))
    for name, terms in _SUMS.items():
        for part, sign in terms.items():
            matrix[_PARTS.index(part)] += sign * _places(name)
    matrix[2:] *= 0.5  # squareplus, halved
    return matrix.flatten(0, 1)


class Targets(NamedTuple):
    """What `loss` compares with: float32[k, horizons] and the ticks' weights float32[k]."""

    log_return: Tensor
    realized_variance: Tensor
    weight: Tensor


_COLUMN: Final = {
    name: [FORECAST_COLUMNS.index(f"{name}_{h}s") for h in HORIZONS]
    for name in ("expected_return", "volatility", "probability_up")
}
_QUANTILES: Final = [
    [FORECAST_COLUMNS.index(f"quantile_{round(level * 100):02d}_{h}s") for level in QUANTILE_LEVELS] for h in HORIZONS
]


_TAIL: Final = [QUANTILE_LEVELS.index(0.05), QUANTILE_LEVELS.index(0.01)]


def losses(forecast: Tensor, shortfall: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Weighted means over ticks and horizons.

    Parameters
    ----------
    forecast : float32[k, len(FORECAST_COLUMNS)]
    shortfall : float32[k, len(HORIZONS)]
    targets
        What came.
    """
    weight = (targets.weight / targets.weight.sum().clamp_min(1e-9))[:, None]
    volatility = forecast[:, _COLUMN["volatility"]]
    unit = volatility.detach()
    moved = torch.clamp(targets.log_return / unit, -MOST_VOLATILITIES, MOST_VOLATILITIES)
    variance = volatility * volatility
    up = 0.5 + 0.5 * torch.sign(targets.log_return)
    # The forecast's own unit is held fixed here, so that only QLIKE moves the volatility.
    quantiles = forecast[:, _QUANTILES] / unit[:, :, None]
    missed = moved[:, :, None] - quantiles
    level = torch.tensor(QUANTILE_LEVELS, device=forecast.device)
    pinball = torch.maximum(level * missed, (level - 1.0) * missed).sum(2)
    loss_05, loss_01 = (-quantiles[:, :, _TAIL]).unbind(2)
    value_at_risk = loss_05 + TAIL_SHARE * (loss_01 - loss_05)
    error = moved - forecast[:, _COLUMN["expected_return"]] / unit
    probability = forecast[:, _COLUMN["probability_up"]]
    parts = {
        "qlike": torch.log(variance) + targets.realized_variance / variance,
        "pinball": pinball,
        "shortfall": fissler_ziegel(moved, value_at_risk, shortfall / unit),
        "squared_error": error * error,
        "cross_entropy": nn.functional.binary_cross_entropy(probability, up, reduction="none"),
    }
    return {name: (values * weight).sum() / len(HORIZONS) for name, values in parts.items()}


def fissler_ziegel(log_return: Tensor, value_at_risk: Tensor, shortfall: Tensor) -> Tensor:
    """FZ0 of VaR and ES 97.5 %: Patton, Ziegel and Chen (2019), eq. 6.

    The one loss of Fissler and Ziegel's class (2016, Corollary 5.5) whose differences do not change with the unit. Its
    mean is least where both are right, so that an ES can be learned together with its VaR, and not without one.

    Parameters
    ----------
    log_return, value_at_risk, shortfall : float32[...]
        In one unit; VaR and ES as positive losses.
    """
    quantile, mean_beyond = -value_at_risk, -shortfall.clamp_min(LEAST_SHORTFALL)
    beyond = torch.relu(quantile - log_return)
    return -beyond / (ES_CHANCE * mean_beyond) + quantile / mean_beyond + torch.log(-mean_beyond) - 1.0
