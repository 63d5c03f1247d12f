"""A training that was interrupted goes on where it was, and its bundles are those of one that was not."""

import importlib.util
from pathlib import Path

import msgspec
import pytest

from stream import roles
from stream.errors import TapewatchError
from tests.training_data import sample
from tests.unit.test_champion import card, put
from training import bundles, checkpoints, data, forecaster, whole
from training.bundles import Plan
from training.forecasters.contract import Settings

SMALL = Settings(kind="mlp", hidden=8, head=8, window=2, segment=128, unroll=64, burn_in=16, lanes=2, rounds=2)


class Watcher:
    """What was announced and its last note; Ctrl-C when one of the names comes."""

    def __init__(self, ends_at: str = "") -> None:
        self.notes: dict[str, str] = {}
        self.ends_at = ends_at

    def __call__(self, name: str) -> forecaster.Progress:
        if name == self.ends_at:
            raise KeyboardInterrupt

        def told(done: int, of: int, note: str) -> None:
            self.notes[name] = note

        return told


def files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_seed_that_was_trained_before_the_interruption_is_not_trained_again(tmp_path: Path) -> None:
    plan = Plan(SMALL, seeds=2)
    once, cut = tmp_path / "once", tmp_path / "cut"
    bundles.train_forecaster(sample(), plan, 0, once, Watcher())
    with pytest.raises(KeyboardInterrupt):
        bundles.train_forecaster(sample(), plan, 0, cut, Watcher("mlp, seed 1"))
    assert len(list((cut / checkpoints.FOLDER).iterdir())) == 1
    watcher = Watcher()
    bundles.train_forecaster(sample(), plan, 0, cut, watcher)
    assert watcher.notes["mlp, seed 0"] == checkpoints.TAKEN_UP
    assert watcher.notes["mlp, seed 1"].startswith("validation loss")
    assert files(cut) == files(once)


def test_other_settings_ticks_or_seed_have_another_key() -> None:
    dataset = sample()
    (file,) = dataset.files
    other = dataset._replace(files=(msgspec.structs.replace(file, sha256="0" * 64),))
    keys = [
        checkpoints.key(dataset, SMALL, 0),
        checkpoints.key(dataset, SMALL, 1),
        checkpoints.key(other, SMALL, 0),
        checkpoints.key(dataset, msgspec.structs.replace(SMALL, rounds=3), 0),
    ]
    assert len(set(keys)) == 4
    assert checkpoints.key(dataset, SMALL, 0) == keys[0]


class Trainers:
    """Trainers that only write a card, of a loss that is given, and remember that they did."""

    def __init__(self, losses: dict[str, float]) -> None:
        self.losses = losses
        self.ran: list[str] = []

    def part(self, name: str) -> whole.Part:
        def trainer(dataset: data.Dataset, plan: Plan, seed: int, out: Path, announce: bundles.Announce) -> Path:
            announce(f"{name}, at work")
            self.ran.append(name)
            put(out, card(name, self.losses[name]))
            return out / name / "1"

        return whole.Part(name, trainer, Plan())


def train_all(trainers: Trainers, out: Path, watcher: Watcher) -> list[Path]:
    forecasters = [trainers.part(name) for name in ("gru", "lstm", "mlp")]
    return whole.train(forecasters, [trainers.part(name) for name in ("gan", "policy")], sample(), 0, out, watcher)


def test_whole_training_goes_on_where_it_was_and_the_champion_is_chosen_before_the_policy(tmp_path: Path) -> None:
    losses = {"gru": 2.0, "lstm": 1.0, "mlp": 3.0, "gan": 0.0, "policy": 0.0}
    first, again = Trainers(losses), Trainers(losses)
    with pytest.raises(KeyboardInterrupt):
        train_all(first, tmp_path, Watcher("policy, at work"))
    assert first.ran == ["gru", "lstm", "mlp", "gan"]
    assert roles.read(tmp_path).champion == "lstm"
    watcher = Watcher()
    written = train_all(again, tmp_path, watcher)
    assert again.ran == ["policy"]
    assert watcher.notes["gan"] == f"{checkpoints.TAKEN_UP}: {tmp_path / 'gan' / '1'}"
    assert written == [tmp_path / name / "1" for name in losses]
    assert not (tmp_path / checkpoints.FOLDER).exists()


def test_measures_that_lack_ticks_are_said_and_left_out(tmp_path: Path) -> None:
    seen: list[tuple[Path, list[Path]]] = []

    def taken(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
        seen.append((folder, files))
        return "gru@1", {}

    def refused(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
        raise TapewatchError("too few ticks")

    watcher, files = Watcher(), [tmp_path / "ticks.parquet"]
    whole.measure(files, tmp_path, watcher, {"first": refused, "second": taken})
    assert seen == [(tmp_path, files)]
    assert watcher.notes == {"measuring: first": "left out: too few ticks", "measuring: second": ""}


def test_every_measure_is_a_program_of_its_own() -> None:
    for name in whole.MEASURES:
        assert importlib.util.find_spec(f"training.{name}") is not None


def test_bundle_that_was_written_over_since_is_made_again(tmp_path: Path) -> None:
    put(tmp_path, card("gru", 1.0))
    checkpoints.finish(tmp_path, "gru", "key", tmp_path / "gru" / "1")
    assert checkpoints.finished(tmp_path, "gru", "key") == tmp_path / "gru" / "1"
    assert checkpoints.finished(tmp_path, "gru", "another") is None
    (tmp_path / "gru" / "1" / "card.json").write_text("{}")
    assert checkpoints.finished(tmp_path, "gru", "key") is None


def test_kill_while_a_checkpoint_is_written_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    def half(part: Path) -> None:
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    file = tmp_path / checkpoints.FOLDER / "gru-0-key.pt"
    with pytest.raises(KeyboardInterrupt):
        checkpoints._write(file, half)
    assert not file.exists()
    checkpoints.remove(tmp_path, "gru-*")
    assert not (tmp_path / checkpoints.FOLDER).exists()
