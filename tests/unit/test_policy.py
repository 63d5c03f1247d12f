"""The policy: its market by hand, and that both algorithms learn what a tape has to teach."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from stream.config import DEFAULT_MODELS
from stream.core.features import INDEX
from stream.core.results import FORECAST_COLUMNS
from stream.errors import TapewatchError
from stream.inference import Card, read_card
from tests.bundles import DQN, shipped
from tests.training_data import sample, write_sample
from training import bundles, cards, data, forecaster, sharpe
from training.policy import incumbent, ppo, q_learning, selection
from training.policy.network import MOST, Policy
from training.policy.tape import FLAT, Market, Steps, Tape, Walk, account, decisions, half_spread, tape, walk

SHORT, LONG = 0, 2


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def steps(latency_ticks: int = 1) -> Steps:
    (one,) = sample().series
    forecast = np.full((len(one.features), len(FORECAST_COLUMNS)), 1e-3, np.float32)
    return decisions(one, forecast, data.TRAIN, latency_ticks)


def same(actions: list[int]) -> np.ndarray[Any, np.dtype[np.int8]]:
    """The table of a way to act that does not look at the position."""
    return np.repeat(np.array(actions, np.int8)[:, None], 3, 1)


def by_hand(moved: list[float], cost: float, follows: list[bool], penalty: float = 0.0) -> Tape:
    n = len(moved)
    return Tape(np.array(moved), np.full(n, cost), np.full((n, 3), penalty) * [1.0, 0.0, 1.0], np.array(follows))


@pytest.mark.parametrize("latency", [1, 3])
def test_decision_is_carried_out_ticks_later(latency: int) -> None:
    (one,) = sample().series
    some = steps(latency)
    for row in (0, 100, 1000):
        tick = int(np.flatnonzero((one.features == some.features[row].numpy()).all(axis=1))[0])
        assert float(some.executed[row]) == one.log_price[tick + latency]
        assert one.clock_ns[tick + 1] // data.SECOND > one.clock_ns[tick] // data.SECOND, "the second's last tick"


@pytest.mark.parametrize(
    "wrong",
    [{"latency_ticks": 0}, {"inventory_limit": 0.0}, {"drawdown_limit": -1.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_market_without_latency_or_limits_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="latency of a tick and limits above 0"):
        Market(**wrong)


def test_tape_by_hand() -> None:
    """+1 bp in 2 s, then a pause; ES of 0.6 % long and 0.3 % short, a tenth of it a minute; clipped at 0.5 bp."""
    some = steps()
    two = Steps(
        some.features[:2],
        some.forecast[:2],
        torch.tensor([0.0, 1e-4], dtype=torch.double),
        torch.tensor([2.0, 9.0]),
        torch.tensor([True, False]),
        torch.tensor([[0.003, 0.0, 0.006]] * 2),
    )
    market = Market(risk_aversion=0.1, fee=2e-4)
    out = tape(two, market)
    assert out.moved.tolist() == pytest.approx([1.0, 0.0])
    assert out.penalty[0].tolist() == pytest.approx([0.1, 0.0, 0.2])
    assert out.penalty[1].tolist() == [0.0, 0.0, 0.0], "held for no time before a pause"
    assert out.cost == pytest.approx(2.0 + half_spread(two.features, market)[:, 0].numpy() * 1e4)
    assert tape(two, market, 0.5).moved.tolist() == pytest.approx([0.5, 0.0])


def test_walk_by_hand() -> None:
    """In for 2, +10; round for 4, +5; out for 2. A penalty of 0.5 for each second held."""
    out = walk(same([LONG, SHORT, FLAT]), by_hand([10.0, -5.0, 0.0], 2.0, [True, True, False], 0.5), Market())
    assert out.gain.tolist() == [8.0, 1.0, -2.0]
    assert out.reward.tolist() == [7.5, 0.5, -2.0]
    assert out.changed.tolist() == [1.0, 2.0, 1.0]
    assert out.ended.tolist() == [False, False, True]
    found = account(out)
    assert found == pytest.approx((2.0, 7.0, 4 / 3 * 1000, 2.0, 1 / 3))


def test_inventory_limit_scales_what_a_position_earns() -> None:
    seen = by_hand([10.0, -5.0, 0.0], 2.0, [True, True, False], 0.5)
    whole, half = (walk(same([LONG, SHORT, FLAT]), seen, Market(inventory_limit=size)) for size in (1.0, 0.5))
    assert half.reward.tolist() == (0.5 * whole.reward).tolist()


def test_position_is_closed_before_a_pause() -> None:
    """In for 2 and out for 2 at once; the next session begins flat, whatever was held."""
    out = walk(same([LONG, LONG, LONG]), by_hand([0.0, 5.0, 0.0], 2.0, [False, True, False]), Market())
    assert out.gain.tolist() == [-4.0, 3.0, -2.0]
    assert out.held.tolist() == [FLAT, FLAT, LONG]


def test_drawdown_limit_closes_until_the_pause() -> None:
    """-2 - 9 is more than 10 below the high of 0: closed for 2, out of the next fall, and in again after the pause."""
    seen = by_hand([-9.0, -50.0, 0.0, 5.0, 0.0], 2.0, [True, True, False, True, False])
    out = walk(same([LONG] * 5), seen, Market(drawdown_limit=10.0))
    assert out.gain.tolist() == [-13.0, 0.0, 0.0, 3.0, -2.0]
    assert out.free.tolist() == [True, False, False, True, True]
    assert walk(same([LONG] * 5), seen, Market(drawdown_limit=11.0)).gain.tolist() == [-11.0, -52.0, 0.0, 3.0, -2.0]


def test_n_step_return_by_hand() -> None:
    """Two seconds held long through +1 bp and +2 bp, no risk penalty, half of what comes later counts."""
    seen = by_hand([1.0, 2.0, 0.0, 0.0], 2.0, [True, True, True, False])
    out = q_learning.n_step_returns(seen, torch.ones(4), 2, Market(discount=0.5))
    assert out.reward[0].tolist() == pytest.approx([-2.0, 0.0, 2.0])
    assert float(out.discount[0]) == 0.25
    assert int(out.next_row[0]) == 2
    assert out.usable.tolist() == [True, True, False, False], "nothing is known beyond the end"


def test_risk_penalty_falls_on_positions_only() -> None:
    free, held = (
        q_learning.n_step_returns(by_hand([1.0, 2.0, 0.0], 2.0, [True, True, False], x), torch.ones(3), 1, Market())
        for x in (0.0, 0.5)
    )
    assert (free.reward - held.reward).tolist() == [[0.5, 0.0, 0.5]] * 3


def test_return_ahead_knows_sessions() -> None:
    """Sessions of 3 and 2 decisions, one decision ahead."""
    some = steps()
    five = Steps(*(column[:5] for column in some))._replace(
        executed=torch.tensor([0.0, 1e-4, 3e-4, 9e-4, 8e-4], dtype=torch.double),
        follows=torch.tensor([True, True, False, True, False]),
    )
    moved, whole = q_learning.ahead(five, 1, 5.0)
    assert whole.tolist() == [True, True, False, True, False]
    assert moved[whole].tolist() == pytest.approx([1.0, 2.0, -1.0], rel=1e-4)


def network() -> Policy:
    torch.manual_seed(3)
    net = Policy(48, Market()).eval()
    with torch.no_grad():
        net.decoder.weight.mul_(20.0)
    return net


def test_values_of_positions_differ_by_the_cost_of_the_change() -> None:
    net, some = network(), steps()
    with torch.no_grad():
        values, rewards = (out.reshape(-1, 3, 3) for out in net(some.features, some.forecast))
    cost = net.market.fee + half_spread(some.features, net.market)[:, 0]
    for out in (values, rewards):
        assert torch.allclose(out[:, 2, 2] - out[:, 1, 2], cost, atol=1e-6)
        assert torch.allclose(out[:, 0, 0] - out[:, 2, 0], 2 * cost, atol=1e-6)


def test_inputs_are_bounded() -> None:
    some = steps()
    net = Policy(48, Market())
    net.normalise.load_state_dict(forecaster.fit_normalise(sample()).state_dict())
    with torch.no_grad():
        assert float(net.inputs(some.features, 1e3 * some.forecast).abs().max()) == MOST


def test_draw_by_hand() -> None:
    """One number for all positions: half is short of 0.6, behind 0.2 + 0.1, behind 0.2 + 0.3 and not before it."""
    chances = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.2, 0.3, 0.5]]).log()
    assert ppo.draw(chances, torch.tensor(0.55)).tolist() == [SHORT, LONG, LONG]
    assert ppo.draw(chances, torch.tensor(0.25)).tolist() == [SHORT, FLAT, FLAT]


def test_advantages_by_hand() -> None:
    """Values 1, 2, 3 of short, flat, long everywhere; discount and trace a half; the second decision ends all."""
    walked = Walk(
        np.array([[1, 2]], np.int8),
        np.array([[2, 0]], np.int8),
        np.zeros((1, 2)),
        np.array([[4.0, 8.0]]),
        np.zeros((1, 2)),
        np.array([[False, True]]),
        np.ones((1, 2), np.bool_),
    )
    values = np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32), (1, 3, 3))
    advantage, wanted = ppo.advantages(walked, values, np.full((1, 2), 0.5, np.float32), 0.5)
    # Last: 8 - 3. First: 4 + 0.5 * 3 - 2, and a quarter of the last.
    assert advantage.tolist() == [[3.5 + 0.25 * 5.0, 5.0]]
    assert wanted.tolist() == [[4.75 + 2.0, 8.0]]


def test_log_chances_are_the_action_values_in_temperatures() -> None:
    net, some = network(), steps()
    cost = torch.from_numpy(tape(some, net.market).cost).float()
    with torch.no_grad():
        actor = ppo.Actor(net, net.inputs(some.features, some.forecast), cost, 2.0)
        chances = actor.log_chances(torch.arange(50))
        values = net(some.features[:50], some.forecast[:50])[0].reshape(-1, 3, 3) / 1e-4 / 2.0
    assert torch.allclose(chances - chances[..., :1], values - values[..., :1], atol=1e-3)
    assert torch.allclose(chances.exp().sum(-1), torch.ones(50, 3))


def trend(a_second: float) -> Steps:
    """The sample's features with a price that moves by so many basis points a second, at a cost of some 2."""
    some = steps()
    k = len(some.executed)
    return some._replace(
        executed=torch.arange(k).double() * a_second * 1e-4, seconds=torch.ones(k), follows=torch.arange(k) < k - 1
    )


