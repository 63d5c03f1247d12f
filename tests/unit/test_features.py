"""Features by hand: small streams with worked answers."""

import math

import numpy as np
import pytest

from stream.core.features import (
    ACCEPTED,
    BAND,
    BAND_FAULTS,
    DUPLICATE,
    DUPLICATE_FAULTS,
    GAP,
    LATE,
    LATE_FAULTS,
    USUAL_GAP,
    VOLUME_AGAINST_4H,
    WARMING,
    WINDOW,
    new_state,
    usual_gaps,
)
from tests.ticks import RULES, columns, compute, feature


def test_first_tick_has_no_return_and_no_gap() -> None:
    result = compute(columns([0.0], [100.0]))
    assert feature(result, "log_return")[0] == 0.0
    assert feature(result, "log_time_gap")[0] == np.float32(math.log(1e-3))
    assert feature(result, "drawdown")[0] == 0.0
    assert result.context[0, WARMING] == 1.0
    assert np.isfinite(result.features).all()


def test_return_gap_and_drawdown_of_a_second_tick() -> None:
    result = compute(columns([0.0, 2.0], [100.0, 99.0]))
    assert feature(result, "log_return")[1] == pytest.approx(math.log(0.99), rel=1e-6)
    assert feature(result, "log_time_gap")[1] == pytest.approx(math.log(2.001), rel=1e-6)
    assert feature(result, "drawdown")[1] == pytest.approx(math.log(0.99), rel=1e-6)
    assert result.context[1, GAP] == 2.0


def test_trade_rate_of_a_steady_stream_is_its_rate() -> None:
    seconds = np.arange(0.0, 400.0, 0.5)  # two trades a second
    result = compute(columns(seconds.tolist(), [100.0] * len(seconds)))
    for tau in ("1s", "10s", "60s"):
        rate = math.exp(feature(result, f"log_trade_rate_{tau}")[-1]) - 1e-3
        # A tick counts itself in full, which for a short memory is more than its share: sum of exp(-k / (2 tau)).
        tau_seconds = float(tau[:-1])
        assert rate == pytest.approx(1.0 / tau_seconds / (1.0 - math.exp(-0.5 / tau_seconds)), rel=1e-3)


def test_volume_ratio_shows_a_burst_against_the_usual() -> None:
    seconds = np.arange(0.0, 600.0, 1.0)
    sizes = np.ones(600)
    sizes[-10:] = 20.0
    result = compute(columns(seconds.tolist(), [100.0] * 600, sizes.tolist()))
    assert feature(result, "log_volume_ratio_60s")[-11] == pytest.approx(0.0, abs=0.05)
    assert math.exp(feature(result, "log_volume_ratio_10s")[-1]) > 8.0


def test_grid_variance_does_not_see_bounces_within_a_second() -> None:
    seconds = np.arange(0.0, 300.0, 0.25)
    prices = np.where(np.arange(len(seconds)) % 2 == 0, 100.0, 100.1)  # every second ends at 100.1
    result = compute(columns(seconds.tolist(), prices.tolist()))
    trade_to_trade = math.exp(feature(result, "log_realized_variance_60s")[-1])
    grid = math.exp(feature(result, "log_grid_variance_60s")[-1])
    assert trade_to_trade == pytest.approx(4.0 * math.log(1.001) ** 2, rel=0.01)  # four squared returns a second
    assert grid < 1e-3 * trade_to_trade


def test_order_flow_imbalance_of_buys_alone_is_one() -> None:
    result = compute(columns([0.0, 0.5, 1.0], [100.0] * 3, sides=[1, 1, 1]))
    assert feature(result, "order_flow_imbalance_10s").tolist() == [1.0, 1.0, 1.0]


def test_absent_side_is_inferred_by_the_tick_rule() -> None:
    result = compute(columns([0.0, 1.0, 2.0, 3.0], [100.0, 101.0, 101.0, 100.5]))
    size = feature(result, "signed_log_size")
    assert size[1] > 0.0  # up: a buy
    assert size[2] > 0.0  # unchanged: as before
    assert size[3] < 0.0  # down: a sell


