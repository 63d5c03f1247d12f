"""Who is champion and who challenger of several forecasters in one folder, by its roles.toml and by the commands."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from stream import catalogue, cli, inference, roles
from stream.config import DEFAULT_MODELS
from stream.errors import ModelMismatch
from stream.library import Library
from stream.roles import Roles
from tests.bundles import DQN, NEXT, NEXT_GRU, WGAN, add_kind, add_version, named, shipped
from training import bundles


class Named(NamedTuple):
    """Stands for a card."""

    name: str
    version: str


GRU_SHIPPED = named("gru")
LSTM_ADDED = GRU_SHIPPED.replace("gru", "lstm")  # by add_kind
GRU, GRU_10, LSTM, CNN = Named("gru", "1"), Named("gru", "10"), Named("lstm", "1"), Named("cnn", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The models that ship, and a second forecaster of the same version."""
    models = Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))
    add_kind(models, "lstm")
    return models


def challenger_of(library: Library) -> str:
    return "" if library.challenger is None else library.challenger.name


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.commands, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("held", "champions", "challengers"),
    [
        (Roles(), [GRU_10, CNN, GRU, LSTM], []),
        (Roles("gru"), [GRU_10, GRU], []),
        (Roles("gru@1"), [GRU], []),
        (Roles("mlp"), [], []),
        (Roles("", "cnn"), [GRU_10, GRU, LSTM], [CNN]),
        (Roles("gru", "gru@10"), [GRU], [GRU_10]),
        (Roles("gru@1", "gru"), [GRU], [GRU_10]),
        (Roles("lstm", "gru"), [LSTM], [GRU_10, GRU]),
        (Roles("lstm@1", "mlp"), [LSTM], []),
    ],
)
def test_who_is_who(held: Roles, champions: list[Named], challengers: list[Named]) -> None:
    there = [GRU, GRU_10, LSTM, CNN]
    assert roles.champions(there, held) == champions
    assert roles.challengers(there, held) == challengers


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert roles.read(tmp_path) == Roles()
    held = Roles("gru", "lstm@1")
    assert roles.read(roles.write(tmp_path, held).parent) == held
    assert (tmp_path / roles.FILE).read_text() == 'champion = "gru"\nchallenger = "lstm@1"\n'
    assert [file.name for file in tmp_path.iterdir()] == [roles.FILE]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('champion = "gru', "it knows champion and challenger"),
        ('winner = "gru"', "unknown field `winner`"),
        ("champion = 1", "Expected `str`"),
        ('champion = "../gru"', "is no NAME or NAME@VERSION"),
        ('champion = "gru"\nchallenger = "gru"', "are both gru"),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / roles.FILE).write_text(text)
    with pytest.raises(ModelMismatch, match=rule):
        roles.read(tmp_path)


def test_two_of_one_version_need_a_champion_and_the_message_says_how(folder: Path) -> None:
    for load in (inference.load, Library):
        with pytest.raises(ModelMismatch, match=r"two bundles of family forecaster .*`tapewatch models promote"):
            load(folder)
    run("promote", "lstm", "--models", str(folder))
    assert inference.load(folder).names[0] == LSTM_ADDED
    assert Library(folder).newest.names[0] == LSTM_ADDED


def test_list_shows_who_would_answer_and_who_would_be_scored(folder: Path) -> None:
    assert run("challenge", LSTM_ADDED, "--models", str(folder)) == f'challenger = "{LSTM_ADDED}"\n'
    lines = {line.split()[0]: line.split()[1] for line in run("list", "--models", str(folder)).splitlines()[1:]}
    assert lines[GRU_SHIPPED] == lines[WGAN] == lines[DQN] == "champion"
    assert lines[LSTM_ADDED] == "challenger"
    assert run("promote", "--models", str(folder)) == f'champion = "{LSTM_ADDED}"\n'
    assert run("challenge", "gru", "--models", str(folder)) == f'champion = "{LSTM_ADDED}"\nchallenger = "gru"\n'
    assert run("challenge", "--none", "--models", str(folder)) == f'champion = "{LSTM_ADDED}"\n'