@pytest.mark.parametrize(("a_second", "wanted"), [(20.0, LONG), (-20.0, SHORT)])
@pytest.mark.parametrize("algorithm", ["double_dqn", "ppo"])
def test_policy_learns_to_hold_what_moves(algorithm: str, a_second: float, wanted: int) -> None:
    market = Market(discount=0.9)
    normalise = forecaster.fit_normalise(sample())
    if algorithm == "ppo":
        net, _ = ppo.train(normalise, trend(a_second), market, ppo.Settings(updates=8, lanes=32), 0)
    else:
        net, _ = q_learning.train(normalise, trend(a_second), market, q_learning.Settings(rounds=300), 0)
    assert (selection.table(net, steps()) == wanted).mean() > 0.99


@pytest.mark.parametrize("algorithm", ["double_dqn", "ppo"])
def test_policy_learns_to_stay_out_of_what_does_not_move(algorithm: str) -> None:
    market = Market(discount=0.9)
    normalise = forecaster.fit_normalise(sample())
    if algorithm == "ppo":
        net, _ = ppo.train(normalise, trend(0.0), market, ppo.Settings(updates=8, lanes=32), 0)
    else:
        net, _ = q_learning.train(normalise, trend(0.0), market, q_learning.Settings(rounds=300), 0)
    assert (selection.table(net, steps())[:, FLAT] == FLAT).mean() > 0.99


