"""The generator: makes the trades of a window one by one, each drawn from a distribution that the ones before shape.

Of each trade the time gap is drawn first, then the signed size, then the return. Each is a class among bins that are
quantiles of the training part, with a class of its own for a price that stays as it was and for a gap of none, and lies
somewhere in its bin: a quantile function, straight between the borders, asked at a uniform number that is made of one
normal number of the noise. So the tails are those of the training part, and nothing cuts them but its largest move.

Two phases, both in `train`:

1. Likelihood: a GRU reads real windows trade by trade and learns the classes of the next (teacher forcing).
2. Adversarial: windows that it draws, at the scales of real ones, against a Wasserstein critic with gradient penalty of
   its own (Gulrajani et al. 2017), which is told apart the flags "price unchanged" and "no gap" and knows how its batch
   spreads (Karras et al. 2018, section 3). The quantile functions carry its gradient, the flags straight through
   (Bengio, Léonard and Courville 2013). The likelihood stays in the loss.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from stream.core.features import WINDOW
from stream.inference import NOISE
from training.gan import GAP, RETURN, SIZE, Windows, area_under_curve
from training.normalise import BASE, INPUTS, USUAL_RATE, Normalise, inverse_volatility, signed_root

CONDITIONS: Final = (
    "log_grid_variance_60s",
    "log_grid_variance_300s",
    "log_coarse_variance_1800s",
    "log_trade_rate_60s",
    "log_trade_rate_1800s",
    "log_price_impact_1800s",
    "log_roll_spread_300s",
)
"""The recent scale of an instrument: what a window is made for."""


def _exact(number: float) -> float:
    """As float32 holds it: so the exporter writes it, in a graph of double precision too."""
    return float(np.float32(number))


NO_GAP: Final = _exact(math.log(1e-3))  # log time gap of a trade at the time of the one before
TAIL_LEVELS: Final = (0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 0.9997, 1.0)
TOLD: Final = 9  # numbers that a trade is told by
LEAST_UNIFORM: Final = 2.0**-20
LEAST_PROBABILITY: Final = 2.0**-30
LOGISTIC: Final = _exact(1.5976), _exact(0.07056)
SMALL_RETURN, SMALL_SIZE, USUAL_MOVE = _exact(0.01), _exact(0.001), _exact(0.3)
"""Below the first two a side is told in part; at the third a move is told by one half."""
MOST_SLOPE: Final = 1.0  # norm of a step's gradient
Progress = Callable[[int, int, str], None]


def _quiet(done: int, of: int, text: str) -> None:
    pass


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 96
    head: int = 64
    bins: int = 32  # of a return or a size on each side below its 97 % quantile, and of gaps
    batch: int = 256
    rounds: int = 3000  # of the likelihood
    learning_rate: float = 3e-3
    train_windows: int = 200_000
    test_windows: int = 5000
    variation: float = 0.35  # of an instrument's scale in training: standard deviation, in logarithms
    adversarial_rounds: int = 100  # updates of the generator
    adversarial_batch: int = 128
    critic_hidden: int = 64
    critic_updates: int = 4  # for each of them
    gradient_penalty: float = 10.0
    critic_warm: int = 100  # updates before the first of the generator
    critic_rate: float = 4e-4
    adversarial_rate: float = 3e-5
    likelihood_weight: float = 1.0


class Drawn(NamedTuple):
    """A draw of one number of a trade, and how it goes on being differentiable."""

    value: Tensor  # [n] in the instrument's own units
    atom: Tensor  # [n] 1 where the class of its own was drawn; straight-through gradient


class Quantiles(nn.Module):
    """Classes of a number by its borders, and the quantile function over them.

    The classes lie in order of value. `atom` is the place of the class without width, -1 without one.
    """

    low: Tensor
    high: Tensor
    before: Tensor

    def __init__(self, low: Tensor, high: Tensor, atom: int) -> None:
        super().__init__()
        self.atom = atom
        self.classes = len(low)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        # A product with it adds up the probabilities of the classes below.
        self.register_buffer("before", torch.triu(torch.ones(len(low), len(low)), 1))

    def draw(self, logits: Tensor, uniform: Tensor) -> Drawn:
        """Where the quantile function is at a uniform number: float32[n, classes], float32[n]."""
        probability = torch.softmax(logits, 1)
        below = probability @ self.before
        at = uniform[:, None]
        reached = (at >= below).to(logits.dtype)
        chosen = reached - functional.pad(reached[:, 1:], (0, 1))  # the last class that is reached
        place = torch.clamp((at - below) / torch.clamp(probability, min=LEAST_PROBABILITY), 0.0, 1.0)
        value = (chosen * (self.low + (self.high - self.low) * place)).sum(1)
        if self.atom < 0:
            return Drawn(value, torch.zeros_like(value))
        soft = probability[:, self.atom]
        return Drawn(value, chosen[:, self.atom] + soft - soft.detach())


def uniform(noise: Tensor) -> Tensor:
    """Uniform numbers inside (0, 1) of standard normal ones, to 0.0002.

    The normal distribution's logistic approximation (Bowling et al. 2009): ONNX Runtime has no erf in double precision.
    """
    below = torch.sigmoid(noise * (LOGISTIC[0] + LOGISTIC[1] * noise * noise))
    return torch.clamp(below, LEAST_UNIFORM, 1.0 - LEAST_UNIFORM)


class Trades(NamedTuple):
    """Windows in the instruments' own units, and the two flags: float32[n, WINDOW] each."""

    returns: Tensor  # in volatilities of one second
    gap: Tensor  # log, over the usual gap
    size: Tensor  # signed, log
    unchanged: Tensor
    no_gap: Tensor

    def told(self) -> Tensor:
        """What a network reads of each trade: float32[n, WINDOW, TOLD]."""
        moved = torch.abs(self.returns)
        return torch.stack(
            (
                signed_root(self.returns),
                torch.clamp(self.returns / SMALL_RETURN, -1.0, 1.0),
                moved / (USUAL_MOVE + moved),
                self.unchanged,
                self.gap / 3.0,
                self.no_gap,
                self.size,
                torch.clamp(self.size / SMALL_SIZE, -1.0, 1.0),
                torch.abs(self.size),
            ),
            -1,
        )


