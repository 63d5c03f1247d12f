"""The folder of models while a worker runs: which bundles are there, which of them fit, and which should be in force.

A bundle is complete when its card.json is there: copy model.onnx first and card.json last, or move the whole folder in.
Of each family the highest version that fits is wanted; of several forecasters `roles` decides, and it may name a
challenger. One that does not fit, whose hash is wrong, or whose signature is missing where one is wanted, is refused
with both sides named, and looked at again when one of its files changes; the models that were wanted before stay so.
A bundle is never changed in place: a new graph or calibration needs a new version, else nobody could tell from a result
what made it.
"""

import logging
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime

from stream import roles
from stream.challenger import Challenger
from stream.core.features import WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack
from stream.core.results import FORECAST_COLUMNS
from stream.errors import ModelMismatch
from stream.inference import (
    FAMILIES,
    INPUTS,
    NOISE,
    OUTPUTS,
    Bundle,
    Card,
    Models,
    Trust,
    digest,
    load_bundle,
    named,
    read_card,
    undecided,
)
from stream.messages import HORIZONS
from stream.roles import Roles
from stream.succession import Names

TICKS: Final = 16  # of a trial, of two instruments
WARM_TICKS: Final = 512
_FILES: Final = ("card.json", "card.json.sig", "model.onnx")
_ROLES: Final = (roles.FILE, f"{roles.FILE}.sig")
log = logging.getLogger("tapewatch.models")

Signature = tuple[tuple[int, int], ...]


class Entry(NamedTuple):
    """A bundle whose card could be read; its graph may be anything."""

    folder: Path
    card: Card

    @property
    def name(self) -> str:
        """As the card says."""
        return self.card.name

    @property
    def version(self) -> str:
        """As the card says."""
        return self.card.version


