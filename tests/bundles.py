"""Versions of a bundle for tests: copies of one that ships, with other weights, so that their results differ."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from stream.config import DEFAULT_MODELS

CHANGE = 1.001  # of the weights: answers differ, and stay sensible


def shipped(models: Path, name: str) -> Path:
    """The bundle of a model that ships: its lowest version, for tests add higher ones."""
    return min((models / name).iterdir(), key=lambda folder: int(folder.name))


def named(name: str, versions_on: int = 0) -> str:
    """NAME@VERSION of the model that ships, or so many versions behind it."""
    return f"{name}@{int(shipped(Path(DEFAULT_MODELS), name).name) + versions_on}"


GRU, WGAN, DQN = named("gru"), named("wgan"), named("dqn")
NEXT_GRU, NEXT_WGAN, NEXT_DQN = named("gru", 1), named("wgan", 1), named("dqn", 1)
NEXT = NEXT_GRU.partition("@")[2]
"""The version behind the GRU that ships."""


def add_version(models: Path, name: str, version: str, change: float = CHANGE) -> Path:
    """Make models/name/version of the one that ships, with all matrices multiplied by `change`; gives the folder."""
    content = changed(shipped(models, name) / "model.onnx", change)
    return add_bundle(models, name, version, content, sha256=hashlib.sha256(content).hexdigest())


def add_bundle(models: Path, name: str, version: str, content: bytes, **card: Any) -> Path:
    """Make models/name/version with such a graph and the shipped card, changed; in the order of the rule."""
    folder = models / name / version
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    old = msgspec.json.decode((shipped(models, name) / "card.json").read_bytes())
    (folder / "card.json").write_bytes(msgspec.json.encode(old | {"version": version} | card))
    return folder


def add_kind(models: Path, name: str) -> Path:
    """Make another forecaster: the GRU by another name, in the same version; gives the folder."""
    gru = shipped(models, "gru")
    added = Path(shutil.copytree(gru, models / name / gru.name))
    text = (added / "card.json").read_text(encoding="utf-8")
    (added / "card.json").write_text(text.replace('"name": "gru"', f'"name": "{name}"'), encoding="utf-8")
    return added


def changed(graph: Path, change: float) -> bytes:
    """A graph with all its matrices multiplied by `change`."""
    model = onnx.load(str(graph))
    for value in model.graph.initializer:
        array = numpy_helper.to_array(value)
        if array.ndim >= 2 and array.dtype == np.float32:
            value.CopyFrom(numpy_helper.from_array((array * np.float32(change)).astype(np.float32), value.name))
    content: bytes = model.SerializeToString()
    return content
