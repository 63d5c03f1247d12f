"""The forest on 25 s of trades: its features by hand, and that the judged event has no say."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core import features as kernel
from training import pump_forest, pump_report
from training.pump_forest import Chunks
from training.pumps import SECOND, Outcome, Pumps, Tape

EVENTS = 8
PUMPED = pump_forest.FEATURES.index("trades")


def features(
    seconds: list[float], price: list[float], size: list[float], buys: list[bool]
) -> dict[str, NDArray[np.float64]]:
    at = (np.array(seconds) * SECOND).astype(np.int64)
    found = pump_forest.features(at, np.array(price), np.array(size), np.array(buys))
    return dict(zip(pump_forest.FEATURES, found.T, strict=True))


def test_a_rush_order_counts_once_at_its_second_trade_and_not_across_sides() -> None:
    exchange_ns = np.array([0, 0, 0, 5, 5, 7, 8], np.int64)
    buys = np.array([True, True, True, True, False, False, False])
    assert pump_forest.rush_orders(exchange_ns, buys).tolist() == [False, True, False, False, False, False, False]


def test_the_features_of_a_chunk_are_those_worked_out_by_hand() -> None:
    # Of the grid: a trade; two of one buying rush order; one that is out already. The chunk is that from 60 s to 85.
    found = features(
        [0.0, 30.0, 30.0, 60.0, 85.0, 85.0, 85.0, 85.0],
        [100.0, 100.0, 100.0, 99.0, 101.0, 104.0, 103.0, 102.0],
        [2.0, 3.0, 4.0, 50.0, 6.0, 6.0, 6.0, 9.0],
        [True, True, True, True, True, True, False, False],
    )
    last = {name: float(column[-1]) for name, column in found.items()}
    prices = np.log([101.0, 104.0, 103.0, 102.0])
    # 85 s is in the fourth of the grid, so the two that ended by 60 s are past: 0 and 1 rush orders, 1 and 2 trades.
    assert last == pytest.approx(
        {
            "rush_orders": 1.0,
            "rush_orders_above_mean": 0.5,
            "rush_orders_deviations": 0.5 / 0.6,
            "rush_order_imbalance": 0.0,
            "trades": 4.0,
            "trades_deviations": 2.5 / 1.5,
            "log_volume_ratio": np.log(27.0 / 4.5),
            "log_return": np.log(102.0 / 99.0),
            "log_max_return": np.log(104.0 / 99.0),
            "log_price_deviation": prices.std(),
        }
    )


def test_a_chunk_knows_nothing_of_later_ticks_and_the_first_is_held_against_itself() -> None:
    some = features([0.0, 40.0, 100.0], [100.0, 101.0, 102.0], [1.0, 2.0, 3.0], [True, False, True])
    more = features(
        [0.0, 40.0, 100.0, 100.0], [100.0, 101.0, 102.0, 500.0], [1.0, 2.0, 3.0, 9.0], [True, False, True, True]
    )
    for name in pump_forest.FEATURES:
        assert some[name].tolist() == more[name][:3].tolist()
    assert some["log_volume_ratio"][0] == some["log_return"][0] == 0.0


def made(seed: int) -> Chunks:
    """Events of two quiet hours before and after, a trade every 10 s, and 20 s of pump told by the count of trades."""
    rng = np.random.default_rng(seed)
    since = np.concatenate((np.arange(-7200.0, 0.0, 10.0), np.arange(0.0, 20.0), np.arange(20.0, 7200.0, 10.0)))
    ticks, n = len(since), len(since) * EVENTS
    values = rng.normal(size=(n, len(pump_forest.FEATURES))).astype(np.float32)
    event = np.repeat(np.arange(EVENTS), ticks)
    every = np.tile(since, EVENTS)
    values[:, PUMPED] += 8.0 * ((every >= 0.0) & (every < 20.0))
    context = np.zeros((n, len(kernel.CONTEXT)))
    context[:, kernel.GAP] = np.tile(np.diff(since, prepend=since[0]), EVENTS)
    start_ns = np.arange(EVENTS) * 100_000 * SECOND
    tape = Tape(
        [f"S{number}" for number in range(EVENTS)],
        event.astype(np.int32),
        start_ns[event] + (every * SECOND).astype(np.int64),
        np.zeros((n, len(kernel.FEATURES)), np.float32),
        context,
        np.arange(n),
    )
    names = [f"S{number}_1" for number in range(EVENTS)]
    return Chunks(Pumps(tape, names, start_ns, event, every), values)


def test_a_forest_finds_a_made_pump_that_it_has_not_seen() -> None:
    chunks, which = made(0), np.arange(EVENTS) > 0
    found, (threshold,) = pump_forest.judged(chunks, which, seed=0)
    assert found.seconds[0] < 5.0
    assert found.false[0] == 0
    assert pump_forest.GRID[0] <= threshold <= pump_forest.GRID[-1]


def test_nothing_of_a_judged_event_comes_into_the_forest_or_its_threshold() -> None:
    chunks, other, which = made(0), made(1), np.arange(EVENTS) != 2
    judged = chunks.pumps.event == 2
    changed = chunks._replace(values=np.where(judged[:, None], other.values[:, ::-1], chunks.values))
    before, after = (pump_forest.fit(one, which, seed=3) for one in (chunks, changed))
    assert before.threshold == after.threshold
    assert before.probability(other.values).tolist() == after.probability(other.values).tolist()
    elsewhere = pump_forest.fit(chunks._replace(values=np.where(judged[:, None], chunks.values, 0.0)), which, seed=3)
    assert elsewhere.probability(other.values).tolist() != before.probability(other.values).tolist()


def test_only_seconds_of_the_start_and_chunks_of_quiet_hours_are_fitted_on() -> None:
    pumps = made(0).pumps
    pump, rows = pump_forest.labels(pumps)
    since = pumps.since[rows]
    assert sorted(since[pump[rows]][:20]) == list(range(20))
    assert (np.abs(since[~pump[rows]]) > 1800.0).all()
    assert len(rows) == EVENTS * (20 + 1 + 2 * 216)  # of the quiet 5400 s on each side, one each 25 s; and that of 20 s


def test_a_probability_alerts_as_the_pump_does_but_not_while_warming() -> None:
    pumps = made(0).pumps
    probability = np.zeros(len(pumps.event))
    probability[(pumps.event == 1) & (pumps.since == 3.0)] = 0.6
    probability[(pumps.event == 4) & (np.abs(pumps.since) == 4000.0)] = 0.6

    def outcome(threshold: float) -> Outcome:
        return pump_forest.told(pumps, probability).outcome((threshold, 1.0, 1.0))

    found = outcome(0.5)
    assert np.flatnonzero(np.isfinite(found.seconds)).tolist() == [1]
    assert (found.seconds[1], found.false[4], found.false.sum()) == (3.0, 2, 2)
    assert np.isnan(outcome(0.7).seconds).all()
    pumps.tape.context[:, kernel.WARMING] = 1.0
    assert np.isnan(outcome(0.5).seconds).all()


def test_the_report_holds_every_seed_of_each_split_and_the_median_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = made(0)
    monkeypatch.setattr(pump_forest, "load", lambda pumps, ticks: chunks)
    monkeypatch.setattr(pump_forest, "SEEDS", range(1))
    found = pump_forest.outcomes(chunks.pumps, Path("ticks.parquet"))
    assert list(found) == ["each event by the others", "each event by other symbols", pump_forest.LATER]
    middle = [pump_report._median(split, seeds, chunks.pumps) for split, seeds in found.items()]
    every = [row for split, seeds in found.items() for row in pump_report._each(split, seeds, chunks.pumps)]
    assert [row[0] for row in every] == [f"{split}, seed 0" for split in found]
    assert [row[4:] for row in middle] == [row[1:] for row in every]
    assert [row[4] for row in middle] == ["8 of 8", "8 of 8", "4 of 4"]
    assert middle[0][0].startswith("forest, each event by the others, the median of 1 seeds (F1 ")