def test_what_cannot_have_a_role_gets_none(folder: Path) -> None:
    with pytest.raises(ModelMismatch, match="names no challenger"):
        catalogue.promote(folder, None)
    with pytest.raises(ModelMismatch, match="only forecasters"):
        catalogue.promote(folder, "dqn")
    with pytest.raises(ModelMismatch, match="holds no model mlp"):
        catalogue.challenge(folder, "mlp")
    (shipped(folder, "lstm") / "model.onnx").write_bytes(b"half")
    with pytest.raises(ModelMismatch, match="has sha256"):
        catalogue.challenge(folder, "lstm")
    catalogue.promote(folder, "gru")
    with pytest.raises(ModelMismatch, match="gru is the champion"):
        catalogue.challenge(folder, "gru")
    assert roles.read(folder) == Roles("gru")


def test_the_only_forecaster_cannot_challenge_itself() -> None:
    with pytest.raises(ModelMismatch, match="cannot challenge itself"):
        catalogue.challenge(Path(DEFAULT_MODELS), "gru")


def test_a_kind_trained_into_the_same_folder_leaves_the_champion(tmp_path: Path) -> None:
    models = Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))
    bundles.keep_champion(models, "gru")  # trained again: nothing to decide
    assert roles.read(models) == Roles()
    bundles.keep_champion(models, "lstm")
    assert roles.read(models) == Roles("gru")
    roles.write(models, Roles("lstm"))
    bundles.keep_champion(models, "cnn")
    assert roles.read(models) == Roles("lstm")


def test_while_a_worker_runs_the_roles_are_taken_up_like_a_bundle(folder: Path) -> None:
    catalogue.challenge(folder, "lstm")
    library = Library(folder)
    assert library.challenger is not None
    first = library.challenger
    assert (library.newest.names[0], first.name) == (GRU_SHIPPED, LSTM_ADDED)
    library.look()
    add_version(folder, "gru", NEXT)
    library.look()
    assert library.newest.names[0] == NEXT_GRU
    assert library.challenger is first  # it goes on with what it carries
    catalogue.promote(folder, None)
    library.look()
    assert (library.newest.names[0], challenger_of(library)) == (LSTM_ADDED, "")
    catalogue.challenge(folder, GRU_SHIPPED)
    library.look()
    assert challenger_of(library) == GRU_SHIPPED
    assert not library.refused


def test_a_challenger_that_does_not_fit_is_refused_and_stops_nothing(folder: Path) -> None:
    roles.write(folder, Roles("gru", "lstm"))
    (shipped(folder, "lstm") / "model.onnx").write_bytes(b"half")
    library = Library(folder)
    assert library.newest.names[0] == GRU_SHIPPED
    assert library.challenger is None
    assert "has sha256" in library.refused[shipped(folder, "lstm")]
    roles.write(folder, Roles("gru", "mlp"))
    library.look()
    assert "there is no forecaster mlp that could be challenger" in library.refused[folder / roles.FILE]
    (folder / roles.FILE).write_text("champion = ")
    library.look()
    assert library.newest.names[0] == GRU_SHIPPED
    assert "it knows champion and challenger" in library.refused[folder]


def test_a_champion_that_is_not_there_leaves_the_one_in_force(folder: Path) -> None:
    roles.write(folder, Roles("gru"))
    library = Library(folder)
    roles.write(folder, Roles("mlp"))
    library.look()
    assert library.newest.names[0] == GRU_SHIPPED
    assert "there is no forecaster mlp that could be champion" in library.refused[folder / roles.FILE]
    for load in (inference.load, Library):
        with pytest.raises(ModelMismatch, match="mlp"):
            load(folder)
