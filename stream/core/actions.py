"""The agent's action on each tick, and the risk rules that stand behind it.

The policy gives the value of every action from every position, so the position is not one of its inputs: a whole
chunk is one call of the model, and this kernel walks the positions afterwards. A rule that overrides the agent
makes it flat and is published. Where people have halted it, every action is flat and says so.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stream.core.digits import round_significant
from stream.core.features import WARMING
from stream.core.risk import ES_975

SHORT, FLAT, LONG = range(3)
NOT_GATED, GATED_WARMING, GATED_LEVEL, GATED_ES, GATED_HALTED = range(5)
"""Order of messages.GATES."""
CRITICAL: Final = 3

STATE: Final = np.dtype([("held", np.bool_), ("position", np.int64)], align=True)


class ActionAnswers(NamedTuple):
    """What the agent does at each accepted tick."""

    action: NDArray[np.int8]  # [m] index into messages.ACTIONS, after the rules
    target_position: NDArray[np.float64]  # [m] -1 to 1
    action_values: NDArray[np.float64]  # [m, 3] from the position held before the tick
    expected_reward: NDArray[np.float64]  # [m] of the action taken
    gate: NDArray[np.int8]  # [m] index into messages.GATES


def new_state(instruments: int) -> NDArray[np.void]:
    """State of so many instruments with no position: STATE[instruments]."""
    return np.zeros(instruments, STATE)


def compute(
    state: NDArray[np.void],
    slot: NDArray[np.int32],
    context: NDArray[np.float64],
    risk: NDArray[np.float64],
    level: NDArray[np.int8],
    values: NDArray[np.float32],
    rewards: NDArray[np.float32],
    es_limit: float,
    halted: NDArray[np.bool_] | None = None,
) -> ActionAnswers:
    """Walk the positions of the instruments over the accepted ticks; `state` is updated in place.

    Parameters
    ----------
    state : STATE[instruments]
    slot : int32[m]
    context : float64[m, len(CONTEXT)]
    risk : float64[m, len(RISK_COLUMNS)]
    level : int8[m]
    values : float32[m, 9]
        Value of each action (column) from each position (row), both short, flat, long.
    rewards : float32[m, 9]
        Expected reward, laid out alike; log return after costs.
    es_limit
        ES 97.5 % over 60 s above which the agent must be flat.
    halted : bool[m]
        Whether people have halted the agent there; None: nowhere.
    """
    m = slot.shape[0]
    halted = np.zeros(m, np.bool_) if halted is None else halted
    answers = ActionAnswers(np.empty(m, np.int8), np.empty(m), np.empty((m, 3)), np.empty(m), np.empty(m, np.int8))
    _walk(state, slot, context, risk, level, values, rewards, es_limit, halted, *answers)
    round_significant(answers.action_values, answers.action_values)
    round_significant(answers.expected_reward, answers.expected_reward)
    return answers


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    state: Any,
    slot: Any,
    context: Any,
    risk: Any,
    level: Any,
    values: Any,
    rewards: Any,
    es_limit: float,
    halted: Any,
    action: Any,
    target: Any,
    action_values: Any,
    reward: Any,
    gate: Any,
) -> None:
    for i in range(slot.shape[0]):
        s = state[slot[i]]
        position = s.position if s.held else FLAT
        row = values[i, 3 * position : 3 * position + 3]
        chosen = int(np.argmax(row))
        gate[i] = _gate(chosen, halted[i], context[i, WARMING], level[i], risk[i, ES_975], es_limit)
        if gate[i] != NOT_GATED:
            chosen = FLAT
        s.held = True
        s.position = chosen
        action[i] = chosen
        target[i] = chosen - 1.0
        action_values[i] = row
        reward[i] = rewards[i, 3 * position + chosen]


@njit(inline="always")
def _gate(chosen: int, halted: bool, warming: bool, level: int, es: float, es_limit: float) -> int:
    """The first rule that forbids the agent's choice; a halt forbids every one."""
    if halted:
        return GATED_HALTED
    if chosen == FLAT:
        return NOT_GATED
    if warming:
        return GATED_WARMING
    if level >= CRITICAL:
        return GATED_LEVEL
    if es > es_limit:
        return GATED_ES
    return NOT_GATED
