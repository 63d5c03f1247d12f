"""`tapewatch models`, and the cards for people."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream import catalogue, cli
from stream.config import ROOT
from stream.errors import ModelMismatch
from stream.inference import read_card
from tests.bundles import GRU, WGAN, shipped
from training import cards

MODELS = ROOT / "models"
SHIPPED = sorted(file.parent for file in MODELS.glob("*/*/card.json"))


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS, tmp_path / "models"))


def test_list_names_every_bundle() -> None:
    done = CliRunner().invoke(cli.commands, ["models", "list", "--models", str(MODELS)])
    assert done.exit_code == 0
    for folder in SHIPPED:
        card = read_card(folder / "card.json")
        (line,) = [one for one in done.output.splitlines() if one.startswith(f"{card.name}@{card.version} ")]
        assert card.family in line
        assert card.sha256[:12] in line


def test_show_takes_the_newest_version_by_number(tmp_path: Path) -> None:
    models = copied(tmp_path)
    for version in ("9", "10"):
        text = (shipped(models, "gru") / "card.json").read_text()
        text = text.replace(f'"version": "{GRU.partition("@")[2]}"', f'"version": "{version}"')
        (models / "gru" / version).mkdir()
        (models / "gru" / version / "card.json").write_text(text)
    assert catalogue.find(models, "gru").card.version == "10"
    assert catalogue.find(models, "gru@9").card.version == "9"


def test_show_tells_metrics_with_their_spread() -> None:
    done = CliRunner().invoke(cli.commands, ["models", "show", GRU, "--models", str(MODELS)])
    qlike = read_card(shipped(MODELS, "gru") / "card.json").metrics["test"]["es_ticks.parquet"]["10s"]["qlike"]
    line = f"test / es_ticks.parquet / 10s / qlike: {qlike['shipped']:g} (seeds: {qlike['mean']:g} ± {qlike['sd']:g})"
    assert line in done.output


def test_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelMismatch, match=rf"no model gru@777; there are .*{GRU}"):
        catalogue.find(MODELS, "gru@777")


def test_verify_runs_all_that_ship() -> None:
    checked = catalogue.verify(MODELS)
    assert [one.problem for one in checked] == [""] * len(SHIPPED)
    assert all(one.largest > 0 for one in checked)


def test_verify_refuses_a_bundle_in_the_folder_of_another_version(tmp_path: Path) -> None:
    models = copied(tmp_path)
    shutil.copytree(shipped(models, "gru"), models / "gru" / "9")
    done = CliRunner().invoke(cli.commands, ["models", "verify", "--models", str(models)])
    assert isinstance(done.exception, ModelMismatch)
    assert f"gru/9: its card says {GRU}; a bundle lies in name/version of it" in done.output


def test_verify_names_the_changed_graph_and_checks_the_others(tmp_path: Path) -> None:
    models = copied(tmp_path)
    with (shipped(models, "wgan") / "model.onnx").open("ab") as file:
        file.write(b"x")
    done = CliRunner().invoke(cli.commands, ["models", "verify", "--models", str(models)])
    assert isinstance(done.exception, ModelMismatch)
    assert "1 of 4 models" in str(done.exception)
    assert WGAN in str(done.exception)
    assert done.output.count(": ok:") == 3
    assert "it was changed" in done.output


def test_verify_goes_on_behind_a_card_that_cannot_be_read(tmp_path: Path) -> None:
    models = copied(tmp_path)
    (shipped(models, "gru") / "card.json").write_text("{")
    done = CliRunner().invoke(cli.commands, ["models", "verify", "--models", str(models)])
    assert f"1 of 4 models in {models} cannot be used: {GRU}" in str(done.exception)
    assert done.output.count(": ok:") == 3
    assert f"{GRU}: {shipped(models, 'gru') / 'card.json'} is not a model card: " in done.output


def test_folder_without_bundles_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match="make models"):
        catalogue.entries(tmp_path)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_committed_card_is_the_generated_one(folder: Path) -> None:
    card = read_card(folder / "card.json")
    assert (folder / "CARD.md").read_text(encoding="utf-8") == cards.markdown(card), "run python -m training.cards"
    picture = cards.svg(card)
    assert (folder / "calibration.svg").exists() == bool(picture)
    if picture:
        assert (folder / "calibration.svg").read_text(encoding="utf-8") == picture


def test_readme_says_of_the_policy_what_its_card_says() -> None:
    (folder,) = [folder for folder in SHIPPED if read_card(folder / "card.json").family == "policy"]
    metrics = read_card(folder / "card.json").metrics
    flat = metrics["test"][metrics["way"]]["share_flat"]["shipped"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"the policy stays flat on {100 * flat:.1f} % of its decisions" in readme


def test_card_says_where_the_forecaster_loses_to_ewma() -> None:
    card = read_card(shipped(MODELS, "gru") / "card.json")
    fails = cards.markdown(card).split("## Where it fails")[1].split("## ")[0]
    for named in card.metrics["qlike_not_below_ewma"]:
        file, horizon = named.rsplit(" ", 1)
        assert f"{file}, {horizon}: QLIKE" in fails


@pytest.mark.parametrize(("before", "told"), [(0.025, True), (0.035, False)])
def test_card_says_where_the_fit_of_the_direction_harms(before: float, told: bool) -> None:
    card = read_card(shipped(MODELS, "gru") / "card.json")
    ten = card.metrics["test"]["es_ticks.parquet"]["10s"] | {"calibration_error": 0.04}
    card.metrics["test"] = {"es_ticks.parquet": {"10s": ten}}
    card.metrics["calibration_error_as_trained"] = {"es_ticks.parquet": {"10s": before}}
    assert ("made its error 0.040 of 0.025" in cards.markdown(card)) == told


@pytest.mark.parametrize(("error", "told"), [(0.099, False), (0.125, True)])
def test_card_says_where_probabilities_of_a_rise_are_off(*, error: float, told: bool) -> None:
    card = read_card(shipped(MODELS, "gru") / "card.json")
    ten = card.metrics["test"]["es_ticks.parquet"]["10s"]
    card.metrics["test"] = {"es_ticks.parquet": {"10s": ten | {"calibration_error": error}}}
    fails = cards.markdown(card).split("## Where it fails")[1].split("## ")[0]
    assert ("es_ticks.parquet, 10s: probabilities of a rise are off by 0.125 on average." in fails) == told


@pytest.mark.parametrize(("own", "shown"), [(-6.5, "| **-6.5000** | -6.0000 |"), (-5.5, "| -5.5000 | **-6.0000** |")])
def test_card_says_where_an_exponential_tail_is_no_worse_than_its_own_shortfall(own: float, shown: str) -> None:
    card = read_card(shipped(MODELS, "gru") / "card.json")
    ten = card.metrics["test"]["es_ticks.parquet"]["10s"]
    changed = ten | {"fissler_ziegel": own, "fissler_ziegel_exponential_tail": -6.0}
    card.metrics["test"] = {"es_ticks.parquet": {"10s": changed}}
    told, fails = cards.markdown(card).split("## Where it fails")
    assert f"| es_ticks.parquet | 10s {shown}" in told
    assert ("es_ticks.parquet, 10s: FZ0 of its ES, -5.5000, is not below -6.0000" in fails) == (own > -6.0)
