"""A made market: the trades of one instrument, from a seed.

Orders arrive as a Hawkes process (Hawkes 1971) in its cluster form: some come by themselves, and each brings about
`branching` more on average. Volatility is the exponential of two Ornstein-Uhlenbeck processes, a slow and a fast one,
times a regime that lasts for minutes, times a random factor of each second, so that returns have fat tails (a mixture
of normals; Clark 1973). Busy times are volatile times. The efficient price is a random walk on that volatility, so its
returns do not predict each other; a taker pays half the spread, and some orders sweep several levels of the book.

What is to happen out of the ordinary is told by `Pressure`: factors for each second of the time to come.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SECOND_NS: Final = 1_000_000_000
TIME_STEP_NS: Final = 1_000  # venues print microseconds
# Orders answer orders within milliseconds (programs), seconds and half a minute (people): one of these means each.
ANSWER_SECONDS: Final = (0.02, 0.5, 8.0)
SAME_SIDE: Final = 0.8  # of the orders that an order brings about
INFORMED: Final = 0.5  # how much of the sides follows from where the price goes within the second
REGIME_SECONDS: Final = 900.0
REGIMES: Final = np.array([0.75, 1.0, 1.35])  # quiet, usual, busy: factors of the volatility
SLOW_SECONDS: Final = 1200.0
FAST_SECONDS: Final = 45.0
SLOW_DEVIATION: Final = 0.25
FAST_DEVIATION: Final = 0.3
SECOND_FREEDOM: Final = 5.0  # of Student's t, whose mixture a second's factor is drawn from ...
MOST_SECOND_FACTOR: Final = 4.0  # ... and where it is cut
ACTIVITY_POWER: Final = 0.8  # arrivals go with the volatility to this power
SWEEP_SHARE: Final = 0.12
SWEEP_TRADES: Final = 3.0  # beyond the first, mean
PRICE_DIGITS: Final = 6


class Instrument(NamedTuple):
    """What a made instrument is like in usual times."""

    price: float = 100.0  # at the start, quote currency
    orders_per_second: float = 4.0
    branching: float = 0.6  # orders that an order brings about, mean, below 1
    volatility: float = 1e-4  # log return over a second, standard deviation; 56 % a year
    half_spread: float = 1e-5  # share of the price
    size: float = 0.5  # median, base units
    size_deviation: float = 1.3  # of its logarithm


class Pressure(NamedTuple):
    """What happens out of the ordinary, one value for each second."""

    arrivals: Floats  # factor of the orders that come by themselves
    volatility: Floats  # factor
    drift: Floats  # log return added, a second
    size: Floats  # factor
    taker: Floats  # -1 all sell, 0 as usual, 1 all buy
    spread: Floats  # factor
    sweeps: Floats  # factor of the share of orders that sweep


class Trades(NamedTuple):
    """Trades of one instrument in their order, one row each."""

    exchange_ns: NDArray[np.int64]  # [n] after the start
    price: Floats  # [n]
    size: Floats  # [n]
    side: NDArray[np.int8]  # [n] 1 buy, -1 sell


def no_pressure(seconds: int) -> Pressure:
    """Usual times; each column may be changed in place."""
    ones, zeros = np.ones(seconds), np.zeros(seconds)
    return Pressure(*(column.copy() for column in (ones, ones, zeros, ones, zeros, ones, ones)))


def trade(rng: Generator, instrument: Instrument, pressure: Pressure) -> Trades:
    """Draw the trades of an instrument, for as many seconds as `pressure` has.

    Parameters
    ----------
    rng
        All randomness; the same state gives the same trades.
    instrument
        What it is like in usual times.
    pressure
        What happens out of the ordinary.

    Raises
    ------
    ValueError
        If `branching` lies outside [0, 1): the orders would never end.
    """
    if not 0.0 <= instrument.branching < 1.0:
        raise ValueError(f"need 0 <= branching < 1, which is {instrument.branching}")
    usual = usual_volatility(rng, len(pressure.drift))
    at, root = _arrivals(rng, instrument, pressure.arrivals * usual**ACTIVITY_POWER)
    second = at.astype(np.int64)
    factor = usual * pressure.volatility
    log_price = _efficient_price(rng, at, (instrument.volatility * factor) ** 2, pressure.drift)
    side = _sides(rng, root, _tilt(log_price, second, instrument.volatility * factor, pressure.taker))
    order, level = _sweeps(rng, SWEEP_SHARE * pressure.sweeps[second])
    second = second[order]
    tick = price_step(instrument.price)
    half_spread = instrument.half_spread * pressure.spread[second]
    price = instrument.price * np.exp(log_price[order] + side[order] * half_spread) + side[order] * level * tick
    size = instrument.size * pressure.size[second] * np.exp(instrument.size_deviation * rng.standard_normal(len(order)))
    return Trades(
        np.round(at[order] * (SECOND_NS / TIME_STEP_NS)).astype(np.int64) * TIME_STEP_NS,
        whole_steps(price, tick),
        np.maximum(np.round(size, 4), 1e-4),
        side[order],
    )


def whole_steps(values: Floats, step: float) -> Floats:
    """Values to the nearest step, a power of ten, one at least; written in decimals they show no digit below it."""
    rounded: Floats = np.round(np.maximum(np.round(values / step), 1.0) * step, -round(np.log10(step)))
    return rounded


def price_step(price: float) -> float:
    """The smallest step of a price that begins here: six digits of it."""
    step: float = 10.0 ** (np.floor(np.log10(price)) + 1 - PRICE_DIGITS)
    return step


def usual_volatility(rng: Generator, seconds: int) -> Floats:
    """Factor of the volatility in each second, mean square about 1."""
    logarithm = _reverting(rng, seconds, SLOW_SECONDS, SLOW_DEVIATION)
    logarithm += _reverting(rng, seconds, FAST_SECONDS, FAST_DEVIATION)
    factor: Floats = np.exp(logarithm - SLOW_DEVIATION**2 - FAST_DEVIATION**2) * _regimes(rng, seconds)
    return factor


def _reverting(rng: Generator, seconds: int, tau: float, deviation: float) -> Floats:
    """An Ornstein-Uhlenbeck process on the seconds, from its stationary law."""
    keep = np.exp(-1.0 / tau)
    steps = rng.standard_normal(seconds) * deviation * np.sqrt(1.0 - keep**2)
    values = np.empty(seconds)
    value = deviation * rng.standard_normal()
    for second in range(seconds):
        value = keep * value + steps[second]
        values[second] = value
    return values


def _regimes(rng: Generator, seconds: int) -> Floats:
    """Quiet, usual and busy times, each lasting REGIME_SECONDS on average."""
    change = rng.random(seconds) < 1.0 / REGIME_SECONDS
    change[0] = True
    drawn = rng.integers(0, len(REGIMES), int(change.sum()))
    factor: Floats = REGIMES[drawn[np.cumsum(change) - 1]]
    return factor


def _arrivals(rng: Generator, instrument: Instrument, factor: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Times of the orders, seconds, sorted, and for each the cluster that it belongs to."""
    own = rng.poisson(instrument.orders_per_second * (1.0 - instrument.branching) * factor)
    at = np.repeat(np.arange(len(factor), dtype=np.float64), own) + rng.random(int(own.sum()))
    root = np.arange(len(at))
    times, roots = [at], [root]
    while len(at):
        children = rng.poisson(instrument.branching, len(at))
        delay = rng.choice(ANSWER_SECONDS, int(children.sum()))
        at = np.repeat(at, children) + rng.exponential(delay)
        root = np.repeat(root, children)
        keep = at < len(factor)
        at, root = at[keep], root[keep]
        times.append(at)
        roots.append(root)
    at, root = np.concatenate(times), np.concatenate(roots)
    order = np.argsort(at, kind="stable")
    return at[order], root[order]