class Library:
    """What a folder of models offers.

    `look` and `find` may run in threads of their own. Bundles that `trust` does not pass are not there.

    Raises
    ------
    ModelMismatch
        If there is no family of which one bundle fits.
    """

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        self._folder = folder
        self._trust = trust
        self._busy = threading.Lock()
        self._seen: dict[Path, Signature] | None = None
        self._roles_seen: Signature | None = None
        self._fitting: dict[Path, Bundle] = {}
        self._loaded: WeakValueDictionary[tuple[Names, Names], Models] = WeakValueDictionary()
        self._served: dict[str, str] = {}  # name@version -> digest of all that were ever wanted
        self.refused: dict[Path, str] = {}
        """Bundles that would be wanted, and why they are not; one line each."""
        self._bundles: list[Bundle] = []
        self.look()

    newest: Models
    """Those that should be in force."""
    challenger: Challenger | None = None
    """Whom to score in the shadow of the champion, if anybody."""

    def look(self) -> None:
        """See what the folder holds now. Never fails once there are models: whatever is wrong is in `refused`."""
        with self._busy:
            self._look()

    def _look(self) -> None:
        seen, roles_seen = _signatures(self._folder), tuple(_stat(self._folder / name) for name in _ROLES)
        if (seen, roles_seen) == (self._seen, self._roles_seen):
            return
        changed = {folder for folder, signature in seen.items() if (self._seen or {}).get(folder) != signature}
        self._fitting = {folder: held for folder, held in self._fitting.items() if folder in seen.keys() - changed}
        refused: dict[Path, str] = {}
        try:
            self._choose(list(seen), refused)
        except ModelMismatch as error:
            if not self._bundles:
                raise
            refused[self._folder] = str(error)
        for folder in refused.keys() - self.refused.keys() | refused.keys() & changed:
            log.error("refused model, %s stay in force: %s", ", ".join(self.newest.names), refused[folder])
        self.refused = refused
        self._seen, self._roles_seen = seen, roles_seen

    def find(self, names: Names, digests: Names) -> Models | None:
        """The models of just these names and digests; None if one of them is not there any more, or was changed."""
        with self._busy:
            return self._find(names, digests)

    def _find(self, names: Names, digests: Names) -> Models | None:
        held = self._loaded.get((names, digests))
        if held is not None:
            return held
        entries = self._entries(list(_signatures(self._folder)), {})
        bundles = []
        for name, wanted in zip(names, digests, strict=True):
            entry = next((e for e in entries if (named(e.card), digest(e.card)) == (name, wanted)), None)
            if entry is None:
                return None
            try:
                bundles.append(load_bundle(entry.folder, self._trust))
            except ModelMismatch as error:
                log.error("cannot load a model that was in force: %s", error)
                return None
        return self._joined(bundles)

    def _choose(self, folders: list[Path], refused: dict[Path, str]) -> None:
        if not self._folder.is_dir():
            raise ModelMismatch(
                f"models folder {self._folder} does not exist: name one with --models, or run `make models`"
            )
        entries, held = self._entries(folders, refused), roles.read(self._folder, self._trust)
        bundles = [self._best(family, entries, held, refused) for family in FAMILIES]
        models = self._joined(bundles)
        self._bundles, self.newest = bundles, models
        self.challenger = self._contender(entries, held, refused)
        self._served.update(zip(models.names, models.digests, strict=True))

    def _joined(self, bundles: list[Bundle]) -> Models:
        models = Models(*bundles)
        _warm(models)
        return self._loaded.setdefault((models.names, models.digests), models)

    def _entries(self, folders: list[Path], refused: dict[Path, str]) -> list[Entry]:
        entries = []
        for folder in folders:
            try:
                entry = Entry(folder, read_card(folder / "card.json", self._trust))
                check_place(entry)
                entries.append(entry)
            except ModelMismatch as error:
                refused[folder] = str(error)
        return entries

    def _best(self, family: str, entries: list[Entry], held: Roles, refused: dict[Path, str]) -> Bundle:
        """The highest version that fits; of several forecasters the one that the roles say."""
        ours = [entry for entry in entries if entry.card.family == family]
        ranked = roles.champions(ours, held if family == "forecaster" else Roles())
        for entry in ranked:
            try:
                self._check_unique(entry, ranked)
                return self._fitted(entry)
            except ModelMismatch as error:
                refused[entry.folder] = str(error)
        if ours and not ranked:
            self._refuse_role("champion", held.champion, refused)
        present = next((bundle for bundle in self._bundles if bundle.card.family == family), None)
        if present is not None:
            return present  # loaded, though its files are gone
        why = "; ".join(refused.values()) or (
            f"models folder {self._folder} holds no bundle of family {family} (name/version/card.json)"
        )
        raise ModelMismatch(why)

    def _contender(self, entries: list[Entry], held: Roles, refused: dict[Path, str]) -> Challenger | None:
        """The challenger that fits, the same one as long as it is the same bundle. It never stops a start."""
        if not held.challenger:
            return None
        ranked = roles.challengers([entry for entry in entries if entry.card.family == "forecaster"], held)
        for entry in ranked:
            present = self.challenger
            if present is not None and (present.name, present.digest) == (named(entry.card), digest(entry.card)):
                return present
            try:
                return Challenger(self._fitted(entry))
            except ModelMismatch as error:
                refused[entry.folder] = str(error)
        if not ranked:
            self._refuse_role("challenger", held.challenger, refused)
        return None

    def _refuse_role(self, role: roles.Role, wanted: str, refused: dict[Path, str]) -> None:
        file = self._folder / roles.FILE
        refused[file] = f"{file}: there is no forecaster {wanted or 'but the challenger'} that could be {role}"

    def _check_unique(self, entry: Entry, others: list[Entry]) -> None:
        rival = roles.rival(entry, others)
        served = self._served.get(named(entry.card))
        if rival is not None and served is None:
            raise ModelMismatch(undecided(self._folder, entry.card, rival.card))
        if served not in (None, digest(entry.card)):
            raise ModelMismatch(
                f"{entry.folder}: graph or calibration of {named(entry.card)} were changed in place, digest "
                f"{digest(entry.card)[:12]}..., in force was {str(served)[:12]}...: a change needs a new version"
            )

    def _fitted(self, entry: Entry) -> Bundle:
        bundle = self._fitting.get(entry.folder)
        if bundle is None:
            bundle = load_bundle(entry.folder, self._trust)
            trial(bundle)
            self._fitting[entry.folder] = bundle
        return bundle


