"""What can be injected into a made market, by name; each scenario is there to open one kind of alert.

A scenario is a pressure on one instrument for some seconds, or a change of the trades themselves. Its numbers are
chosen so that the alert that it is named for opens at the default thresholds, and no other; real events of the kind
are larger, and open several. A pump is one that large: below that its alert would open in busy hours too.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.feeds.market import SECOND_NS, Instrument, Pressure, Trades
from stream.messages import AlertKind

CALM: Final = "calm"


class Scenario(NamedTuple):
    """Something out of the ordinary that befalls one instrument."""

    what: str  # a line for people
    opens: AlertKind | None  # None: nothing happens, and no alert may open
    seconds: int  # how long it lasts
    press: Callable[[Pressure, slice, Instrument], None] | None = None  # changes the seconds of the slice in place
    change: Callable[[Trades, int, int], Trades] | None = None  # of the trades, from and to in ns after the start
    also: tuple[AlertKind, ...] = ()  # may open beside it


def _volatility_burst(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """The price is whipped between two sides of the book that move apart by 9 % each second.

    A burst of plain returns would be a row of price jumps: what is sudden is judged by the last 30 minutes' volatility,
    which has to be surpassed four times while the burst itself is part of it.
    """
    apart = np.minimum(np.exp(0.09 * np.arange(when.stop - when.start)), 400.0)
    pressure.spread[when] *= apart
    pressure.size[when] *= apart**0.4  # a wider book would else be an illiquid one
    pressure.arrivals[when] *= 3.0


def _flash_crash(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """29 standard deviations down within a second, half a minute's pause for breath, and half of it back."""
    pressure.drift[when.start + 2] -= 29.0 * instrument.volatility
    pressure.drift[when.start + 30 : when.stop] += 12.0 * instrument.volatility / (when.stop - when.start - 30)
    pressure.arrivals[when.start + 2 : when.start + 6] *= np.array([6.0, 4.0, 3.0, 2.0])
    pressure.taker[when.start + 2 : when.start + 5] = np.array([-0.9, -0.6, -0.4])


def _pump(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """More and more buyers in a rush, in sweeps, with the price rising faster and faster.

    The volume grows late: it is held against that of the last hours, and a simulation has only half an hour of them.
    """
    seconds = when.stop - when.start
    pressure.drift[when] += np.linspace(4.0, 28.0, seconds) * instrument.volatility
    pressure.arrivals[when] *= np.linspace(1.0, 12.0, seconds)
    pressure.size[when] *= np.linspace(1.0, 14.0, seconds)
    pressure.taker[when] = 0.6
    pressure.sweeps[when] *= 3.0


def _spoof_pressure(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """What a spoofed book makes of the takers: all of them sell, and hardly move the price."""
    pressure.drift[when] -= 0.05 * instrument.volatility
    pressure.arrivals[when] *= 3.0
    pressure.size[when] *= 2.5
    pressure.taker[when] = -1.0


def _liquidity_drought(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """The book is empty: a twentieth of the size moves the price as far."""
    pressure.size[when] *= 0.06
    pressure.arrivals[when] *= 0.8
    pressure.spread[when] *= 3.0


def _halt(pressure: Pressure, when: slice, instrument: Instrument) -> None:
    """Nobody trades anywhere: the price does not go on behind the outage."""
    pressure.volatility[when] *= 0.01


def _feed_outage(trades: Trades, begin_ns: int, end_ns: int) -> Trades:
    """No tick arrives; those of the last three seconds do, for the gap is seen when it ends."""
    arrived = (trades.exchange_ns < begin_ns) | (trades.exchange_ns >= end_ns - 3 * SECOND_NS)
    return Trades._make(column[arrived] for column in trades)


WASH_PRINTS_A_SECOND: Final = 100
WASH_SIZES: Final = 40.0  # times the median of the instrument's


def _wash_prints(trades: Trades, begin_ns: int, end_ns: int) -> Trades:
    """Somebody trades with himself: large prints of one size like clockwork, to and fro, at the last price."""
    at = np.arange(begin_ns, end_ns, SECOND_NS // WASH_PRINTS_A_SECOND)
    before = np.maximum(np.searchsorted(trades.exchange_ns, at, side="right") - 1, 0)
    size = round(WASH_SIZES * float(np.median(trades.size)), 4)
    prints = Trades(at, trades.price[before], np.full(len(at), size), np.resize(np.array([1, -1], np.int8), len(at)))
    return _merge(trades, prints)


def _merge(trades: Trades, others: Trades) -> Trades:
    """Both, in the order of their times."""
    columns: list[NDArray[Any]] = [np.concatenate([one, other]) for one, other in zip(trades, others, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Trades._make(column[order] for column in columns)


SCENARIOS: Final[dict[str, Scenario]] = {
    CALM: Scenario("nothing out of the ordinary", None, 0),
    "volatility-burst": Scenario("the price whips to and fro, wider and wider", "volatility", 120, _volatility_burst),
    "flash-crash": Scenario("a fall of 29 standard deviations within a second", "price_jump", 90, _flash_crash),
    "pump": Scenario("a rush of buyers that drives the price up", "pump", 90, _pump, also=("price_jump", "anomaly")),
    "spoof-pressure": Scenario("everybody sells, at many times the usual volume", "flow", 150, _spoof_pressure),
    "liquidity-drought": Scenario(
        "the book is empty: small sizes move the price", "liquidity", 180, _liquidity_drought
    ),
    "feed-outage": Scenario("not one tick for two and a half minutes", "feed", 153, _halt, _feed_outage),
    "wash-prints": Scenario("large prints of one size, to and fro like clockwork", "anomaly", 8, None, _wash_prints),
}
"""By name."""
