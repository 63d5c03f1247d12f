"""QLIKE apart by hour and regime: groups by hand, borders from the training part alone."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.features import INDEX
from tests.forecasts import flat
from tests.training_data import sample as dataset
from training import data, regimes, samples
from training.samples import Sample
from training.volatility import Losses

FEATURE = "log_grid_variance_300s"
COLUMN = INDEX[FEATURE]


def made_sample(training: list[float], test: list[float]) -> Sample:
    """A sample whose feature takes these values at its training and test rows."""
    (one,) = dataset().series
    made = samples.sample(one, {"flat@1": flat(len(one.clock_ns))})
    rows = {
        data.TRAIN: made.rows[data.TRAIN][: len(training)],
        data.VALIDATION: made.rows[data.VALIDATION],
        data.TEST: made.rows[data.TEST][: len(test)],
    }
    features = one.features.copy()
    features[rows[data.TRAIN], COLUMN] = training
    features[rows[data.TEST], COLUMN] = test
    return made._replace(series=one._replace(features=features), rows=rows)


def test_thirds_by_hand() -> None:
    # Of 0 to 30 the terciles are 10 and 20; what lies on a border belongs to the lower third.
    one = made_sample(list(np.arange(31.0)), [-5.0, 10.0, 10.5, 20.0, 21.0, 99.0])
    assert [group.tolist() for group in regimes.thirds([one], FEATURE)] == [[0, 0, 1, 1, 2, 2]]


def test_wild_test_part_moves_no_border() -> None:
    """The same rows stay where they are when the rows beside them in the test part go wild."""
    calm = made_sample(list(np.arange(31.0)), [5.0, 15.0, 25.0, 5.0, 15.0, 25.0])
    wild = made_sample(list(np.arange(31.0)), [5.0, 15.0, 25.0, 5e3, 5e3, 5e3])
    (before,), (after,) = regimes.thirds([calm], FEATURE), regimes.thirds([wild], FEATURE)
    assert before[:3].tolist() == after[:3].tolist() == [0, 1, 2]


def test_instrument_without_training_rows_takes_the_borders_of_the_file() -> None:
    known, fresh = made_sample(list(np.arange(31.0)), [15.0]), made_sample([], [5.0, 15.0, 25.0])
    assert [group.tolist() for group in regimes.thirds([known, fresh], FEATURE)] == [[1], [0, 1, 2]]


def made_losses(qlike: NDArray[np.float64]) -> Losses:
    """Losses of one model."""
    rest: Any = np.zeros_like(qlike)
    return Losses(np.arange(qlike.shape[1]), qlike, rest, rest, rest)


def test_groups_by_hand() -> None:
    group = np.repeat([0, 2, 1], [30, 40, 29])
    losses = [made_losses(np.arange(2 * 50.0).reshape(2, 50)), made_losses(np.ones((2, 49)))]
    found = regimes._groups(["a@1", "EWMA"], ("low", "middle", "high"), group, losses)
    # 29 rows are too few. Rows 30 to 49 and 20 ones: (790 + 20) / 40 and (1790 + 20) / 40.
    assert [(one.name, one.rows) for one in found] == [("low", 30), ("high", 40)]
    assert found[0].qlike == {"a@1": pytest.approx(14.5), "EWMA": pytest.approx(64.5)}
    assert found[1].qlike == {"a@1": pytest.approx(20.25), "EWMA": pytest.approx(45.25)}


def test_hour_is_of_the_day_in_utc() -> None:
    one = made_sample([], [0.0, 0.0])
    clock = one.series.clock_ns.copy()
    clock[one.rows[data.TEST]] = np.array(["2026-01-30T23:59:59", "2026-01-31T00:00:00"], "datetime64[ns]").astype(int)
    shifted = one._replace(series=one.series._replace(clock_ns=clock))
    assert regimes.hour(shifted).tolist() == [23, 0]
    assert (regimes.HOURS[23], regimes.HOURS[0]) == ("23:00", "00:00")
