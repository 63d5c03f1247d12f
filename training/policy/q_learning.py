"""Double Q-learning (van Hasselt, Guez and Silver 2016) with n-step returns, on a tape.

`V` follows the position for `steps` decisions (n-step return) and then the best action, chosen by the online network
and valued by the target network. Every position is tried at every decision, so there is no replay but of the tape
itself. The drawdown limit is not seen here: a value is that of an agent that no limit has stopped.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from training.normalise import Normalise
from training.policy.network import Policy
from training.policy.tape import BASIS_POINT, Market, Steps, Tape, tape

Progress = Callable[[int, int, str], None]


class Settings(msgspec.Struct, frozen=True):
    """Hyperparameters."""

    hidden: int = 48
    steps: int = 10
    reward_seconds: int = 10  # decisions that the predictor looks ahead
    batch: int = 512
    rounds: int = 4000
    target_every: int = 200
    learning_rate: float = 1e-3


class Returns(NamedTuple):
    """What follows each decision when its position is held for `steps` decisions."""

    reward: Tensor  # [k, 3] basis points, discounted, after the risk penalty, before the cost of the change
    discount: Tensor  # [k] of what comes after
    next_row: Tensor  # [k]
    usable: Tensor  # [k] bool


def n_step_returns(tape: Tape, seconds: Tensor, steps: int, market: Market) -> Returns:
    """n-step rewards of holding each position; seconds: float32[k] to the next decision."""
    k = len(tape.moved)
    sizes = market.inventory_limit * torch.tensor([[-1.0, 0.0, 1.0]])
    held = torch.from_numpy(tape.moved).float()[:, None] * sizes
    held = held - market.inventory_limit * torch.from_numpy(tape.penalty).float()
    follows = torch.from_numpy(tape.follows)
    fading = market.discount**seconds
    reward, discount = torch.zeros(k, 3), torch.ones(k)
    usable = torch.ones(k, dtype=torch.bool)
    row = torch.arange(k)
    for _ in range(steps):
        usable &= follows[row] & (row + 1 < k)
        reward += discount[:, None] * held[row]
        discount = discount * fading[row]
        row = torch.clamp(row + 1, max=k - 1)
    return Returns(reward, discount, row, usable)


def ahead(steps: Steps, decisions: int, clip: float) -> tuple[Tensor, Tensor]:
    """Log return over so many decisions, basis points, and whether they are of one session: float32[k], bool[k]."""
    k = len(steps.executed)
    after = torch.clamp(torch.arange(k) + decisions, max=k - 1)
    moved = (steps.executed[after] - steps.executed).float() / BASIS_POINT
    session = torch.cumsum(~steps.follows, 0) - (~steps.follows).long()  # pauses before each decision
    last = torch.arange(k) + decisions >= k
    return torch.clamp(moved, -clip, clip), (session[after] - session == 0) & ~last


def train(
    normalise: Normalise,
    steps: Steps,
    market: Market,
    settings: Settings,
    seed: int,
    progress: Progress = lambda done, of, text: None,
    device: str = "cpu",
) -> tuple[Policy, list[float]]:
    """Fit a policy on decisions of the training part; returns it and its loss every 100 updates."""
    torch.manual_seed(seed)
    net = Policy(settings.hidden, market)
    net.normalise.load_state_dict(normalise.state_dict())
    target = copy.deepcopy(net)
    seen = tape(steps, market, market.reward_clip)
    returns = n_step_returns(seen, steps.seconds, settings.steps, market)
    moved, whole = ahead(steps, settings.reward_seconds, market.reward_clip)
    rows = torch.nonzero(returns.usable & whole)[:, 0]
    cost = (torch.from_numpy(seen.cost).float() * market.inventory_limit).to(device)
    with torch.no_grad():
        inputs = net.inputs(steps.features, steps.forecast).to(device)
    net.to(device)
    target.to(device)
    # Numbers of rows stay on the CPU, where they are drawn; what stands there is moved once.
    reward, discount, moved = returns.reward.to(device), returns.discount.to(device), moved.to(device)
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.rounds, 0.05 * settings.learning_rate)
    history = []
    for step in range(settings.rounds):
        picked = rows[torch.randint(len(rows), (settings.batch,))]
        after = returns.next_row[picked]
        with torch.no_grad():
            best = _best_next(net, target, inputs[after], cost[after])
            wanted = reward[picked] + discount[picked, None] * best
        state = net.encoder(inputs[picked])
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
    return net.cpu().eval(), history


def _best_next(net: Policy, target: Policy, inputs: Tensor, cost: Tensor) -> Tensor:
    """Value of the best action from each position held, chosen by `net`, valued by `target`: [k, 3] basis points."""
    change = cost[:, None, None] * net.moved.reshape(1, 3, 3)
    chosen = (net.decoder(net.encoder(inputs))[:, None, :] - change).argmax(2, keepdim=True)
    valued = target.decoder(target.encoder(inputs))[:, None, :] - change
    best: Tensor = valued.gather(2, chosen)[:, :, 0]
    return best
