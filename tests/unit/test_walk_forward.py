"""Walk-forward folds: later never trains for earlier, and the test part is in none."""

from itertools import pairwise

import numpy as np
import pytest

from stream.errors import TapewatchError
from stream.messages import HORIZONS
from tests.training_data import sample
from training import data, forecaster, walk_forward
from training.forecasters.contract import Settings

SMALL = Settings(kind="mlp", hidden=8, rounds=1, lanes=4, segment=256, burn_in=32)


def quiet(done: int, of: int, note: str) -> None:
    """No progress."""


def test_each_fold_trains_before_it_chooses_and_chooses_before_it_measures() -> None:
    (whole,) = sample().series
    ends = []
    for fold in walk_forward.folds(sample(), 3):
        (one,) = fold.series
        spans = [one.clock_ns[one.part == part] for part in (data.TRAIN, data.VALIDATION, data.TEST)]
        for before, after in pairwise(spans):
            assert after.min() - before.max() >= max(HORIZONS) * data.SECOND
        assert not (one.part[whole.part == data.TEST] != data.EMBARGO).any(), "the test part is kept aside"
        ends.append((spans[0].max(), spans[2].max()))
    assert ends == sorted(ends)
    assert len(set(ends)) == 3, "each fold knows more of the past than the one before"


def test_future_of_a_fold_changes_nothing_in_it() -> None:
    (whole,) = sample().series
    fold = next(iter(walk_forward.folds(sample(), 2))).series[0]
    end = np.flatnonzero(fold.part == data.TEST)[-1] + 1
    features, log_return = whole.features.copy(), whole.log_return.copy()
    features[end:] = np.random.default_rng(0).permutation(features[end:])
    log_return[end:] *= -3.0
    changed = sample()._replace(series=(whole._replace(features=features, log_return=log_return),))
    plain, other = (next(iter(walk_forward.folds(each, 2))) for each in (sample(), changed))
    nets = [forecaster.train(each, SMALL, 0)[0].state_dict() for each in (plain, other)]
    for name, value in nets[0].items():
        assert (value == nets[1][name]).all(), name


def test_losses_are_one_finite_number_a_fold() -> None:
    found = walk_forward.losses(sample(), SMALL, 0, 2, quiet)
    assert len(found) == 2
    assert np.isfinite(found).all()


def test_more_folds_than_the_ticks_hold_are_refused() -> None:
    (whole,) = sample().series
    few = whole._replace(part=np.where(np.arange(20_000) < 600, data.TRAIN, data.TEST).astype(np.int8))
    with pytest.raises(TapewatchError, match="fold 1 of 18 has no tick"):
        list(walk_forward.folds(sample()._replace(series=(few,)), 18))
