"""The forecaster: a GRU whose state is carried from tick to tick, trained as it is run.

Segments of consecutive ticks of many instruments go side by side; each step of training walks `unroll` ticks on
from the state that the last one left (truncated back-propagation through time). Targets are the log return and the
realised variance over 10 s and 60 s. Losses, in units of the forecast volatility, ticks weighted so that every
second in which an instrument trades counts the same:

- volatility: QLIKE (Patton 2011), log s^2 + rv / s^2, on the root of the realised variance of a 1 s grid;
- quantiles: pinball; they cannot cross, for each is the next inner one plus a positive step;
- expected return: squared error, returns beyond 20 volatilities clipped;
- probability up: cross-entropy; an unchanged price counts half.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.core.features import FEATURES
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import data
from training.normalise import INPUTS, Normalise

MOST_VOLATILITIES: Final = 20.0
_MEDIAN: Final = QUANTILE_LEVELS.index(0.5)


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 32
    head: int = 48
    segment: int = 4096  # ticks that one lane walks through before it starts anew
    unroll: int = 128  # ticks between two updates
    burn_in: int = 64  # first ticks of a segment, which do not count: the state starts at zero
    lanes: int = 64
    rounds: int = 20  # passes over `lanes` segments; the best on validation is kept
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    pinball: float = 1.0
    squared_error: float = 0.05
    cross_entropy: float = 0.2


class Forecaster(nn.Module):
    """Contract of the family: see `forward`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        horizons = len(HORIZONS)
        self.normalise = Normalise()
        self.project = nn.Linear(len(INPUTS), settings.hidden)
        self.gru = nn.GRU(settings.hidden, settings.hidden)
        self.inner = nn.Linear(settings.hidden + len(INPUTS), settings.head)
        self.head = nn.Linear(settings.head, horizons * 8)
        # Straight from the inputs: on its own a log-linear forecast over several scales, as HAR (Corsi 2009).
        self.straight = nn.Linear(len(INPUTS), horizons * 8, bias=False)
        nn.init.zeros_(self.straight.weight)
        seconds = torch.tensor([float(h) for h in HORIZONS])
        self.register_buffer("root_seconds", seconds.sqrt())
        self.register_buffer("assemble", _assembly())
        self.register_buffer("order", torch.tensor(_output_order()))

    def forward(
        self, features: Tensor, pack: Tensor, rest: Tensor, carry: Tensor, unpack: Tensor, last: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Forecasts of a chunk's ticks.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
        pack, rest, carry, unpack, last
            See stream.core.packing.Packing.
        hidden : float32[m, hidden]

        Returns
        -------
        forecast : float32[n, len(FORECAST_COLUMNS)]
        hidden_out : float32[m, hidden]
        """
        inputs = self.normalise(features)
        projected = torch.tanh(self.project(inputs))
        width = projected.shape[1]
        # Rows of a table are an embedding, which exports as one Gather; indexing with [...] would as four nodes.
        first, _ = self.gru(nn.functional.embedding(pack, projected), hidden[None])
        first = first.reshape(-1, width)
        second, _ = self.gru(nn.functional.embedding(rest, projected), first.index_select(0, carry)[None])
        states = torch.cat((first, second.reshape(-1, width)))
        return self.heads(features, inputs, states.index_select(0, unpack)), states.index_select(0, last)

    def sequence(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same on lanes of equal length, for training: float32[steps, lanes, len(FEATURES)]."""
        steps, lanes, _ = features.shape
        flat = features.reshape(steps * lanes, -1)
        inputs = self.normalise(flat)
        states, last = self.gru(torch.tanh(self.project(inputs)).reshape(steps, lanes, -1), hidden[None])
        return self.heads(flat, inputs, states.reshape(steps * lanes, -1)).reshape(steps, lanes, -1), last[0]

    def heads(self, features: Tensor, inputs: Tensor, states: Tensor) -> Tensor:
        """State and inputs of each tick -> forecast in final units."""
        raw = self.head(torch.relu(self.inner(torch.cat((states, inputs), 1)))) + self.straight(inputs)
        correction = torch.clamp(raw[:, 0:2], -12.0, 12.0)
        volatility = torch.exp(0.5 * (self.normalise.log_variance(features) + correction)) * self.root_seconds
        steps = raw[:, 8:16]
        # Squareplus (Barron 2021): positive like softplus, of exactly rounded operations.
        steps = 0.5 * (steps + torch.sqrt(steps * steps + 1.0))
        units = torch.cat((raw[:, 4:8], steps), 1) @ self.assemble
        scaled = units * torch.cat((volatility,) * 6, 1)
        up = torch.sigmoid(raw[:, 2:4])
        return torch.cat((volatility, up, scaled), 1).index_select(1, self.order)


def _assembly() -> Tensor:
    """Matrix from (expected return, median, four steps) to (expected return, quantiles), each a pair of horizons."""
    #     expected return, then quantiles 1, 5, 50, 95, 99
    rows = [
        [1, 0, 0, 0, 0, 0],  # expected return
        [0, 1, 1, 1, 1, 1],  # median
        [0, -1, 0, 0, 0, 0],  # 5 to 1
        [0, -1, -1, 0, 0, 0],  # median to 5
        [0, 0, 0, 0, 1, 1],  # median to 95
        [0, 0, 0, 0, 0, 1],  # 95 to 99
    ]
    return torch.kron(torch.tensor(rows, dtype=torch.float32), torch.eye(len(HORIZONS)))


def _output_order() -> list[int]:
    """Where each of FORECAST_COLUMNS stands among (volatility, up, expected return, quantiles), pairs of horizons."""
    names = ["volatility", "probability_up", "expected_return"]
    names += [f"quantile_{round(level * 100):02d}" for level in QUANTILE_LEVELS]
    pairs = [f"{name}_{horizon}s" for name in names for horizon in HORIZONS]
    return [pairs.index(column) for column in FORECAST_COLUMNS]


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


def losses(forecast: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Weighted means over ticks and horizons; forecast: float32[k, len(FORECAST_COLUMNS)]."""
    weight = (targets.weight / targets.weight.sum().clamp_min(1e-9))[:, None]
    volatility = forecast[:, _COLUMN["volatility"]]
    unit = volatility.detach()
    moved = torch.clamp(targets.log_return / unit, -MOST_VOLATILITIES, MOST_VOLATILITIES)
    variance = volatility * volatility
    up = 0.5 + 0.5 * torch.sign(targets.log_return)
    # The forecast's own unit is held fixed here, so that only QLIKE moves the volatility.
    missed = moved[:, :, None] - forecast[:, _QUANTILES] / unit[:, :, None]
    level = torch.tensor(QUANTILE_LEVELS)
    pinball = torch.maximum(level * missed, (level - 1.0) * missed).sum(2)
    error = moved - forecast[:, _COLUMN["expected_return"]] / unit
    probability = forecast[:, _COLUMN["probability_up"]]
    parts = {
        "qlike": torch.log(variance) + targets.realized_variance / variance,
        "pinball": pinball,
        "squared_error": error * error,
        "cross_entropy": nn.functional.binary_cross_entropy(probability, up, reduction="none"),
    }
    return {name: (values * weight).sum() / len(HORIZONS) for name, values in parts.items()}


class Lanes(NamedTuple):
    """Equal stretches of consecutive ticks side by side: [steps, lanes, ...]."""

    features: Tensor
    log_return: Tensor
    realized_variance: Tensor
    weight: Tensor  # 0 where a tick does not count


def draw_lanes(series: tuple[data.Series, ...], part: int, lanes: int, segment: int, rng: np.random.Generator) -> Lanes:
    """Random stretches of one part; files are drawn by the root of their ticks, so that long ones do not rule.

    A stretch that is longer than its instrument's ticks is filled up with ticks that do not count.
    """
    spans = [np.flatnonzero(one.part == part) for one in series]
    usable = [k for k, span in enumerate(spans) if len(span) > 1 and data.usable_rows(series[k])[span].any()]
    chance = _chances([series[k].file for k in usable], np.array([len(spans[k]) for k in usable], float))
    shape = (segment, lanes)
    features = np.zeros((*shape, len(FEATURES)), np.float32)
    log_return = np.zeros((*shape, len(HORIZONS)), np.float32)
    variance = np.zeros_like(log_return)
    weight = np.zeros(shape, np.float32)
    for lane, k in enumerate(rng.choice(usable, lanes, p=chance)):
        one, span = series[k], spans[k]
        start = span[0] + rng.integers(max(1, len(span) - segment + 1))
        rows = slice(start, min(start + segment, span[-1] + 1))
        n = rows.stop - rows.start
        counts = data.usable_rows(one)[rows] & (one.part[rows] == part)
        features[:n, lane] = one.features[rows]
        log_return[:n, lane] = np.where(counts[:, None], one.log_return[rows], 0.0)
        variance[:n, lane] = np.where(counts[:, None], one.realized_variance[rows], 0.0)
        lane_weight = one.weight[rows] * counts
        weight[:n, lane] = lane_weight / max(float(lane_weight.mean()), 1e-9)
    return Lanes(*(torch.from_numpy(array) for array in (features, log_return, variance, weight)))


def _chances(files: list[str], ticks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance of each series: of its file by the root of the file's ticks, within the file by ticks."""
    totals = {file: sum(t for f, t in zip(files, ticks, strict=True) if f == file) for file in files}
    weight = np.array([t / np.sqrt(totals[f]) for f, t in zip(files, ticks, strict=True)])
    chance: NDArray[np.float64] = weight / weight.sum()
    return chance


def walk(lanes: Lanes, unroll: int) -> Iterator[Lanes]:
    """Cut lanes in time."""
    for start in range(0, len(lanes.weight), unroll):
        yield Lanes(*(tensor[start : start + unroll] for tensor in lanes))


def total_loss(parts: dict[str, Tensor], settings: Settings) -> Tensor:
    """The weighted sum that is trained on."""
    return (
        parts["qlike"]
        + settings.pinball * parts["pinball"]
        + settings.squared_error * parts["squared_error"]
        + settings.cross_entropy * parts["cross_entropy"]
    )


def validate(net: Forecaster, lanes: Lanes, settings: Settings) -> float:
    """Mean total loss over lanes, the state carried from cut to cut."""
    hidden = torch.zeros(lanes.weight.shape[1], settings.hidden)
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for step, cut in enumerate(walk(lanes, settings.unroll)):
            forecast, hidden = net.sequence(cut.features, hidden)
            if step * settings.unroll < settings.burn_in or cut.weight.sum() == 0:
                continue
            loss = total_loss(losses(forecast.flatten(0, 1), _flat(cut)), settings)
            total += float(loss * cut.weight.sum())
            weight += float(cut.weight.sum())
    return total / max(weight, 1e-9)


def _flat(cut: Lanes) -> Targets:
    return Targets(cut.log_return.flatten(0, 1), cut.realized_variance.flatten(0, 1), cut.weight.flatten())


def train(
    dataset: data.Dataset,
    settings: Settings,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, of, text: None,
) -> tuple[Forecaster, list[float]]:
    """Fit a forecaster on the training part; returns the best on validation and the validation loss of each round."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Forecaster(settings)
    sample = draw_lanes(dataset.series, data.TRAIN, 4 * settings.lanes, 512, rng)
    net.normalise.fit(sample.features.flatten(0, 1), sample.weight.flatten())
    held_out = draw_lanes(dataset.series, data.VALIDATION, 2 * settings.lanes, settings.segment, rng)
    optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, 0.02 * settings.learning_rate)
    best, best_weights, history = float("inf"), copy.deepcopy(net.state_dict()), []
    for round_number in range(settings.rounds):
        lanes = draw_lanes(dataset.series, data.TRAIN, settings.lanes, settings.segment, rng)
        lanes.weight[: settings.burn_in] = 0.0
        _train_round(net, lanes, settings, optimizer)
        schedule.step()
        history.append(validate(net, held_out, settings))
        if history[-1] < best:
            best, best_weights = history[-1], copy.deepcopy(net.state_dict())
        progress(round_number + 1, settings.rounds, f"validation loss {history[-1]:.4f}")
    net.load_state_dict(best_weights)
    return net.eval(), history


def _train_round(net: Forecaster, lanes: Lanes, settings: Settings, optimizer: torch.optim.Optimizer) -> None:
    hidden = torch.zeros(lanes.weight.shape[1], settings.hidden)
    for cut in walk(lanes, settings.unroll):
        forecast, hidden = net.sequence(cut.features, hidden.detach())
        if cut.weight.sum() == 0:
            continue
        loss = total_loss(losses(forecast.flatten(0, 1), _flat(cut)), settings)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        optimizer.step()
