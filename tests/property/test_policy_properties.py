"""The environment, told one decision at a time, and the tape, walked whole, are one market."""

import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.policy import q_learning
from training.policy.environment import Sessions
from training.policy.network import WIDTH
from training.policy.tape import FLAT, Market, Tape, Walk, walk, walk_lanes


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    """Up to 40 decisions in sessions of any length, one at least; the last one ends a session."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    follows = rng.random(n) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    follows[-1] = False
    penalty = rng.exponential(0.5, (n, 3)) * [1.0, 0.0, 1.0] * follows[:, None]
    return Tape(rng.normal(0.0, 10.0, n) * follows, rng.exponential(3.0, n), penalty, follows)


markets = st.builds(
    Market, inventory_limit=st.sampled_from([0.3, 1.0, 2.5]), drawdown_limit=st.sampled_from([1.0, 20.0, 1e9])
)


def environment(tape: Tape, market: Market) -> Sessions:
    rng = np.random.default_rng(0)
    return Sessions(rng.normal(0.0, 1.0, (len(tape.moved), WIDTH)).astype(np.float32), tape, market)


def told(tape: Tape, market: Market, table: NDArray[np.int8]) -> NDArray[np.float64]:
    """Rewards of all sessions by the environment; 0 for decisions behind the end of an episode: float64[k]."""
    rewards = np.zeros(len(table))
    env = environment(tape, market)
    for session, row in enumerate(env.starts):
        env.reset(options={"session": session})
        held, over = FLAT, False
        while not over:
            held = int(table[row, held])
            _, rewards[row], over, _, _ = env.step(np.int64(held))
            row += 1
    return rewards


@given(tapes(), markets, st.integers(0, 2**32 - 1))
def test_environment_gives_the_rewards_of_the_walk(tape: Tape, market: Market, seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 3, (len(tape.moved), 3)).astype(np.int8)
    assert walk(table, tape, market).reward.tolist() == told(tape, market, table).tolist()


@given(tapes(), markets, st.integers(0, 2**32 - 1), st.data())
def test_lanes_are_stretches_of_the_walk(tape: Tape, market: Market, seed: int, data: st.DataObject) -> None:
    """From a start of a session on, with nothing held, a lane meets what the walk of the whole tape meets."""
    table = np.random.default_rng(seed).integers(0, 3, (len(tape.moved), 3)).astype(np.int8)
    starts = np.flatnonzero(np.concatenate(([True], ~tape.follows[:-1])))
    first = int(data.draw(st.sampled_from(starts.tolist())))
    whole = walk(table, tape, market)
    lane = walk_lanes(table[None, first:], np.array([first]), np.array([FLAT]), tape, market)
    for name in Walk._fields:
        assert getattr(lane, name)[0].tolist() == getattr(whole, name)[first:].tolist(), name


@given(tapes(), st.sampled_from([0.3, 1.0]))
def test_one_step_of_q_learning_is_a_reward_of_the_environment(tape: Tape, size: float) -> None:
    """What Q-learning adds up, less the cost of getting there: to the digits of its float32."""
    market = Market(inventory_limit=size, drawdown_limit=1e9)
    learned = q_learning.n_step_returns(tape, torch.ones(len(tape.moved)), 1, market)
    for action in range(3):
        table = np.full((len(tape.moved), 3), action, np.int8)
        walked = walk(table, tape, market)
        before = np.where(walked.held == action, 0.0, abs(action - 1.0) * size) * tape.cost
        wanted = learned.reward[:, action].numpy() - before
        rows = tape.follows
        assert walked.reward[rows] == pytest.approx(wanted[rows], abs=1e-4, rel=1e-5)


def test_gymnasium_finds_nothing_wrong_with_the_environment() -> None:
    rng = np.random.default_rng(1)
    follows = np.arange(60) % 20 != 19
    tape = Tape(rng.normal(0.0, 5.0, 60) * follows, np.full(60, 3.0), np.zeros((60, 3)), follows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environment(tape, Market()), skip_render_check=True)


def test_reset_draws_sessions_by_its_seed() -> None:
    rng = np.random.default_rng(1)
    follows = np.arange(60) % 3 != 2
    env = environment(Tape(rng.normal(0.0, 5.0, 60), np.full(60, 3.0), np.zeros((60, 3)), follows), Market())
    first = [env.reset(seed=seed)[0].tolist() for seed in range(20)]
    assert first == [env.reset(seed=seed)[0].tolist() for seed in range(20)]
    assert len({tuple(observed) for observed in first}) > 5


def test_observation_tells_position_and_drawdown() -> None:
    """Long at a cost of 3, then a fall by 2: 5 of 20 basis points are used up."""
    follows = np.array([True, True, False])
    env = environment(
        Tape(np.array([-2.0, 1.0, 0.0]), np.full(3, 3.0), np.zeros((3, 3)), follows), Market(drawdown_limit=20.0)
    )
    env.reset(options={"session": 0})
    seen, reward, ended, cut, info = env.step(np.int64(2))
    assert (reward, ended, cut, info) == (-5.0, False, False, {"gain": -5.0})
    assert seen[-2:].tolist() == [1.0, 0.25]