def _efficient_price(rng: Generator, at: Floats, variance: Floats, drift: Floats) -> Floats:
    """Its logarithm over that of the start, at the times of the orders."""
    weight = SECOND_FREEDOM / rng.chisquare(SECOND_FREEDOM, len(variance))
    weight = np.minimum(weight, MOST_SECOND_FACTOR)
    weight *= (SECOND_FREEDOM - 2.0) / SECOND_FREEDOM
    grid = np.arange(len(variance) + 1)
    passed = np.interp(at, grid, np.concatenate([[0.0], np.cumsum(variance * weight)]))
    moved = np.interp(at, grid, np.concatenate([[0.0], np.cumsum(drift)]))
    walk = np.cumsum(np.sqrt(np.diff(passed, prepend=0.0)) * rng.standard_normal(len(at)))
    log_price: Floats = walk + moved
    return log_price


def _tilt(log_price: Floats, second: NDArray[np.int64], volatility: Floats, taker: Floats) -> Floats:
    """How one-sided the orders are, -1 to 1: some takers know where the price goes within the second."""
    last = np.zeros(len(volatility))
    last[second] = log_price  # the last of each second stands
    there = np.zeros(len(volatility), np.bool_)
    there[second] = True
    known = np.maximum.accumulate(np.where(there, np.arange(len(volatility)), 0))
    move = np.diff(last[known], prepend=0.0) / volatility
    informed = INFORMED * np.tanh(move)
    tilt: Floats = (informed * (1.0 - np.abs(taker)) + taker)[second]
    return tilt


def _sides(rng: Generator, root: NDArray[np.int64], tilt: Floats) -> NDArray[np.int8]:
    """Sides of the orders; those of one cluster mostly agree, as far as the tilt lets them."""
    count = int(root.max(initial=-1)) + 1
    # One draw for a cluster, another for an order that goes its own way: each is a side by the tilt of its second.
    cluster = rng.random(count)[root]
    draw = np.where(rng.random(len(root)) < SAME_SIDE, cluster, rng.random(len(root)))
    return np.where(2.0 * draw - 1.0 < tilt, 1, -1).astype(np.int8)


def _sweeps(rng: Generator, share: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each trade its order, and how many levels into the book it was."""
    extra = np.where(rng.random(len(share)) < share, rng.geometric(1.0 / SWEEP_TRADES, len(share)), 0)
    order = np.repeat(np.arange(len(share)), 1 + extra)
    level = np.arange(len(order)) - np.repeat(np.cumsum(1 + extra) - 1 - extra, 1 + extra)
    return order, level
