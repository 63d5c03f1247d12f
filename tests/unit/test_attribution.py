"""Occlusion against integrated gradients: the network from the graph, parts that add up, the figures of the card."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.core.features import FEATURES, INDEX, WINDOW, WINDOW_COLUMNS
from stream.errors import BadFile, TapewatchError
from stream.explanations import anomaly_contributions
from stream.inference import Calibration, read_card
from tests.bundles import shipped
from tests.training_data import write_sample
from training import attribution
from training.attribution import Ticks

MODELS = Path(DEFAULT_MODELS)
BUNDLE = inference.load_bundle(shipped(MODELS, "wgan"))


def ticks(count: int = 3) -> Ticks:
    """Ticks whose last trade jumped by so much that the critic minds."""
    normal = np.tile(np.array(BUNDLE.card.normal), (count, 1))
    rng = np.random.default_rng(0)
    volatility = np.exp(0.5 * normal[0, INDEX["log_grid_variance_1800s"]])
    window = np.tile(normal[:, [INDEX[name] for name in WINDOW_COLUMNS]][:, None], (1, WINDOW, 1))
    window += rng.normal(0.0, 1.0, window.shape) * [0.3 * volatility, 1.0, 0.5]
    window[:, -3, 0] += 12.0 * volatility
    features = normal + rng.normal(0.0, 0.1, normal.shape) * np.abs(normal)
    return Ticks(features.astype(np.float32), window.astype(np.float32), normal)


def test_network_made_of_the_graph_answers_as_the_graph() -> None:
    """`critic_of` compares them itself; a weight that differs is found."""
    attribution.critic_of(BUNDLE)
    changed = BUNDLE._replace(card=inference.read_card(BUNDLE.folder / "card.json"))
    graph = type(BUNDLE.graph)()
    graph.CopyFrom(BUNDLE.graph)
    weight = next(value for value in graph.graph.initializer if value.name == "out.weight")
    weight.name = "renamed"
    for node in graph.graph.node:
        node.input[:] = ["renamed" if name == "out.weight" else name for name in node.input]
    with pytest.raises(TapewatchError, match="differs by"):
        attribution.critic_of(changed._replace(graph=graph))


def test_powers_of_ten_are_those_of_the_worker() -> None:
    table = Calibration([0.0, 1.0, 3.0], [0.1, 0.5, 0.99])
    score = np.array([-1.0, 0.0, 0.25, 1.0, 2.0, 3.0, 9.0])
    expected = -np.log10(1.0 - np.interp(score, table.score, table.probability))
    found = attribution.powers_of_ten(torch.from_numpy(score), table).numpy()
    assert found == pytest.approx(expected, abs=1e-12)


def test_integrated_gradients_add_up_to_the_fall() -> None:
    critic, table = attribution.critic_of(BUNDLE).double(), BUNDLE.card.calibration
    assert table is not None
    made = ticks()
    for row in range(3):
        tick = made.some(slice(row, row + 1))
        shares, fall = attribution.integrated(critic, table, tick)
        assert shares.shape == (len(FEATURES),)
        assert fall > 0
        assert shares.sum() == pytest.approx(fall, rel=0.05)


def test_the_fall_with_a_single_feature_is_its_occlusion() -> None:
    """Where only one feature differs from normal, both explanations give it everything."""
    models = inference.load(MODELS)
    critic, table = attribution.critic_of(BUNDLE).double(), BUNDLE.card.calibration
    assert table is not None
    made = ticks(1)
    features = made.normal.astype(np.float32)
    window = np.tile(features[:, [INDEX[name] for name in WINDOW_COLUMNS]][:, None], (1, WINDOW, 1))
    window[:, :, 0] = made.window[:, :, 0]
    features[:, INDEX["log_return"]] = window[:, -1, 0]
    shares, fall = attribution.integrated(critic, table, Ticks(features, window, made.normal))
    occluded = anomaly_contributions(features[0], window[0], made.normal[0], models)
    assert int(np.argmax(np.abs(shares))) == INDEX["log_return"]
    assert occluded[INDEX["log_return"]] == pytest.approx(fall, rel=1e-3)


def test_the_shipped_card_holds_the_figures() -> None:
    found = read_card(shipped(MODELS, "wgan") / "card.json").metrics[attribution.METRIC]
    assert found["ticks"] >= 100
    assert -1.0 <= found["rank_correlation_lowest_tenth"] <= found["rank_correlation_median"] <= 1.0
    assert found["gradients_miss_the_sum_by"] < 0.05


def test_a_file_that_the_critic_was_not_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="none of the files that the critic was trained on"):
        attribution.add(MODELS, [write_sample(tmp_path / "other.parquet", 100)])


def test_anomalous_ticks_are_taken_from_the_test_part_alone(tmp_path: Path) -> None:
    file, models = write_sample(tmp_path / "ltc.parquet", 20_000), inference.load(MODELS)
    rng = np.random.default_rng(0)
    assert len(attribution.anomalous(models, file, 2**62, 5, rng).features) == 0
    found = attribution.anomalous(models, file, 0, 2, rng)
    assert found.features.shape == (2, len(FEATURES))
    assert found.window.shape == (2, WINDOW, 3)
    with pytest.raises(TapewatchError, match="nothing to explain"):
        attribution.compare(BUNDLE, models, found.some(slice(0)))
