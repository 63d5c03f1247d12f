"""Anomalies that follow the instrument's own tape: what is learned, how far it goes, and what stays visible."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import rarity
from stream.core.rarity import RARE, RarityRules

RULES = RarityRules(Settings().rarity.step, Settings().rarity.bound)


def adjust(
    anomaly: NDArray[np.float64] | list[float],
    *,
    rules: RarityRules = RULES,
    warming: bool = False,
    state: NDArray[np.void] | None = None,
) -> NDArray[np.float64]:
    """What comes of the anomalies of one instrument."""
    count = len(anomaly)
    state = rarity.new_state(1) if state is None else state
    return rarity.adjust(state, np.zeros(count, np.int32), np.full(count, warming), np.array(anomaly), rules)


def test_a_new_instrument_shows_what_the_critic_says() -> None:
    assert adjust([0.25]).tolist() == [0.25]


def test_a_rare_tick_makes_the_next_less_rare_and_a_usual_one_a_little_rarer() -> None:
    found = 1.0 - adjust([0.999, 0.99, 0.99])
    up, down = RULES.step * (1.0 - RARE), RULES.step * RARE
    # At a tail of RARE the power is a factor.
    assert found == pytest.approx([0.001, RARE * math.exp(up), RARE * math.exp(up - down)])


def test_nothing_is_learned_while_warming_and_with_a_step_of_0() -> None:
    anomaly = np.linspace(0.9, 0.9999, 50)
    np.testing.assert_allclose(adjust(anomaly, warming=True), anomaly, rtol=1e-15)
    np.testing.assert_allclose(adjust(anomaly, rules=RarityRules(0.0, 4.0)), anomaly, rtol=1e-15)


def test_a_fault_that_goes_on_stays_above_what_is_rare() -> None:
    assert adjust(np.full(10_000, 1.0 - 1.0 / 1_900)).min() > 1.0 - RARE


def test_0_and_1_stay_where_they_are_and_the_middle_in_the_middle() -> None:
    for factor in (1.0 / RULES.bound, RULES.bound):
        state = rarity.new_state(1)
        state["log_factor"] = math.log(factor)
        nothing, middle, everything = adjust([0.0, 0.5, 1.0], state=state)
        assert (nothing, everything) == (0.0, 1.0)
        assert 0.3 < middle < 0.7


def test_instruments_do_not_know_of_each_other() -> None:
    state = rarity.new_state(2)
    anomaly = np.array([0.999, 0.5])
    found = rarity.adjust(state, np.array([1, 0], np.int32), np.zeros(2, np.bool_), anomaly, RULES)
    assert found.tolist() == pytest.approx([0.999, 0.5], rel=1e-15)
    assert state["log_factor"][0] < 0.0 < state["log_factor"][1]


@pytest.mark.parametrize("power", [0.6, 1.0, 1.5])  # how far the critic's tail probabilities are off for the instrument
def test_one_tick_in_a_hundred_comes_out_rare(power: float) -> None:
    tail = np.random.default_rng(7).random(20_000) ** power
    share = (adjust(1.0 - tail, rules=RarityRules(RULES.step, 50.0)) > 1.0 - RARE).mean()
    assert 0.8 * RARE < share < 1.2 * RARE
    assert power == 1.0 or not 0.5 * RARE < (tail < RARE).mean() < 2.0 * RARE


@settings(deadline=None)
@given(tail=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=400), bound=st.floats(1.0, 50.0))
def test_the_share_of_rare_ticks_is_as_near_as_is_promised(tail: list[float], bound: float) -> None:
    rules = RarityRules(RULES.step, bound)
    state = rarity.new_state(1)
    factors = []
    rare = 0
    for one in tail:
        rare += bool(adjust([1.0 - one], rules=rules, state=state)[0] > 1.0 - RARE)
        factors.append(float(state["log_factor"][0]))
    assert np.abs(factors).max() <= math.log(bound)
    if np.abs(factors).max() < math.log(bound):
        # A product of tail and factor at RARE itself is rare or not by a rounding of 1 - anomaly: one tick's worth.
        assert abs(rare / len(tail) - RARE) <= (math.log(bound**2) / RULES.step + 1.0) / len(tail)


@settings(deadline=None)
@given(tail=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=60), data=st.data())
def test_how_ticks_are_cut_changes_nothing(tail: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(tail)))
    anomaly = 1.0 - np.array(tail)
    whole, state = adjust(anomaly), rarity.new_state(1)
    cut = [*adjust(anomaly[:at], state=state), *adjust(anomaly[at:], state=state)]
    assert cut == whole.tolist()
