"""Recorded ticks as a tape of decisions, and what a way to act earns on it.

A decision is made once a second in which the instrument trades, at the second's last tick, and is carried out
`latency_ticks` later. Changing the position by a unit costs the fee and half the spread; holding a unit costs
`risk_aversion` times the forecast's expected shortfall a horizon. The gain is the log return of the position less what
changes cost; the reward is the gain less the penalty for risk. Before a pause the position is closed, and so it is,
until the pause, once the session's profit lies `drawdown_limit` below its high.

An action is all of `inventory_limit`, short or long, or none of it. Sizes between never pay here: gain and penalty grow
with the size, the cost with its change, so that the best size is always one of these ends, or the one held.

The tape does not answer to us, so every action can be tried from every position, at every decision.
"""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from stream.core.features import INDEX
from stream.core.results import FORECAST_COLUMNS
from training import data

POSITIONS: Final = (-1.0, 0.0, 1.0)
FLAT: Final = 1
BASIS_POINT: Final = 1e-4
ROLL: Final = INDEX["log_roll_spread_300s"]
LONGEST_SECONDS: Final = 60.0  # a position is charged for the risk of so long at most: the horizon of the forecast
_LOSS_LONG: Final = [FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("01", "05")]
_LOSS_SHORT: Final = [FORECAST_COLUMNS.index(f"quantile_{level}_60s") for level in ("99", "95")]


class Market(msgspec.Struct, frozen=True):
    """Costs, risk and limits."""

    latency_ticks: int = 1  # one at least: nothing is carried out at the price that it was decided at
    fee: float = 2.0 * BASIS_POINT  # a taker's, each way
    most_half_spread: float = 50.0 * BASIS_POINT
    risk_aversion: float = 0.1  # share of the forecast ES over 60 s that holding a unit for 60 s costs
    inventory_limit: float = 1.0  # units
    drawdown_limit: float = 500.0  # basis points of one unit, from the high of the session's profit
    discount: float = 0.999  # a second
    reward_clip: float = 200.0  # basis points: in training, fat tails would else rule

    def __post_init__(self) -> None:
        if self.latency_ticks < 1 or self.inventory_limit <= 0.0 or self.drawdown_limit <= 0.0:
            raise ValueError(
                f"need a latency of a tick and limits above 0: {self.latency_ticks=}, {self.inventory_limit=}, "
                f"{self.drawdown_limit=}"
            )


def half_spread(features: Tensor, market: Market) -> Tensor:
    """By Roll (1984), log return: float32[n, 1]."""
    return torch.clamp(0.5 * torch.exp(features[:, ROLL : ROLL + 1]), max=market.most_half_spread)


class Steps(NamedTuple):
    """One row a decision, in order, series after series."""

    features: Tensor  # [k, 30]
    forecast: Tensor  # [k, 16]
    executed: Tensor  # [k] log price at which it is carried out
    seconds: Tensor  # [k] to the next decision
    follows: Tensor  # [k] bool: the next row is the next decision of the same session
    shortfall: Tensor  # [k, 3] forecast ES of each position over 60 s


def decisions(one: data.Series, forecast: NDArray[np.float32], part: int, latency_ticks: int = 1) -> Steps:
    """The decisions of one series in one part: the last tick of each second, carried out `latency_ticks` later."""
    second = one.clock_ns // data.SECOND
    last = np.flatnonzero(np.diff(second) > 0)
    last = last[last + latency_ticks < len(second)]
    last = last[
        (one.part[last] == part) & ~one.warming[last] & (one.session[last + latency_ticks] == one.session[last])
    ]
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
        torch.from_numpy(one.log_price[last + latency_ticks]),
        torch.from_numpy(seconds.astype(np.float32)),
        torch.from_numpy(follows),
        torch.from_numpy(shortfall.astype(np.float32)),
    )


def join(parts: list[Steps]) -> Steps:
    """Decisions of several series end to end."""
    return Steps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class Tape(NamedTuple):
    """What one unit meets between a decision and the next, basis points."""

    moved: NDArray[np.float64]  # [k] log return from where it is carried out to where the next one is; 0 before a pause
    cost: NDArray[np.float64]  # [k] of a change by one unit
    penalty: NDArray[np.float64]  # [k, 3] for the risk of each position; 0 before a pause
    follows: NDArray[np.bool_]  # [k] the next row is the next decision of the same session


