"""All seeds of both algorithms, the choice between them on the validation part, and what the card says of it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from stream.core.features import INDEX
from training import evaluation, sharpe
from training.normalise import Normalise
from training.policy import ppo, q_learning
from training.policy.network import Policy
from training.policy.ppo import Settings as PpoSettings
from training.policy.q_learning import Settings as QSettings
from training.policy.tape import FLAT, Market, Steps, Walk, account, tape, walk

NAMES: Final = {"double_dqn": "dqn", "ppo": "ppo"}
"""Algorithm -> name of its bundle."""
Announce = Callable[[str], Callable[[int, int, str], None]]


class Settings(msgspec.Struct, frozen=True):
    """What is tried."""

    market: Market = Market()
    q_learning: QSettings = QSettings()
    ppo: PpoSettings = PpoSettings()
    seeds: int = 10  # of each algorithm
    earlier_tries: int = 3  # measured on the test part before, with a risk_aversion of 0.01; they count as tries

    def quick(self) -> "Settings":
        """The same with a few rounds: to see that everything runs, not to ship."""
        replace = msgspec.structs.replace
        return replace(
            self, q_learning=replace(self.q_learning, rounds=200), ppo=replace(self.ppo, updates=2, lanes=16), seeds=1
        )

    def describe(self, algorithm: str) -> dict[str, Any]:
        """Hyperparameters of an algorithm, as a card holds them."""
        own = self.ppo if algorithm == "ppo" else self.q_learning
        structs: tuple[msgspec.Struct, ...] = (self.market, own)
        return {"algorithm": algorithm} | {
            name: getattr(one, name) for one in structs for name in one.__struct_fields__
        }


class Try(NamedTuple):
    """One seed of one algorithm."""

    algorithm: str
    seed: int
    net: Policy
    validation: float  # mean reward, basis points a decision


def tries(
    normalise: Normalise,
    train: Steps,
    validation: Steps,
    settings: Settings,
    seed: int,
    announce: Announce,
    device: str = "cpu",
) -> list[Try]:
    """Every seed of both algorithms, the best on the validation part first."""
    market, found = settings.market, []
    seen = tape(validation, market)
    for number in range(seed, seed + settings.seeds):
        for algorithm in NAMES:
            told = announce(f"{algorithm}, seed {number}")
            if algorithm == "ppo":
                net, _ = ppo.train(normalise, train, market, settings.ppo, number, told, device)
            else:
                net, _ = q_learning.train(normalise, train, market, settings.q_learning, number, told, device)
            reward = account(walk(table(net, validation), seen, market)).mean_reward
            found.append(Try(algorithm, number, net, reward))
    return sorted(found, key=lambda one: -one.validation)


def table(net: Policy, steps: Steps) -> NDArray[np.int8]:
    """What a network does at each decision from each position: int8[k, 3]."""
    with torch.no_grad():
        values = net(steps.features, steps.forecast)[0].reshape(-1, 3, 3)
    actions: NDArray[np.int8] = values.argmax(2).to(torch.int8).numpy()
    return actions


def plain(steps: Steps) -> dict[str, NDArray[np.int8]]:
    """Tables of the plain ways to act."""
    momentum = np.sign(steps.features[:, INDEX["momentum_60s"]].numpy()).astype(np.int8)
    actions = {
        "flat": np.zeros_like(momentum),
        "buy_and_hold": np.ones_like(momentum),
        "momentum_60s": momentum,
        "mean_reversion_60s": -momentum,
    }
    return {name: np.repeat((FLAT + action)[:, None], 3, 1).astype(np.int8) for name, action in actions.items()}


def report(found: Sequence[Try], steps: Steps, settings: Settings, seed: int) -> dict[str, Any]:
    """Metrics of the card, measured on the test part; of each algorithm the seed that is best on validation leads.

    No drawdown limit stops the plain ways: they are what they are called.
    """
    market = settings.market
    seen = tape(steps, market)
    walked = {
        algorithm: [walk(table(one.net, steps), seen, market) for one in found if one.algorithm == algorithm]
        for algorithm in NAMES
    }
    free = msgspec.structs.replace(market, drawdown_limit=np.inf)
    ways = plain(steps)
    others = {name: [walk(actions, seen, free)] for name, actions in ways.items()}
    learned = [sharpe.ratio(one.gain) for family in walked.values() for one in family]
    # All that was looked at on the test part, but for doing nothing.
    count = len(learned) + len(ways) - 1 + settings.earlier_tries
    least = sharpe.luckiest(learned, count)
    return {
        "way": found[0].algorithm,
        "decisions": len(seen.moved),
        "tries": count,
        "luckiest_sharpe": least,
        "validation_mean_reward": {
            algorithm: [one.validation for one in found if one.algorithm == algorithm] for algorithm in NAMES
        },
        "test": {
            name: evaluation.summarise([numbers(one) for one in family]) | certainty(family[0], least, seed)
            for name, family in (walked | others).items()
        },
    }


def numbers(walked: Walk) -> dict[str, float]:
    """What a way to act did, by the names of a card."""
    return {**account(walked)._asdict(), "sharpe": sharpe.ratio(walked.gain)}


def certainty(walked: Walk, least: float, seed: int) -> dict[str, float]:
    """How sure its Sharpe ratio is, by the names of a card; `least` is what luck shows in so many tries."""
    found = sharpe.interval(walked.gain, seed)
    return {
        "sharpe_low": found.low,
        "sharpe_high": found.high,
        "deflated_sharpe": sharpe.deflated(walked.gain, least),
    }
