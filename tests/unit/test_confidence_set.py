"""The model confidence set on made losses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training import confidence_set
from training.confidence_set import SIZE

SECONDS = 10


def overlapping(rows: int, seed: int) -> NDArray[np.float64]:
    """Noise that horizons of SECONDS share: float64[rows]."""
    noise = np.random.default_rng(seed).standard_normal(rows + SECONDS - 1)
    return np.convolve(noise, np.ones(SECONDS) / SECONDS, "valid")


def test_far_worse_model_is_thrown_out_and_the_best_stays() -> None:
    common = overlapping(2000, 0)
    best, far = common + 0.3 * overlapping(2000, 1), common + 0.3 * overlapping(2000, 2) + 1.0
    p = confidence_set.p_values(np.column_stack((far, best)), SECONDS)
    assert p is not None
    assert p[0] < 0.01
    assert p[1] == 1.0


def test_equal_models_stay_together_nine_times_of_ten() -> None:
    """Two models of one expectation on 20 tapes: a set of 90 % may lose one on two of them."""
    kept = 0
    for seed in range(20):
        pair = np.column_stack((overlapping(1000, 2 * seed), overlapping(1000, 2 * seed + 1)))
        p = confidence_set.p_values(pair, SECONDS)
        assert p is not None
        kept += bool((p >= SIZE).all())
    assert 16 <= kept <= 20


def test_overlap_is_not_taken_for_evidence() -> None:
    """Rows resampled one by one would call two equal models different; blocks of horizons do not."""
    pair = np.column_stack((overlapping(1000, 6), overlapping(1000, 7)))
    blocked, naive = confidence_set.p_values(pair, SECONDS), confidence_set.p_values(pair, 1)
    assert blocked is not None
    assert naive is not None
    assert blocked.min() > naive.min()


def test_model_that_repeats_another_shares_its_fate() -> None:
    one, other = overlapping(500, 3), overlapping(500, 4) + 2.0
    p = confidence_set.p_values(np.column_stack((one, other, one, other)), SECONDS)
    assert p is not None
    assert p[0] == p[2] == 1.0
    assert p[1] == p[3] < 0.01


def test_models_that_never_differ_are_all_in() -> None:
    same = overlapping(500, 5)
    p = confidence_set.p_values(np.column_stack((same, same)), SECONDS)
    assert p is not None
    assert p.tolist() == [1.0, 1.0]


def test_seed_fixes_the_result() -> None:
    losses = np.column_stack([overlapping(500, seed) for seed in range(3)])
    once, again = confidence_set.p_values(losses, SECONDS), confidence_set.p_values(losses, SECONDS)
    assert once is not None
    assert again is not None
    assert once.tolist() == again.tolist()


@pytest.mark.parametrize(("rows", "there"), [(99, False), (100, True)])
def test_fewer_than_ten_horizons_make_no_set(rows: int, there: bool) -> None:
    losses = np.column_stack((overlapping(rows, 8), overlapping(rows, 9)))
    assert (confidence_set.p_values(losses, SECONDS) is not None) == there