def test_sweep_counts_as_one_rush_order() -> None:
    result = compute(columns([0.0, 1.0, 1.0, 1.0, 1.0], [100.0] * 5, sides=[1, 1, 1, 1, 1]))
    rate = np.expm1(feature(result, "log_rush_order_rate_10s"))
    assert rate[1] == 0.0
    assert rate[2] == pytest.approx(1.0)
    assert rate[4] == pytest.approx(1.0)


def test_trades_at_one_time_on_both_sides_are_no_rush_order() -> None:
    result = compute(columns([0.0, 1.0, 1.0, 1.0], [100.0] * 4, sides=[1, -1, 1, -1]))
    assert feature(result, "log_rush_order_rate_10s").tolist() == [0.0] * 4


def test_roll_spread_of_a_bouncing_price_is_its_width() -> None:
    rng = np.random.default_rng(1)
    n = 4000
    half = 5e-4
    prices = 100.0 * np.exp(half * rng.choice([-1.0, 1.0], n))
    result = compute(columns(np.arange(n).tolist(), prices.tolist()))
    assert math.exp(feature(result, "log_roll_spread_300s")[-1]) == pytest.approx(2 * half, rel=0.25)


def test_time_since_last_trade_looks_past_trades_at_one_time() -> None:
    result = compute(columns([0.0, 3.0, 3.0], [100.0] * 3))
    assert feature(result, "log_time_since_last_trade")[2] == pytest.approx(math.log(3.001), rel=1e-6)
    assert feature(result, "log_time_gap")[2] == np.float32(math.log(1e-3))


def test_momentum_is_the_distance_to_the_average_price() -> None:
    result = compute(columns([0.0, 10.0], [100.0, 101.0]))
    # The price stood at 100 for all ten seconds.
    assert feature(result, "momentum_10s")[1] == pytest.approx(math.log(1.01), rel=1e-5)


def test_late_tick_is_used_with_its_time_clamped() -> None:
    result = compute(columns([0.0, 5.0, 3.0, 6.0], [100.0, 100.0, 101.0, 101.0]))
    assert result.verdict.tolist() == [ACCEPTED, ACCEPTED, LATE, ACCEPTED]
    assert feature(result, "log_return")[2] == pytest.approx(math.log(1.01), rel=1e-5)
    assert result.context[2, GAP] == 0.0
    assert result.context[3, GAP] == 1.0
    assert result.context[2, LATE_FAULTS] == 1.0


def test_duplicate_trade_id_is_refused_and_counted() -> None:
    result = compute(columns([0.0, 1.0, 2.0], [100.0] * 3, ids=[7, 7, 8]))
    assert result.verdict.tolist() == [ACCEPTED, DUPLICATE, ACCEPTED]
    assert result.row.tolist() == [0, 2]
    assert result.context[1, DUPLICATE_FAULTS] == pytest.approx(math.exp(-2.0 / 60.0))


def test_ids_that_do_not_rise_are_compared_with_the_last_ones() -> None:
    result = compute(columns([0.0, 1.0, 2.0, 3.0], [100.0] * 4, ids=[9, 5, 9, 5]))
    assert result.verdict.tolist() == [ACCEPTED, ACCEPTED, DUPLICATE, DUPLICATE]


def test_negative_ids_are_told_apart() -> None:
    result = compute(columns([0.0, 1.0, 2.0], [100.0] * 3, ids=[-9, -5, -9]))
    assert result.verdict.tolist() == [ACCEPTED, ACCEPTED, DUPLICATE]


def test_price_outside_the_band_is_refused_until_three_agree() -> None:
    result = compute(columns([0, 1, 2, 3, 4], [100.0, 200.0, 201.0, 202.0, 203.0]))
    assert result.verdict.tolist() == [ACCEPTED, BAND, BAND, ACCEPTED, ACCEPTED]
    assert result.context[1, BAND_FAULTS] == pytest.approx(2.0, rel=0.1)


def test_prices_outside_the_band_that_disagree_stay_refused() -> None:
    result = compute(columns([0, 1, 2, 3, 4], [100.0, 200.0, 50.0, 400.0, 100.0]))
    assert result.verdict.tolist() == [ACCEPTED, BAND, BAND, BAND, ACCEPTED]


