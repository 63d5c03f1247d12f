"""Back-tests of VaR and expected shortfall, for forecasts whose horizons do not overlap.

Losses are positive. A test says how likely data as bad as these are if the forecasts are right: a small p-value speaks
against the forecasts, a large one does not prove them, least of all with few exceptions.
"""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from stream.core.outcomes import RED_CHANCE, YELLOW_CHANCE

LEAST_TESTS: Final = 100
"""Below it a VaR of 99 % has less than one exception to expect, and no test says anything."""
ES_LEVEL: Final = 0.975
SIMULATIONS: Final = 4000


class VarTests(msgspec.Struct, frozen=True):
    """What the tests of one VaR say."""

    tests: int
    exceptions: int
    kupiec_p: float  # as many exceptions as promised?
    independence_p: float  # not in a row?
    conditional_coverage_p: float  # both
    basel: str


def var_tests(exceptions: NDArray[np.bool_], chance: float) -> VarTests:
    """Kupiec (1995), Christoffersen (1998) and Basel's traffic light (1996).

    Parameters
    ----------
    exceptions : bool[T]
        In order of time, whether the loss exceeded the VaR.
    chance
        Probability of one if the VaR is right: 0.01 for 99 %.

    Raises
    ------
    ValueError
        If there are no tests or `chance` lies outside (0, 1).
    """
    if len(exceptions) == 0 or not 0.0 < chance < 1.0:
        raise ValueError(f"need tests and 0 < chance < 1: {len(exceptions)=}, {chance=}")
    count = int(exceptions.sum())
    coverage, independence = kupiec(len(exceptions), count, chance), christoffersen(exceptions)
    return VarTests(
        len(exceptions),
        count,
        _tail_1(coverage),
        _tail_1(independence),
        _tail_2(coverage + independence),
        traffic_light(len(exceptions), count, chance),
    )


def traffic_light(tests: int, exceptions: int, chance: float) -> str:
    """The worker's zones (stream.core.outcomes.zone), for any number of tests: green, yellow or red."""
    so_many = float(binom.sf(exceptions - 1, tests, chance))
    return "red" if so_many <= RED_CHANCE else "yellow" if so_many <= YELLOW_CHANCE else "green"


def kupiec(tests: int, exceptions: int, chance: float) -> float:
    """Likelihood ratio of the observed share of exceptions against `chance`; chi-squared, 1 degree of freedom."""
    share = exceptions / tests
    observed = _log_likelihood(exceptions, tests - exceptions, share)
    return 2.0 * (observed - _log_likelihood(exceptions, tests - exceptions, chance))


def christoffersen(exceptions: NDArray[np.bool_]) -> float:
    """Likelihood ratio of a first-order Markov chain against independence; chi-squared, 1 degree of freedom."""
    before, after = exceptions[:-1], exceptions[1:]
    after_none = (int((~before & after).sum()), int((~before & ~after).sum()))
    after_one = (int((before & after).sum()), int((before & ~after).sum()))
    both = (after_none[0] + after_one[0], after_none[1] + after_one[1])
    chain = sum(_log_likelihood(*counts, _share(*counts)) for counts in (after_none, after_one))
    return max(0.0, 2.0 * (chain - _log_likelihood(*both, _share(*both))))


def _share(hits: int, misses: int) -> float:
    return hits / max(hits + misses, 1)


def _log_likelihood(hits: int, misses: int, chance: float) -> float:
    """Of a Bernoulli sequence; 0 log 0 is 0."""
    hit = hits * math.log(chance) if hits else 0.0
    return hit + (misses * math.log1p(-chance) if misses else 0.0)


def _tail_1(statistic: float) -> float:
    """P(chi-squared with 1 degree of freedom > statistic)."""
    return math.erfc(math.sqrt(max(statistic, 0.0) / 2.0))


def _tail_2(statistic: float) -> float:
    """P(chi-squared with 2 degrees of freedom > statistic)."""
    return math.exp(-max(statistic, 0.0) / 2.0)


class ShortfallTest(msgspec.Struct, frozen=True):
    """Acerbi and Szekely's second test."""

    tests: int
    exceptions: int  # of the VaR at the same level
    statistic: float  # 0 is expected; below 0 the losses are larger or more frequent than forecast
    p: float  # one-sided, against an ES that is too small


def shortfall_test(
    loss: NDArray[np.float64],
    value_at_risk: NDArray[np.float64],
    shortfall: NDArray[np.float64],
    rng: np.random.Generator,
    level: float = ES_LEVEL,
) -> ShortfallTest:
    """Acerbi and Szekely (2014), test 2: Z = 1 - sum(loss * exception / ES) / (T (1 - level)).

    Its distribution under the forecasts is simulated, with losses beyond the VaR exponential of the mean that ES and
    VaR imply: so much is all that VaR and ES say of a tail.

    Parameters
    ----------
    loss, value_at_risk, shortfall : float64[T]
        At one level; 0 < value_at_risk <= shortfall.

    Raises
    ------
    ValueError
        If there are no tests, or a shortfall is below its VaR or not above 0.
    """
    if len(loss) == 0 or not (shortfall > 0).all() or not (shortfall >= value_at_risk).all():
        raise ValueError(f"need tests with 0 < ES and VaR <= ES: {len(loss)=}")
    exceeded = loss > value_at_risk
    expected = len(loss) * (1.0 - level)
    statistic = 1.0 - float((loss[exceeded] / shortfall[exceeded]).sum()) / expected
    simulated = _simulate(value_at_risk, shortfall, 1.0 - level, rng)
    # The observation counts as one of the draws, so that p is never 0 (Davison and Hinkley 1997, eq. 4.11).
    p = (1 + int((simulated <= statistic).sum())) / (SIMULATIONS + 1)
    return ShortfallTest(len(loss), int(exceeded.sum()), statistic, p)


def _simulate(
    value_at_risk: NDArray[np.float64], shortfall: NDArray[np.float64], chance: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Statistics of so many tapes that behave as forecast: float64[SIMULATIONS]."""
    tests = len(shortfall)
    counts = rng.binomial(tests, chance, SIMULATIONS)
    row = rng.integers(tests, size=int(counts.sum()))
    beyond = rng.exponential(size=len(row)) * (shortfall[row] - value_at_risk[row])
    ratio = (value_at_risk[row] + beyond) / shortfall[row]
    tape = np.repeat(np.arange(SIMULATIONS), counts)
    return 1.0 - np.bincount(tape, ratio, SIMULATIONS) / (tests * chance)
