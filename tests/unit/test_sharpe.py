"""Sharpe ratios: worked by hand, and the example of Bailey and Lopez de Prado (2014)."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from training import sharpe


def test_ratio_by_hand() -> None:
    """Mean 1, deviations -1, -1, 2: root of the mean square sqrt(2)."""
    assert sharpe.ratio(np.array([0.0, 0.0, 3.0])) == pytest.approx(1.0 / math.sqrt(2.0))


@pytest.mark.parametrize("level", [0.0, 0.1, -0.3])
def test_what_never_changes_has_no_ratio(level: float) -> None:
    returns = np.full(1001, level)
    assert sharpe.ratio(returns) == 0.0
    assert sharpe.interval(returns, 0)[:2] == (0.0, 0.0)


def test_interval_of_independent_returns_is_that_of_theory() -> None:
    """Lo (2002): the error of a ratio S of n independent normal returns is sqrt((1 + S^2 / 2) / n)."""
    returns = np.random.default_rng(1).normal(0.05, 1.0, 20_000)
    found = sharpe.interval(returns, 2)
    ratio = sharpe.ratio(returns)
    error = math.sqrt((1.0 + ratio**2 / 2.0) / len(returns))
    assert found.low == pytest.approx(ratio - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(ratio + 1.96 * error, abs=0.25 * error)
    assert found.block == sharpe.LEAST_BLOCK


def test_interval_is_wider_where_returns_follow_each_other() -> None:
    """The same returns, each ten times in a row: as if there were a tenth of them."""
    returns = np.random.default_rng(1).normal(0.05, 1.0, 2_000)
    once, ten = sharpe.interval(returns, 2), sharpe.interval(np.repeat(returns, 10), 2)
    assert (ten.high - ten.low) / (once.high - once.low) == pytest.approx(1.0, abs=0.2)


def test_same_seed_gives_the_same_interval() -> None:
    returns = np.random.default_rng(1).normal(0.05, 1.0, 500)
    assert sharpe.interval(returns, 3) == sharpe.interval(returns, 3)
    assert sharpe.interval(returns, 3) != sharpe.interval(returns, 4)


def test_confidence_by_hand() -> None:
    """Ratio 0.1 over 101 normal periods: 0.1 sqrt(100) / sqrt(1 + 0.01 / 2)."""
    assert sharpe.confidence(0.1, 0.0, 101) == pytest.approx(norm.cdf(1.0 / math.sqrt(1.005)))
    assert sharpe.confidence(0.1, 0.1, 101) == 0.5


def test_example_of_the_paper() -> None:
    """2.5 a year over 1,250 days of 250, skewness -3, kurtosis 10; 100 tries, variance 0.5 a year."""
    deviation = math.sqrt(0.5 / 250.0)
    least = sharpe.luckiest([0.0, math.sqrt(2.0) * deviation], 100)
    assert least == pytest.approx(0.1132, abs=5e-5)
    assert sharpe.confidence(2.5 / math.sqrt(250.0), least, 1250, -3.0, 10.0) == pytest.approx(0.9004, abs=5e-5)


def test_one_try_has_no_luck() -> None:
    assert sharpe.luckiest([0.1, 0.2], 1) == 0.0
    with pytest.raises(ValueError, match="two ratios"):
        sharpe.luckiest([0.1], 3)


def test_deflated_takes_skewness_and_kurtosis_of_the_returns() -> None:
    """Less their mean of 1: -2, -2, -2, 6; mean square 12, cube 48, fourth power 336."""
    returns = np.array([-1.0, -1.0, -1.0, 7.0])
    by_hand = sharpe.confidence(1.0 / math.sqrt(12.0), 0.0, 4, 48.0 / 12.0**1.5, 336.0 / 144.0)
    assert sharpe.deflated(returns, 0.0) == pytest.approx(by_hand)


def test_more_tries_leave_less() -> None:
    returns = np.random.default_rng(1).normal(0.05, 1.0, 2_000)
    left = [sharpe.deflated(returns, sharpe.luckiest([0.0, 0.02], tries)) for tries in (1, 5, 50)]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[2] + 0.01


def test_doing_nothing_is_never_better_than_luck() -> None:
    assert sharpe.deflated(np.zeros(100), 0.01) == 0.0
