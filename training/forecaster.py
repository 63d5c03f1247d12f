"""Training of the forecasters, whatever their kind: each is trained as it is run, its state carried from tick to tick.

Segments of consecutive ticks of many instruments go side by side; each step of training walks `unroll` ticks on
from the state that the last one left (truncated back-propagation through time). Targets are the log return and the
realised variance over 10 s and 60 s; the losses are in training/forecasters/heads.py.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stream.core.features import FEATURES
from stream.messages import HORIZONS
from training import data
from training.forecasters.cnn import Cnn
from training.forecasters.contract import Forecaster, Kind, Settings
from training.forecasters.gru import Gru
from training.forecasters.heads import Targets, losses
from training.forecasters.lstm import Lstm
from training.forecasters.mlp import Mlp
from training.normalise import Normalise

NORMALISE_TICKS: Final = 200_000
VALIDATION_LANES: Final = 128
KINDS: Final[dict[Kind, Callable[[Settings], Forecaster]]] = {"gru": Gru, "lstm": Lstm, "cnn": Cnn, "mlp": Mlp}
SETTINGS: Final[dict[Kind, Settings]] = {
    "gru": Settings(kind="gru"),
    "lstm": Settings(kind="lstm"),
    "cnn": Settings(kind="cnn", hidden=16),  # the state has 31 rows of it for each instrument
    "mlp": Settings(kind="mlp", hidden=64),
}
"""The hyperparameters that `tapewatch train` starts from."""


Progress = Callable[[int, int, str], None]
"""Told how many rounds of how many are done, and a note."""


def build(settings: Settings) -> Forecaster:
    """An untrained forecaster of the kind that the settings name."""
    return KINDS[settings.kind](settings)


class Lanes(NamedTuple):
    """Equal stretches of consecutive ticks side by side: [steps, lanes, ...]."""

    features: Tensor
    log_return: Tensor
    realized_variance: Tensor
    weight: Tensor  # 0 where a tick does not count

    def to(self, device: str) -> "Lanes":
        """The same on a device."""
        return Lanes(*(tensor.to(device) for tensor in self))


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


Draw = Callable[[tuple[data.Series, ...], int, int, int, np.random.Generator], Lanes]
"""As `draw_lanes`."""


def walk(lanes: Lanes, unroll: int) -> Iterator[Lanes]:
    """Cut lanes in time."""
    for start in range(0, len(lanes.weight), unroll):
        yield Lanes(*(tensor[start : start + unroll] for tensor in lanes))


def total_loss(parts: dict[str, Tensor], settings: Settings) -> Tensor:
    """The weighted sum that is trained on."""
    return (
        parts["qlike"]
        + settings.pinball * parts["pinball"]
        + settings.shortfall * parts["shortfall"]
        + settings.squared_error * parts["squared_error"]
        + settings.cross_entropy * parts["cross_entropy"]
    )


def validate(net: Forecaster, lanes: Lanes, settings: Settings) -> float:
    """Mean total loss over lanes."""
    return float(total_loss(mean_losses(net, lanes, settings), settings))


def mean_losses(net: Forecaster, lanes: Lanes, settings: Settings) -> dict[str, Tensor]:
    """Mean of each part of the loss over lanes, the state carried from cut to cut; net and lanes are on one device."""
    hidden = torch.zeros(lanes.weight.shape[1], net.state_width, device=lanes.weight.device)
    total: dict[str, Tensor] = {}
    weight = 0.0
    with torch.no_grad():
        for step, cut in enumerate(walk(lanes, settings.unroll)):
            forecast, shortfall, hidden = net.sequence(cut.features, hidden)
            counts = float(cut.weight.sum()) if step * settings.unroll >= settings.burn_in else 0.0
            parts = losses(forecast.flatten(0, 1), shortfall.flatten(0, 1), _flat(cut))
            for name, loss in parts.items():
                total[name] = total.get(name, torch.zeros(())) + loss.double() * counts
            weight += counts
    return {name: value / max(weight, 1e-9) for name, value in total.items()}


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
    progress: Progress = lambda done, of, text: None,
    draw: Draw = draw_lanes,
    validation_lanes: int = VALIDATION_LANES,
    device: str = "cpu",
) -> tuple[Forecaster, list[float]]:
    """Fit a forecaster on the training part; returns the best on validation and the validation loss of each round.

    Lanes to train on come from `draw`; those to validate on are the same whatever it is.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = build(settings)
    net.normalise.load_state_dict(fit_normalise(dataset).state_dict())
    # The same for every seed, so that seeds can be compared.
    held_out = draw_lanes(dataset.series, data.VALIDATION, validation_lanes, settings.segment, np.random.default_rng(0))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))  # type: ignore[no-untyped-call]
    kept: Forecaster = average.module  # type: ignore[assignment]
    # Each by itself: to move a recurrent layer lays its weights end to end, as cuDNN wants them; to copy it does not.
    net.to(device)
    kept.to(device)
    held_out = held_out.to(device)
    optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, 0.02 * settings.learning_rate)
    best, best_weights, history = float("inf"), copy.deepcopy(net.state_dict()), []
    for round_number in range(settings.rounds):
        lanes = draw(dataset.series, data.TRAIN, settings.lanes, settings.segment, rng)
        lanes.weight[: settings.burn_in] = 0.0
        _train_round(net, average, lanes.to(device), settings, optimizer)
        schedule.step()
        history.append(validate(kept, held_out, settings))
        if history[-1] < best:
            best, best_weights = history[-1], copy.deepcopy(kept.state_dict())
        progress(round_number + 1, settings.rounds, f"validation loss {history[-1]:.4f}")
    net.load_state_dict(best_weights)
    return net.cpu().eval(), history


def _train_round(
    net: Forecaster, average: AveragedModel, lanes: Lanes, settings: Settings, optimizer: torch.optim.Optimizer
) -> None:
    hidden = torch.zeros(lanes.weight.shape[1], net.state_width, device=lanes.weight.device)
    for cut in walk(lanes, settings.unroll):
        forecast, shortfall, hidden = net.sequence(cut.features, hidden.detach())
        if cut.weight.sum() == 0:
            continue
        loss = total_loss(losses(forecast.flatten(0, 1), shortfall.flatten(0, 1), _flat(cut)), settings)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        optimizer.step()
        average.update_parameters(net)
