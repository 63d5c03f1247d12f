"""Raw features -> scale-free inputs of the networks; part of each network, so that it is inside the ONNX graph.

Returns are divided by the instrument's own volatility of one second, averaged over 30 min; variances, spread and
impact are taken relative to it, rates and gaps relative to the instrument's own rate. So one model serves
instruments that it never saw. Then each input is standardised and clipped.

Only operations whose float32 result does not depend on their place in a batch are used: sums and products,
divisions, square roots, and ONNX Runtime's own exponential; no logarithm or softplus.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn

from stream.core.features import FEATURES, INDEX

BASE: Final = INDEX["log_grid_variance_1800s"]
USUAL_RATE: Final = INDEX["log_trade_rate_1800s"]
LEAST_BASE: Final = math.log(1e-12)  # 0.01 bp a square-root second: what a price that hardly moves is measured by
RETURNS: Final = ("log_return", "drawdown", "momentum_1s", "momentum_10s", "momentum_60s")
LEVELS: Final = tuple(name for name in FEATURES if name not in RETURNS and INDEX[name] != BASE)
INPUTS: Final = (*RETURNS, *LEVELS)
CLIP: Final = 6.0  # standard deviations
MOST_VOLATILITIES: Final = 20.0


def _levels() -> Tensor:
    """Matrix from the features to LEVELS, each less what it is measured against."""
    selection = torch.zeros(len(FEATURES), len(LEVELS))
    for column, name in enumerate(LEVELS):
        selection[INDEX[name], column] = 1.0
        if "variance" in name:
            selection[BASE, column] = -1.0
        elif "spread" in name or "impact" in name:
            selection[BASE, column] = -0.5  # of a variance: a volatility
        elif "log_time" in name:
            selection[USUAL_RATE, column] = 1.0
        elif "trade_rate" in name and INDEX[name] != USUAL_RATE:
            selection[USUAL_RATE, column] = -1.0
    return selection


def _returns() -> Tensor:
    """Matrix that picks RETURNS; ONNX Runtime multiplies faster than it gathers columns."""
    return torch.eye(len(FEATURES))[:, [INDEX[name] for name in RETURNS]]


def signed_root(x: Tensor) -> Tensor:
    """Grows like x near 0 and like its root far out: tames fat tails with exactly rounded operations."""
    return x / torch.sqrt(1.0 + torch.abs(x))


def log_variance(features: Tensor) -> Tensor:
    """The instrument's own log variance of one second: float32[n, 1]."""
    return torch.clamp(features[:, BASE : BASE + 1], min=LEAST_BASE)


def inverse_volatility(features: Tensor) -> Tensor:
    """One over the instrument's own volatility of one second: float32[n, 1]."""
    return torch.exp(-0.5 * log_variance(features))


class Normalise(nn.Module):
    """float32[n, len(FEATURES)] -> float32[n, len(INPUTS)], standardised and clipped.

    Networks that fit it on the same sample hold the same numbers, and the worker's joined graph computes it once.
    """

    returns: Tensor
    levels: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Standardising is folded into the products that select.
        self.register_buffer("returns", _returns())
        self.register_buffer("levels", _levels())
        self.register_buffer("shift", torch.zeros(len(LEVELS)))

    def fit(self, features: Tensor, weight: Tensor) -> None:
        """Take mean and deviation of the training part; weight: float32[n]."""
        volatilities = features @ _returns() * inverse_volatility(features)
        # A few jumps must not set the scale of all returns; their mean is 0 for our purposes.
        _, inverse = moments(torch.clamp(volatilities, -MOST_VOLATILITIES, MOST_VOLATILITIES), weight)
        self.returns = _returns() * inverse
        mean, inverse = moments(features @ _levels(), weight)
        self.levels, self.shift = _levels() * inverse, -mean * inverse

    def forward(self, features: Tensor) -> Tensor:
        returns = signed_root(features @ self.returns * inverse_volatility(features))
        levels = torch.addmm(self.shift, features, self.levels)
        return torch.clamp(torch.cat((returns, levels), 1), -CLIP, CLIP)


def moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and inverse deviation of each column; weight: float32[n].

    A column that never changes (a side that is always absent) gets 0: it is left out, not divided by 0.
    """
    weight = weight[:, None] / weight.sum()
    mean = (x * weight).sum(0)
    deviation = ((x - mean) ** 2 * weight).sum(0).sqrt()
    return mean, torch.where(deviation > 1e-6, 1.0 / deviation.clamp_min(1e-6), 0.0)
