"""Proximal policy optimisation (Schulman et al. 2017) on a tape, in the manner of cleanrl: the whole of it on a page.

An update plays `lanes` stretches of the tape, `length` decisions each, from random places and positions, with actions
drawn from the policy; values them by generalised advantage estimation (Schulman et al. 2016); and climbs the clipped
objective for some epochs. The policy's logits are its action values over a temperature (see `network`), so it begins
almost flat: a change that costs ten temperatures is drawn with e^-10.

What the network sees does not depend on the position, so the logits of a whole stretch, from each position, are one
product, the draws are made for all positions at once, and only the walk along them is a loop (`tape.walk_lanes`).
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.normalise import Normalise
from training.policy.network import WIDTH, Policy
from training.policy.q_learning import ahead
from training.policy.tape import Market, Steps, Tape, Walk, tape, walk_lanes

Progress = Callable[[int, int, str], None]


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 48
    reward_seconds: int = 10  # decisions that the predictor looks ahead
    updates: int = 80
    lanes: int = 128
    length: int = 128
    epochs: int = 3
    minibatch: int = 512
    learning_rate: float = 1e-3
    trace: float = 0.95  # lambda of the advantages
    clip: float = 0.2
    entropy: float = 0.01  # at first; falls to 0 with the learning rate
    temperature: float = 0.5  # basis points: at 2 it learned to hold what does not move, for fear of its own draws
    most_gradient: float = 0.5


class Batch(NamedTuple):
    """Decisions that were the policy's own, in no order."""

    row: Tensor  # [b] of the tape
    held: Tensor  # [b] position before, index into POSITIONS
    action: Tensor  # [b]
    chance: Tensor  # [b] logarithm of the action's probability when it was drawn
    advantage: Tensor  # [b] basis points
    wanted: Tensor  # [b] value of the state and the position held, basis points


class Actor(NamedTuple):
    """What acts: a network, what it sees of each decision, and what a change costs there."""

    net: Policy
    inputs: Tensor  # [k, WIDTH]
    cost: Tensor  # [k] basis points
    temperature: float

    def log_chances(self, rows: Tensor) -> Tensor:
        """Logarithm of the probability of each action from each position: [..., 3 (held), 3 (action)]."""
        values = self.net.decoder(self.net.encoder(self.inputs[rows]))
        change = self.cost[rows][..., None, None] * self.net.moved.reshape(3, 3)
        return torch.log_softmax((values[..., None, :] - change) / self.temperature, -1)