def test_same_seed_gives_the_same_policy() -> None:
    normalise, few = forecaster.fit_normalise(sample()), ppo.Settings(updates=2, lanes=8)
    one, two, other = (ppo.train(normalise, trend(1.0), Market(), few, seed)[0] for seed in (4, 4, 5))
    assert torch.equal(one.decoder.weight, two.decoder.weight)
    assert not torch.equal(one.decoder.weight, other.decoder.weight)


def test_plain_ways_are_what_they_are_called() -> None:
    some = steps()
    ways = selection.plain(some)
    momentum = some.features[:, INDEX["momentum_60s"]].numpy()
    assert (ways["flat"] == FLAT).all()
    assert (ways["buy_and_hold"] == LONG).all()
    assert (ways["momentum_60s"][momentum > 0] == LONG).all()
    assert (ways["mean_reversion_60s"][momentum > 0] == SHORT).all()
    assert (ways["momentum_60s"][momentum == 0] == FLAT).all()


def few(seeds: int = 2) -> tuple[list[selection.Try], selection.Settings]:
    settings = msgspec.structs.replace(selection.Settings().quick(), seeds=seeds)
    some = steps()
    found = selection.tries(forecaster.fit_normalise(sample()), some, some, settings, 0, lambda name: lambda *_: None)
    return found, settings