def check_place(entry: Entry) -> None:
    """Refuse a bundle that lies elsewhere than in name/version of its card."""
    if (entry.folder.parent.name, entry.folder.name) != (entry.card.name, entry.card.version):
        raise ModelMismatch(f"{entry.folder}: its card says {named(entry.card)}; a bundle lies in name/version of it")


def trial(bundle: Bundle) -> float:
    """Run a few ticks at the features' own medians through a bundle alone; gives the largest absolute output.

    Raises
    ------
    ModelMismatch
        If it does not run, or shapes, types or values do not fit.
    """
    card = bundle.card
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised, and told by us
    try:
        session = onnxruntime.InferenceSession(bundle.graph.SerializeToString(), options, ["CPUExecutionProvider"])
        feed = _inputs(card)
        outputs = session.run(OUTPUTS[card.family], {name: feed[name] for name in INPUTS[card.family]})
    except Exception as error:  # noqa: BLE001  ONNX Runtime raises types of its own, without a common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelMismatch(f"{bundle.folder}: does not run: {reason}") from None
    for name, values in zip(OUTPUTS[card.family], outputs, strict=True):
        shape = _shape(name, card)
        if values.shape != shape or values.dtype != np.float32:
            raise ModelMismatch(
                f"{bundle.folder}: output {name} is {values.dtype}{list(values.shape)} for {TICKS} ticks, "
                f"float32{list(shape)} is needed"
            )
        if not np.isfinite(values).all():
            raise ModelMismatch(f"{bundle.folder}: output {name} is not finite for the features' own medians")
    return max(float(np.abs(values).max()) for values in outputs)


def _warm(models: Models) -> None:
    """A run of a usual size, so that the first chunk does not wait for memory."""
    packing = pack(np.arange(WARM_TICKS, dtype=np.int32) % 2, new_scratch(2))
    features = np.zeros((WARM_TICKS, len(models.normal)), np.float32)
    window = np.zeros((WARM_TICKS, WINDOW, len(WINDOW_COLUMNS)), np.float32)
    models.run(features, window, packing, np.zeros((2, models.hidden_size), np.float32))


def _inputs(card: Card) -> dict[str, Any]:
    """A few ticks of two instruments, each feature at its median in training."""
    packing = pack(np.arange(TICKS, dtype=np.int32) % 2, new_scratch(2))
    return {
        "features": np.tile(np.array(card.normal, np.float32), (TICKS, 1)),
        "window": np.tile(np.array(card.normal[: len(WINDOW_COLUMNS)], np.float32), (TICKS, WINDOW, 1)),
        "forecast": np.full((TICKS, len(FORECAST_COLUMNS)), 1e-4, np.float32),
        "hidden": np.zeros((2, card.hidden_size), np.float32),
        "noise": np.zeros((TICKS, WINDOW, NOISE), np.float32),
        **{name: getattr(packing, name) for name in ("pack", "rest", "carry", "unpack", "last")},
    }


def _shape(output: str, card: Card) -> tuple[int, ...]:
    if output == "trades":
        return (TICKS, WINDOW, len(WINDOW_COLUMNS))
    if output == "hidden_out":
        return (2, card.hidden_size)
    widths = {"forecast": len(FORECAST_COLUMNS), "shortfall": len(HORIZONS), "critic_score": 1}
    return (TICKS, widths.get(output, 9))


def _signatures(models: Path) -> dict[Path, Signature]:
    """Size and time of the files of each bundle that is complete."""
    return {file.parent: tuple(_stat(file.parent / name) for name in _FILES) for file in models.glob("*/*/card.json")}


def _stat(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, -1
    return found.st_mtime_ns, found.st_size
