"""Ticks to series with targets: by hand, without a look ahead, and refused where there is too little."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stream.config import Settings
from stream.core import features as kernel
from stream.errors import BadFile, TapewatchError
from stream.messages import HORIZONS
from stream.pipeline import feature_rules
from tests.ticks import SECOND, columns
from tests.training_data import SAMPLE, sample, write_sample
from training import baselines, data

TEN, SIXTY = range(2)
ONE_SESSION = np.zeros(200, np.int64)


def test_targets_by_hand() -> None:
    # Prices 100, 101 at 0.5 s, 99 at 3 s and 102 at 9.5 s; nothing more until 70 s.
    clock = (np.array([0.0, 0.5, 3.0, 9.5, 70.0]) * SECOND).astype(np.int64)
    price = np.log([100.0, 101.0, 99.0, 102.0, 90.0])
    log_return, variance = data.targets(clock, ONE_SESSION[:5], price)
    assert log_return[0, TEN] == pytest.approx(np.log(102 / 100))
    # Steps of one second from 0: to 101 in the first, to 99 at 3, to 102 in the tenth.
    steps = np.log([101 / 100, 99 / 101, 102 / 99])
    assert variance[0, TEN] == pytest.approx((steps**2).sum())
    assert variance[0, SIXTY] == pytest.approx((steps**2).sum())
    assert log_return[3, SIXTY] == pytest.approx(0.0)  # at 69.5 s the price still stands
    assert np.isnan(log_return[4]).all(), "nothing is known after the last tick"


def test_targets_count_the_tick_at_the_very_end_of_the_horizon() -> None:
    clock = np.array([0, 10, 10, 61], np.int64) * SECOND
    log_return, _ = data.targets(clock, ONE_SESSION[:4], np.log([100.0, 101.0, 103.0, 90.0]))
    assert log_return[0, TEN] == pytest.approx(np.log(1.03))


def test_no_target_crosses_a_session() -> None:
    clock = np.array([0, 5, 8, 4000, 4005, 4100], np.int64) * SECOND
    session = np.array([0, 0, 0, 1, 1, 1])
    log_return, variance = data.targets(clock, session, np.log(np.linspace(100, 101, 6)))
    assert np.isnan(log_return[:3]).all()
    assert np.isnan(variance[:3]).all()
    assert np.isfinite(log_return[3]).all()


def test_every_second_weighs_the_same() -> None:
    (one,) = sample().series
    seconds = one.clock_ns // SECOND
    totals = [one.weight[seconds == second].sum() for second in np.unique(seconds)[:200]]
    assert totals == pytest.approx(np.ones(200))


def test_windows_are_those_of_the_kernel() -> None:
    rng = np.random.default_rng(0)
    ticks = columns(np.cumsum(rng.exponential(0.5, 100)).tolist(), np.exp(np.cumsum(rng.normal(0, 1e-4, 100))).tolist())
    out = kernel.compute(kernel.new_state(1), ticks, feature_rules(Settings()))
    (one,) = sample().series
    made = data.windows(one._replace(features=out.features), np.arange(100))
    assert np.array_equal(made, out.window)


def test_what_comes_later_changes_nothing_before(tmp_path: Path) -> None:
    """Shuffle the prices and sizes of the future: features and targets that end before it keep every bit."""
    plain = data.load([write_sample(tmp_path / "a.parquet")], data.quiet).series[0]
    rng = np.random.default_rng(3)
    cut = 15_000
    later = cut + rng.permutation(5_000)
    table = {name: pq_column(tmp_path / "a.parquet", name) for name in ("price", "size")}
    shuffled = {name: np.concatenate((column[:cut], column[later])) for name, column in table.items()}
    other = data.load(
        [write_sample(tmp_path / "b.parquet", price=shuffled["price"], size=shuffled["size"])], data.quiet
    )
    changed = other.series[0]
    assert np.array_equal(plain.features[:cut], changed.features[:cut])
    assert not np.array_equal(plain.features[cut:], changed.features[cut : len(plain.features)])
    ended = plain.clock_ns[:cut] + max(HORIZONS) * SECOND < plain.clock_ns[cut]
    assert np.array_equal(plain.log_return[:cut][ended], changed.log_return[:cut][ended], equal_nan=True)
    assert np.array_equal(plain.part, changed.part[: len(plain.part)])


def pq_column(path: Path, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = pq.read_table(path)[name].to_numpy()
    return values


def test_parts_are_apart_by_the_longest_horizon() -> None:
    one = data.load([SAMPLE], data.quiet).series[0]
    bounds = [(one.clock_ns[one.part == part].min(), one.clock_ns[one.part == part].max()) for part in range(3)]
    for (_, before), (after, _) in pairwise(bounds):
        assert after - before >= max(HORIZONS) * SECOND


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    ordered = write_sample(tmp_path / "a.parquet")
    table = pq.read_table(ordered)
    # Ticks of one time keep their order, which a shuffle would lose: take times apart.
    distinct = np.unique(table["exchange_ns"].to_numpy(), return_index=True)[1]
    pq.write_table(table.take(distinct), ordered)
    pq.write_table(table.take(np.random.default_rng(0).permutation(distinct)), tmp_path / "b.parquet")
    first, second = (data.load([tmp_path / name], data.quiet).series[0] for name in ("a.parquet", "b.parquet"))
    assert np.array_equal(first.features, second.features)


def test_no_side_is_inferred_and_trained_on(tmp_path: Path) -> None:
    one = data.load([write_sample(tmp_path / "a.parquet", side=None)], data.quiet).series[0]
    assert np.isfinite(one.features).all()
    assert (one.features[1000:, kernel.INDEX["order_flow_imbalance_60s"]] != 0).any()


def test_too_few_ticks_says_how_many_are_needed(tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match=r"small.parquet: 1,\d+ ticks to train on, 5,000 are needed"):
        data.load([write_sample(tmp_path / "small.parquet", 3_000)], data.quiet)


def test_price_that_never_moves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match="the price never changes"):
        data.load([write_sample(tmp_path / "a.parquet", price=np.full(20_000, 83.0))], data.quiet)


def test_rows_that_are_no_ticks_are_left_out_and_counted(tmp_path: Path) -> None:
    price = pq_column(write_sample(tmp_path / "a.parquet"), "price").copy()
    price[[5, 70, 9_000]] = [np.nan, -1.0, np.inf]
    lines: list[str] = []
    one = data.load([write_sample(tmp_path / "a.parquet", price=price)], lines.append).series[0]
    assert "20,000 rows, 3 are no ticks (range 3), 0 refused as a worker would, " in lines[0]
    assert np.isfinite(one.features).all()


def test_what_a_worker_would_refuse_is_told_by_reason_and_pauses_too(tmp_path: Path) -> None:
    names = ("price", "exchange_ns")
    table: dict[str, Any] = {name: pq_column(write_sample(tmp_path / "a.parquet"), name).copy() for name in names}
    table["price"][9_000] *= 2
    table["exchange_ns"][10_000:] += 5 * 3600 * SECOND
    trade_id = np.arange(20_000)
    trade_id[7_000] = trade_id[6_999]
    lines: list[str] = []
    data.load([write_sample(tmp_path / "a.parquet", **table, trade_id=trade_id)], lines.append)
    assert "2 refused as a worker would (duplicate 1, band 1)" in lines[0]
    assert lines[0].endswith("1 instruments, 1 pauses of a session, the longest 5.0 h")


def test_two_files_with_the_same_trades_are_refused_whole_or_in_part_and_a_shared_border_is_not(tmp_path: Path) -> None:
    whole = write_sample(tmp_path / "whole.parquet")
    table = pq.read_table(whole)
    pieces = {"again": (0, 20_000), "part": (4_000, 10_000), "first": (0, 12_000), "next": (11_950, 8_000)}
    for name, (start, count) in pieces.items():
        pq.write_table(table.slice(start, count), tmp_path / f"{name}.parquet")
    for name in ("again", "part"):
        with pytest.raises(
            TapewatchError, match=rf"whole.parquet and {name}.parquet hold the same trades: [\d,]+ of LTC"
        ):
            data.load([whole, tmp_path / f"{name}.parquet"], data.quiet)
    assert len(data.load([tmp_path / "first.parquet", tmp_path / "next.parquet"], data.quiet).series) == 2


def test_file_that_is_none_of_ticks_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="has no column price"):
        data.load([write_sample(tmp_path / "a.parquet", price=None)], data.quiet)


def test_ewma_is_the_grid_variance_times_the_horizon() -> None:
    features = np.zeros((1, len(kernel.FEATURES)), np.float32)
    features[0, kernel.INDEX["log_grid_variance_300s"]] = np.log(4e-8)
    assert baselines.ewma(features, 300)[0] == pytest.approx([4e-7, 24e-7], rel=1e-5)


def test_last_value_is_known_at_the_tick() -> None:
    (one,) = sample().series
    last = baselines.last_value(one)
    row = 5_000
    before = int(np.searchsorted(one.clock_ns, one.clock_ns[row] - 10 * SECOND, "right")) - 1
    assert one.clock_ns[before] + 10 * SECOND <= one.clock_ns[row]
    assert last[row, TEN] == pytest.approx(max(one.realized_variance[before, TEN], baselines.LEAST_VARIANCE))


def test_qlike_is_least_at_the_realised_variance() -> None:
    realized = np.array([[1e-6, 1e-6]])
    at = float(baselines.qlike(realized, realized)[0, 0])
    assert float(baselines.qlike(realized * 1.1, realized)[0, 0]) > at
    assert float(baselines.qlike(realized * 0.9, realized)[0, 0]) > at


def test_pinball_by_hand() -> None:
    quantiles = np.zeros((1, 1, 5))
    # A return of 1 misses each quantile at 0 by level * 1: 0.01 + 0.05 + 0.5 + 0.95 + 0.99.
    assert baselines.pinball(quantiles, np.array([[1.0]]))[0, 0] == pytest.approx(2.5)
    assert baselines.pinball(quantiles, np.array([[-1.0]]))[0, 0] == pytest.approx(2.5)