def test_report_counts_all_tries_and_leads_with_the_best_on_validation() -> None:
    found, settings = few()
    assert [one.validation for one in found] == sorted((one.validation for one in found), reverse=True)
    assert {(one.algorithm, one.seed) for one in found} == {(a, s) for a in ("double_dqn", "ppo") for s in (0, 1)}
    out = selection.report(found, steps(), settings, 0)
    assert out["tries"] == 4 + 3 + 3, "seeds, plain ways but flat, an earlier choice"
    assert out["way"] == found[0].algorithm
    assert out["test"]["flat"]["mean_reward"] == out["test"]["flat"]["deflated_sharpe"] == 0.0
    own = walk(selection.table(found[0].net, steps()), tape(steps(), Market()), Market())
    shown = out["test"][found[0].algorithm]["mean_reward"]
    assert account(own).mean_reward == (shown["shipped"] if isinstance(shown, dict) else shown)
    assert out["validation_mean_reward"][found[0].algorithm][0] == found[0].validation


def policy_card(**changed: Any) -> Card:
    way = {
        "mean_reward": {"shipped": -0.001, "mean": -0.002, "sd": 0.003},
        "profit": -3.0,
        "turnover": 1.0,
        "drawdown": 4.0,
        "share_flat": 0.5,
        "sharpe": 0.00012,
        "sharpe_low": -0.003,
        "sharpe_high": 0.004,
        "deflated_sharpe": 0.25,
    }
    card = read_card(shipped(Path(DEFAULT_MODELS), "dqn") / "card.json")
    metrics = {
        "way": "ppo",
        "tries": 26,
        "decisions": 12_345,
        "luckiest_sharpe": 0.0021,
        "test": {"ppo": way},
        "validation_mean_reward": {"ppo": [0.5, -0.25]},
        "onnx_against_pytorch": 0.0,
    }
    return msgspec.structs.replace(card, metrics=metrics | changed)


