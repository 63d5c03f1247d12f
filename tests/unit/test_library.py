"""The folder of models while a worker runs: what is taken, what is refused, and when it is looked at again."""

import logging
import shutil
from pathlib import Path

import pytest

from stream.config import DEFAULT_MODELS
from stream.errors import ModelMismatch
from stream.library import Library
from tests.bundles import DQN, GRU, NEXT, NEXT_GRU, WGAN, add_bundle, add_version, shipped

OLD = (GRU, WGAN, DQN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the models that ship."""
    return Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))


def refusal(library: Library, folder: Path) -> str:
    """The one bundle that is refused, while the old models stay."""
    library.look()
    assert library.newest.names == OLD
    assert list(library.refused) == [folder]
    assert "\n" not in library.refused[folder]
    return library.refused[folder]


def test_a_new_version_is_wanted_and_the_old_can_still_be_had(folder: Path) -> None:
    library = Library(folder)
    old = library.newest
    library.look()
    assert library.newest is old
    add_version(folder, "gru", NEXT)
    library.look()
    assert library.newest.names == (NEXT_GRU, WGAN, DQN)
    assert library.newest.digests[1:] == old.digests[1:]
    assert library.find(old.names, old.digests) is old
    assert library.find(library.newest.names, library.newest.digests) is library.newest
    names, digests = old.names, old.digests
    del old
    found = library.find(names, digests)
    assert found is not None
    assert found.names == OLD


def test_a_version_that_is_taken_away_gives_way_to_the_one_before(folder: Path) -> None:
    added = add_version(folder, "gru", NEXT)
    library = Library(folder)
    names, digests = library.newest.names, library.newest.digests
    shutil.rmtree(added)
    library.look()
    assert library.newest.names == OLD
    assert library.find(names, digests) is None


def test_a_bundle_without_a_card_is_not_complete_and_is_not_looked_at(folder: Path) -> None:
    library = Library(folder)
    added = add_version(folder, "gru", NEXT)
    card = (added / "card.json").read_bytes()
    (added / "card.json").unlink()
    library.look()
    assert library.newest.names == OLD
    assert not library.refused
    (added / "card.json").write_bytes(card)
    library.look()
    assert library.newest.names[0] == NEXT_GRU


def test_a_graph_that_is_half_copied_is_refused_until_it_is_whole(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(folder)
    added = add_version(folder, "gru", NEXT)
    whole = (added / "model.onnx").read_bytes()
    (added / "model.onnx").write_bytes(whole[:1000])
    with caplog.at_level(logging.ERROR, "tapewatch.models"):
        text = refusal(library, added)
        library.look()
    assert "has sha256" in text
    assert "its card says" in text
    assert [record.message for record in caplog.records] == [
        f"refused model, {GRU}, {WGAN}, {DQN} stay in force: {text}"
    ]
    (added / "model.onnx").write_bytes(whole)
    library.look()
    assert library.newest.names[0] == NEXT_GRU
    assert not library.refused


def test_a_graph_that_is_missing_is_refused(folder: Path) -> None:
    library = Library(folder)
    added = add_version(folder, "gru", NEXT)
    (added / "model.onnx").unlink()
    assert "cannot read" in refusal(library, added)


def test_a_bundle_for_other_features_is_refused_with_both_sides_named(folder: Path) -> None:
    library = Library(folder)
    graph = (shipped(folder, "gru") / "model.onnx").read_bytes()
    added = add_bundle(folder, "gru", NEXT, graph, features=["log_return", "moon_phase"])
    text = refusal(library, added)
    assert "unknown here: moon_phase" in text
    assert "missing in the bundle: log_time_gap" in text


def test_a_bundle_that_does_not_run_is_refused(folder: Path) -> None:
    library = Library(folder)
    added = add_version(folder, "gru", NEXT, float("nan"))
    assert "is not finite" in refusal(library, added)


def test_a_card_that_is_none_is_refused(folder: Path) -> None:
    library = Library(folder)
    added = add_version(folder, "gru", NEXT)
    (added / "card.json").write_bytes(b'{"family":')
    assert "is not a model card" in refusal(library, added)


def test_a_card_of_another_version_than_its_folder_is_refused(folder: Path) -> None:
    library = Library(folder)
    added = Path(shutil.copytree(shipped(folder, "gru"), folder / "gru" / NEXT))
    assert f"gru/{NEXT}: its card says {GRU}; a bundle lies in name/version" in refusal(library, added)


def test_a_version_changed_in_place_is_refused_and_does_not_come_into_force(folder: Path) -> None:
    library = Library(folder)
    old = library.newest
    add_version(folder, "gru", shipped(folder, "gru").name, 1.01)
    assert "a change needs a new version" in refusal(library, shipped(folder, "gru"))
    assert library.newest.digests == old.digests


def test_what_does_not_fit_at_the_start_is_passed_over_for_what_does(folder: Path) -> None:
    added = add_version(folder, "gru", NEXT)
    (added / "model.onnx").write_bytes(b"")
    library = Library(folder)
    assert library.newest.names == OLD
    assert list(library.refused) == [added]


def test_without_any_model_that_fits_there_is_no_start(folder: Path) -> None:
    (shipped(folder, "gru") / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelMismatch, match=r"gru/\d+/model\.onnx has sha256"):
        Library(folder)
    with pytest.raises(ModelMismatch, match="does not exist"):
        Library(folder / "nowhere")


def test_a_folder_that_disappears_leaves_the_models_in_force(folder: Path) -> None:
    library = Library(folder)
    shutil.rmtree(folder)
    library.look()
    assert library.newest.names == OLD
    assert "does not exist" in library.refused[folder]
