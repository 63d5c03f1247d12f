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
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stream.core.features import FEATURES
from stream.core.results import FORECAST_COLUMNS
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import data
from training.normalise import INPUTS, Normalise, inverse_volatility

MOST_VOLATILITIES: Final = 20.0
NORMALISE_TICKS: Final = 200_000
_MEDIAN: Final = QUANTILE_LEVELS.index(0.5)


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 32
    head: int = 48
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
    squared_error: float = 0.05
    cross_entropy: float = 0.2


class Forecaster(nn.Module):
    """Contract of the family: see `forward`."""

    assemble: Tensor
    ones: Tensor
    spread: Tensor
    place_up: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        horizons = len(HORIZONS)
        self.normalise = Normalise()
        self.project = nn.Linear(len(INPUTS), settings.hidden)
        self.gru = nn.GRU(settings.hidden, settings.hidden)
        self.inner = nn.Linear(settings.hidden + len(INPUTS), settings.head)
        self.head = nn.Linear(settings.head, horizons * 8)
        # Straight from the inputs: on its own a log-linear forecast over several scales, as HAR (Corsi 2009).
        self.straight = nn.Parameter(torch.zeros(len(INPUTS), horizons * 8))
        # The forecasts are put in their columns by products with 0 and 1, which cost less than moving them.
        self.register_buffer("assemble", _assembly())
        self.register_buffer("ones", _places("volatility").sum(0))
        root_seconds = torch.tensor(HORIZONS).sqrt()
        self.register_buffer("spread", root_seconds[:, None] * _places(""))
        self.register_buffer("place_up", _places("probability_up"))

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
        rows = nn.functional.embedding
        first, _ = self.gru(rows(pack, projected), hidden[None])
        first = first.reshape(-1, width)
        second, _ = self.gru(rows(rest, projected), rows(carry, first)[None])
        states = torch.cat((first, second.reshape(-1, width)))
        return self.heads(features, inputs, rows(unpack, states)), rows(last, states)

    def sequence(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same on lanes of equal length, for training: float32[steps, lanes, len(FEATURES)]."""
        steps, lanes, _ = features.shape
        flat = features.reshape(steps * lanes, -1)
        inputs = self.normalise(flat)
        states, last = self.gru(torch.tanh(self.project(inputs)).reshape(steps, lanes, -1), hidden[None])
        return self.heads(flat, inputs, states.reshape(steps * lanes, -1)).reshape(steps, lanes, -1), last[0]

    def heads(self, features: Tensor, inputs: Tensor, states: Tensor) -> Tensor:
        """State and inputs of each tick -> forecast in final units."""
        inner = torch.relu(self.inner(torch.cat((states, inputs), 1)))
        raw = torch.addmm(self.head(inner), inputs, self.straight)
        volatility = torch.exp(torch.clamp(raw[:, 0:2], -6.0, 6.0)) / inverse_volatility(features)
        steps = raw[:, 8:16]
        # Squareplus (Barron 2021): positive like softplus, of exactly rounded operations.
        steps = steps + torch.sqrt(steps * steps + 1.0)
        units = torch.addmm(self.ones, torch.cat((raw[:, 4:8], steps), 1), self.assemble)
        return units * (volatility @ self.spread) + torch.sigmoid(raw[:, 2:4]) @ self.place_up


_PARTS: Final = ("expected_return", "quantile_50", "below_05", "below_01", "above_95", "above_99")
_SUMS: Final = {
    "expected_return": {"expected_return": 1.0},
    "quantile_01": {"quantile_50": 1.0, "below_05": -1.0, "below_01": -1.0},
    "quantile_05": {"quantile_50": 1.0, "below_05": -1.0},
    "quantile_50": {"quantile_50": 1.0},
    "quantile_95": {"quantile_50": 1.0, "above_95": 1.0},
    "quantile_99": {"quantile_50": 1.0, "above_95": 1.0, "above_99": 1.0},
}
"""A forecast in units of the volatility -> the parts of which it is the sum; the steps below and above are positive."""


def _places(name: str) -> Tensor:
    """1 where each horizon's `name` (or, for "", all of its columns but probability up) stands in FORECAST_COLUMNS."""
    places = torch.zeros(len(HORIZONS), len(FORECAST_COLUMNS))
    for row, horizon in enumerate(HORIZONS):
        for column, text in enumerate(FORECAST_COLUMNS):
            wanted = text == f"{name}_{horizon}s" if name else not text.startswith("probability")
            places[row, column] = float(wanted and text.endswith(f"_{horizon}s"))
    return places


def _assembly() -> Tensor:
    """Matrix from _PARTS, each a pair of horizons, to FORECAST_COLUMNS."""
    matrix = torch.zeros(len(_PARTS), len(HORIZONS), len(FORECAST_COLUMNS))
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
    chance = data.file_chances([series[k] for k in usable], np.array([float(len(spans[k])) for k in usable]))
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


def fit_normalise(dataset: data.Dataset) -> Normalise:
    """Scales of the inputs over the training part: the same for every seed and every family."""
    rows = data.sample_rows(dataset, data.TRAIN, NORMALISE_TICKS, np.random.default_rng(0))
    normalise = Normalise()
    normalise.fit(
        torch.from_numpy(np.concatenate([one.features[r] for one, r in zip(dataset.series, rows, strict=True)])),
        torch.from_numpy(np.concatenate([one.weight[r] for one, r in zip(dataset.series, rows, strict=True)])),
    )
    return normalise


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
    net.normalise.load_state_dict(fit_normalise(dataset).state_dict())
    # The same for every seed, so that seeds can be compared.
    held_out = draw_lanes(dataset.series, data.VALIDATION, 128, settings.segment, np.random.default_rng(0))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))  # type: ignore[no-untyped-call]
    kept: Forecaster = average.module  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, 0.02 * settings.learning_rate)
    best, best_weights, history = float("inf"), copy.deepcopy(net.state_dict()), []
    for round_number in range(settings.rounds):
        lanes = draw_lanes(dataset.series, data.TRAIN, settings.lanes, settings.segment, rng)
        lanes.weight[: settings.burn_in] = 0.0
        _train_round(net, average, lanes, settings, optimizer)
        schedule.step()
        history.append(validate(kept, held_out, settings))
        if history[-1] < best:
            best, best_weights = history[-1], copy.deepcopy(kept.state_dict())
        progress(round_number + 1, settings.rounds, f"validation loss {history[-1]:.4f}")
    net.load_state_dict(best_weights)
    return net.eval(), history


def _train_round(
    net: Forecaster, average: AveragedModel, lanes: Lanes, settings: Settings, optimizer: torch.optim.Optimizer
) -> None:
    hidden = torch.zeros(lanes.weight.shape[1], settings.hidden)
    for cut in walk(lanes, settings.unroll):
        forecast, hidden = net.sequence(cut.features, hidden.detach())
        if cut.weight.sum() == 0:
            continue
        loss = total_loss(losses(forecast.flatten(0, 1), _flat(cut)), settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        optimizer.step()
        average.update_parameters(net)
