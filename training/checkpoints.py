"""What a training has done so far, kept beside its bundles, so that one that was interrupted goes on where it was.

DIR/.checkpoints holds a file for each trained seed of a forecaster, its weights and validation losses, and one for each
part of `tapewatch train all` whose bundle is written. Names end in a hash of all that the result depends on: settings,
the files of ticks, the seed, the device and the code. So another training takes none of them for its own.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import torch

from stream.config import ROOT
from training import data, forecaster
from training.forecasters.contract import Forecaster, Settings

FOLDER: Final = ".checkpoints"
CODE: Final = ("training/**/*.py", "stream/core/*.py")
"""What makes features and models of ticks; its text, not its commit, so that a change counts before it is committed."""
TAKEN_UP: Final = "taken up from a training that was interrupted"


class Done(msgspec.Struct, frozen=True):
    """A part whose bundle is written."""

    bundle: str  # name/version
    card_sha256: str


def key(dataset: data.Dataset, settings: msgspec.Struct, seed: int, device: str = "cpu") -> str:
    """Of all that a training depends on; a device sums in an order of its own."""
    files = [file.sha256 for file in dataset.files]
    told = (msgspec.to_builtins(settings), files, seed, device, _code(), str(torch.__version__))
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


@cache
def _code() -> str:
    texts = sorted(file for pattern in CODE for file in ROOT.glob(pattern))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in texts)).hexdigest()


def train(
    dataset: data.Dataset,
    settings: Settings,
    seed: int,
    out: Path,
    progress: forecaster.Progress,
    device: str = "cpu",
) -> tuple[Forecaster, list[float]]:
    """As `forecaster.train`, or what an interrupted training left of it in `out`."""
    file = out / FOLDER / f"{settings.kind}-{seed}-{key(dataset, settings, seed, device)}.pt"
    if file.is_file():
        kept = torch.load(file, map_location="cpu", weights_only=True)
        net = forecaster.build(settings)
        net.load_state_dict(kept["weights"])
        progress(settings.rounds, settings.rounds, TAKEN_UP)
        return net.eval(), kept["history"]
    net, history = forecaster.train(dataset, settings, seed, progress, device=device)
    _write(file, lambda part: torch.save({"weights": net.state_dict(), "history": history}, part))
    return net, history


def finished(out: Path, part: str, of: str) -> Path | None:
    """The bundle of a part of a whole training, where it is done and nobody has written over it since."""
    try:
        done = msgspec.json.decode((out / FOLDER / f"{part}-{of}.json").read_bytes(), type=Done)
        unchanged = _sha256(out / done.bundle / "card.json") == done.card_sha256
    except FileNotFoundError:
        return None
    return out / done.bundle if unchanged else None


def finish(out: Path, part: str, of: str, bundle: Path) -> None:
    """Say that a part of a whole training is done."""
    done = Done(bundle.relative_to(out).as_posix(), _sha256(bundle / "card.json"))
    _write(out / FOLDER / f"{part}-{of}.json", lambda file: file.write_bytes(msgspec.json.encode(done)))


def remove(out: Path, names: str) -> None:
    """Those of a pattern of names, as gru-*; the folder as well, once it is empty."""
    for file in (out / FOLDER).glob(names):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or something is left in it
        (out / FOLDER).rmdir()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write(file: Path, write: Callable[[Path], Any]) -> None:
    """At once: a kill leaves all of it or nothing under its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    write(part)
    os.replace(part, file)
