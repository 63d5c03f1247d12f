"""`tapewatch train`: bundles that load come out, and mistakes are told in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stream import inference
from stream.errors import TapewatchError
from tests.training_data import write_sample
from training import bundles, checkpoints, whole
from training.cli import train
from training.forecaster import KINDS


def test_quick_training_writes_bundles_that_load(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "ltc.parquet")
    out = tmp_path / "models"
    for what in (["forecaster", "--kind", "mlp"], ["gan"], ["policy"]):
        done = CliRunner().invoke(train, [*what, str(file), "--out", str(out), "--quick", "--seed", "3"])
        assert done.exit_code == 0, done.output
    models = inference.load(out)
    assert models.names[:2] == (f"mlp@{bundles.FORECASTER_VERSION}", f"wgan@{bundles.CRITIC_VERSION}")
    best_on_validation = models.names[2].partition("@")
    assert best_on_validation in (("dqn", "@", str(bundles.POLICY_VERSION)), ("ppo", "@", str(bundles.POLICY_VERSION)))
    assert not (out / checkpoints.FOLDER).exists()
    for card in models.cards:
        assert [data.name for data in card.data] == ["ltc.parquet"]
        assert card.data[0].rows == 20_000
        assert card.seeds == [3]
        assert card.metrics["onnx_against_pytorch"] <= 1e-5
        assert card.hyperparameters
    assert np.isfinite(models.normal).all()


def test_all_is_every_kind_then_critic_and_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[Any, ...]] = []

    def noted(*given: Any) -> list[Path]:
        called.append(given)
        return [tmp_path / "models" / "gru" / "1"]

    monkeypatch.setattr(whole, "train", noted)
    file = write_sample(tmp_path / "ltc.parquet")
    done = CliRunner().invoke(train, ["all", str(file), "--out", str(tmp_path / "models"), "--quick", "--seed", "3"])
    assert done.output.splitlines()[-1] == str(tmp_path / "models" / "gru" / "1")
    ((forecasters, rest, dataset, seed, out, _),) = called
    assert [(part.name, part.plan.forecaster.kind, part.plan.seeds) for part in forecasters] == [
        (kind, kind, 1) for kind in KINDS
    ]
    assert [part.trainer for part in (*forecasters, *rest)] == [
        *[bundles.train_forecaster] * len(KINDS),
        bundles.train_gan,
        bundles.train_policy,
    ]
    assert (dataset.files[0].rows, seed, out) == (20_000, 3, tmp_path / "models")


@pytest.mark.parametrize("quick", [False, True])
def test_all_measures_into_the_cards_unless_it_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, quick: bool
) -> None:
    measured: list[tuple[list[Path], Path, dict[str, Any]]] = []
    monkeypatch.setattr(whole, "train", lambda *given: [])
    monkeypatch.setattr(whole, "measure", lambda files, out, _, measures: measured.append((files, out, measures)))
    file, out = write_sample(tmp_path / "ltc.parquet"), tmp_path / "models"
    given = ["all", str(tmp_path), "--out", str(out), "--device", "cpu", *(["--quick"] if quick else [])]
    done = CliRunner().invoke(train, given)
    assert done.exit_code == 0, done.output
    assert [(files, into, list(measures)) for files, into, measures in measured] == (
        [] if quick else [([file], out, list(whole.MEASURES))]
    )
    assert [measures["augmentation"].keywords["device"] for _, _, measures in measured] == ([] if quick else ["cpu"])


def test_policy_without_a_forecaster_says_so(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "ltc.parquet")
    done = CliRunner().invoke(train, ["policy", str(file), "--out", str(tmp_path / "models"), "--quick"])
    assert isinstance(done.exception, TapewatchError)
    assert "train the forecaster first" in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [["oracle"], ["gan", "--seed", "-1"], ["gan", "--seeds", "0"], ["all", "--kind", "mlp"]]
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(train, arguments).exit_code == 2


def test_missing_file_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(train, ["gan", str(tmp_path / "none.parquet")])
    assert isinstance(done.exception, TapewatchError)
    assert "none.parquet" in str(done.exception)
