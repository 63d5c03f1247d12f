"""The policy: double Q-learning (van Hasselt 2016) on short, flat and long, over recorded ticks.

The environment. A decision is made once a second in which the instrument trades, at the second's last tick, and is
carried out one tick later (latency). Changing the position by one unit costs the fee and half the spread; holding a
unit costs `risk_aversion` times the forecast's expected shortfall a horizon. The reward is the log return of the
position less these costs.

The tape does not answer to us, so from one second every position and action can be tried, and the value of an
action is known to be

    Q(state, held, action) = V(state, action) - cost(state) * |action - held|

with V the value of coming out with a position. So the network learns three values, not nine, and no exploration is
needed; `V` follows the position for `steps` seconds (n-step return) and then the best action, chosen by the online
network and valued by the target network. The worker asks at every tick; the costs keep it from flickering.

Named parts: `encoder` (features and forecast -> state), `decoder` (state -> V), `predictor` (state -> expected log
return over `reward_seconds`, from which the rewards after costs follow).
"""

import copy
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.core.features import INDEX
from stream.core.results import FORECAST_COLUMNS
from training import data
from training.normalise import INPUTS, Normalise, inverse_volatility

POSITIONS: Final = (-1.0, 0.0, 1.0)
BASIS_POINT: Final = 1e-4
ROLL: Final = INDEX["log_roll_spread_300s"]
_FORECAST: Final = (
    *("expected_return_10s", "expected_return_60s", "volatility_10s", "volatility_60s"),
    *("quantile_01_60s", "quantile_05_60s", "quantile_50_60s", "quantile_95_60s", "quantile_99_60s"),
)
_UP: Final = ("probability_up_10s", "probability_up_60s")
_LOSS_LONG: Final = [FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("01", "05")]
_LOSS_SHORT: Final = [FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("99", "95")]


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 48
    fee: float = 2.0 * BASIS_POINT  # a taker's, each way
    most_half_spread: float = 50.0 * BASIS_POINT
    risk_aversion: float = 0.1  # share of the forecast ES over 60 s that holding a unit for 60 s costs
    discount: float = 0.999  # a second
    steps: int = 10
    reward_seconds: int = 10
    batch: int = 512
    rounds: int = 4000
    target_every: int = 200
    learning_rate: float = 1e-3
    reward_clip: float = 200.0  # basis points: fat tails would else rule the squared error


class Policy(nn.Module):
    """Contract of the family: float32[n, 30], float32[n, 16] -> action values and rewards, float32[n, 9] each."""

    returns: Tensor
    up: Tensor
    up_shift: Tensor
    moved: Tensor
    repeat: Tensor
    position: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.normalise = Normalise()
        width = len(INPUTS) + len(_FORECAST) + len(_UP)
        # Returns in units of ten volatilities of one second, probabilities from -2 to 2.
        self.register_buffer("returns", 0.1 * _pick(_FORECAST))
        self.register_buffer("up", 4.0 * _pick(_UP))
        self.register_buffer("up_shift", torch.full((len(_UP),), -2.0))
        position = torch.tensor(POSITIONS)
        self.register_buffer("moved", (position[None, :] - position[:, None]).abs().flatten()[None])
        self.register_buffer("repeat", torch.eye(3).repeat(1, 3))
        self.register_buffer("position", position.repeat(3)[None])
        self.encoder = nn.Sequential(
            nn.Linear(width, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, settings.hidden), nn.ReLU()
        )
        self.decoder = nn.Linear(settings.hidden, len(POSITIONS))
        self.predictor = nn.Linear(settings.hidden, 1)

    def state(self, features: Tensor, forecast: Tensor) -> Tensor:
        """float32[n, hidden]; forecasts in units of the instrument's own volatility."""
        units = torch.clamp(forecast @ self.returns * inverse_volatility(features), -6.0, 6.0)
        up = torch.addmm(self.up_shift, forecast, self.up)
        state: Tensor = self.encoder(torch.cat((self.normalise(features), units, up), 1))
        return state

    def half_spread(self, features: Tensor) -> Tensor:
        """By Roll (1984), log return: float32[n, 1]."""
        return torch.clamp(0.5 * torch.exp(features[:, ROLL : ROLL + 1]), max=self.settings.most_half_spread)

    def cost(self, features: Tensor) -> Tensor:
        """Log return that a change by one unit costs: float32[n, 1]."""
        return self.settings.fee + self.half_spread(features)

    def forward(self, features: Tensor, forecast: Tensor) -> tuple[Tensor, Tensor]:
        """Action values and expected rewards in log return after costs, rows of [held][action]."""
        # One product from the state to all eighteen: the weights are joined once, when the graph is made.
        weight = torch.cat((self.decoder.weight.T @ self.repeat, self.predictor.weight.T @ self.position), 1)
        bias = torch.cat((self.decoder.bias @ self.repeat, self.predictor.bias @ self.position))
        moved = self.moved.repeat(1, 2)
        start = bias * BASIS_POINT - self.settings.fee * moved[0]
        cost = torch.addmm(start, self.half_spread(features), -moved)
        both = torch.addmm(cost, self.state(features, forecast), weight * BASIS_POINT)
        return both[:, :9], both[:, 9:]


