"""The program around a measurement: its figures, or why there are none, in one line."""

import sys
from pathlib import Path

import pytest

from stream.errors import BadFile
from training import measuring


def test_files_and_folder_are_passed_on_and_the_figures_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measuring", "a.parquet", "--models", "shelf"])
    asked = []

    def measure(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
        asked.append((folder, files))
        return "wgan@1", {"auc": 0.75}

    assert measuring.run("training.measuring", "Measures.", measure) == 0
    assert asked == [(Path("shelf"), [Path("a.parquet")])]
    assert capsys.readouterr().out == "in the card of wgan@1:\n  auc: 0.75\n"


def test_what_cannot_be_measured_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measuring", "a.parquet"])

    def measure(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
        raise BadFile(f"{files[0]} holds no rows")

    assert measuring.run("training.measuring", "Measures.", measure) == 1
    assert capsys.readouterr().err == "training.measuring: a.parquet holds no rows\n"
