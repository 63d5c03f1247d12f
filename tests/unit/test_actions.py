"""Positions by hand."""

import numpy as np
from numpy.typing import NDArray

from stream.core import actions
from stream.core.actions import FLAT, LONG, SHORT, ActionAnswers
from stream.core.features import CONTEXT, WARMING
from stream.core.results import RISK_COLUMNS
from stream.core.risk import ES_975

# From flat the agent goes long; once long it stays; it never wants to be short.
VALUES = np.array([[0.0, 1.0, 0.5], [0.0, 1.0, 2.0], [0.0, 1.0, 3.0]], np.float32).reshape(1, 9)
REWARDS = np.arange(9, dtype=np.float32).reshape(1, 9)
ES_LIMIT = 0.02


def act(
    n: int,
    *,
    level: list[int] | None = None,
    es: float = 0.0,
    warming: bool = False,
    state: NDArray[np.void] | None = None,
) -> ActionAnswers:
    context = np.zeros((n, len(CONTEXT)))
    context[:, WARMING] = warming
    risk = np.zeros((n, len(RISK_COLUMNS)))
    risk[:, ES_975] = es
    levels = np.array(level or [0] * n, np.int8)
    state = actions.new_state(1) if state is None else state
    values, rewards = np.tile(VALUES, (n, 1)), np.tile(REWARDS, (n, 1))
    return actions.compute(state, np.zeros(n, np.int32), context, risk, levels, values, rewards, ES_LIMIT)


def test_position_is_carried_to_the_next_tick() -> None:
    answers = act(2)
    assert answers.action.tolist() == [LONG, LONG]
    assert answers.target_position.tolist() == [1.0, 1.0]
    assert answers.action_values.tolist() == [[0.0, 1.0, 2.0], [0.0, 1.0, 3.0]]
    assert answers.expected_reward.tolist() == [5.0, 8.0]  # from flat to long, from long to long


def test_position_is_carried_to_the_next_chunk() -> None:
    state = actions.new_state(1)
    act(1, state=state)
    assert act(1, state=state).action_values.tolist() == [[0.0, 1.0, 3.0]]


def test_warming_keeps_the_agent_flat_and_says_so() -> None:
    answers = act(1, warming=True)
    assert answers.action.tolist() == [FLAT]
    assert answers.gate.tolist() == [actions.GATED_WARMING]


def test_critical_level_ends_a_position() -> None:
    answers = act(3, level=[0, 3, 2])
    assert answers.action.tolist() == [LONG, FLAT, LONG]
    assert answers.gate.tolist() == [0, actions.GATED_LEVEL, 0]


def test_expected_shortfall_above_the_limit_keeps_the_agent_flat() -> None:
    assert act(1, es=0.03).gate.tolist() == [actions.GATED_ES]
    assert act(1, es=0.02).gate.tolist() == [0]


def test_an_agent_that_wants_to_be_flat_is_not_overridden() -> None:
    flat = np.array([[0.0, 9.0, 0.0] * 3], np.float32)
    context, risk = np.ones((1, len(CONTEXT))), np.ones((1, len(RISK_COLUMNS)))
    answers = actions.compute(
        actions.new_state(1), np.zeros(1, np.int32), context, risk, np.array([3], np.int8), flat, flat, ES_LIMIT
    )
    assert answers.action.tolist() == [FLAT]
    assert answers.gate.tolist() == [0]
    assert SHORT == 0
