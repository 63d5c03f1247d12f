"""Drift of the features: the index by hand, the window by a clock of ours, and what the worker shows."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream.config import DEFAULT_MODELS
from stream.core import drift
from stream.core.features import FEATURES
from stream.inference import Card, Histogram, read_card
from stream.metrics import Metrics
from stream.telemetry import DRIFT_SECONDS, Drift
from tests import bundles
from tests.ticks import chunk
from tests.unit.test_metrics import samples
from tests.unit.test_pipeline import pipeline, ticks

EDGES = np.array([[0.0]])
WARM = np.zeros(16, np.bool_)
EIGHTS = np.arange(0, 16 * drift.EVERY, drift.EVERY)


def column(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32)[:, None]


def test_the_index_is_the_one_by_hand() -> None:
    expected = np.array([[[0.5, 0.5]]])
    assert drift.stability_index(expected, np.array([[50, 50]])).tolist() == [0.0]
    by_hand = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert drift.stability_index(expected, np.array([[80, 20]]))[0] == pytest.approx(by_hand)


def test_the_training_file_that_is_most_like_now_counts() -> None:
    expected = np.array([[[0.5, 0.5], [0.8, 0.2]]])
    assert drift.stability_index(expected, np.array([[80, 20]])).tolist() == [0.0]


def test_an_empty_bin_leaves_the_index_finite() -> None:
    assert 1 < drift.stability_index(np.array([[[0.5, 0.5]]]), np.array([[100, 0]]))[0] < 10


def test_one_tick_in_so_many_counts_and_none_that_is_warming() -> None:
    window = drift.Window(EDGES, 900.0)
    window.add(
        column(-1, 1, 1, 1), np.array([0, 1, drift.EVERY, 2 * drift.EVERY]), np.array([0, 0, 0, 1], np.bool_), 0.0
    )
    assert window.counts(0.0).tolist() == [[1, 1]]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window = drift.Window(EDGES, 900.0)
    window.add(column(*[-1.0] * 16), EIGHTS, WARM, 0.0)
    window.add(column(*[1.0] * 16), EIGHTS, WARM, 600.0)
    assert window.counts(899.0).tolist() == [[16, 16]]
    assert window.counts(901.0).tolist() == [[0, 16]]
    assert window.counts(10_000.0).tolist() == [[0, 0]]


def test_a_histogram_has_shares_of_each_file_that_counting_finds_again() -> None:
    rng = np.random.default_rng(0)
    files = [rng.normal(0, 1, 4000).astype(np.float32), rng.normal(3, 1, 400).astype(np.float32)]
    edges, shares = drift.histogram(files, 10)
    assert edges == sorted(set(edges))
    assert np.mean(shares, axis=0) == pytest.approx(np.full(10, 0.1), abs=0.01)
    window = drift.Window(np.array([edges]), 900.0)
    window.add(files[1][:, None], np.arange(400) * drift.EVERY, np.zeros(400, np.bool_), 0.0)
    assert drift.stability_index(np.array([shares]), window.counts(0.0)).tolist() == [0.0]


def test_a_feature_with_few_values_has_as_many_bins_as_the_others() -> None:
    edges, shares = drift.histogram([np.array([0, 0, 0, 1], np.float32)], 10)
    assert len(edges) == 9
    assert edges == sorted(set(edges))
    assert shares[0][:2] == [0.75, 0.25]
    assert sum(shares[0]) == 1.0


def card(version: str, *shares: float) -> Card:
    """Of a forecaster trained on features of which such shares lie below and above 1e30: all of now lie below."""
    shipped = read_card(bundles.shipped(Path(DEFAULT_MODELS), "gru") / "card.json")
    return msgspec.structs.replace(
        shipped, version=version, histograms=[Histogram([1e30], [list(shares)])] * len(FEATURES) if shares else []
    )


def indices(metrics: Metrics) -> list[float]:
    return [value for (name, _), value in samples(metrics).items() if name == "feature_stability_index"]


def test_the_worker_shows_the_index_of_each_feature_once_there_are_ticks_enough() -> None:
    width, old = len(FEATURES), card("1", 0.5, 0.5)
    now, metrics = 0.0, Metrics()
    shown = Drift(lambda: old, lambda: now)
    one = pipeline()
    shown.note(one.process(chunk(ticks(3000)), 1), "gru@1")
    shown.show(metrics)
    assert indices(metrics) == []
    shown.note(one.process(chunk(ticks(2000, 3000), first=3000), 1), "gru@1")
    shown.show(metrics)
    assert len(indices(metrics)) == width
    now = 2 * DRIFT_SECONDS  # too few again: what was shown stays
    shown.show(metrics)
    assert len(indices(metrics)) == width


def test_after_a_swap_the_index_is_against_the_card_of_the_new_forecaster() -> None:
    there, metrics = [card("1", 0.5, 0.5)], Metrics()
    shown = Drift(lambda: there[-1])
    one = pipeline()
    shown.note(one.process(chunk(ticks(5000)), 1), "gru@1")
    shown.show(metrics)
    assert min(indices(metrics)) > 1
    there.append(card("2", 1.0, 0.0))
    shown.note(one.process(chunk(ticks(1000, 5000), first=5000), 1), "gru@1")  # found, and not yet in force
    shown.show(metrics)
    assert min(indices(metrics)) > 1
    shown.note(one.process(chunk(ticks(1000, 6000), first=6000), 1), "gru@2")
    shown.show(metrics)
    assert indices(metrics) == []  # too few yet
    shown.note(one.process(chunk(ticks(4000, 7000), first=7000), 1), "gru@2")
    shown.show(metrics)
    assert len(indices(metrics)) == len(FEATURES)
    assert max(indices(metrics)) < 1e-3
    there.append(card("3"))
    shown.note(one.process(chunk(ticks(10, 11000), first=11000), 1), "gru@3")
    shown.show(metrics)
    assert indices(metrics) == []  # its card has no histograms


def test_without_histograms_nothing_is_shown() -> None:
    metrics, shown = Metrics(), Drift(lambda: None)
    shown.note(pipeline().process(chunk(ticks(100)), 1), "gru@1")
    shown.show(metrics)
    assert indices(metrics) == []