def train(
    normalise: Normalise,
    steps: Steps,
    market: Market,
    settings: Settings,
    seed: int,
    progress: Progress = lambda done, of, text: None,
    device: str = "cpu",
) -> tuple[Policy, list[float]]:
    """Fit a policy on decisions of the training part; returns it and the mean reward of each update's stretches."""
    torch.manual_seed(seed)
    net = Policy(settings.hidden, market)
    net.normalise.load_state_dict(normalise.state_dict())
    critic = nn.Sequential(nn.Linear(WIDTH, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, 3)).to(device)
    seen = tape(steps, market, market.reward_clip)
    with torch.no_grad():
        inputs = net.inputs(steps.features, steps.forecast)
    cost = torch.from_numpy(seen.cost).float() * market.inventory_limit
    actor = Actor(net.to(device), inputs.to(device), cost.to(device), settings.temperature)
    fading = (market.discount**steps.seconds).numpy()
    moved, whole = ahead(steps, settings.reward_seconds, market.reward_clip)
    moved, whole = moved.to(device), whole.to(device)
    weights = [*net.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(weights, settings.learning_rate, eps=1e-5)
    history = []
    for update in range(settings.updates):
        left = 1.0 - update / settings.updates
        optimizer.param_groups[0]["lr"] = left * settings.learning_rate
        played, reward = play(actor, critic, seen, fading, market, settings)
        batch = Batch(*(column.to(device) for column in played))
        for _ in range(settings.epochs):
            for picked in torch.split(torch.randperm(len(batch.row)), settings.minibatch):
                some = Batch(*(column[picked] for column in batch))
                loss = objective(actor, critic, some, settings.clip, left * settings.entropy)
                loss = loss + forecast_loss(actor, (moved, whole), some.row)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(weights, settings.most_gradient)
                optimizer.step()
        history.append(reward)
        progress(update + 1, settings.updates, f"reward {reward:.3f} bp")
    return net.cpu().eval(), history


@torch.no_grad()
def play(
    actor: Actor, critic: nn.Module, seen: Tape, fading: NDArray[np.float32], market: Market, settings: Settings
) -> tuple[Batch, float]:
    """Stretches from random rows and positions, on the CPU; also their mean reward a decision, basis points."""
    lanes, length = settings.lanes, min(settings.length, len(seen.moved) - 1)
    first = torch.randint(len(seen.moved) - length, (lanes,))
    rows = first[:, None] + torch.arange(length + 1)
    chances = actor.log_chances(rows[:, :-1]).cpu()
    table = draw(chances, torch.rand(lanes, length))
    walked = walk_lanes(table.numpy(), first.numpy(), torch.randint(3, (lanes,)).numpy(), seen, market)
    values = critic(actor.inputs[rows]).cpu().numpy()  # [lanes, length + 1, 3]
    advantage, wanted = advantages(walked, values, fading[rows[:, :-1].numpy()], settings.trace)
    held, action = torch.from_numpy(walked.held).long(), torch.from_numpy(walked.action).long()
    chance = chances.flatten(2).gather(2, (3 * held + action)[..., None])[..., 0]
    columns = (rows[:, :-1], held, action, chance, advantage, wanted)
    free = torch.from_numpy(walked.free)
    return Batch(*(column[free] for column in columns)), float(walked.reward.mean())


def draw(log_chances: Tensor, uniform: Tensor) -> Tensor:
    """The action from each position held, by one number in [0, 1) for all: int8[..., 3] of [..., 3, 3] and [...]."""
    below = log_chances.exp().cumsum(-1)[..., :2]  # the last is all that is left, whatever the sum rounds to
    return (uniform[..., None, None] >= below).sum(-1).to(torch.int8)


def advantages(
    walked: Walk, values: NDArray[np.float32], fading: NDArray[np.float32], trace: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates, and the values that they imply: float32[lanes, length] each, basis points.

    Schulman et al. (2016), equations 11 and 16, with a discount for the seconds that each decision lasts::

        A_t = d_t + discount_t trace A_t+1,  d_t = r_t + discount_t V_t+1(position after) - V_t(position before)

    Parameters
    ----------
    values : float32[lanes, length + 1, 3]
        The critic's, of each position held.
    fading : float32[lanes, length]
        Discount over each decision. What follows a closed position (`ended`) counts nothing.
    """
    before = np.take_along_axis(values[:, :-1], walked.held[..., None].astype(np.int64), 2)[..., 0]
    after = np.take_along_axis(values[:, 1:], walked.action[..., None].astype(np.int64), 2)[..., 0]
    kept = np.where(walked.ended, 0.0, fading)
    error = walked.reward + kept * after - before
    found = np.empty_like(error)
    carried = np.zeros(len(error))
    for t in range(error.shape[1] - 1, -1, -1):
        carried = error[:, t] + kept[:, t] * trace * carried
        found[:, t] = carried
    return torch.from_numpy(found).float(), torch.from_numpy(found + before).float()


def objective(actor: Actor, critic: nn.Module, some: Batch, clip: float, entropy: float) -> Tensor:
    """What is minimised: the clipped surrogate (Schulman et al. 2017, equations 7 and 9), value error, entropy."""
    chances = actor.log_chances(some.row)[torch.arange(len(some.row), device=some.row.device), some.held]
    ratio = (chances.gather(1, some.action[:, None])[:, 0] - some.chance).exp()
    better = (some.advantage - some.advantage.mean()) / (some.advantage.std() + 1e-8)
    gain = torch.minimum(ratio * better, ratio.clamp(1.0 - clip, 1.0 + clip) * better).mean()
    value = critic(actor.inputs[some.row]).gather(1, some.held[:, None])[:, 0]
    error = nn.functional.smooth_l1_loss(value, some.wanted, beta=10.0)
    spread = -(chances.exp() * chances).sum(1).mean()
    return 0.5 * error - gain - entropy * spread


def forecast_loss(actor: Actor, moved: tuple[Tensor, Tensor], rows: Tensor) -> Tensor:
    """The predictor's, on a state that it does not move."""
    target, whole = moved
    rows = rows[whole[rows]]
    with torch.no_grad():
        state = actor.net.encoder(actor.inputs[rows])
    return nn.functional.smooth_l1_loss(actor.net.predictor(state)[:, 0], target[rows], beta=10.0)