def test_card_tells_how_sure_a_policy_is() -> None:
    text = cards.markdown(policy_card())
    assert "| ppo | 0.00012 | -0.00300 to 0.00400 | 0.250 |" in text
    assert "above 0.00210, what the best of 26 tries shows by luck" in text
    assert "by which the choice was made: ppo 0.50000, -0.25000." in text
    fails = text.split("## Where it fails")[1].split("## ")[0]
    assert "cannot be told apart from doing nothing" in fails
    assert "It lost 3.0 bp of one unit on the test part, in 12,345 decisions." in fails
    assert "more than the luck of 26 tries has a probability of 0.250" in fails
    assert "the largest deflated Sharpe ratio is 0.250, of ppo" in fails
    assert "It is flat" not in fails


def test_version_of_a_policy_is_above_those_of_other_names(tmp_path: Path) -> None:
    assert bundles._version(tmp_path, "ppo") == str(bundles.POLICY_VERSION)
    for name, version in (("dqn", "4"), ("ppo", "2")):
        folder = tmp_path / name / version
        folder.mkdir(parents=True)
        card = msgspec.structs.replace(policy_card(), name=name, version=version)
        (folder / "card.json").write_bytes(msgspec.json.encode(card))
    assert bundles._version(tmp_path, "ppo") == "5"
    assert bundles._version(tmp_path, "dqn") == "3"


def walked(gains: np.ndarray[Any, np.dtype[np.float64]]) -> Walk:
    flags = np.ones(len(gains), np.bool_)
    index = np.full(len(gains), LONG, np.int8)
    return Walk(index, index, gains, gains, np.zeros(len(gains)), ~flags, flags)


@pytest.mark.parametrize(("better", "follows"), [(0.2, True), (0.0, False), (-0.2, False)])
def test_newcomer_follows_if_it_is_better_by_more_than_chance(better: float, follows: bool) -> None:
    """2,000 rewards whose difference has a deviation of 1: a mean of 0.2 is nine errors above 0."""
    rng = np.random.default_rng(0)
    before = rng.normal(0.0, 5.0, 2_000)
    noise = rng.normal(0.0, 1.0, 2_000)
    verdict = incumbent.judge(walked(before + noise - noise.mean() + better), walked(before))
    assert verdict.difference == pytest.approx(better, abs=1e-9)
    assert verdict.follows == follows


def test_the_same_policy_does_not_follow_itself() -> None:
    before = walked(np.random.default_rng(0).normal(0.0, 5.0, 500))
    assert incumbent.judge(before, before) == (0.0, (0.0, 0.0, 0))


def test_card_of_the_incumbent_tells_of_all_tries_and_keeps_its_graph() -> None:
    new = msgspec.structs.replace(policy_card(), name="ppo", sha256="other")
    old = read_card(shipped(Path(DEFAULT_MODELS), "dqn") / "card.json")
    verdict = incumbent.Verdict(0.00025, sharpe.Interval(-0.001, 0.002, 60))
    test = walked(np.array([0.0, 0.0, 3.0] * 100))
    card = incumbent.takeover(old, new, walked(np.array([1.0, 2.0])), test, verdict)
    assert (card.name, card.version, card.sha256, card.seeds) == (old.name, old.version, old.sha256, old.seeds)
    assert card.metrics["test"][DQN]["sharpe"] == pytest.approx(2.0**-0.5)
    assert card.metrics["test"]["ppo"] == new.metrics["test"]["ppo"]
    text = cards.markdown(card)
    assert f"{DQN} 1.50000; ppo 0.50000, -0.25000" in text
    assert f"of ppo, earned 0.00025 bp a decision more there than {DQN}" in text
    assert "between -0.00100 and 0.00200" in text
    assert "over 2 seeds" in text


def test_newcomer_of_other_files_is_refused(tmp_path: Path) -> None:
    models = Path(DEFAULT_MODELS)
    with pytest.raises(TapewatchError, match=r"was not trained on these files: ltc\.parquet"):
        incumbent.compare(models, shipped(models, "dqn"), [write_sample(tmp_path / "ltc.parquet")])
