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
LEAST_BASE: Final = math.log(1e-12)  # 0.01 bp a square-root second: what a price that hardly moves is measured by
RETURNS: Final = ("log_return", "drawdown", "momentum_1s", "momentum_10s", "momentum_60s")
LEVELS: Final = tuple(name for name in FEATURES if name not in RETURNS and INDEX[name] != BASE)
INPUTS: Final = (*RETURNS, *LEVELS)
CLIP: Final = 6.0  # standard deviations


def _relations() -> Tensor:
    """Which features are measured against which: float32[len(LEVELS), 1 + 1], weights of (base, usual rate)."""
    relation = torch.zeros(len(LEVELS), 2)
    for row, name in enumerate(LEVELS):
        if "variance" in name:
            relation[row, 0] = -1.0
        elif "spread" in name or "impact" in name:
            relation[row, 0] = -0.5  # of a variance: a volatility
        elif "log_time" in name:
            relation[row, 1] = 1.0
        elif "trade_rate" in name and not name.endswith("1800s"):
            relation[row, 1] = -1.0
    return relation


def signed_root(x: Tensor) -> Tensor:
    """Grows like x near 0 and like its root far out: tames fat tails with exactly rounded operations."""
    return x / torch.sqrt(1.0 + torch.abs(x))


class Normalise(nn.Module):
    """float32[n, len(FEATURES)] -> float32[n, len(INPUTS)], standardised and clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("returns", torch.tensor([INDEX[name] for name in RETURNS]))
        self.register_buffer("levels", torch.tensor([INDEX[name] for name in LEVELS]))
        self.register_buffer("references", torch.tensor([BASE, INDEX["log_trade_rate_1800s"]]))
        self.register_buffer("relations", _relations().T.contiguous())
        self.register_buffer("mean", torch.zeros(len(INPUTS)))
        self.register_buffer("inverse_deviation", torch.ones(len(INPUTS)))

    def fit(self, features: Tensor, weight: Tensor) -> None:
        """Take mean and deviation of the training part; weight: float32[n]."""
        raw = self.raw(features)
        weight = weight[:, None] / weight.sum()
        self.mean = (raw * weight).sum(0)
        deviation = ((raw - self.mean) ** 2 * weight).sum(0).sqrt()
        # A feature that never changes in training (a side that is always absent) is left out, not divided by 0.
        self.inverse_deviation = torch.where(deviation > 1e-6, 1.0 / deviation.clamp_min(1e-6), 0.0)

    def log_variance(self, features: Tensor) -> Tensor:
        """The instrument's own log variance of one second: float32[n, 1]."""
        return torch.clamp(features[:, BASE : BASE + 1], min=LEAST_BASE)

    def raw(self, features: Tensor) -> Tensor:
        """Scale-free inputs, not yet standardised: float32[n, len(INPUTS)]."""
        inverse_scale = torch.exp(-0.5 * self.log_variance(features))
        returns = signed_root(features.index_select(1, self.returns) * inverse_scale)
        references = features.index_select(1, self.references) @ self.relations
        return torch.cat((returns, features.index_select(1, self.levels) + references), 1)

    def forward(self, features: Tensor) -> Tensor:
        standard = (self.raw(features) - self.mean) * self.inverse_deviation
        return torch.clamp(standard, -CLIP, CLIP)
