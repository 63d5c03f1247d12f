"""The last minutes of an instrument: a point a second, whatever the chunks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.core import history
from stream.core.history import ANOMALY, POINTS, SCORE, SECOND, Rings
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results


def answers(
    seconds: Sequence[float],
    prices: Sequence[float] | None = None,
    slots: Sequence[int] | None = None,
    anomaly: Sequence[float] | None = None,
) -> Results:
    """Answers to ticks at some seconds, with a forecast that tells its column and the price."""
    count = len(seconds)
    price = np.array(prices if prices is not None else [100.0] * count)
    risk = np.zeros((count, len(RISK_COLUMNS)))
    risk[:, ANOMALY] = anomaly if anomaly is not None else [0.5] * count
    risk[:, SCORE] = price
    return Results(
        slot=np.array(slots if slots is not None else [0] * count, np.int32),
        offset=np.arange(count),
        exchange_ns=(np.array(seconds) * SECOND).astype(np.int64),
        price=price,
        warming=np.zeros(count, np.bool_),
        forecast=np.tile(np.arange(len(FORECAST_COLUMNS), dtype=np.float64), (count, 1)) + price[:, None],
        risk=risk,
        level=np.zeros(count, np.int8),
        action=np.ones(count, np.int8),
        target_position=np.zeros(count),
        action_values=np.zeros((count, 3)),
        expected_reward=np.zeros(count),
        gate=np.zeros(count, np.int8),
    )


def kept(*chunks: Results, rows: Sequence[int] = (0,)) -> tuple[NDArray[np.void], Rings]:
    newest = np.zeros(len(rows), history.NEWEST)
    rings = history.new_rings(max(rows) + 1)
    for chunk in chunks:
        history.note(newest, rings, np.array(rows, np.int32), chunk, 77)
    return newest, rings


def test_newest_holds_the_last_tick() -> None:
    newest, _ = kept(answers([1.0, 2.5], [10.0, 11.0]))
    assert newest["ticks"].tolist() == [2]
    assert newest["exchange_ns"].tolist() == [2_500_000_000]
    assert newest["price"].tolist() == [11.0]
    assert newest["heard_ms"].tolist() == [77]
    assert newest["forecast"][0].tolist() == [11.0 + column for column in range(len(FORECAST_COLUMNS))]


def test_ticks_of_a_second_share_a_point_that_keeps_the_last_price_and_the_largest_anomaly() -> None:
    _, rings = kept(answers([1.1, 1.5, 1.9, 2.0], [10.0, 12.0, 11.0, 9.0], anomaly=[0.2, 0.9, 0.3, 0.1]))
    points = history.course(rings, 0)
    assert points["second"].tolist() == [1, 2]
    assert points["price"].tolist() == [11.0, 9.0]
    np.testing.assert_allclose(points["anomaly"], [0.9, 0.1], rtol=1e-6)
    np.testing.assert_allclose(points["score"], [12.0, 9.0])


def test_where_chunks_are_cut_changes_nothing() -> None:
    seconds = [1.0, 1.2, 3.0, 2.5, 3.9, 4.0, 9.0]
    prices = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0]
    _, whole = kept(answers(seconds, prices))
    _, single = kept(*(answers([second], [price]) for second, price in zip(seconds, prices, strict=True)))
    assert (history.course(whole, 0) == history.course(single, 0)).all()


def test_a_late_tick_joins_the_newest_point() -> None:
    _, rings = kept(answers([10.0, 7.0], [1.0, 2.0]))
    points = history.course(rings, 0)
    assert points["second"].tolist() == [10]
    assert points["price"].tolist() == [2.0]


def test_a_clock_set_back_starts_anew() -> None:
    _, rings = kept(answers([5000.0, 5001.0, 5001.0 - POINTS - 1, 5002.0 - POINTS - 1], anomaly=[0.9, 0.9, 0.1, 0.1]))
    points = history.course(rings, 0)
    assert points["second"].tolist() == [5000 - POINTS, 5001 - POINTS]
    np.testing.assert_allclose(points["anomaly"], 0.1)


def test_only_the_last_points_are_kept_oldest_first() -> None:
    _, rings = kept(answers([float(second) for second in range(POINTS + 25)]))
    assert history.course(rings, 0)["second"].tolist() == list(range(25, POINTS + 25))


def test_course_since_a_second_includes_it() -> None:
    _, rings = kept(answers([1.0, 2.0, 4.0, 8.0]))
    assert history.course(rings, 0, since=3)["second"].tolist() == [4, 8]
    assert history.course(rings, 0, since=8)["second"].tolist() == [8]
    assert not len(history.course(rings, 0, since=9))


def test_instruments_do_not_mix_and_one_without_a_ring_has_its_newest() -> None:
    newest, rings = kept(answers([1.0, 1.0, 2.0], [5.0, 6.0, 7.0], slots=[0, 1, 2]), rows=(1, -1, 0))
    assert newest["price"].tolist() == [5.0, 6.0, 7.0]
    assert history.course(rings, 1)["price"].tolist() == [5.0]
    assert history.course(rings, 0)["price"].tolist() == [7.0]
