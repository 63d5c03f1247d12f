"""Bundles: the models that ship load and run; every damaged or foreign bundle is refused with one clear line."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack
from stream.core.results import FORECAST_COLUMNS
from stream.errors import ModelMismatch
from stream.messages import HORIZONS
from tests.bundles import DQN, GRU, WGAN, shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the models that ship."""
    return Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))


def edit_card(folder: Path, bundle: str, **changes: Any) -> None:
    file = shipped(folder, bundle) / "card.json"
    card = msgspec.json.decode(file.read_bytes()) | changes
    file.write_bytes(msgspec.json.encode(card))


def edit_graph(folder: Path, name: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph and have its card agree with the new bytes."""
    file = shipped(folder, name) / "model.onnx"
    graph = onnx.load(str(file))
    change(graph)
    file.write_bytes(graph.SerializeToString())
    edit_card(folder, name, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def refused(folder: Path) -> str:
    with pytest.raises(ModelMismatch) as caught:
        inference.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def run(models: inference.Models, slots: list[int], seed: int = 0) -> inference.Inference:
    rng = np.random.default_rng(seed)
    n = len(slots)
    packing = pack(np.array(slots, np.int32), new_scratch(max(slots) + 1))
    features = (models.normal + rng.normal(0.0, 0.3, (n, len(FEATURES)))).astype(np.float32)
    window = rng.normal(0.0, 1.0, (n, WINDOW, len(WINDOW_COLUMNS))).astype(np.float32) * np.float32(1e-4)
    hidden = np.zeros((len(packing.slots), models.hidden_size), np.float32)
    return models.run(features, window, packing, hidden)


def test_models_that_ship_answer_every_tick() -> None:
    models = inference.load(Path(DEFAULT_MODELS))
    out = run(models, [0, 3, 0, 1, 3, 0, 0])
    assert models.names == (GRU, WGAN, DQN)
    assert out.forecast.shape == (7, len(FORECAST_COLUMNS))
    assert out.shortfall.shape == (7, len(HORIZONS))
    assert out.hidden.shape == (3, models.hidden_size)
    assert out.score.shape == (7,)
    assert out.action_values.shape == out.rewards.shape == (7, 9)
    assert all(np.isfinite(column).all() and column.dtype == np.float32 for column in out)


def test_forecasts_mean_what_their_columns_say() -> None:
    forecast = run(inference.load(Path(DEFAULT_MODELS)), [0, 1] * 200).forecast
    column = {name: forecast[:, k] for k, name in enumerate(FORECAST_COLUMNS)}
    for horizon in HORIZONS:
        quantiles = np.stack([column[f"quantile_{level}_{horizon}s"] for level in ("01", "05", "50", "95", "99")])
        assert (np.diff(quantiles, axis=0) >= 0).all()
        assert (column[f"volatility_{horizon}s"] > 0).all()
        assert ((column[f"probability_up_{horizon}s"] > 0) & (column[f"probability_up_{horizon}s"] < 1)).all()


def test_changing_the_position_costs_the_same_from_either_side() -> None:
    values = run(inference.load(Path(DEFAULT_MODELS)), [0] * 50).action_values.reshape(-1, 3, 3).astype(np.float64)
    for action in range(3):
        other = (action + 1) % 3
        kept, came = values[:, action, action], values[:, other, action]
        assert (came < kept).all(), "coming to a position is worth less than holding it: the change costs"


def test_calibration_makes_a_probability_of_any_score() -> None:
    models = inference.load(Path(DEFAULT_MODELS))
    anomaly = np.interp(np.array([-1e9, *models.calibration[0], 1e9]), *models.calibration)
    assert ((anomaly > 0) & (anomaly < 1)).all()
    assert (np.diff(anomaly) >= 0).all()


def test_newest_version_in_numeric_order_is_loaded(folder: Path) -> None:
    for version in ("9", "10"):
        shutil.copytree(shipped(folder, "gru"), folder / "gru" / version)
        file = folder / "gru" / version / "card.json"
        file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | {"version": version}))
    assert inference.load(folder).names[0] == "gru@10"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(tmp_path / "none")


@pytest.mark.parametrize(("name", "family"), [("gru", "forecaster"), ("wgan", "critic"), ("dqn", "policy")])
def test_missing_family_is_named(folder: Path, name: str, family: str) -> None:
    shutil.rmtree(folder / name)
    assert f"no bundle of family {family}" in refused(folder)


def test_missing_graph_is_named(folder: Path) -> None:
    (shipped(folder, "wgan") / "model.onnx").unlink()
    assert "/model.onnx" in refused(folder)


def test_changed_graph_is_told_by_its_hash(folder: Path) -> None:
    file = shipped(folder, "gru") / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "sha256" in refused(folder)


def test_corrupt_graph_is_refused_even_where_the_card_agrees(folder: Path) -> None:
    file = shipped(folder, "gru") / "model.onnx"
    file.write_bytes(b"junk" * 100)
    edit_card(folder, "gru", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert "no ONNX graph" in refused(folder)


def test_truncated_graph_is_refused_even_where_the_card_agrees(folder: Path) -> None:
    file = shipped(folder, "dqn") / "model.onnx"
    file.write_bytes(file.read_bytes()[:-500])
    edit_card(folder, "dqn", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert "dqn" in refused(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"family": "forecaster"}', b'{"family": "oracle"}'])
def test_unreadable_card_is_named(folder: Path, content: bytes) -> None:
    (shipped(folder, "gru") / "card.json").write_bytes(content)
    assert "card.json is not a model card" in refused(folder)


def test_other_features_are_named(folder: Path) -> None:
    features = [name for name in FEATURES if name != "drawdown"] + ["moon_phase"]
    edit_card(folder, "wgan", features=features)
    text = refused(folder)
    assert "unknown here: moon_phase" in text
    assert "missing in the bundle: drawdown" in text


@pytest.mark.parametrize("opset", [17, 99])
def test_graph_of_another_opset_is_refused_with_both_numbers(folder: Path, opset: int) -> None:
    def other(graph: onnx.ModelProto) -> None:
        for entry in graph.opset_import:
            entry.version = opset

    edit_graph(folder, "gru", other)
    text = refused(folder)
    assert "gru" in text
    assert f"is of ONNX opset {opset}, this worker joins graphs of opset 18" in text


def test_card_that_says_another_opset_than_its_graph_is_refused(folder: Path) -> None:
    edit_card(folder, "dqn", opset=17)
    assert "card.json says ONNX opset 17, model.onnx is of opset 18" in refused(folder)


@pytest.mark.parametrize("runtime", ["99.0.1", "1.1000"])
def test_bundle_of_a_newer_runtime_is_refused_with_both_named(folder: Path, runtime: str) -> None:
    edit_card(folder, "wgan", libraries={"onnxruntime": runtime})
    text = refused(folder)
    assert "wgan" in text
    assert f"made with ONNX Runtime {runtime}, this worker has the older {onnxruntime.__version__}" in text


@pytest.mark.parametrize("libraries", [{}, {"onnxruntime": "1.4.0"}, {"onnxruntime": "of my own"}])
def test_bundle_of_an_older_or_unnamed_runtime_is_taken(folder: Path, libraries: dict[str, str]) -> None:
    edit_card(folder, "wgan", libraries=libraries)
    assert inference.load(folder).cards[1].libraries == libraries


def test_features_in_another_order_are_refused(folder: Path) -> None:
    edit_card(folder, "dqn", features=[*reversed(FEATURES)])
    assert "another order" in refused(folder)


def test_other_window_is_refused(folder: Path) -> None:
    edit_card(folder, "wgan", window=64)
    assert "windows of 64 trades" in refused(folder)


def test_other_outputs_are_named(folder: Path) -> None:
    edit_card(folder, "gru", outputs=[*FORECAST_COLUMNS[:-1], "quantile_999_60s"])
    assert "quantile_999_60s" in refused(folder)


@pytest.mark.parametrize(
    "table",
    [
        None,
        {"score": [0.0], "probability": [0.5]},
        {"score": [0.0, 0.0], "probability": [0.1, 0.9]},
        {"score": [0.0, 1.0], "probability": [0.9, 0.1]},
        {"score": [0.0, 1.0], "probability": [0.1, 1.0]},
    ],
)
def test_calibration_that_is_none_is_refused(folder: Path, table: Any) -> None:
    edit_card(folder, "wgan", calibration=table)
    assert "calibration" in refused(folder)


def test_other_hidden_size_is_refused(folder: Path) -> None:
    edit_card(folder, "gru", hidden_size=16)
    assert "hidden" in refused(folder)


def test_graph_with_other_input_names_is_refused(folder: Path) -> None:
    def rename(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            node.input[:] = ["x" if name == "features" else name for name in node.input]
        graph.graph.input[0].name = "x"

    edit_graph(folder, "dqn", rename)
    assert "has the inputs x, forecast; a policy has features, forecast" in refused(folder)


def test_forecaster_without_a_shortfall_is_refused_and_the_message_names_it(folder: Path) -> None:
    def forget(graph: onnx.ModelProto) -> None:
        outputs = graph.graph.output
        outputs.remove(next(output for output in outputs if output.name == "shortfall"))

    edit_graph(folder, "gru", forget)
    needed = "a forecaster has forecast, shortfall, hidden_out; missing: shortfall"
    assert f"has the outputs forecast, hidden_out; {needed}" in refused(folder)


def test_graph_of_other_width_is_refused(folder: Path) -> None:
    def widen(graph: onnx.ModelProto) -> None:
        graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 31

    edit_graph(folder, "wgan", widen)
    assert "features is 31 wide, 30 is needed" in refused(folder)


def test_graph_that_answers_in_another_shape_is_refused(folder: Path) -> None:
    def tell_nothing(graph: onnx.ModelProto) -> None:
        node = next(n for n in graph.graph.node if "critic_score" in n.output)
        node.output[:] = ["column"]
        graph.graph.node.append(onnx.helper.make_node("Concat", ["column", "column"], ["critic_score"], axis=0))

    edit_graph(folder, "wgan", tell_nothing)
    assert "critic_score" in refused(folder)


def test_two_bundles_of_one_family_and_version_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "gru", folder / "lstm")
    edit_card(folder, "lstm", name="lstm")
    text = refused(folder)
    assert "gru" in text
    assert "lstm" in text
