"""The critic: a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017) over windows of trades.

A window is the last 32 trades as (log return, log time gap, signed log size). The critic sees it in the
instrument's own units, returns over its volatility of one second and gaps over its usual gap, together with the
recent scale as condition; its generator makes windows in these units from noise and the condition. What is far from
the real windows scores high. The critic ships, and the worker runs it. Its generator is there to train it: the one that
ships, for `tapewatch simulate --generator`, is that of `generator`, which has a critic of its own.

What is far depends on the regime: the score is (distance - middle) / (99 % quantile - middle), both as fitted for
normal training windows of like slow features, so that 1 is equally rare on every instrument.

A plain critic is trained against its generator alone and knows little of faults that no generator makes. So a share
of what it is shown as false are real windows with a fault injected (a spike of price or size, a burst, a frozen
feed, one side hammering): `Settings.faults`; 0 gives the plain critic. The card reports the detection of both.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.core.features import INDEX, WINDOW, WINDOW_COLUMNS
from training import data
from training.normalise import INPUTS, USUAL_RATE, Normalise, inverse_volatility, moments, signed_root

CONDITIONS: Final = (
    "log_grid_variance_60s",
    "log_grid_variance_300s",
    "log_coarse_variance_1800s",
    "log_trade_rate_60s",
    "log_trade_rate_1800s",
)
REGIME: Final = (
    "log_grid_variance_300s",
    "log_coarse_variance_1800s",
    "log_trade_rate_1800s",
    "log_price_impact_1800s",
    "log_roll_spread_300s",
)
"""Slow features, that a fault of a few trades does not move."""
TAIL: Final = 0.99
MOST_LOG_STEP: Final = 4.0
CLIP: Final = 8.0  # roots of standard deviations: 64 of them
RETURN, GAP, SIZE = range(3)


def _pick(names: tuple[str, ...]) -> Tensor:
    """Matrix that picks inputs of the networks: float32[len(INPUTS), len(names)]."""
    return torch.eye(len(INPUTS))[:, [INPUTS.index(name) for name in names]]


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 64
    generator: str = "gru"  # or "conv"
    noise: int = 8
    generator_hidden: int = 48
    batch: int = 256
    rounds: int = 1500  # updates of the generator
    regime_rounds: int = 1500
    critic_updates: int = 4  # for each of them
    gradient_penalty: float = 10.0
    learning_rate: float = 4e-4
    faults: float = 0.5  # share of what the critic is shown as false that are real windows with a fault
    train_windows: int = 200_000
    calibration_windows: int = 200_000


class Critic(nn.Module):
    """Contract of the family: float32[n, 30], float32[n, 32, 3] -> score float32[n, 1], higher is more anomalous."""

    by_volatility: Tensor
    factor: Tensor
    by_rate: Tensor
    shift: Tensor
    conditions: Tensor
    regimes: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.normalise = Normalise()
        entries = WINDOW * len(WINDOW_COLUMNS)
        self.register_buffer("conditions", _pick(CONDITIONS))
        self.register_buffer("regimes", _pick(REGIME))
        # In the flat window every third entry is a return. These make of the volatility and the usual rate what each
        # entry is multiplied by and what is added to it.
        channel = torch.arange(entries) % len(WINDOW_COLUMNS)
        self.register_buffer("by_volatility", (channel == RETURN).float()[None])
        self.register_buffer("factor", (channel != RETURN).float())
        self.register_buffer("by_rate", (channel == GAP).float()[None])
        self.register_buffer("shift", torch.zeros(entries))
        self.first = nn.Linear(entries + len(CONDITIONS), settings.hidden)
        self.second = nn.Linear(settings.hidden, settings.hidden)
        self.out = nn.Linear(settings.hidden, 1)
        # Middle and upper tail of normal scores in a regime: see `fit_regimes`.
        self.regime_first = nn.Linear(len(REGIME), 16)
        self.regime_last = nn.Linear(16, 2)

    def fit(self, features: Tensor, window: Tensor) -> None:
        """Take means and deviations of each channel over the training part; `normalise` is fitted already."""
        units = self.units(features, window).reshape(-1, len(WINDOW_COLUMNS))
        # A few jumps must not set the scale of all returns.
        mean, inverse = moments(torch.clamp(units, -20.0, 20.0), torch.ones(len(units)))
        mean, inverse = mean.repeat(WINDOW), inverse.repeat(WINDOW)
        self.by_volatility, self.factor = self.by_volatility * inverse, self.factor * inverse
        self.by_rate, self.shift = self.by_rate * inverse, -mean * inverse

    def units(self, features: Tensor, window: Tensor) -> Tensor:
        """The window in the instrument's own units, flat: float32[n, WINDOW * 3]."""
        factor = torch.addmm(self.factor, inverse_volatility(features), self.by_volatility)
        shift = torch.addmm(self.shift, features[:, USUAL_RATE : USUAL_RATE + 1], self.by_rate)
        return window.flatten(1) * factor + shift

    def condition(self, features: Tensor) -> Tensor:
        """The recent scale: float32[n, len(CONDITIONS)]."""
        # The joined graph has the inputs already, for the forecaster: to pick some is one product.
        inputs: Tensor = self.normalise(features)
        return inputs @ self.conditions

    def standard(self, features: Tensor, window: Tensor) -> Tensor:
        """The window as the critic and the generator know it: float32[n, WINDOW * 3]."""
        return torch.clamp(signed_root(self.units(features, window)), -CLIP, CLIP)

    def judge(self, standard: Tensor, condition: Tensor) -> Tensor:
        """Wasserstein critic: high for real windows. float32[n]."""
        return -self.distance(standard, condition)[:, 0]

    def distance(self, standard: Tensor, condition: Tensor) -> Tensor:
        """Higher is further from real windows: float32[n, 1]."""
        hidden = torch.relu(self.first(torch.cat((standard, condition), 1)))
        distance: Tensor = self.out(torch.relu(self.second(hidden)))
        return distance

    def usual(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Middle of the distances in this regime, and one over the way from it to the upper tail: float32[n, 1]."""
        first, last = self.regime_first, self.regime_last
        hidden = torch.relu(nn.functional.linear(self.normalise(features), first.weight @ self.regimes.T, first.bias))
        raw = last(hidden)
        return raw[:, 0:1], torch.exp(torch.clamp(raw[:, 1:2], -MOST_LOG_STEP, MOST_LOG_STEP))

    def forward(self, features: Tensor, window: Tensor) -> Tensor:
        distance = self.distance(self.standard(features, window), self.condition(features))
        middle, inverse_step = self.usual(features)
        return (distance - middle) * inverse_step


class RecurrentGenerator(nn.Module):
    """Noise and condition -> standardised window, trade by trade."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.noise = settings.noise
        self.gru = nn.GRU(settings.noise + len(CONDITIONS), settings.generator_hidden, batch_first=True)
        self.out = nn.Linear(settings.generator_hidden, len(WINDOW_COLUMNS))

    def forward(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            noise = torch.randn(len(condition), WINDOW, self.noise).to(condition.device)
        steps, _ = self.gru(torch.cat((noise, condition[:, None].expand(-1, WINDOW, -1)), 2))
        window: Tensor = self.out(steps)
        return window.flatten(1)


class ConvolutionalGenerator(nn.Module):
    """Noise and condition -> standardised window, from coarse to fine."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.noise = settings.noise
        width = settings.generator_hidden
        self.start = nn.Linear(settings.noise * 8 + len(CONDITIONS), width * 4)
        self.grow = nn.Sequential(
            nn.ConvTranspose1d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose1d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose1d(width, len(WINDOW_COLUMNS), 4, 2, 1),
        )

    def forward(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            noise = torch.randn(len(condition), self.noise * 8).to(condition.device)
        noise = noise.flatten(1)[:, : self.noise * 8]
        coarse = torch.relu(self.start(torch.cat((noise, condition), 1))).reshape(len(condition), -1, 4)
        window: Tensor = self.grow(coarse)
        return window.transpose(1, 2).flatten(1)


GENERATORS: Final = {"gru": RecurrentGenerator, "conv": ConvolutionalGenerator}


class Windows(NamedTuple):
    """Ticks with their windows."""

    features: Tensor  # [k, 30]
    window: Tensor  # [k, WINDOW, 3]
    series: NDArray[np.int64]  # [k] which series each is of

    def to(self, device: str) -> "Windows":
        """The same on a device."""
        return self._replace(features=self.features.to(device), window=self.window.to(device))


def sample_windows(dataset: data.Dataset, part: int, most: int, rng: np.random.Generator) -> Windows:
    """Random normal ticks of a part past warming, with their windows."""
    rows = data.sample_rows(dataset, part, most, rng)
    return Windows(
        torch.from_numpy(np.concatenate([one.features[r] for one, r in zip(dataset.series, rows, strict=True)])),
        torch.from_numpy(np.concatenate([data.windows(one, r) for one, r in zip(dataset.series, rows, strict=True)])),
        np.repeat(np.arange(len(rows)), [len(r) for r in rows]),
    )


FAULTS: Final = ("price_spike", "size_spike", "burst", "frozen", "one_sided")
"""What the critic is shown in training."""
EVERY_FAULT: Final = (*FAULTS, "wash")
"""And what it never saw, to see what it makes of it."""


def inject(fault: str, features: Tensor, window: Tensor, generator: torch.Generator) -> Tensor:
    """Copy windows with a fault at a random one of the last trades, sizes drawn around what is rare.

    price_spike: one trade 5 to 40 one-second volatilities away, and back unless it is the last; size_spike: log size
    ratio 3 to 7; burst: the last 16 trades within milliseconds, sides mixed; frozen: the last 8 trades at one price
    and of one size, a second apart at least; one_sided: the last 16 trades on one side, each moving the price; wash:
    the last 16 trades in turn bought and sold, at one price, of one size and evenly in time.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(window), generator=generator)

    faulty = window.clone()
    every = torch.arange(len(window))
    at = torch.randint(WINDOW - 4, WINDOW, (len(window),), generator=generator)
    sign = torch.sign(uniform(-1.0, 1.0))
    volatility = torch.exp(0.5 * features[:, INDEX["log_grid_variance_1800s"]].clamp_min(-27.6))
    if fault == "price_spike":
        jump = sign * uniform(5.0, 40.0) * volatility
        faulty[every, at, RETURN] += jump
        back = at + 1 < WINDOW
        faulty[every[back], at[back] + 1, RETURN] -= jump[back]
    elif fault == "size_spike":
        faulty[every, at, SIZE] = sign * uniform(3.0, 7.0)
    elif fault == "burst":
        faulty[:, -16:, GAP] = float(np.log(1e-3))
        faulty[:, -16:, SIZE] = torch.abs(faulty[:, -16:, SIZE]) * torch.tensor([1.0, -1.0]).repeat(8)
    elif fault == "frozen":
        faulty[:, -8:, RETURN] = 0.0
        faulty[:, -8:, SIZE] = faulty[:, -8:-7, SIZE]
        faulty[:, -8:, GAP] = torch.clamp(faulty[:, -8:, GAP], min=0.0)
    elif fault == "one_sided":
        faulty[:, -16:, SIZE] = sign[:, None] * torch.abs(faulty[:, -16:, SIZE])
        faulty[:, -16:, RETURN] = (sign * uniform(0.2, 1.0) * volatility)[:, None]
    elif fault == "wash":
        faulty[:, -16:, RETURN] = 0.0
        faulty[:, -16:, GAP] = faulty[:, -16:, GAP].mean(1, keepdim=True)
        faulty[:, -16:, SIZE] = faulty[:, -16:, SIZE].abs().mean(1, keepdim=True) * torch.tensor([1.0, -1.0]).repeat(8)
    return faulty


def train(
    normalise: Normalise,
    windows: Windows,
    settings: Settings,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, of, text: None,
    device: str = "cpu",
) -> tuple[Critic, nn.Module, list[float]]:
    """Fit critic and generator; returns both and the estimated Wasserstein distance of each update."""
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    critic = Critic(settings)
    critic.normalise.load_state_dict(normalise.state_dict())
    critic.fit(windows.features[:50_000], windows.window[:50_000])
    with torch.no_grad():
        real = critic.standard(windows.features, windows.window).to(device)
        condition = critic.condition(windows.features).to(device)
    generator = GENERATORS[settings.generator](settings).to(device)
    critic.to(device)
    of_critic = torch.optim.Adam(critic.parameters(), settings.learning_rate, betas=(0.0, 0.9))
    of_generator = torch.optim.Adam(generator.parameters(), settings.learning_rate, betas=(0.0, 0.9))
    distances = []
    for step in range(settings.rounds):
        for _ in range(settings.critic_updates):
            rows = torch.randint(len(real), (settings.batch,), generator=chance)
            fake = generator(condition[rows]).detach()
            faults = int(settings.faults * settings.batch)
            if faults:
                fault = FAULTS[int(torch.randint(len(FAULTS), (1,), generator=chance))]
                features, window = windows.features[rows[:faults]], windows.window[rows[:faults]]
                broken = inject(fault, features, window, chance)
                with torch.no_grad():
                    fake[:faults] = critic.standard(features.to(device), broken.to(device))
            distance = _update_critic(critic, of_critic, real[rows], fake, condition[rows], settings)
        rows = torch.randint(len(real), (settings.batch,), generator=chance)
        of_generator.zero_grad()
        loss = -critic.judge(generator(condition[rows]), condition[rows]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        of_generator.step()
        distances.append(distance)
        if step % 10 == 9:
            progress(step + 1, settings.rounds, f"distance {distance:.3f}")
    fit_regimes(critic, windows.to(device), settings)
    return critic.cpu().eval(), generator.cpu().eval(), distances


def fit_regimes(critic: Critic, windows: Windows, settings: Settings) -> None:
    """Fit middle and 99 % quantile of the distances of real windows to the regime, by pinball loss, where both are.

    The critic is further from the windows of a quiet altcoin than from those of a liquid future, though both are
    normal. Without this the first would raise all the alarms and the second none.
    """
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        distance = critic.distance(
            critic.standard(windows.features, windows.window), critic.condition(windows.features)
        )
    optimizer = torch.optim.Adam((*critic.regime_first.parameters(), *critic.regime_last.parameters()), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.regime_rounds, 1e-4)
    for _ in range(settings.regime_rounds):
        rows = torch.randint(len(distance), (4096,), generator=chance)
        middle, inverse_step = critic.usual(windows.features[rows])
        loss = _pinball(distance[rows] - middle, 0.5) + _pinball(distance[rows] - middle - 1.0 / inverse_step, TAIL)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _pinball(missed: Tensor, level: float) -> Tensor:
    return torch.maximum(level * missed, (level - 1.0) * missed).mean()


def _update_critic(
    critic: Critic, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor, condition: Tensor, settings: Settings
) -> float:
    mix = torch.rand(len(real), 1).to(real.device)
    between = (mix * real + (1.0 - mix) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic.judge(between, condition).sum(), between, create_graph=True)
    penalty = ((slope.norm(dim=1) - 1.0) ** 2).mean()
    distance = critic.judge(real, condition).mean() - critic.judge(fake, condition).mean()
    optimizer.zero_grad()
    loss: Tensor = settings.gradient_penalty * penalty - distance
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(distance.detach())


PROBABILITIES: Final = np.unique(
    np.concatenate((np.linspace(0.005, 0.95, 48), np.linspace(0.955, 0.995, 17), [0.997, 0.998, 0.999, 0.9995]))
)
"""Where the calibration table is laid down: finer in the tail."""
LEAST_ANOMALY: Final = 0.001
MOST_ANOMALY: Final = 0.9999


def calibrate(score: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Table from score to the share of normal ticks below it, strictly rising.

    Parameters
    ----------
    score : float64[k]
        Of normal held-out ticks.

    Returns
    -------
    scores, probabilities
        For np.interp; the ends lie strictly inside (0, 1), so no score is certain.
    """
    low, high = float(score.min()), float(score.max())
    spread = max(high - low, 1e-6)
    scores = np.concatenate(([low - 1e-3 * spread], np.quantile(score, PROBABILITIES), [high + spread]))
    probabilities = np.concatenate(([LEAST_ANOMALY], PROBABILITIES, [MOST_ANOMALY]))
    rising = np.concatenate(([True], np.diff(scores) > 1e-9 * spread))
    return scores[rising].tolist(), probabilities[rising].tolist()


def scores(critic: Critic, windows: Windows) -> NDArray[np.float64]:
    """Anomaly scores: float64[k]."""
    with torch.no_grad():
        score: NDArray[np.float64] = critic(windows.features, windows.window)[:, 0].double().numpy()
    return score


def area_under_curve(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    """Chance that a positive scores above a negative, ties half (Mann and Whitney 1947)."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / (2 * len(ordered)))
