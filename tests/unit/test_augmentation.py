"""The ablation of augmentation: trainings differ by the generated lanes, which know of training ticks and no others."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from stream.config import DEFAULT_MODELS
from stream.core.features import INDEX
from stream.feeds.generator import Generator, newest
from stream.inference import read_card
from tests.training_data import sample, write_sample
from training import augmentation, cards, data, forecaster
from training.augmentation import Settings
from training.forecasters.contract import Settings as ForecasterSettings

MODELS = Path(DEFAULT_MODELS)
SMALL = ForecasterSettings(hidden=8, head=8, segment=256, burn_in=16, lanes=4, rounds=2)
TICKS = 1500


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def generated() -> tuple[data.Series, ...]:
    return augmentation.generate(sample(), Generator(newest(MODELS)), 1.0, TICKS, 0)


def weights(share: float | None) -> dict[str, torch.Tensor]:
    """After training; None: without any mixing."""
    draw = forecaster.draw_lanes if share is None else augmentation.mixed(generated(), share, 0)
    return forecaster.train(sample(), SMALL, 0, draw=draw)[0].state_dict()


def test_no_generated_lanes_are_plain_training_and_some_are_not() -> None:
    plain = weights(None)
    for name, value in weights(0.0).items():
        assert torch.equal(value, plain[name]), name
    other = weights(0.5)
    assert torch.equal(other["normalise.shift"], plain["normalise.shift"]), "scales are those of real ticks"
    assert not torch.equal(other["heads.head.weight"], plain["heads.head.weight"])


def test_generated_lanes_take_the_place_of_some_and_the_others_are_as_they_were() -> None:
    rng = np.random.default_rng(1)
    plain = forecaster.draw_lanes(sample().series, data.TRAIN, 8, 256, rng)
    expected_next = rng.random()
    rng = np.random.default_rng(1)
    lanes = augmentation.mixed(generated(), 0.25, 0)(sample().series, data.TRAIN, 8, 256, rng)
    assert rng.random() == expected_next, "the rounds to come draw the same real lanes"
    for before, after in zip(plain, lanes, strict=True):
        assert torch.equal(before[:, 2:], after[:, :6])
    (made,) = generated()
    for lane in (6, 7):
        rows = (made.features == lanes.features[0, lane].numpy()).all(1)
        assert rows.sum() == 1


def test_a_stream_is_training_and_of_the_instruments_scale() -> None:
    (real,), (made,) = sample().series, generated()
    assert made.file == real.file
    assert set(made.part.tolist()) == {data.TRAIN}
    assert len(made.part) == pytest.approx(TICKS, rel=0.5)
    assert data.usable_rows(made).any()
    train = real.part == data.TRAIN
    for name, apart in (("log_grid_variance_1800s", 2.0), ("log_trade_rate_1800s", 1.0)):
        ours, theirs = (np.median(one[:, INDEX[name]]) for one in (made.features[~made.warming], real.features[train]))
        assert abs(ours - theirs) < apart, name


def test_condition_by_hand() -> None:
    """Three trades a second apart, a pause that begins a session, and two trades half a second apart."""
    (one,) = sample().series
    second = np.array([0.0, 1.0, 2.0, 9000.0, 9000.5])
    rows = slice(1000, 1005)
    columns: list[Any] = [column[rows].copy() for column in one[2:]]
    few = data.Series(one.file, one.symbol, *columns)._replace(
        clock_ns=(second * data.SECOND).astype(np.int64),
        session=np.array([1, 1, 1, 2, 2]),
        part=np.full(5, data.TRAIN, np.int8),
        warming=np.zeros(5, np.bool_),
        normal=np.ones(5, np.bool_),
    )
    few.features[:, INDEX["log_grid_variance_1800s"]] = np.log(np.array([1.0, 4.0, 9.0, 16.0, 25.0]) * 1e-8)
    found = augmentation.condition(few)
    assert found is not None
    assert found.seconds == 2.5
    assert found.instrument.orders_per_second == 3 / 2.5
    assert found.instrument.volatility == pytest.approx(3e-4)
    assert found.instrument.price == pytest.approx(float(np.exp(few.log_price[-1])))
    assert augmentation.condition(few._replace(warming=np.ones(5, np.bool_))) is None


def test_ticks_behind_the_training_part_change_nothing() -> None:
    (one,) = sample().series
    later = one.part != data.TRAIN
    changed = one._replace(features=one.features.copy(), log_price=one.log_price.copy(), clock_ns=one.clock_ns.copy())
    changed.features[later] += 1.0
    changed.log_price[later] += 1.0
    changed.clock_ns[later] += 7 * data.SECOND
    assert augmentation.condition(changed) == augmentation.condition(one)
    changed.log_price[~later] += 1.0
    assert augmentation.condition(changed) != augmentation.condition(one)


def test_cut_keeps_the_last_of_the_training_part_and_all_of_the_others() -> None:
    (before,) = sample().series
    (after,) = augmentation.cut(sample(), 0.1).series
    kept = np.flatnonzero(after.part == data.TRAIN)
    assert kept.tolist() == np.flatnonzero(before.part == data.TRAIN)[-len(kept) :].tolist()
    assert len(kept) == round(0.1 * (before.part == data.TRAIN).sum())
    later = before.part != data.TRAIN
    assert (after.part[later] == before.part[later]).all()
    assert (augmentation.cut(sample(), 1.0).series[0].part == before.part).all()


def test_differences_are_paired_by_seed_and_bounded_by_students_t() -> None:
    rows = [(5.0, 0.0, 0.0), (6.0, 0.0, 0.0), (7.0, 0.0, 1.0), (9.0, 0.0, 0.0), (3.0, 0.0, 0.0), (6.0, 0.0, 2.0)]
    found = augmentation.summary(rows, Settings(seeds=3, shares=(0.5,)))
    assert found["0"]["loss"] == {"mean": 5.0, "sd": 2.0}
    assert found["0.5"]["loss"]["mean"] == 7.0
    assert found["0.5"]["loss"]["difference"] == 2.0, "of 1, 2 and 3"
    assert found["0.5"]["loss"]["standard_error"] == pytest.approx(1.0 / 3.0**0.5)
    assert found["0.5"]["loss"]["low"] == pytest.approx(2.0 - 4.302653 / 3.0**0.5, abs=1e-6)
    assert found["0.5"]["loss"]["high"] == pytest.approx(2.0 + 4.302653 / 3.0**0.5, abs=1e-6)
    assert found["0.5"]["pinball"]["difference"] == pytest.approx((0.0 - 1.0 + 2.0) / 3.0)


def table(*bounds: tuple[float, float]) -> dict[str, Any]:
    """Trained on all ticks, with 25 and 50 % of generated lanes: what their difference lies between."""
    by_share: dict[str, Any] = {"0": {"loss": {"mean": 2.0, "sd": 0.05}}}
    for share, (low, high) in zip(("0.25", "0.5"), bounds, strict=True):
        by_share[share] = {
            "loss": {"mean": 2.0, "sd": 0.05, "difference": 0.5 * (low + high), "low": low, "high": high}
        }
    return {"1": by_share}


def test_the_verdict_in_words() -> None:
    a, b = (f"{share} of the lanes with all training ticks" for share in ("25%", "50%"))
    deviate = "where seeds deviate by 0.0500"
    assert cards.augmentation_in_words(table((-0.03, -0.01), (0.01, 0.03))) == (
        f"It helps: {a} (-0.0200, {deviate}). It harms: {b} (+0.0200, {deviate})."
    )
    assert cards.augmentation_in_words(table((-0.03, 0.01), (-0.01, 0.03))) == (
        f"It does not help. Not told apart from none: {a} (-0.0100, {deviate}); {b} (+0.0100, {deviate})."
    )


def test_the_command_writes_the_card_and_leaves_the_graph(tmp_path: Path) -> None:
    shutil.copytree(newest(MODELS), tmp_path / "wgan-generator" / "3")
    bundle = tmp_path / "wgan-generator" / "3"
    graph = (bundle / "model.onnx").read_bytes()
    settings = Settings(SMALL, seeds=2, kept=(1.0, 0.2), shares=(0.5,), stream_ticks=TICKS, test_lanes=4)
    name, found = augmentation.add(tmp_path, [write_sample(tmp_path / "ltc.parquet")], settings)
    assert name == "wgan-generator@3"
    assert (bundle / "model.onnx").read_bytes() == graph
    card = read_card(bundle / "card.json")
    assert set(card.metrics["augmentation"]["trained"]) == {"1", "0.2"}
    ticks = found["ticks"]
    assert ticks["0.2"]["real"] == pytest.approx(0.2 * ticks["1"]["real"], rel=0.05)
    text = (bundle / "CARD.md").read_text(encoding="utf-8")
    assert text == cards.markdown(card)
    assert "| the last 20% of the training ticks | " in text
    nothing = msgspec.structs.replace(card, metrics={k: v for k, v in card.metrics.items() if k != "augmentation"})
    assert "As augmentation" not in cards.markdown(nothing)
