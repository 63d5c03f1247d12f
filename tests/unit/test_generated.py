"""What is measured of generated windows: nothing of real ones given as generated, much of noise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stream.config import DEFAULT_MODELS
from stream.core.features import WINDOW
from stream.feeds.generator import Generator, newest
from stream.inference import read_card
from tests.training_data import sample
from training import data, generated
from training.cards import DISCRIMINATIVE_WANTED
from training.generated import Settings, Windows

SMALL = Settings(windows=600, seeds=2, rounds=40, batch=32, hidden=8, learning_rate=1e-2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Windows of the sample's test part, and what ships makes at their scales."""
    return generated.sample(Generator(newest(Path(DEFAULT_MODELS))), sample(), SMALL.windows, 0)


def test_windows_are_in_the_instruments_own_units(windows: Windows) -> None:
    (one,) = sample().series
    assert windows.real.shape == windows.generated.shape
    assert 500 < len(windows.learnt) < int((one.part == data.TRAIN).sum())
    assert windows.real.shape[1:] == (WINDOW, 3)
    assert 500 < len(windows.real) < int((one.part == data.TEST).sum())
    for of in windows:
        assert np.isfinite(of).all()
        # A trade moves the price by less than a second's volatility, more or less.
        assert 0.01 < np.abs(of[:, :, 0]).mean() < 10.0


def test_real_windows_are_not_told_from_real_ones_and_noise_is(windows: Windows) -> None:
    half = len(windows.real) // 2
    order = np.random.default_rng(0).permutation(len(windows.real))
    alike = windows._replace(real=windows.real[order[:half]], generated=windows.real[order[half : 2 * half]])
    noise = windows._replace(generated=np.random.default_rng(1).normal(0.0, 1.0, windows.real.shape))
    seen, held = np.arange(half // 2), np.arange(half // 2, half)
    assert generated._discriminative(*generated._standard(alike), seen, held, SMALL, 0) < 0.25
    other = generated.scores(noise, SMALL)
    assert other["discriminative"]["mean"] > 0.4
    assert other["predictive"]["mean"] > other["predictive_trained_on_real"]["mean"]


def test_facts_of_real_windows_lie_in_their_own_band_and_those_of_noise_do_not(windows: Windows) -> None:
    facts = generated.stylised_facts(windows._replace(generated=windows.real, learnt=windows.real), 0)
    assert len(facts) == 10
    for fact in facts.values():
        assert fact["low"] <= fact["real"] <= fact["high"]
        assert fact["generated"] == fact["learnt"] == fact["real"]
    noise = np.random.default_rng(1).normal(0.0, 1.0, windows.real.shape)
    outside = [
        name
        for name, fact in generated.stylised_facts(windows._replace(generated=noise), 0).items()
        if not fact["low"] <= fact["generated"] <= fact["high"]
    ]
    assert {"clustering_of_moves_lag_1", "share_of_unchanged_prices", "clustering_of_sides_lag_1"} <= set(outside)


def test_correlation_over_windows_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    rows = np.array([0, 3, 3])
    expected = np.corrcoef(first[rows].ravel(), second[rows].ravel())[0, 1]
    assert generated._correlation(first, second)(rows) == pytest.approx(expected)


def test_the_same_seed_measures_the_same(windows: Windows) -> None:
    assert generated.stylised_facts(windows, 3) == generated.stylised_facts(windows, 3)


def test_the_shipped_card_holds_scores_and_facts() -> None:
    metrics = read_card(newest(Path(DEFAULT_MODELS)) / "card.json").metrics
    assert 0.0 <= metrics["scores"]["discriminative"]["mean"] <= DISCRIMINATIVE_WANTED
    assert len(metrics["stylised_facts"]) == 10