def tape(steps: Steps, market: Market, clip: float = np.inf) -> Tape:
    """The tape of decisions; moves are cut off at `clip` basis points."""
    follows = steps.follows.numpy()
    executed = steps.executed.double().numpy()
    moved = np.where(follows, np.diff(executed, append=executed[-1:]) / BASIS_POINT, 0.0)
    cost = (market.fee + half_spread(steps.features, market)[:, 0].double().numpy()) / BASIS_POINT
    seconds = np.where(follows, np.clip(steps.seconds.double().numpy(), 0.0, LONGEST_SECONDS), 0.0)
    share = market.risk_aversion / 60.0 / BASIS_POINT
    penalty = share * steps.shortfall.double().numpy() * seconds[:, None]
    return Tape(np.clip(moved, -clip, clip), cost, penalty, follows)


class Walk(NamedTuple):
    """What became of decisions: a row each, in basis points of one unit."""

    held: NDArray[np.int8]  # [..., k] position before, index into POSITIONS
    action: NDArray[np.int8]  # [..., k] index into POSITIONS
    gain: NDArray[np.float64]  # [..., k] after costs
    reward: NDArray[np.float64]  # [..., k] after costs and the penalty for risk
    changed: NDArray[np.float64]  # [..., k] units, the closing among them
    ended: NDArray[np.bool_]  # [..., k] the position was closed behind it, by a pause or the drawdown limit
    free: NDArray[np.bool_]  # [..., k] the agent's own: no limit made it flat


def walk(table: NDArray[np.int8], tape: Tape, market: Market) -> Walk:
    """Act on a whole tape, flat at first.

    Parameters
    ----------
    table : int8[k, 3]
        The action (index into POSITIONS) from each position held.
    """
    lanes = walk_lanes(table[None], np.zeros(1, np.int64), np.full(1, FLAT), tape, market)
    return Walk(*(column[0] for column in lanes))


def walk_lanes(
    table: NDArray[np.int8], first: NDArray[np.int64], held: NDArray[np.int64], tape: Tape, market: Market
) -> Walk:
    """Act on stretches of a tape: table int8[lanes, k, 3] from the rows `first` on, with the positions `held`."""
    shape = table.shape[:2]
    out = Walk(
        np.empty(shape, np.int8),
        np.empty(shape, np.int8),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, np.bool_),
        np.empty(shape, np.bool_),
    )
    for lane in range(len(first)):
        columns = (column[lane] for column in out)
        _walk(
            table[lane],
            int(first[lane]),
            int(held[lane]),
            *tape,
            market.inventory_limit,
            market.drawdown_limit,
            *columns,
        )
    return out


@njit(cache=True)
def _walk(
    table: Any,
    first: int,
    position: int,
    moved: Any,
    cost: Any,
    penalty: Any,
    follows: Any,
    size: float,
    limit: float,
    held: Any,
    action: Any,
    gain: Any,
    reward: Any,
    changed: Any,
    ended: Any,
    free: Any,
) -> None:
    profit, high, stopped = 0.0, 0.0, False
    for i in range(table.shape[0]):
        row = first + i
        free[i] = not stopped
        held[i] = position
        action[i] = FLAT if stopped else table[i, position]
        unit = size * (action[i] - 1.0)
        changed[i] = abs(unit - size * (position - 1.0))
        gain[i] = unit * moved[row] - changed[i] * cost[row]
        position = action[i]
        profit += gain[i]
        high = max(high, profit)
        broken = high - profit > limit
        ended[i] = not stopped and (broken or not follows[row])
        if ended[i]:  # closed at the next decision, or before a pause at the last price that there is
            gain[i] -= abs(unit) * cost[row + 1 if follows[row] else row]
            changed[i] += abs(unit)
            position = FLAT
        reward[i] = gain[i] - size * penalty[row, action[i]]
        stopped = stopped or broken
        if not follows[row]:
            profit, high, stopped = 0.0, 0.0, False


class Account(NamedTuple):
    """How a way to act did over decisions in order, in basis points of one unit."""

    mean_reward: float  # a decision, after costs and the penalty for risk
    profit: float  # after costs
    turnover: float  # units changed a 1,000 decisions
    drawdown: float  # of the profit, all sessions end to end
    share_flat: float


def account(walked: Walk) -> Account:
    """The account of a walk."""
    profit = np.cumsum(walked.gain)
    high = np.maximum(np.maximum.accumulate(profit), 0.0)
    return Account(
        float(walked.reward.mean()),
        float(profit[-1]),
        float(walked.changed.mean() * 1000),
        float((high - profit).max()),
        float((walked.action == FLAT).mean()),
    )