def _pick(names: tuple[str, ...]) -> Tensor:
    """Matrix that picks forecasts: float32[len(FORECAST_COLUMNS), len(names)]."""
    return torch.eye(len(FORECAST_COLUMNS))[:, [FORECAST_COLUMNS.index(name) for name in names]]


class Steps(NamedTuple):
    """One row a decision, in order, series after series."""

    features: Tensor  # [k, 30]
    forecast: Tensor  # [k, 16]
    executed: Tensor  # [k] log price one tick later
    seconds: Tensor  # [k] to the next decision
    follows: Tensor  # [k] bool: the next row is the next decision of the same session
    shortfall: Tensor  # [k, 3] forecast ES of each position over 60 s


def decisions(one: data.Series, forecast: NDArray[np.float32], part: int) -> Steps:
    """The decisions of one series in one part: the last tick of each second, one tick of latency."""
    second = one.clock_ns // data.SECOND
    last = np.flatnonzero(np.diff(second) > 0)  # the very last tick has none after it to be executed at
    last = last[(one.part[last] == part) & ~one.warming[last] & (one.session[last + 1] == one.session[last])]
    seconds = np.diff(one.clock_ns[last], append=one.clock_ns[last[-1:]]) * 1e-9
    follows = np.diff(one.session[last], append=-1) == 0
    tails = forecast[last]
    shortfall = np.stack(
        (
            np.maximum(0.0, tails[:, _LOSS_SHORT].mean(1)),
            np.zeros(len(last), np.float32),
            np.maximum(0.0, -tails[:, _LOSS_LONG].mean(1)),
        ),
        1,
    )
    return Steps(
        torch.from_numpy(one.features[last]),
        torch.from_numpy(forecast[last]),
        torch.from_numpy(one.log_price[last + 1]),
        torch.from_numpy(seconds.astype(np.float32)),
        torch.from_numpy(follows),
        torch.from_numpy(shortfall.astype(np.float32)),
    )


def join(parts: list[Steps]) -> Steps:
    """Decisions of several series end to end."""
    return Steps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class Returns(NamedTuple):
    """What follows each decision when its position is held for `steps` decisions."""

    reward: Tensor  # [k, 3] basis points, discounted, after the risk penalty, before the cost of the change
    discount: Tensor  # [k] of what comes after
    next_row: Tensor  # [k]
    usable: Tensor  # [k] bool


def n_step_returns(steps: Steps, settings: Settings) -> Returns:
    """n-step rewards of holding each position."""
    k = len(steps.executed)
    position = torch.tensor(POSITIONS)
    reward = torch.zeros(k, 3)
    discount = torch.ones(k)
    usable = torch.ones(k, dtype=torch.bool)
    row = torch.arange(k)
    for _ in range(settings.steps):
        following = torch.clamp(row + 1, max=k - 1)
        usable &= steps.follows[row] & (row + 1 < k)
        moved = (steps.executed[following] - steps.executed[row]).float()
        moved = torch.clamp(moved / BASIS_POINT, -settings.reward_clip, settings.reward_clip)
        seconds = torch.clamp(steps.seconds[row], max=60.0)
        risk = settings.risk_aversion / 60.0 / BASIS_POINT * steps.shortfall[row] * seconds[:, None]
        reward += discount[:, None] * (moved[:, None] * position - risk)
        discount = discount * settings.discount**seconds
        row = following
    return Returns(reward, discount, row, usable)


