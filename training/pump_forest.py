"""A random forest on 25 s of trades, judged as the pump alert is, to see which measures better.

After La Morgia et al. (2020): buying rush orders, trades, volume and price of 25 s, each against its mean and deviation
over the four hours before; 5 deep, as there. Two things differ. A chunk ends with every tick, not on a grid of 25 s, so
that the forest may alert as soon as the rule. And the hour and the minute are left out: organised pumps are announced
for full hours, so the forest would learn the clock of the events.

The threshold is chosen from probabilities by trees that did not see the event they speak of, all within the training
events: a part of the forest is fitted without every fourth of them. An event that is judged has no say in either.
`python -m training.pump_report DATA` writes what is found into docs/models/pumps.md.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stream.core import features as kernel
from training import pumps as judging
from training.pumps import AROUND_SECONDS, LATE_SECONDS, SECOND, Outcome, Pumps, Thresholds

CHUNK_SECONDS: Final = 25
PAST: Final = 576
"""Chunks that a chunk is held against: the four hours of the alert's volume."""
FEATURES: Final = (
    "rush_orders",  # buying ones in the chunk
    "rush_orders_above_mean",
    "rush_orders_deviations",  # above the mean, in units of the deviation + 0.1
    "rush_order_imbalance",  # (buying - selling) / (all + 0.1)
    "trades",
    "trades_deviations",  # above the mean, in units of the deviation + 1
    "log_volume_ratio",  # against the mean
    "log_return",  # against the last trade before the chunk
    "log_max_return",
    "log_price_deviation",
)
PARTS: Final = 4
PART_TREES: Final = 25
DEPTH: Final = 5
TREE_SHARE: Final = 0.1
"""Of the chunks, that a tree is grown on: nearly all are quiet and say the same."""
GRID: Final = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
SEEDS: Final = range(5)
LATER: Final = "the later half by the earlier"
"""The split that is judged on the later half alone; the others are on every event."""


class Chunks(NamedTuple):
    """The chunk that ends with each tick around the events."""

    pumps: Pumps
    values: NDArray[np.float32]  # [n, len(FEATURES)]