def own_units(features: Tensor, window: Tensor) -> Trades:
    """Real windows as the generator knows them."""
    rate = features[:, USUAL_RATE : USUAL_RATE + 1]
    returns = window[:, :, RETURN] * inverse_volatility(features)
    no_gap = window[:, :, GAP] <= NO_GAP + 1e-5
    return Trades(
        returns,
        window[:, :, GAP] + rate,
        window[:, :, SIZE],
        (returns == 0.0).to(returns.dtype),
        no_gap.to(returns.dtype),
    )


class TradeGenerator(nn.Module):
    """Features and noise -> windows of trades in the units of the features.

    [n, 30], [n, WINDOW, NOISE] -> trades [n, WINDOW, 3].
    """

    conditions: Tensor

    def __init__(self, settings: Settings, normalise: Normalise, borders: "Borders") -> None:
        super().__init__()
        hidden, head = settings.hidden, settings.head
        self.normalise = normalise
        self.register_buffer("conditions", torch.eye(len(INPUTS))[:, [INPUTS.index(name) for name in CONDITIONS]])
        self.gaps, self.sizes, self.returns = borders.gaps(), borders.sizes(), borders.returns()
        self.start = nn.Linear(len(CONDITIONS), hidden)
        self.first = nn.Parameter(torch.zeros(TOLD))  # stands for the trade before the first
        self.gru = nn.GRU(TOLD + len(CONDITIONS), hidden, batch_first=True)
        self.gap_head = _head(hidden, head, self.gaps.classes)
        self.size_head = _head(hidden + 2, head, self.sizes.classes)
        self.return_head = _head(hidden + 5, head, self.returns.classes)

    def condition(self, features: Tensor) -> Tensor:
        """The recent scale: float32[n, len(CONDITIONS)]."""
        inputs: Tensor = self.normalise(features)
        return inputs @ self.conditions

    def likelihood(self, features: Tensor, real: Trades) -> Tensor:
        """Mean negative log likelihood of a trade's three classes, given the trades before it: a scalar."""
        told = real.told()
        steps = self.read(self.condition(features), told)
        hidden, gap, size = steps.flatten(0, 1), _gap_told(told).flatten(0, 1), _size_told(told).flatten(0, 1)
        losses = (
            functional.cross_entropy(self.gap_head(hidden), self.gap_classes(real).flatten()),
            functional.cross_entropy(self.size_head(torch.cat((hidden, gap), 1)), self.size_classes(real).flatten()),
            functional.cross_entropy(
                self.return_head(torch.cat((hidden, gap, size), 1)), self.return_classes(real).flatten()
            ),
        )
        return torch.stack(losses).sum()

    def read(self, condition: Tensor, told: Tensor) -> Tensor:
        """The state that each trade is drawn from, given those before it: [n, WINDOW, hidden]."""
        before = torch.cat((self.first.expand(len(told), 1, TOLD), told[:, :-1]), 1)
        given = torch.cat((before, condition[:, None].expand(-1, WINDOW, -1)), 2)
        steps: Tensor = self.gru(given, torch.tanh(self.start(condition))[None])[0]
        return steps

    def gap_classes(self, real: Trades) -> Tensor:
        """int64[n, WINDOW]."""
        return torch.where(real.no_gap > 0.0, 0, 1 + _bin(self.gaps.low[1:], real.gap))

    def size_classes(self, real: Trades) -> Tensor:
        """int64[n, WINDOW]."""
        half = self.sizes.classes // 2
        place = _bin(self.sizes.low[half:], torch.abs(real.size))
        return torch.where(real.size < 0.0, half - 1 - place, half + place)

    def return_classes(self, real: Trades) -> Tensor:
        """int64[n, WINDOW]."""
        middle = self.returns.atom
        place = 1 + _bin(self.returns.low[middle + 1 :], torch.abs(real.returns))
        return torch.where(real.unchanged > 0.0, middle, middle + torch.sign(real.returns).long() * place)

    def draw(self, features: Tensor, noise: Tensor) -> Trades:
        """Windows at the scales of these features."""
        condition = self.condition(features)
        scale = torch.cat((features[:, USUAL_RATE : USUAL_RATE + 1] + NO_GAP, condition), 1)
        given = torch.cat((uniform(noise), scale[:, None].expand(-1, WINDOW, -1)), 2)

        def step(carry: tuple[Tensor, Tensor], given: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
            before, hidden = carry
            hidden = self._cell(torch.cat((before, given[:, NOISE + 1 :]), 1), hidden)
            trade = self._trade(hidden, given[:, :NOISE], given[:, NOISE])
            return (trade.told(), hidden), tuple(trade)

        start = self.first + 0.0 * condition[:, :1], torch.tanh(self.start(condition))
        return Trades(*(column.transpose(0, 1) for column in _walk(step, start, given.transpose(0, 1))))

    def _trade(self, hidden: Tensor, numbers: Tensor, no_gap: Tensor) -> Trades:
        gap, at_once = self.gaps.draw(self.gap_head(hidden), numbers[:, 0])
        gap = at_once * no_gap + (1.0 - at_once) * torch.maximum(gap, no_gap)
        told = torch.stack((gap / 3.0, at_once), 1)
        size, _ = self.sizes.draw(self.size_head(torch.cat((hidden, told), 1)), numbers[:, 1])
        told = torch.cat((told, torch.stack((size, torch.clamp(size / SMALL_SIZE, -1.0, 1.0), torch.abs(size)), 1)), 1)
        returns, unchanged = self.returns.draw(self.return_head(torch.cat((hidden, told), 1)), numbers[:, 2])
        return Trades(returns, gap, size, unchanged, at_once)

    def _cell(self, given: Tensor, hidden: Tensor) -> Tensor:
        """One step of `gru`."""
        gru: Any = self.gru  # mypy takes its weights for modules
        ours = functional.linear(given, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, 1)
        carried = functional.linear(hidden, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, 1)
        reset, update = torch.sigmoid(ours[0] + carried[0]), torch.sigmoid(ours[1] + carried[1])
        new = torch.tanh(ours[2] + reset * carried[2])
        return new + update * (hidden - new)

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        made = self.draw(features, noise)
        returns = made.returns / inverse_volatility(features)
        gap = made.gap - features[:, USUAL_RATE : USUAL_RATE + 1]
        return torch.stack((returns, gap, made.size), 2)


class InDouble(nn.Module):
    """Contract of the family generator: float32[n, 30], float32[n, WINDOW, NOISE] -> trades float32[n, WINDOW, 3].

    In double precision between: which class is drawn must not hang on how a sum was rounded.
    """

    def __init__(self, generator: TradeGenerator) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).double()

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        trades: Tensor = self.generator(features.double(), noise.double())
        return trades.float()