def train(
    normalise: Normalise,
    steps: Steps,
    settings: Settings,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, of, text: None,
) -> tuple[Policy, list[float]]:
    """Fit a policy on decisions of the training part; returns it and its loss every 100 updates."""
    torch.manual_seed(seed)
    net = Policy(settings)
    net.normalise.load_state_dict(normalise.state_dict())
    target = copy.deepcopy(net)
    returns = n_step_returns(steps, settings)
    rows = torch.nonzero(returns.usable)[:, 0]
    moved = (steps.executed[returns.next_row] - steps.executed).float() / BASIS_POINT
    moved = torch.clamp(moved, -settings.reward_clip, settings.reward_clip)
    cost = net.cost(steps.features)[:, 0] / BASIS_POINT
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, 0.05 * settings.learning_rate)
    history = []
    for step in range(settings.rounds):
        picked = rows[torch.randint(len(rows), (settings.batch,))]
        after = returns.next_row[picked]
        with torch.no_grad():
            best = _best_next(net, target, steps, after, cost[after])
            wanted = returns.reward[picked] + returns.discount[picked, None] * best
        state = net.state(steps.features[picked], steps.forecast[picked])
        loss = nn.functional.smooth_l1_loss(net.decoder(state), wanted, beta=10.0)
        loss = loss + nn.functional.smooth_l1_loss(net.predictor(state)[:, 0], moved[picked], beta=10.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % settings.target_every == settings.target_every - 1:
            target.load_state_dict(net.state_dict())
        if step % 100 == 99:
            history.append(float(loss.detach()))
            progress(step + 1, settings.rounds, f"loss {history[-1]:.3f}")
    return net.eval(), history


def _best_next(net: Policy, target: Policy, steps: Steps, rows: Tensor, cost: Tensor) -> Tensor:
    """Value of the best action from each position held, chosen by `net`, valued by `target`: [k, 3] basis points."""
    inputs = (steps.features[rows], steps.forecast[rows])
    change = cost[:, None, None] * net.moved.reshape(1, 3, 3)
    chosen = (net.decoder(net.state(*inputs))[:, None, :] - change).argmax(2, keepdim=True)
    valued = target.decoder(target.state(*inputs))[:, None, :] - change
    best: Tensor = valued.gather(2, chosen)[:, :, 0]
    return best


class Account(NamedTuple):
    """How a way of acting did over decisions in order, all in basis points of one unit."""

    mean_reward: float  # a decision, after costs
    profit: float  # after costs
    turnover: float  # units changed a 1,000 decisions
    drawdown: float
    share_flat: float


def walk(steps: Steps, values: NDArray[np.float32], cost: NDArray[np.float64]) -> Account:
    """Act greedily on action values [k, 9], the position carried from decision to decision."""
    executed = steps.executed.numpy()
    moved = np.clip(np.diff(executed, append=executed[-1:]) / BASIS_POINT, -1e6, 1e6) * steps.follows.numpy()
    table = values.reshape(-1, 3, 3).argmax(2)
    held = 1
    positions = np.empty(len(table), np.int64)
    follows = steps.follows.numpy()
    for row in range(len(table)):
        held = table[row, held]
        positions[row] = held
        if not follows[row]:
            held = 1  # flat over a pause; the way out is charged below
    return account(positions.astype(np.float64) - 1.0, moved, cost, follows)


def account(
    positions: NDArray[np.float64], moved: NDArray[np.float64], cost: NDArray[np.float64], follows: NDArray[np.bool_]
) -> Account:
    """Profit and loss of positions held from each decision to the next: all float64[k]; `moved` in basis points."""
    before = np.concatenate(([0.0], np.where(follows[:-1], positions[:-1], 0.0)))
    change = np.abs(positions - before) + np.where(follows, 0.0, np.abs(positions))
    reward = positions * moved - change * cost / BASIS_POINT
    profit = np.cumsum(reward)
    return Account(
        float(reward.mean()),
        float(profit[-1]),
        float(change.sum() / len(change) * 1000),
        float((np.maximum.accumulate(profit) - profit).max()),
        float((positions == 0).mean()),
    )