class Forest(NamedTuple):
    """Parts, each of which has not seen some of the training events, and the probability that alerts."""

    parts: list[Any]
    threshold: float

    def probability(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of a pump, by chunk: float64[k]."""
        found: NDArray[np.float64] = np.mean([_probability(part, values) for part in self.parts], 0)
        return found


def load(pumps: Pumps, ticks: Path) -> Chunks:
    """The chunks of the ticks that `pumps` was read from."""
    table = pq.read_table(ticks, columns=["price", "size", "side"])
    price, size, side = (table[name].to_numpy()[pumps.tape.row] for name in ("price", "size", "side"))
    values = np.empty((len(price), len(FEATURES)), np.float32)
    for number in range(len(pumps.names)):
        at = pumps.event == number
        values[at] = features(pumps.tape.exchange_ns[at], price[at], size[at], side[at] == "buy")
    return Chunks(pumps, values)


def features(
    exchange_ns: NDArray[np.int64], price: NDArray[np.float64], size: NDArray[np.float64], buys: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Features of the 25 s up to each tick, that tick in and those of 25 s before it out.

    Parameters
    ----------
    exchange_ns : int64[n]
        Of one instrument, not falling.
    price, size : float64[n]
        Positive; quote currency and base units.
    buys : bool[n]
        Whether the buyer initiated the trade.

    Returns
    -------
    float64[n, len(FEATURES)]
        In the order of FEATURES. The mean and the deviation are of whole chunks of a grid from the first tick on, up to
        PAST of them, that ended when the chunk began; where there is none, both are 0.
    """
    ns = CHUNK_SECONDS * SECOND
    first, last = np.searchsorted(exchange_ns, exchange_ns - ns, side="right"), np.arange(len(price)) + 1
    cell = (exchange_ns - exchange_ns[0]) // ns
    end = np.maximum(cell - 1, 0)  # of what is past when the chunk begins, whatever its place on the grid

    def total(what: NDArray[Any]) -> NDArray[np.float64]:
        """In each chunk, and the mean and the deviation of the chunks before it."""
        now = _between(what, first, last)
        past = np.bincount(cell, weights=what)
        begin, count = np.maximum(end - PAST, 0), np.maximum(np.minimum(end, PAST), 1)
        mean = _between(past, begin, end) / count
        square = _between(past * past, begin, end) / count
        return np.stack((now, mean, np.sqrt(np.maximum(square - mean * mean, 0.0))))

    rush = rush_orders(exchange_ns, buys)
    rushes, mean, deviation = total(rush & buys)
    selling = total(rush & ~buys)[0]
    trades, usual_trades, trades_deviation = total(np.ones(len(price)))
    volume, usual_volume, _ = total(size)
    volume = np.maximum(volume, size)  # of dust after much volume the running sum keeps no digit
    return np.column_stack(
        (
            rushes,
            rushes - mean,
            (rushes - mean) / (deviation + 0.1),
            (rushes - selling) / (rushes + selling + 0.1),
            trades,
            (trades - usual_trades) / (trades_deviation + 1.0),
            np.log(volume / np.where(usual_volume > 0.0, usual_volume, volume)),
            *_prices(np.log(price), first, last),
        )
    )


def rush_orders(exchange_ns: NDArray[np.int64], buys: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Trades at which a rush order counts, as in stream.core.features: the second at one time on one side: bool[n]."""
    new = np.concatenate(([True], (np.diff(exchange_ns) != 0) | (buys[1:] != buys[:-1])))
    second = np.zeros(len(new), np.bool_)
    second[1:] = new[:-1] & ~new[1:]
    return second


def _between(what: NDArray[Any], begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
    running = np.concatenate(([0.0], np.cumsum(what, dtype=np.float64)))
    return running[end] - running[begin]


def _prices(
    log_price: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Return and highest return of each chunk, and the deviation of its prices."""
    before = log_price[np.maximum(first - 1, 0)]
    chunks = [log_price[begin:end] for begin, end in zip(first, last, strict=True)]
    highest = np.array([chunk.max() for chunk in chunks])
    return log_price - before, highest - before, np.array([chunk.std() for chunk in chunks])


def fit(chunks: Chunks, which: NDArray[np.bool_], seed: int) -> Forest:
    """The forest and its threshold, of some of the events: bool[events]."""
    # Here, since it takes a second that nothing else should wait.
    from sklearn.ensemble import RandomForestClassifier

    pumps = chunks.pumps
    held = _held(which, seed)
    pump, rows = labels(pumps)
    parts = []
    probability = np.zeros(len(pumps.event))
    for part in range(PARTS):
        seen, unseen = rows[(which & (held != part))[pumps.event[rows]]], (held == part)[pumps.event]
        forest = RandomForestClassifier(
            PART_TREES, max_depth=DEPTH, max_samples=TREE_SHARE, random_state=PARTS * seed + part, n_jobs=1
        )
        parts.append(forest.fit(chunks.values[seen], pump[seen]))
        if unseen.any():
            probability[unseen] = _probability(forest, chunks.values[unseen])
    alert = told(pumps, probability)
    told_by: dict[Thresholds, Outcome] = {(threshold,): alert.outcome((threshold, 1.0, 1.0)) for threshold in GRID}
    return Forest(parts, judging.choose(told_by, which)[0])


def _held(which: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """The part of the forest that does not see each event, -1 for an event that none may see: int64[events]."""
    held = np.full(len(which), -1)
    held[which] = np.random.default_rng(seed).permutation(int(which.sum())) % PARTS
    return held


def labels(pumps: Pumps) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether a tick is of a pump, and the ticks to fit on: bool[n], int64[k].

    Those are the last tick of each second from the announced start to LATE_SECONDS after it, and, of the quiet hours,
    the last of each 25 s. Between is neither: before the start some buy already, after it the pump goes on.
    """
    pump = (pumps.since >= 0) & (pumps.since <= LATE_SECONDS)
    quiet = np.abs(pumps.since) > AROUND_SECONDS
    chosen = (pump & _last_of(pumps, 1)) | (quiet & _last_of(pumps, CHUNK_SECONDS))
    return pump, np.flatnonzero(chosen)


def _last_of(pumps: Pumps, seconds: int) -> NDArray[np.bool_]:
    """Whether a tick is the last of its event in so many seconds."""
    cell = np.floor(pumps.since / seconds)
    return np.concatenate(((np.diff(cell) != 0) | (np.diff(pumps.event) != 0), [True]))


def _probability(forest: Any, values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(forest.predict_proba(values)[:, list(forest.classes_).index(True)])


def told(pumps: Pumps, probability: NDArray[np.float64]) -> Pumps:
    """Ticks whose pump alert opens, warms up, closes and holds by a probability instead of the return.

    Parameters
    ----------
    probability : float64[n]
        Of a pump, by tick.

    Returns
    -------
    Pumps
        Their outcome with the thresholds (probability, 1, 1) is that of the probability alone.
    """
    signs = np.zeros_like(pumps.tape.features)
    signs[:, kernel.INDEX["momentum_60s"]] = probability
    signs[:, kernel.INDEX["log_rush_order_rate_10s"]] = 10.0  # with its imbalance and the volume far over any threshold
    signs[:, kernel.INDEX["rush_order_imbalance_10s"]] = 1.0
    context = pumps.tape.context.copy()
    context[:, kernel.VOLUME_AGAINST_4H] = 1e6
    return pumps._replace(tape=pumps.tape._replace(features=signs, context=context))


def judged(chunks: Chunks, which: NDArray[np.bool_], seed: int) -> tuple[Outcome, Thresholds]:
    """What a forest fitted on some of the events does about the others; and its threshold."""
    forest = fit(chunks, which, seed)
    others = ~which[chunks.pumps.event]
    probability = np.zeros(len(others))
    probability[others] = forest.probability(chunks.values[others])
    return told(chunks.pumps, probability).outcome((forest.threshold, 1.0, 1.0)), (forest.threshold,)


def outcomes(pumps: Pumps, ticks: Path) -> dict[str, list[Outcome]]:
    """What forests do, of each split the outcome by every seed; `ticks` is the file that `pumps` was read from."""
    chunks = load(pumps, ticks)
    seeds = [_splits(chunks, seed) for seed in SEEDS]
    return {split: [seed[split] for seed in seeds] for split in seeds[0]}


def _splits(chunks: Chunks, seed: int) -> dict[str, Outcome]:
    """What forests of a seed do, by what they are fitted on."""
    known: dict[bytes, tuple[Outcome, Thresholds]] = {}  # of a symbol pumped once both ways of leaving out are the same

    def by(which: NDArray[np.bool_]) -> tuple[Outcome, Thresholds]:
        if which.tobytes() not in known:
            known[which.tobytes()] = judged(chunks, which, seed)
        return known[which.tobytes()]

    names = chunks.pumps.names
    return {
        "each event by the others": judging.left_out(names, by)[0],
        "each event by other symbols": judging.left_out([name.split("_")[0] for name in names], by)[0],
        LATER: by(~chunks.pumps.later())[0],
    }
