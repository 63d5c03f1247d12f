"""`tapewatch models`: which bundles there are, what their cards say, whether they run here, and which role they have.

Reads cards and graphs only; neither PyTorch nor Kafka is needed.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
from rich.console import Console
from rich.table import Table

from stream import roles
from stream.errors import ModelMismatch
from stream.inference import FAMILIES, Card, Trust, in_front, load_bundle, named, read_card
from stream.library import TICKS, Entry, check_place, trial
from stream.roles import version_key
from stream.suggestions import did_you_mean


class Verified(NamedTuple):
    """What `verify` found of one bundle."""

    folder: Path
    card: Card | None  # None: it cannot be read
    problem: str  # empty: it fits and runs
    largest: float  # absolute output of the run

    @property
    def name(self) -> str:
        """name@version, where the card cannot be read that of the folder."""
        return f"{self.folder.parent.name}@{self.folder.name}" if self.card is None else named(self.card)


def entries(models: Path) -> list[Entry]:
    """All bundles in a folder of name/version/, by family, name and version.

    Raises
    ------
    ModelMismatch
        If the folder does not exist, holds no bundle, or a card cannot be read.
    """
    found = [Entry(folder, read_card(folder / "card.json")) for folder in _folders(models)]
    return sorted(found, key=lambda e: (e.card.family, e.card.name, version_key(e.card.version)))


def _folders(models: Path) -> list[Path]:
    """Of all bundles, by name and version; raises ModelMismatch if there are none."""
    if not models.is_dir():
        raise ModelMismatch(f"models folder {models} does not exist: name one with --models, or run `make models`")
    found = [file.parent for file in models.glob("*/*/card.json")]
    if not found:
        raise ModelMismatch(f"models folder {models} holds no bundle (name/version/card.json): run `make models`")
    return sorted(found, key=lambda folder: (folder.parent.name, version_key(folder.name)))


def find(models: Path, wanted: str) -> Entry:
    """The bundle NAME@VERSION, or the newest of NAME.

    Raises
    ------
    ModelMismatch
        Naming the bundles that there are.
    """
    name, _, version = wanted.partition("@")
    there = entries(models)
    found = [e for e in there if e.card.name == name and version in ("", e.card.version)]
    if not found:
        names = ", ".join(f"{e.card.name}@{e.card.version}" for e in there)
        meant = did_you_mean(name, {e.card.name for e in there})
        raise ModelMismatch(f"{models} holds no model {wanted}; {meant}there are {names}")
    return found[-1]


def verify(models: Path, trust: Trust | None = None) -> list[Verified]:
    """Check every bundle of a folder, whatever is wrong with the others.

    Raises
    ------
    ModelMismatch
        If the folder does not exist, or holds no bundle.
    """
    return [_verified(folder, trust) for folder in _folders(models)]


def _verified(folder: Path, trust: Trust | None) -> Verified:
    """What the worker checks, the signature where one is wanted; then a run of a few ticks in ONNX Runtime."""
    card = None
    try:
        card = read_card(folder / "card.json")
        check_place(Entry(folder, card))
        return Verified(folder, card, "", trial(load_bundle(folder, trust)))
    except ModelMismatch as error:
        return Verified(folder, card, str(error), 0.0)


def show_list(models: Path, console: Console) -> None:
    """A table of all bundles."""
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "role", "family", "data", "trained on", "seeds", "opset", "size", "sha256"):
        table.add_column(heading)
    there = entries(models)
    held = roles_of(models, there)
    for folder, card in there:
        rows = sum(file.rows for file in card.data)
        graph = folder / "model.onnx"
        size = f"{graph.stat().st_size / 1000:.0f} kB" if graph.is_file() else "missing"
        table.add_row(
            named(card),
            held.get(named(card), ""),
            card.family,
            f"{len(card.data)} files",
            f"{rows:,} ticks",
            ", ".join(map(str, card.seeds)),
            str(card.opset),
            size,
            card.sha256[:12],
        )
    console.print(table)


def roles_of(models: Path, there: Sequence[Entry]) -> dict[str, roles.Role]:
    """name@version -> role, by the cards alone: who would answer, and who would be scored in their shadow."""
    found: dict[str, roles.Role] = {}
    cards = [entry.card for entry in there]
    for family in FAMILIES:
        with contextlib.suppress(ModelMismatch):  # nobody: a worker says why
            found[named(in_front(models, family, cards))] = "champion"
    forecasters = [card for card in cards if card.family == "forecaster"]
    for card in roles.challengers(forecasters, roles.read(models))[:1]:
        found[named(card)] = "challenger"
    return found


def promote(models: Path, wanted: str | None, trust: Trust | None = None) -> Path:
    """Make a forecaster, or else the challenger, the champion; gives the path of roles.toml.

    A challenger that is named stays it, unless it is who was promoted.

    Raises
    ------
    ModelMismatch
        If there is no challenger, the forecaster is not there or does not run here, or the roles that there are do not
        pass `trust`.
    """
    held = roles.read(models, trust)
    wanted = wanted or held.challenger
    if not wanted:
        raise ModelMismatch(f"{models / roles.FILE} names no challenger: say whom to promote, NAME or NAME@VERSION")
    name = _fit_forecaster(models, wanted, trust)
    challenger = "" if held.challenger in (wanted, name) else held.challenger
    return roles.write(models, roles.Roles(wanted, challenger))


def challenge(models: Path, wanted: str | None, trust: Trust | None = None) -> Path:
    """Let a forecaster be scored in the champion's shadow, or nobody; gives the path of roles.toml.

    Raises
    ------
    ModelMismatch
        If it is not there, does not run here, is the champion, or the roles that there are do not pass `trust`.
    """
    held = roles.read(models, trust)
    if wanted is None:
        return roles.write(models, roles.Roles(held.champion))
    name = _fit_forecaster(models, wanted, trust)
    if held.champion in (wanted, name):
        raise ModelMismatch(f"{wanted} is the champion in {models / roles.FILE}: promote another one first")
    cards = [entry.card for entry in entries(models)]
    new = roles.Roles(held.champion, wanted)
    if not roles.champions([card for card in cards if card.family == "forecaster"], new):
        raise ModelMismatch(f"{models} holds no other forecaster than {wanted}, which cannot challenge itself")
    return roles.write(models, new)


def _fit_forecaster(models: Path, wanted: str, trust: Trust | None) -> str:
    """name@version of a forecaster that runs here."""
    entry = find(models, wanted)
    if entry.card.family != "forecaster":
        raise ModelMismatch(f"{wanted} is a {entry.card.family}: only forecasters have roles")
    checked = _verified(entry.folder, trust)
    if checked.problem:
        raise ModelMismatch(checked.problem)
    return named(entry.card)


def show_card(models: Path, wanted: str, console: Console) -> None:
    """One card, readably: what it is, what it was trained on, how it did."""
    folder, card = find(models, wanted)
    console.print(f"{card.name}@{card.version}, a {card.family}, in {folder}", highlight=False, soft_wrap=True)
    about = {
        "sha256": card.sha256,
        "git commit": card.git_commit,
        "opset": card.opset,
        "features": len(card.features),
        "outputs": ", ".join(card.outputs),
        "split": card.split,
        "seeds": ", ".join(map(str, card.seeds)),
        "libraries": ", ".join(f"{name} {version}" for name, version in card.libraries.items()),
    }
    for title, values in (
        ("", about),
        ("data", {file.name: f"{file.rows:,} rows, {', '.join(file.symbols)}" for file in card.data}),
        ("hyperparameters", card.hyperparameters),
        ("metrics", dict(flat(card.metrics))),
    ):
        console.print(f"\n{title}" if title else "", highlight=False)
        for name, value in values.items():
            console.print(f"  {name}: {value}", highlight=False, markup=False, soft_wrap=True)
    console.print("\nnotes", highlight=False)
    for note in card.notes:
        console.print(f"  - {note}", highlight=False, markup=False, soft_wrap=True)


def flat(tree: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Leaves of a card's metrics, named a / b / c; those measured with several seeds with mean and deviation."""
    leaves: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{above} / {key}" if above else key
        if isinstance(value, dict) and set(value) == {"shipped", "mean", "sd"}:
            leaves.append((name, f"{value['shipped']:g} (seeds: {value['mean']:g} ± {value['sd']:g})"))
        elif isinstance(value, dict):
            leaves += flat(value, name)
        else:
            leaves.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    return leaves


def run_verify(models: Path, console: Console, trust: Trust | None = None) -> None:
    """Check every bundle, a line each.

    Raises
    ------
    ModelMismatch
        If one does not fit or run, or the roles are refused.
    """
    checked = verify(models, trust)
    checks = f"{'' if trust is None else 'signature, '}hash, features, shapes"
    for one in checked:
        result = one.problem or f"ok: {checks}, {TICKS} ticks in ONNX Runtime {onnxruntime.__version__}"
        console.print(f"{one.name}: {result}", highlight=False, markup=False, soft_wrap=True)
    wrong = [one.name for one in checked if one.problem]
    if wrong:
        raise ModelMismatch(f"{len(wrong)} of {len(checked)} models in {models} cannot be used: {', '.join(wrong)}")
    roles.read(models, trust)
