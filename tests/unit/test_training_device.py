"""Where training takes place: the choice of a device, and that every trainer keeps its tensors together on it.

There need be no GPU: see tests/elsewhere.py.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from stream.core.results import FORECAST_COLUMNS
from stream.errors import TapewatchError
from tests.elsewhere import NAME, Mixed, elsewhere
from tests.training_data import sample
from training import bundles, checkpoints, data, device, forecaster, gan, generator, walk_forward, whole
from training.cli import train
from training.forecasters.contract import Kind, Settings
from training.policy import ppo, q_learning, selection, tape
from training.policy.tape import Steps

SMALL = Settings(
    hidden=4, head=8, window=2, dilations=(1, 2), segment=64, unroll=32, burn_in=32, lanes=3, rounds=2, averaging=0.5
)
CRITIC = gan.Settings(
    hidden=8, noise=2, generator_hidden=4, batch=16, rounds=2, regime_rounds=2, critic_updates=2, train_windows=400
)
MAKER = generator.Settings(
    hidden=8, head=8, bins=4, batch=16, rounds=2, adversarial_rounds=1, adversarial_batch=16, critic_hidden=4,
    critic_updates=1, critic_warm=1,
)  # fmt: skip
POLICY = selection.Settings(
    q_learning=q_learning.Settings(hidden=8, batch=32, rounds=4, target_every=2),
    ppo=ppo.Settings(hidden=8, updates=2, lanes=4, length=16, epochs=1, minibatch=32),
    seeds=1,
)


@cache
def windows() -> gan.Windows:
    return gan.sample_windows(sample(), data.TRAIN, 400, np.random.default_rng(0))


@cache
def steps() -> Steps:
    (one,) = sample().series
    forecast = np.zeros((len(one.part), len(FORECAST_COLUMNS)), np.float32)
    return tape.decisions(one, forecast, data.TRAIN)


def of_forecaster(kind: Kind, on: str) -> list[nn.Module]:
    settings = msgspec.structs.replace(SMALL, kind=kind)
    return [forecaster.train(sample(), settings, 0, validation_lanes=4, device=on)[0]]


def of_gan(maker: str, on: str) -> list[nn.Module]:
    settings = msgspec.structs.replace(CRITIC, generator=maker)
    return [*gan.train(forecaster.fit_normalise(sample()), windows(), settings, 0, device=on)[:2]]


def of_generator(on: str) -> list[nn.Module]:
    return [*generator.train(forecaster.fit_normalise(sample()), windows(), MAKER, 0, device=on)[:2]]


def of_policy(on: str) -> list[nn.Module]:
    normalise = forecaster.fit_normalise(sample())
    tried = selection.tries(normalise, steps(), steps(), POLICY, 0, lambda name: lambda *_: None, on)
    return [one.net for one in sorted(tried)]


TRAINERS: dict[str, Callable[[str], list[nn.Module]]] = {
    **{kind: partial(of_forecaster, kind) for kind in forecaster.KINDS},
    **{f"gan {maker}": partial(of_gan, maker) for maker in gan.GENERATORS},
    "generator": of_generator,
    "policy": of_policy,
}


def state(nets: list[nn.Module]) -> list[Tensor]:
    return [tensor for net in nets for tensor in net.state_dict().values()]


@pytest.mark.parametrize("name", TRAINERS)
def test_training_elsewhere_keeps_its_tensors_together_and_gives_the_same_networks_back_on_the_cpu(name: str) -> None:
    torch.set_num_threads(1)
    wanted = state(TRAINERS[name]("cpu"))
    with elsewhere() as place:
        found = state(TRAINERS[name](NAME))
        assert not any(place.holds(tensor) for tensor in found)
    assert place.carried_out["addcdiv_"] == {True}, "every step of Adam was made there"
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_tensors_of_two_devices_are_told_apart() -> None:
    """As on a GPU: the rules that the tests above rest on."""
    here = torch.arange(6.0).reshape(3, 2)
    with elsewhere() as place:
        net, there = nn.Linear(2, 1).to(NAME), here.to(NAME)
        assert (here.device.type, there.device.type, net.weight.device.type) == ("cpu", NAME, NAME)
        loss = (net(there) * 2.0 + torch.tensor(1.0)).sum()
        loss.backward()
        assert net.weight.grad is not None
        assert place.holds(net.weight.grad)
        assert there[torch.tensor([0, 2])].cpu().tolist() == [[0.0, 1.0], [4.0, 5.0]]
        assert place.holds(torch.zeros(2, device=there.device))
        for mixing in (
            lambda: there + here,
            lambda: net(here),
            lambda: nn.Linear(2, 1)(there),
            lambda: here[torch.tensor([0]).to(NAME)],
            lambda: there.gather(1, torch.zeros(3, 1, dtype=torch.int64)),
            lambda: there.numpy(),
            lambda: torch.rand_like(there),
            lambda: torch.rand(2, device=NAME),
        ):
            with pytest.raises(Mixed):
                mixing()


@pytest.mark.parametrize(("wanted", "there", "chosen"), [
    ("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda"),
])  # fmt: skip
def test_gpu_is_taken_where_there_is_one_unless_the_cpu_is_asked_for(
    wanted: device.Wanted, there: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.choose(wanted) == chosen


@pytest.mark.parametrize(("cuda", "missing"), [(None, "built without CUDA"), ("13.2", "no NVIDIA GPU.*CUDA 13.2")])
def test_gpu_that_is_asked_for_and_missing_is_named(
    cuda: str | None, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    done = CliRunner().invoke(train, ["gan", "none.parquet", "--device", "cuda"])
    assert isinstance(done.exception, TapewatchError)
    with pytest.raises(TapewatchError, match=missing):
        raise done.exception


def test_device_reaches_the_plan_and_is_told_unless_it_is_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[bundles.Plan] = []

    def noted(dataset: data.Dataset, plan: bundles.Plan, seed: int, out: Path, announce: bundles.Announce) -> Path:
        plans.append(plan)
        return out

    monkeypatch.setattr("training.cli.TRAINERS", {"gan": noted})
    monkeypatch.setattr(data, "load", lambda *_: sample())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    said = {}
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        said[there] = CliRunner().invoke(train, ["gan", str(tmp_path), "--quick"]).stderr
    assert [plan.device for plan in plans] == ["cpu", "cuda"]
    assert (said[True].count("GPU H200"), said[False].count("PU")) == (1, 0)


class Reached(Exception):
    """A trainer was called."""


def reached(*given: object, **named: object) -> None:
    raise Reached(named.get("device", given[-1]))


@pytest.mark.parametrize(
    ("part", "called"),
    [
        (bundles.train_forecaster, "training.forecaster.train"),
        (bundles.train_gan, "training.gan.train"),
        (bundles.train_generator, "training.generator.train"),
        (bundles.train_policy, "training.policy.selection.tries"),
    ],
)
def test_device_of_the_plan_reaches_every_trainer(
    part: whole.Trainer, called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(called, reached)
    monkeypatch.setattr(bundles, "_champion", lambda out: out)
    monkeypatch.setattr(bundles, "all_steps", lambda *_: dict.fromkeys((data.TRAIN, data.VALIDATION), steps()))
    plan = bundles.Plan(SMALL, CRITIC, MAKER, POLICY, device="cuda")
    with pytest.raises(Reached, match="cuda"):
        part(sample(), plan, 0, tmp_path, lambda name: lambda *_: None)


def test_card_names_the_gpu_beside_the_libraries_and_nothing_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert device.libraries("cuda") == {"cuda": "13.2 (H200)"}
    assert device.libraries("cpu") == {}


def test_trainings_on_two_devices_do_not_go_on_with_each_other() -> None:
    on = {checkpoints.key(sample(), SMALL, 0, each) for each in ("cpu", "cuda")}
    plans = {checkpoints.key(sample(), plan, 0) for plan in (bundles.Plan(), bundles.Plan(device="cuda"))}
    assert (len(on), len(plans)) == (2, 2)


@pytest.mark.parametrize("trainer", ["checkpoints", "walk_forward"])
def test_forecaster_is_trained_on_the_device_of_the_plan(trainer: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    quiet: forecaster.Progress = lambda done, of, text: None  # noqa: E731
    with elsewhere() as place:
        if trainer == "checkpoints":
            checkpoints.train(sample(), SMALL, 0, tmp_path, quiet, NAME)
        else:
            walk_forward.losses(sample(), msgspec.structs.replace(SMALL, rounds=1), 0, 1, quiet, NAME)
    assert place.carried_out["addcdiv_"] == {True}
