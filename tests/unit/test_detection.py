"""The critic beside an isolation forest and a z-score: figures by hand, thresholds, and the card that holds them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.core.features import WINDOW
from stream.inference import read_card
from tests import bundles
from tests.training_data import sample, write_sample
from training import attribution, cards, data, detection, gan
from training.detection import Settings

MODELS = Path(DEFAULT_MODELS)
SMALL = Settings(windows=1500, trees=40)
DETECTORS = {"critic", "isolation_forest", "z_score"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def shipped() -> gan.Critic:
    return attribution.critic_of(inference.load_bundle(bundles.shipped(MODELS, "wgan")))


def windows(part: int) -> gan.Windows:
    return gan.sample_windows(sample(), part, SMALL.windows, np.random.default_rng(part))


def test_figures_by_hand() -> None:
    """Above 2: three of four faulty and one of four normal ones."""
    found = detection.figures(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.5, 2.5, 4.0, 5.0]), 2.0)
    assert found == {"auc": (2 + 3 + 4 + 4) / 16, "precision": 0.75, "recall": 0.75}
    assert detection.figures(np.zeros(2), np.zeros(2), 1.0) == {"auc": 0.5, "precision": 0.0, "recall": 0.0}


def test_z_score_is_the_largest_entry_and_the_forest_knows_what_it_has_not_seen() -> None:
    critic, seen, test = shipped(), windows(data.TRAIN), windows(data.TEST)
    by = detection.detectors(critic, seen, SMALL, 0)
    assert set(by) == DETECTORS
    spiked = test.window.clone()
    spiked[:, 7, gan.SIZE] = 1e4
    with torch.no_grad():
        entry = critic.units(test.features, spiked).reshape(-1, WINDOW, 3)[:, 7, gan.SIZE].abs().double().numpy()
    assert by["z_score"](test._replace(window=spiked)) == pytest.approx(entry)
    strange = test._replace(window=test.window.flip(1) * torch.tensor([50.0, 1.0, 10.0]))
    forest = by["isolation_forest"]
    assert gan.area_under_curve(forest(test), forest(strange)) > 0.9
    assert by["critic"](test) == pytest.approx(gan.scores(critic, test))


def test_every_fault_is_measured_by_every_detector_at_its_own_threshold() -> None:
    parts = windows(data.TRAIN), windows(data.VALIDATION), windows(data.TEST)
    found = detection.compare(shipped(), *parts, SMALL, 0)
    assert tuple(found["detection"]) == gan.EVERY_FAULT
    assert all(set(of) == DETECTORS for of in found["detection"].values())
    assert all(0.0 <= share < 0.1 for share in found["false_alarms"].values())
    spike = found["detection"]["price_spike"]
    assert spike["critic"]["auc"] > 0.9
    assert spike["z_score"]["auc"] > 0.8
    for name, of in spike.items():
        share = found["false_alarms"][name]
        assert of["precision"] == pytest.approx(of["recall"] / (of["recall"] + share)), "as many faulty as normal"
    # With the validation part for the test part the share is what the threshold was made for.
    again = detection.compare(shipped(), parts[0], parts[1], parts[1], SMALL, 0)
    for share in again["false_alarms"].values():
        assert share == pytest.approx(detection.FALSE_ALARMS, abs=2e-3)


def test_wash_trades_alternate_at_one_price_and_size() -> None:
    some = windows(data.TEST)
    washed = gan.inject("wash", some.features, some.window, torch.Generator())[:, -16:]
    side = torch.sign(washed[:, :, gan.SIZE])
    assert bool((side[:, 1:] == -side[:, :-1]).all())
    assert float(washed[:, :, gan.RETURN].abs().max()) == 0.0
    assert float((washed[:, :, gan.SIZE].abs() - washed[:, :1, gan.SIZE].abs()).abs().max()) == 0.0
    assert float((washed[:, :, gan.GAP] - washed[:, :1, gan.GAP]).abs().max()) == 0.0


def test_the_command_writes_the_card_and_leaves_the_graph(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    before = (bundles.shipped(models, "wgan") / "model.onnx").read_bytes()
    name, found = detection.add(models, [write_sample(tmp_path / "ltc.parquet")], SMALL)
    assert name == bundles.WGAN
    assert (bundles.shipped(models, "wgan") / "model.onnx").read_bytes() == before
    card = read_card(bundles.shipped(models, "wgan") / "card.json")
    assert card.metrics["detection"]["wash"]["critic"]["auc"] == pytest.approx(
        found["detection"]["wash"]["critic"]["auc"], rel=1e-5
    )
    assert (bundles.shipped(models, "wgan") / "CARD.md").read_text(encoding="utf-8") == cards.markdown(card)


def test_the_shipped_card_says_where_a_plain_detector_is_better() -> None:
    card = read_card(bundles.shipped(MODELS, "wgan") / "card.json")
    fails = cards.markdown(card).split("## Where it fails")[1].split("## ")[0]
    assert card.metrics["detection_windows"] >= 20_000
    for fault in gan.EVERY_FAULT:
        of = card.metrics["detection"][fault]
        for other in DETECTORS - {"critic"}:
            line = f"- {fault.replace('_', ' ')}: AUC {of['critic']['auc']:.3f}, below {of[other]['auc']:.3f}"
            assert (line in fails) == (of[other]["auc"] > of["critic"]["auc"])