def test_long_pause_starts_a_session_without_a_return() -> None:
    result = compute(columns([0.0, 1.0, 40_000.0], [100.0, 110.0, 105.0]))
    assert feature(result, "log_return")[2] == 0.0
    assert feature(result, "drawdown")[2] == 0.0
    assert feature(result, "log_time_gap")[2] == np.float32(math.log(1e-3))
    assert result.context[2, GAP] == 39_999.0


def test_pause_is_cut_out_of_time() -> None:
    steady = np.arange(0.0, 300.0).tolist()
    with_pause = steady + [t + 50_000.0 for t in steady]
    prices = [100.0 + 0.01 * (k % 3) for k in range(600)]
    result = compute(columns(with_pause, prices))
    rates = feature(result, "log_trade_rate_1800s")
    assert rates[300] == pytest.approx(rates[299], abs=0.01)  # as if there had been no night


def test_clock_that_was_ahead_is_set_back_when_three_ticks_agree() -> None:
    ahead = 10_000.0
    result = compute(columns([0.0, ahead, 1.0, 2.0, 3.0, 4.0], [100.0] * 6))
    assert result.verdict.tolist() == [ACCEPTED, ACCEPTED, LATE, LATE, LATE, ACCEPTED]
    assert result.context[5, GAP] == 1.0


def test_two_venues_of_one_symbol_do_not_mix() -> None:
    result = compute(columns([0, 1, 2, 3], [100.0, 500.0, 100.0, 500.0], slots=[0, 1, 0, 1]))
    assert feature(result, "log_return").tolist() == [0.0] * 4


def test_warming_ends_with_ticks_and_time() -> None:
    rules = RULES._replace(warm_ticks=3, warm_seconds=2.0)
    result = compute(columns([0.0, 0.1, 0.2, 0.3, 5.0], [100.0] * 5), rules)
    assert result.context[:, WARMING].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_window_holds_the_last_trades_oldest_first() -> None:
    n = WINDOW + 5
    prices = 100.0 * np.exp(1e-3 * np.arange(n) ** 1.5 / n)
    result = compute(columns(np.arange(n).tolist(), prices.tolist()))
    returns = feature(result, "log_return")
    assert result.window[-1, :, 0].tolist() == returns[-WINDOW:].tolist()
    assert result.window[0, :-1].tolist() == [[0.0] * 3] * (WINDOW - 1)


def test_volume_is_held_against_that_of_four_hours() -> None:
    quiet, busy = np.arange(0.0, 14_400.0, 10.0), np.arange(14_400.0, 18_000.0, 1.0)
    ticks = columns([*quiet, *busy], [100.0] * (len(quiet) + len(busy)))
    ratio = compute(ticks).context[:, VOLUME_AGAINST_4H]
    assert ratio[100] == pytest.approx(1.0, abs=0.01)  # from the first minutes on both know the same
    assert ratio[len(quiet) - 1] == pytest.approx(1.0, abs=0.01)
    # Ten times the volume for an hour: it is 1 - e^-2 of what 1800 s hold, and 1 - e^-0.25 of four hours, of which
    # e^-1.25 has not been seen.
    usual = (0.1 * (math.exp(-0.25) - math.exp(-1.25)) + 1.0 - math.exp(-0.25)) / (1.0 - math.exp(-1.25))
    assert ratio[-1] == pytest.approx((0.1 * math.exp(-2) + 1.0 - math.exp(-2)) / usual, rel=0.01)


def test_usual_gap_is_the_mean_time_between_trades() -> None:
    state = new_state(2)
    result = compute(columns(np.arange(0.0, 900.0, 3.0).tolist(), [100.0] * 300), state=state)
    assert result.context[-1, USUAL_GAP] == pytest.approx(3.0, rel=0.01)
    assert usual_gaps(state).tolist() == [pytest.approx(3.0, rel=0.01), 0.0]


def test_a_price_level_of_1e7_keeps_the_variance_of_its_moves() -> None:
    rng = np.random.default_rng(2)
    moves = np.cumsum(rng.normal(0.0, 1e-6, 600))
    small = compute(columns(np.arange(600).tolist(), (100.0 * np.exp(moves)).tolist()))
    large = compute(columns(np.arange(600).tolist(), (1e7 * np.exp(moves)).tolist()))
    assert feature(large, "log_grid_variance_300s")[-1] == pytest.approx(
        feature(small, "log_grid_variance_300s")[-1], rel=1e-4
    )
