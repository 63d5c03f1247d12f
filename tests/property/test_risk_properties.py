"""What must hold for any risk."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.core import conformal, risk
from tests.unit.test_risk import RULES

unit = st.floats(0.0, 1.0)
loss = st.floats(0.0, 0.5)


@given(st.tuples(unit, unit, unit, unit, unit), st.integers(0, 4), unit)
def test_score_never_falls_when_a_component_rises(
    components: tuple[float, float, float, float, float], which: int, more: float
) -> None:
    higher = list(components)
    higher[which] = max(higher[which], more)
    assert risk.score(*higher, RULES) >= risk.score(*components, RULES)
    assert 0.0 <= risk.score(*components, RULES) <= 100.0


@given(loss, loss, st.floats(1.0, 10.0))
def test_var_scales_with_the_position_and_rises_with_the_tail(at_05: float, more: float, factor: float) -> None:
    value_at_risk = conformal.tail_var(at_05, at_05 + more)
    assert np.isclose(conformal.tail_var(factor * at_05, factor * (at_05 + more)), factor * value_at_risk)
    assert conformal.tail_var(at_05, at_05 + 2.0 * more) >= value_at_risk
    assert at_05 <= value_at_risk <= at_05 + more


@given(st.lists(st.floats(0.0, 100.0), max_size=200))
def test_level_never_flaps_within_the_hysteresis(scores: list[float]) -> None:
    level = 0
    for score in scores:
        after = risk.next_level(level, score, RULES)
        # Staying where one has just come to, at the same score, is stable.
        assert risk.next_level(after, score, RULES) == after
        level = after


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.integers(0, 3))
def test_level_never_falls_when_the_score_rises(one: float, other: float, level: int) -> None:
    low, high = sorted((one, other))
    assert risk.next_level(level, low, RULES) <= risk.next_level(level, high, RULES)