Step = Callable[[Any, Tensor], tuple[Any, tuple[Tensor, ...]]]


def _walk(step: Step, carry: Any, given: Tensor) -> tuple[Tensor, ...]:
    """What the steps put out, stacked. In a graph it is one Scan: written out, it took minutes to export."""
    if torch.compiler.is_exporting():
        _, made = scan(step, carry, given.contiguous())
        return tuple(made)
    found = []
    for one in given:
        carry, out = step(carry, one)
        found.append(out)
    return tuple(torch.stack(column) for column in zip(*found, strict=True))


def _head(given: int, hidden: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def _gap_told(told: Tensor) -> Tensor:
    return told[:, :, 4:6]


def _size_told(told: Tensor) -> Tensor:
    return told[:, :, 6:9]


def _bin(low: Tensor, value: Tensor) -> Tensor:
    """Which of rising lower borders a value lies above; those outside count with the first and the last."""
    return torch.clamp(torch.searchsorted(low, value.contiguous(), right=True) - 1, 0, len(low) - 1)


class Borders(NamedTuple):
    """Rising borders of the bins, over the training part."""

    gap: Tensor
    size: Tensor  # absolute
    move: Tensor  # absolute

    @classmethod
    def of(cls, real: Trades, bins: int) -> "Borders":
        """Quantiles: evenly up to 97 %, closer in the tail."""
        levels = torch.tensor([*np.linspace(0.0, 0.97, bins, endpoint=False).tolist(), *TAIL_LEVELS])
        both = torch.tensor([0.0, 0.001, 0.01, *np.linspace(0.03, 0.97, bins, endpoint=False).tolist(), *TAIL_LEVELS])
        return cls(
            _quantiles(real.gap[real.no_gap == 0.0], both),
            _quantiles(torch.abs(real.size), levels),
            _quantiles(torch.abs(real.returns[real.unchanged == 0.0]), levels),
        )

    def gaps(self) -> Quantiles:
        """No gap first."""
        none = torch.zeros(1)
        return Quantiles(torch.cat((none, self.gap[:-1])), torch.cat((none, self.gap[1:])), 0)

    def sizes(self) -> Quantiles:
        """Sold, largest first, then bought."""
        low, high = self.size[:-1], self.size[1:]
        return Quantiles(torch.cat((-high.flip(0), low)), torch.cat((-low.flip(0), high)), -1)

    def returns(self) -> Quantiles:
        """Down, unchanged, up."""
        low, high, none = self.move[:-1], self.move[1:], torch.zeros(1)
        return Quantiles(torch.cat((-high.flip(0), none, low)), torch.cat((-low.flip(0), none, high)), len(low))


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    found: NDArray[np.float32] = np.quantile(values.numpy(), levels.numpy()).astype(np.float32)
    return torch.from_numpy(np.unique(found))


def varied(windows: Windows, spread: float, chance: torch.Generator) -> Windows:
    """The same trades of instruments of another scale, some of them mirrored.

    Volatility, usual rate and mean size are each off by a random factor, as they are from day to day; bought and sold,
    up and down change places with a chance of one half. Else a network learns its instruments by heart.
    """
    count = len(windows.features)
    volatility, rate, size = spread * torch.randn(3, count, 1, generator=chance)
    features, window = windows.features.clone(), windows.window.clone()
    features[:, BASE : BASE + 1] -= 2.0 * volatility
    features[:, USUAL_RATE : USUAL_RATE + 1] += rate
    side = torch.sign(torch.randn(count, 1, generator=chance))
    window[:, :, RETURN] *= side
    window[:, :, SIZE] = (
        side
        * torch.sign(window[:, :, SIZE])
        * torch.log1p(torch.expm1(torch.abs(window[:, :, SIZE])) * torch.exp(size))
    )
    return windows._replace(features=features, window=window)


class Judge(nn.Module):
    """The generator's own critic: [n, WINDOW, TOLD], scale [n, k] -> [n], high for real windows."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.critic_hidden
        self.look = nn.Sequential(
            nn.Conv1d(TOLD + len(CONDITIONS), width, 5, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv1d(width, width, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.out = nn.Sequential(nn.Linear(width * WINDOW // 4 + TOLD, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, told: Tensor, condition: Tensor) -> Tensor:
        given = torch.cat((told, condition[:, None].expand(-1, WINDOW, -1)), 2).transpose(1, 2)
        # How the batch spreads: windows that are all alike are told by it.
        spread = torch.sqrt(told.mean(1).var(0) + 1e-6).expand(len(told), TOLD)
        score: Tensor = self.out(torch.cat((self.look(given).flatten(1), spread), 1))
        return score[:, 0]


class Trained(NamedTuple):
    """A generator, its own critic, and how the training went."""

    generator: TradeGenerator
    judge: Judge
    likelihoods: list[float]  # negative logarithm, of each round of the first phase
    distances: list[float]  # estimated Wasserstein distance of each round of the second


def train(
    normalise: Normalise,
    windows: Windows,
    settings: Settings,
    seed: int,
    progress: Progress = _quiet,
    device: str = "cpu",
) -> Trained:
    """Both phases on windows of the training part; the same seed gives the same generator."""
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    borders = Borders.of(own_units(windows.features, windows.window), settings.bins)
    generator, judge = TradeGenerator(settings, normalise, borders).to(device), Judge(settings).to(device)

    def draw(count: int) -> Windows:
        rows = torch.randint(len(windows.features), (count,), generator=chance)
        some = Windows(windows.features[rows], windows.window[rows], windows.series[rows.numpy()])
        return varied(some, settings.variation, chance).to(device)

    likelihoods = _learn_likelihood(generator, draw, settings, progress)
    distances = _learn_to_pass(generator, judge, draw, settings, chance, progress)
    return Trained(generator.cpu().eval(), judge.cpu().eval(), likelihoods, distances)


Draw = Callable[[int], Windows]
"""So many random windows of the training part, varied, where the networks are."""


def _learn_likelihood(generator: TradeGenerator, draw: Draw, settings: Settings, progress: Progress) -> list[float]:
    optimizer = torch.optim.Adam(generator.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, settings.learning_rate / 30.0)
    losses = []
    for step in range(settings.rounds):
        some = draw(settings.batch)
        loss = generator.likelihood(some.features, own_units(some.features, some.window))
        _step(generator, optimizer, loss)
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 10 == 9:
            progress(step + 1, settings.rounds, f"likelihood {losses[-1]:.3f}")
    return losses


def _learn_to_pass(
    generator: TradeGenerator,
    judge: Judge,
    draw: Draw,
    settings: Settings,
    chance: torch.Generator,
    progress: Progress,
) -> list[float]:
    of_judge = torch.optim.Adam(judge.parameters(), settings.critic_rate, betas=(0.0, 0.9))
    of_generator = torch.optim.Adam(generator.parameters(), settings.adversarial_rate, betas=(0.0, 0.9))

    def update_judge() -> float:
        some = draw(settings.adversarial_batch)
        distance, loss = _judge_loss(judge, generator, some, settings, chance)
        of_judge.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        of_judge.step()
        return distance

    for _ in range(settings.critic_warm if settings.adversarial_rounds else 0):
        update_judge()
    distances = []
    for step in range(settings.adversarial_rounds):
        distances.append([update_judge() for _ in range(settings.critic_updates)][-1])
        some = draw(settings.adversarial_batch)
        judged = judge(generator.draw(some.features, _noise(some, chance)).told(), generator.condition(some.features))
        likelihood = generator.likelihood(some.features, own_units(some.features, some.window))
        _step(generator, of_generator, settings.likelihood_weight * likelihood - judged.mean())
        if step % 10 == 9:
            progress(step + 1, settings.adversarial_rounds, f"distance {distances[-1]:.3f}")
    return distances


def _step(generator: TradeGenerator, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(generator.parameters(), MOST_SLOPE)
    optimizer.step()


def _noise(windows: Windows, chance: torch.Generator) -> Tensor:
    return torch.randn(len(windows.features), WINDOW, NOISE, generator=chance).to(windows.features.device)


def _judge_loss(
    judge: Judge, generator: TradeGenerator, some: Windows, settings: Settings, chance: torch.Generator
) -> tuple[float, Tensor]:
    """How much higher real windows are judged than drawn ones, and what the critic is to make small."""
    with torch.no_grad():
        condition = generator.condition(some.features)
        drawn = generator.draw(some.features, _noise(some, chance)).told()
    real = own_units(some.features, some.window).told()
    mix = torch.rand(len(real), 1, 1, generator=chance).to(real.device)
    between = (mix * real + (1.0 - mix) * drawn).requires_grad_()
    (slope,) = torch.autograd.grad(judge(between, condition).sum(), between, create_graph=True)
    penalty = ((slope.flatten(1).norm(dim=1) - 1.0) ** 2).mean()
    distance = judge(real, condition).mean() - judge(drawn, condition).mean()
    return float(distance.detach()), settings.gradient_penalty * penalty - distance


def against_drawn(trained: Trained, windows: Windows, seed: int) -> float:
    """Area under the ROC of the generator's own critic, real windows against drawn ones at their scales."""
    generator, judge = trained.generator, trained.judge
    noise = _noise(windows, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        condition = generator.condition(windows.features)
        real = judge(own_units(windows.features, windows.window).told(), condition)
        drawn = judge(generator.draw(windows.features, noise).told(), condition)
    return area_under_curve(drawn.double().numpy(), real.double().numpy())


def likelihood(generator: TradeGenerator, windows: Windows) -> float:
    """Mean negative log likelihood of the classes of a trade, over windows that it has not seen."""
    with torch.no_grad():
        return float(generator.likelihood(windows.features, own_units(windows.features, windows.window)))
