"""The folder of models while a worker runs: which bundles are there, which of them fit, and which should be in force.

A bundle is complete when its card.json is there: copy model.onnx first and card.json last, or move the whole folder in.
Of each family the highest version that fits is wanted. One that does not fit, or whose hash is wrong, is refused with
both sides named, and looked at again when one of its two files changes; the models that were wanted before stay so.
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

from stream.core.features import WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack
from stream.core.results import FORECAST_COLUMNS
from stream.errors import ModelMismatch
from stream.inference import (
    FAMILIES,
    INPUTS,
    OUTPUTS,
    Bundle,
    Card,
    Models,
    digest,
    load_bundle,
    named,
    read_card,
    version_key,
)
from stream.succession import Names

TICKS: Final = 16  # of a trial, of two instruments
WARM_TICKS: Final = 512
_FILES: Final = ("card.json", "model.onnx")
log = logging.getLogger("tapewatch.models")

Signature = tuple[tuple[int, int], ...]


class Entry(NamedTuple):
    """A bundle whose card could be read; its graph may be anything."""

    folder: Path
    card: Card


class Library:
    """What a folder of models offers.

    `look` and `find` may run in threads of their own.

    Raises
    ------
    ModelMismatch
        If there is no family of which one bundle fits.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy = threading.Lock()
        self._seen: dict[Path, Signature] | None = None
        self._fitting: dict[Path, Bundle] = {}
        self._loaded: WeakValueDictionary[tuple[Names, Names], Models] = WeakValueDictionary()
        self._served: dict[str, str] = {}  # name@version -> digest of all that were ever wanted
        self.refused: dict[Path, str] = {}
        """Bundles that would be wanted, and why they are not; one line each."""
        self._bundles: list[Bundle] = []
        self.look()

    newest: Models
    """Those that should be in force."""

    def look(self) -> None:
        """See what the folder holds now. Never fails once there are models: whatever is wrong is in `refused`."""
        with self._busy:
            self._look()

    def _look(self) -> None:
        seen = _signatures(self._folder)
        if seen == self._seen:
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
        self._seen = seen

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
                bundles.append(load_bundle(entry.folder))
            except ModelMismatch as error:
                log.error("cannot load a model that was in force: %s", error)
                return None
        return self._joined(bundles)

    def _choose(self, folders: list[Path], refused: dict[Path, str]) -> None:
        if not self._folder.is_dir():
            raise ModelMismatch(
                f"models folder {self._folder} does not exist: name one with --models, or run `make models`"
            )
        entries = self._entries(folders, refused)
        bundles = [self._best(family, entries, refused) for family in FAMILIES]
        models = self._joined(bundles)
        self._bundles, self.newest = bundles, models
        self._served.update(zip(models.names, models.digests, strict=True))

    def _joined(self, bundles: list[Bundle]) -> Models:
        models = Models(*bundles)
        _warm(models)
        return self._loaded.setdefault((models.names, models.digests), models)

    def _entries(self, folders: list[Path], refused: dict[Path, str]) -> list[Entry]:
        entries = []
        for folder in folders:
            try:
                entry = Entry(folder, read_card(folder / "card.json"))
                _check_place(entry)
                entries.append(entry)
            except ModelMismatch as error:
                refused[folder] = str(error)
        return entries

    def _best(self, family: str, entries: list[Entry], refused: dict[Path, str]) -> Bundle:
        """The highest version that fits."""
        ours = sorted((e for e in entries if e.card.family == family), key=lambda e: version_key(e.card.version))
        for entry in reversed(ours):
            try:
                self._check_unique(entry, ours)
                return self._fitted(entry)
            except ModelMismatch as error:
                refused[entry.folder] = str(error)
        present = next((bundle for bundle in self._bundles if bundle.card.family == family), None)
        if present is not None:
            return present  # loaded, though its files are gone
        why = "; ".join(refused.values()) or (
            f"models folder {self._folder} holds no bundle of family {family} (name/version/card.json)"
        )
        raise ModelMismatch(why)

    def _check_unique(self, entry: Entry, others: list[Entry]) -> None:
        rival = next(
            (
                other
                for other in others
                if other is not entry and version_key(other.card.version) == version_key(entry.card.version)
            ),
            None,
        )
        served = self._served.get(named(entry.card))
        if rival is not None and served is None:
            raise ModelMismatch(
                f"{self._folder} holds two bundles of family {entry.card.family} with version {entry.card.version}: "
                f"{rival.card.name} and {entry.card.name}; remove one, or give the one to use a higher version"
            )
        if served not in (None, digest(entry.card)):
            raise ModelMismatch(
                f"{entry.folder}: graph or calibration of {named(entry.card)} were changed in place, digest "
                f"{digest(entry.card)[:12]}..., in force was {str(served)[:12]}...: a change needs a new version"
            )

    def _fitted(self, entry: Entry) -> Bundle:
        bundle = self._fitting.get(entry.folder)
        if bundle is None:
            bundle = load_bundle(entry.folder)
            trial(bundle)
            self._fitting[entry.folder] = bundle
        return bundle


def _check_place(entry: Entry) -> None:
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
        **{name: getattr(packing, name) for name in ("pack", "rest", "carry", "unpack", "last")},
    }


def _shape(output: str, card: Card) -> tuple[int, int]:
    if output == "hidden_out":
        return (2, card.hidden_size)
    widths = {"forecast": len(FORECAST_COLUMNS), "critic_score": 1}
    return (TICKS, widths.get(output, 9))


def _signatures(models: Path) -> dict[Path, Signature]:
    """Size and time of the two files of each bundle that is complete."""
    return {file.parent: tuple(_stat(file.parent / name) for name in _FILES) for file in models.glob("*/*/card.json")}


def _stat(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, -1
    return found.st_mtime_ns, found.st_size
