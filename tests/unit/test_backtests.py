"""Back-tests of VaR and ES against answers worked by hand."""

import math

import numpy as np
import pytest

from stream.core.outcomes import zone
from training import backtests


def exceptions_at(tests: int, *places: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    exceptions = np.zeros(tests, np.bool_)
    exceptions[list(places)] = True
    return exceptions


def test_kupiec_is_zero_where_the_share_is_as_promised() -> None:
    assert backtests.kupiec(1000, 10, 0.01) == pytest.approx(0.0, abs=1e-12)


def test_kupiec_of_no_exception_is_the_log_of_the_chance_of_none() -> None:
    # -2 log(0.99^250) = 500 * 0.0100503359 = 5.02516793
    assert backtests.kupiec(250, 0, 0.01) == pytest.approx(5.02516793, rel=1e-8)


def test_kupiec_of_ten_in_250() -> None:
    # 2 [10 log(0.04 / 0.01) + 240 log(0.96 / 0.99)] = 2 [13.86294361 - 7.38519850] = 12.9554902
    assert backtests.kupiec(250, 10, 0.01) == pytest.approx(12.9554902, rel=1e-7)


def test_christoffersen_counts_what_follows_what() -> None:
    # 0 0 1 1 0 0 0 0 0 0 0: pairs 00: 7, 01: 1, 10: 1, 11: 1; alone 2 of 10 are exceptions.
    chain = math.log(1 / 8) + 7 * math.log(7 / 8) + 2 * math.log(1 / 2)
    alone = 2 * math.log(0.2) + 8 * math.log(0.8)
    assert backtests.christoffersen(exceptions_at(11, 2, 3)) == pytest.approx(2 * (chain - alone), rel=1e-12)


def test_exceptions_in_a_row_fail_independence_and_spread_ones_do_not() -> None:
    together = backtests.var_tests(exceptions_at(1000, *range(500, 510)), 0.01)
    apart = backtests.var_tests(exceptions_at(1000, *range(0, 1000, 100)), 0.01)
    assert together.kupiec_p == pytest.approx(1.0)
    assert apart.kupiec_p == pytest.approx(1.0)
    assert together.independence_p < 1e-6
    assert together.conditional_coverage_p < 1e-6
    assert apart.independence_p > 0.5


def test_p_values_are_those_of_the_tables() -> None:
    # Chi-squared: 3.841 is the 5 % border of 1 degree of freedom, 5.991 that of 2.
    assert backtests._tail_1(3.841459) == pytest.approx(0.05, abs=1e-6)
    assert backtests._tail_2(5.991465) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("count", "light"), [(4, "green"), (5, "yellow"), (9, "yellow"), (10, "red")])
def test_basel_zones_of_250(count: int, light: str) -> None:
    assert backtests.var_tests(exceptions_at(250, *range(0, 25 * count, 25)), 0.01).basel == light


@pytest.mark.parametrize("tests", [20, 100, 250])
def test_traffic_light_is_the_workers(tests: int) -> None:
    for count in range(tests // 10):
        worker = ("green", "yellow", "red")[zone(tests, count)]
        assert backtests.traffic_light(tests, count, 0.01) == worker


def test_traffic_light_of_many_tests() -> None:
    # Of 4,000 tests 40 are expected with a deviation of sqrt(39.6) = 6.3: 52 is 1.9 of them away, 66 is 4.1.
    assert [backtests.traffic_light(4000, k, 0.01) for k in (40, 52, 66)] == ["green", "yellow", "red"]


def test_no_tests_or_no_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="need tests"):
        backtests.var_tests(exceptions_at(0), 0.01)
    with pytest.raises(ValueError, match="chance"):
        backtests.var_tests(exceptions_at(10), 1.0)


def test_shortfall_statistic_by_hand() -> None:
    # 40 tests expect 1 exception; two losses of 3 and 5 with ES 4: Z = 1 - (3/4 + 5/4) / 1 = -1.
    loss = np.zeros(40)
    loss[[3, 20]] = 3.0, 5.0
    found = backtests.shortfall_test(loss, np.full(40, 2.0), np.full(40, 4.0), np.random.default_rng(0))
    assert found.statistic == pytest.approx(-1.0)
    assert found.exceptions == 2


def test_right_forecasts_are_rejected_about_as_often_as_promised() -> None:
    """Losses with an exponential tail: VaR 97.5 % is log 40 and ES one more."""
    rng = np.random.default_rng(1)
    var, es = np.full(500, math.log(40)), np.full(500, math.log(40) + 1)
    p = [backtests.shortfall_test(rng.exponential(size=500), var, es, rng).p for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10


def test_losses_twice_as_large_are_rejected() -> None:
    rng = np.random.default_rng(2)
    var, es = np.full(500, math.log(40)), np.full(500, math.log(40) + 1)
    assert backtests.shortfall_test(2.0 * rng.exponential(size=500), var, es, rng).p < 0.001


def test_shortfall_below_its_var_is_refused() -> None:
    with pytest.raises(ValueError, match="VaR <= ES"):
        backtests.shortfall_test(np.zeros(5), np.full(5, 2.0), np.full(5, 1.0), np.random.default_rng(0))
