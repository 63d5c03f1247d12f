"""The champion is chosen by validation loss, and among those not told apart by the least state; nothing else counts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream import roles
from stream.config import ROOT
from stream.errors import TapewatchError
from stream.inference import Card, read_card
from stream.roles import Roles
from tests.bundles import shipped
from training import champion

SHIPPED = read_card(shipped(ROOT / "models", "gru") / "card.json")


def card(name: str, loss: float, version: str = "1", **changes: Any) -> Card:
    """The card of the GRU that ships under another name, with one validation loss."""
    metrics = SHIPPED.metrics | {"validation_loss": [loss]}
    return msgspec.structs.replace(SHIPPED, **{"name": name, "version": version, "metrics": metrics} | changes)


def put(models: Path, *cards: Card) -> None:
    """Cards of a folder of models."""
    for one in cards:
        folder = models / one.name / one.version
        folder.mkdir(parents=True)
        (folder / "card.json").write_bytes(msgspec.json.encode(one))


def test_lowest_validation_loss_is_champion_whatever_the_test_part_says() -> None:
    best = card("lstm", 1.0, metrics={"validation_loss": [1.0], "test": {"a.parquet": {"10s": {"qlike": 99.0}}}})
    rest = card("gru", 1.1, metrics={"validation_loss": [1.1], "test": {"a.parquet": {"10s": {"qlike": -99.0}}}})
    assert champion.pick([rest, best]).name == champion.pick([best, rest]).name == "lstm"


def test_least_state_is_champion_among_those_within_one_standard_error_of_the_best() -> None:
    best = card("mlp", 0.0, hidden_size=240, metrics={"validation_loss": [0.7, 1.0, 1.3]})  # 1.0, error 0.1732
    near = card("gru", 0.0, hidden_size=32, metrics={"validation_loss": [1.17, 1.17]})
    far = card("tiny", 0.0, hidden_size=1, metrics={"validation_loss": [1.18, 1.18]})
    assert champion.pick([best, near, far]).name == "gru"
    assert champion.pick([best, far]).name == "mlp"


def test_best_of_several_seeds_counts_no_more_than_the_others() -> None:
    lucky = card("mlp", 0.0, hidden_size=1, metrics={"validation_loss": [0.1, 2.0]})
    steady = card("gru", 0.0, hidden_size=32, metrics={"validation_loss": [1.0, 1.0]})
    assert champion.pick([lucky, steady]).name == "gru"


def test_equal_losses_fall_to_the_first_name() -> None:
    assert champion.pick([card("mlp", 1.0), card("cnn", 1.0)]).name == "cnn"


def test_losses_of_other_files_or_another_loss_do_not_compare() -> None:
    other = msgspec.structs.replace(SHIPPED.data[0], sha256="0" * 64)
    elsewhere = card("lstm", 0.5, data=[other, *SHIPPED.data[1:]])
    with pytest.raises(TapewatchError, match=r"gru@1 and lstm@1 do not compare"):
        champion.pick([card("gru", 1.0), elsewhere])
    heavier = card("lstm", 0.5, hyperparameters=SHIPPED.hyperparameters | {"pinball": 0.1})
    with pytest.raises(TapewatchError, match=r"do not compare"):
        champion.pick([card("gru", 1.0), heavier])


def test_cards_without_a_loss_and_folders_without_a_forecaster_are_named(tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match=r"card of gru@1 holds no validation_loss"):
        champion.pick([card("gru", 1.0, metrics={})])
    put(tmp_path, card("wgan", 1.0, family="critic"))
    with pytest.raises(TapewatchError, match="no forecaster to choose"):
        champion.choose(tmp_path)


def test_choice_is_among_the_newest_of_each_name_and_is_written(tmp_path: Path) -> None:
    put(tmp_path, card("gru", 0.1, "9"), card("gru", 1.0, "10"), card("lstm", 0.9), card("wgan", 0.0, family="critic"))
    assert champion.choose(tmp_path).name == "lstm"
    assert roles.read(tmp_path) == Roles("lstm")


def test_challenger_stays_unless_it_is_chosen(tmp_path: Path) -> None:
    put(tmp_path, card("gru", 1.0), card("lstm", 0.9))
    roles.write(tmp_path, Roles("mlp", "gru@1"))
    champion.choose(tmp_path)
    assert roles.read(tmp_path) == Roles("lstm", "gru@1")
    roles.write(tmp_path, Roles("gru", "lstm@1"))
    champion.choose(tmp_path)
    assert roles.read(tmp_path) == Roles("lstm")


def test_version_is_named_where_a_newer_one_is_there(tmp_path: Path) -> None:
    put(tmp_path, card("gru", 1.0), card("gru", 2.0, "2"))
    champion.crown(tmp_path, card("gru", 1.0))
    assert roles.read(tmp_path) == Roles("gru@1")
