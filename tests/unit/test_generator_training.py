"""The generator that makes trades one by one: quantile functions by hand, its two phases, its graph."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from stream.core.features import FEATURES, INDEX, WINDOW
from stream.inference import NOISE
from tests.graphs import words
from tests.training_data import sample
from training import data, export, forecaster, gan, generator
from training.generator import Borders, Quantiles, Settings, TradeGenerator

SMALL = Settings(
    hidden=16, head=16, bins=8, batch=64, rounds=60, learning_rate=1e-2, adversarial_rounds=2, adversarial_batch=32,
    critic_hidden=8, critic_updates=2, critic_warm=2,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def windows() -> gan.Windows:
    return gan.sample_windows(sample(), data.TRAIN, 3_000, np.random.default_rng(0))


@cache
def trained() -> generator.Trained:
    return generator.train(forecaster.fit_normalise(sample()), windows(), SMALL, 0)


def first(count: int) -> gan.Windows:
    features, window, series = windows()
    return gan.Windows(features[:count], window[:count], series[:count])


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, WINDOW, NOISE, generator=torch.Generator().manual_seed(1))


def test_quantile_function_by_hand() -> None:
    """Down to -2 with 0.2, unchanged with 0.5, up by 1 to 3 with 0.3."""
    of = Quantiles(torch.tensor([-2.0, 0.0, 1.0]), torch.tensor([-1.0, 0.0, 3.0]), 1)
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(6, -1)
    drawn = of.draw(logits, torch.tensor([0.0, 0.1, 0.3, 0.6, 0.85, 1.0]))
    assert drawn.value.tolist() == pytest.approx([-2.0, -1.5, 0.0, 0.0, 2.0, 3.0], abs=1e-5)
    assert drawn.atom.tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0, 0.0, 0.0], abs=1e-6)


def test_quantile_function_and_its_flag_have_a_slope() -> None:
    """More weight on a rise moves a drawn rise up, and makes an unchanged price less of one."""
    of = Quantiles(torch.tensor([-2.0, 0.0, 1.0]), torch.tensor([-1.0, 0.0, 3.0]), 1)
    logits = torch.zeros(2, 3, requires_grad=True)
    drawn = of.draw(logits, torch.tensor([0.8, 0.5]))
    (slope,) = torch.autograd.grad(drawn.value[0] + drawn.atom[1], logits)
    assert slope[0, 2] > 0 > slope[0, 0]
    assert slope[1, 1] > 0 > slope[1, 2]


def test_uniform_numbers_are_those_of_the_normal_distribution() -> None:
    at = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)
    exact = 0.5 + 0.5 * torch.erf(at / 2.0**0.5)
    assert float((generator.uniform(at) - exact).abs().max()) < 2e-4


def test_classes_are_those_that_the_trades_lie_in() -> None:
    real = generator.own_units(windows().features, windows().window)
    net = TradeGenerator(SMALL, forecaster.fit_normalise(sample()), Borders.of(real, SMALL.bins))
    for of, classes, value in (
        (net.returns, net.return_classes(real), real.returns),
        (net.sizes, net.size_classes(real), real.size),
        (net.gaps, net.gap_classes(real), torch.where(real.no_gap > 0.0, 0.0, real.gap)),
    ):
        assert bool((of.low[classes] <= value + 1e-6).all())
        assert bool((value <= of.high[classes] + 1e-6).all())
    assert bool(((net.return_classes(real) == net.returns.atom) == (real.returns == 0.0)).all())


def test_trades_are_read_as_they_are_drawn() -> None:
    """The states that training reads from drawn windows are those that they were drawn from."""
    net = trained().generator
    some, numbers = windows().features[:50], generator.uniform(noise(50))
    with torch.no_grad():
        drawn = net.draw(some, noise(50))
        states = net.read(net.condition(some), drawn.told())
        for step in (0, 1, WINDOW - 1):
            gap, at_once = net.gaps.draw(net.gap_head(states[:, step]), numbers[:, step, 0])
            apart = at_once < 0.5
            assert torch.equal(apart, drawn.no_gap[:, step] < 0.5)
            assert torch.allclose(gap[apart], drawn.gap[apart, step], atol=1e-3)


def test_both_phases_learn_and_the_same_seed_gives_the_same_generator() -> None:
    first = trained()
    assert np.mean(first.likelihoods[-10:]) < np.mean(first.likelihoods[:5]) - 1.0
    assert len(first.distances) == SMALL.adversarial_rounds
    assert np.isfinite(first.distances).all()
    again = generator.train(forecaster.fit_normalise(sample()), windows(), SMALL, 0)
    for name, value in first.generator.state_dict().items():
        assert torch.equal(value, again.generator.state_dict()[name]), name


def test_prices_stay_and_tails_reach_as_far_as_real_ones() -> None:
    net = trained().generator
    real = generator.own_units(windows().features, windows().window)
    with torch.no_grad():
        drawn = net.draw(windows().features[:1000], noise(1000))
    assert float((drawn.returns == 0.0).float().mean()) == pytest.approx(float(real.unchanged.mean()), abs=0.1)
    assert float(drawn.returns.abs().max()) <= float(real.returns.abs().max()) * 1.00001
    assert float(drawn.returns.abs().max()) > float(real.returns.abs().quantile(0.99))
    assert float((drawn.no_gap > 0.5).float().mean()) == pytest.approx(float(real.no_gap.mean()), abs=0.1)


def test_variation_keeps_the_trades_and_moves_the_scale() -> None:
    some = first(500)
    made = generator.varied(some, 0.5, torch.Generator().manual_seed(0))
    assert bool((made.window[:, :, gan.RETURN].abs() == some.window[:, :, gan.RETURN].abs()).all())
    assert bool((made.window[:, :, gan.GAP] == some.window[:, :, gan.GAP]).all())
    mirrored = (made.window[:, :, gan.SIZE].sign() != some.window[:, :, gan.SIZE].sign()).all(1)
    assert 0.4 < float(mirrored.float().mean()) < 0.6
    moved = (made.features != some.features).any(0).nonzero().flatten().tolist()
    assert [list(FEATURES)[column] for column in moved] == ["log_trade_rate_1800s", "log_grid_variance_1800s"]
    base = INDEX["log_grid_variance_1800s"]
    assert float((made.features - some.features)[:, base].std()) == pytest.approx(1.0, abs=0.15)


def test_graph_draws_what_the_network_draws(tmp_path: Path) -> None:
    net = generator.InDouble(trained().generator).eval()
    content = export.to_onnx(net, "generator")
    for seed, n in ((1, 16), (2, 300), (3, 1000)):
        assert export.difference(net, content, "generator", seed, n) < export.TOLERANCE
    assert b".py" not in words(content)


def test_own_critic_ranks_what_it_is_asked_about() -> None:
    assert 0.0 <= generator.against_drawn(trained(), first(300), 0) <= 1.0
