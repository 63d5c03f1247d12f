"""Likeness of paths: dynamic time warping by hand, and what must not matter."""

import math

import numpy as np
import pytest

from tests.forecasts import flat
from tests.training_data import sample as dataset
from training import data, paths, samples
from training.paths import Measured
from training.samples import Sample


def test_warping_finds_a_path_that_comes_one_step_late() -> None:
    path = np.array([0.0, 0.0, 1.0, 2.0, 1.0, 0.0])
    early = np.array([0.0, 1.0, 2.0, 1.0, 0.0, 0.0])
    # Step for step 0, 1, 1, 1, 1, 0 apart; one step of 60 s may be warped away, for the band holds five.
    assert paths.warped(path, early, 60) == 0.0
    assert paths.warped(path, early, 301) == pytest.approx(math.sqrt(4 / 6))


def test_warping_by_hand() -> None:
    # 0-0, 0-0, 3-2, 4-4: one step of 1 remains; the first 0 of the one stands for both of the other.
    assert paths.warped(np.array([0.0, 3.0, 4.0, 4.0]), np.array([0.0, 0.0, 2.0, 4.0]), 60) == pytest.approx(0.5)


def test_band_ends_after_five_minutes() -> None:
    pulse, late, too_late = np.zeros((3, 40))
    pulse[10], late[15], too_late[16] = 1.0, 1.0, 1.0
    assert paths.warped(pulse, late, 60) == 0.0
    assert paths.warped(pulse, too_late, 60) == pytest.approx(math.sqrt(2 / 40))


def made_sample() -> Sample:
    (one,) = dataset().series
    one = one._replace(realized_variance=one.realized_variance.copy())
    return samples.sample(one, {"flat@1": flat(len(one.clock_ns))})


def test_truth_is_like_itself_whatever_its_level_and_unit() -> None:
    one = made_sample()
    realized = np.maximum(one.realized(data.TEST, 0), 1e-8)
    one.series.realized_variance[one.rows[data.TEST], 0] = realized
    found = paths.measure(one, np.stack((realized, 4.0 * realized, 1e-8 / realized)), 0)
    assert found.steps > samples.LEAST_ROWS
    assert found.likeness[:, 0] == pytest.approx([1.0, 1.0, -1.0])
    assert found.likeness[:2, 1] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found.likeness[2, 1] > 0.5


def test_instrument_without_test_rows_has_no_path() -> None:
    one = made_sample()
    bare = one._replace(rows=one.rows | {data.TEST: np.empty(0, np.int64)})
    assert paths.measure(bare, np.empty((2, 0)), 0).steps == 0


def test_path_that_never_moves_has_no_likeness() -> None:
    one = made_sample()
    found = paths.measure(one, np.full((1, len(one.rows[data.TEST])), 1e-8), 0)
    assert found.steps == 0
    assert paths.paths(["flat@1"], [found]) is None


def test_instruments_count_by_their_steps() -> None:
    found = paths.paths(
        ["gru@1"],
        [Measured(30, np.array([[1.0, 0.0]])), Measured(90, np.array([[0.2, 0.8]])), Measured(0, np.zeros((1, 2)))],
    )
    assert found is not None
    assert found.steps == 120
    (mean,) = found.models
    assert mean.model == "gru@1"
    assert (mean.correlation, mean.distance) == pytest.approx((0.4, 0.6))
