"""`tapewatch train`: bundles that load come out, and mistakes are told in one line."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from stream import inference
from stream.errors import TapewatchError
from tests.training_data import write_sample
from training.cli import train


def test_quick_training_writes_bundles_that_load(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "ltc.parquet")
    out = tmp_path / "models"
    done = CliRunner().invoke(train, ["all", str(file), "--out", str(out), "--quick", "--seed", "3"])
    assert done.exit_code == 0, done.output
    models = inference.load(out)
    assert models.names[:2] == ("gru@1", "wgan@1")
    assert models.names[2] in ("dqn@1", "ppo@1"), "whichever is best on validation"
    for card in models.cards:
        assert [data.name for data in card.data] == ["ltc.parquet"]
        assert card.data[0].rows == 20_000
        assert card.seeds == [3]
        assert card.metrics["onnx_against_pytorch"] <= 1e-5
        assert card.hyperparameters
    assert np.isfinite(models.normal).all()


def test_policy_without_a_forecaster_says_so(tmp_path: Path) -> None:
    file = write_sample(tmp_path / "ltc.parquet")
    done = CliRunner().invoke(train, ["policy", str(file), "--out", str(tmp_path / "models"), "--quick"])
    assert isinstance(done.exception, TapewatchError)
    assert "train the forecaster first" in str(done.exception)


@pytest.mark.parametrize("arguments", [["oracle"], ["gan", "--seed", "-1"], ["gan", "--seeds", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(train, arguments).exit_code == 2


def test_missing_file_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(train, ["gan", str(tmp_path / "none.parquet")])
    assert isinstance(done.exception, TapewatchError)
    assert "none.parquet" in str(done.exception)
