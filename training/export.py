"""Trained networks -> bundles: model.onnx, checked against PyTorch, and card.json."""

import hashlib
import logging
import subprocess
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from stream import config
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack
from stream.core.results import FORECAST_COLUMNS
from stream.errors import TapewatchError
from stream.inference import INPUTS, NOISE, OPSET, OUTPUTS, Card
from training import cards

TOLERANCE: Final = 1e-5
"""ONNX Runtime against PyTorch: absolute or relative, whichever is larger, on each output."""
LARGEST_BYTES: Final = 5_000_000


def write_bundle(net: nn.Module, card: Card, folder: Path) -> Path:
    """Write models/<name>/<version>/; the card's sha256, opset and commit are filled in, and its libraries added to.

    Raises
    ------
    TapewatchError
        If the graph's answers differ from the network's by more than TOLERANCE.
    """
    target = folder / card.name / card.version
    target.mkdir(parents=True, exist_ok=True)
    content = to_onnx(net, card.family)
    error = difference(net, content, card.family)
    if error > TOLERANCE or len(content) > LARGEST_BYTES:
        raise TapewatchError(
            f"{target}: the graph differs from PyTorch by {error:.1e} (at most {TOLERANCE:.0e}) "
            f"and has {len(content):,} bytes (at most {LARGEST_BYTES:,})"
        )
    card = msgspec.structs.replace(
        card,
        opset=OPSET,
        sha256=hashlib.sha256(content).hexdigest(),
        metrics=card.metrics | {"onnx_against_pytorch": error},
        git_commit=git_commit(),
        libraries={name: version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")} | card.libraries,
    )
    (target / "model.onnx").write_bytes(content)
    write_card(card, target)
    return target


def write_card(card: Card, target: Path) -> None:
    """Write card.json and CARD.md of a bundle whose graph is there: with its card a bundle is complete."""
    text = msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(card, enc_hook=float))), indent=1)
    (target / "card.json").write_bytes(text + b"\n")
    cards.write(target)


def to_onnx(net: nn.Module, family: str) -> bytes:
    """The network as an ONNX graph with the inputs and outputs of its family."""
    examples = example_inputs(net, family, np.random.default_rng(0))
    n, m = Dim("n", min=2, max=1 << 20), Dim("m", min=2, max=1 << 20)
    shapes: dict[str, dict[int, Any]] = {
        "features": {0: n},
        "forecast": {0: n},
        "window": {0: n},
        "pack": {0: Dim("steps", min=2, max=1 << 20), 1: m},
        "rest": {0: Dim("rest_steps", min=2, max=1 << 20), 1: (busy := Dim("busy", min=2, max=1 << 20))},
        "carry": {0: busy},
        "unpack": {0: n},
        "last": {0: m},
        "hidden": {0: m},
        "noise": {0: n},
    }
    names = INPUTS[family]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it tells what optional packages are missing
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names),
            output_names=list(OUTPUTS[family]),
            dynamic_shapes=tuple(shapes[name] for name in names),
            verbose=False,
        )
    assert program is not None
    content: bytes = _plain(program.model_proto).SerializeToString()
    return content


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes, which hold source paths of the machine that exported."""
    del model.metadata_props[:]
    del model.functions[:]
    _strip(model.graph)
    return model


def _strip(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:  # the body of a Scan
                _strip(attribute.g)
    for holder in (*graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]


def example_inputs(net: nn.Module, family: str, rng: np.random.Generator, n: int = 40) -> tuple[Tensor, ...]:
    """Inputs of a family for `n` ticks, of the sizes that features have; 7 instruments, 2 of them busy."""
    features = rng.normal(0.0, 1.0, (n, len(FEATURES))).astype(np.float32)
    names = list(FEATURES)
    for column, name in enumerate(names):
        if "variance" in name:
            features[:, column] -= 18.0  # about 1.2 bp a square-root second
        elif name in ("log_return", "drawdown", "momentum_1s", "momentum_10s", "momentum_60s"):
            features[:, column] *= 1e-4
        elif "spread" in name or "impact" in name:
            features[:, column] -= 9.0
    # Every rectangle of the packing at least 2 x 2: torch.export takes a size of 1 for a constant.
    slot = np.concatenate((np.arange(14) % 7, np.arange(n - 14) % 2)).astype(np.int32)
    packing = pack(slot, new_scratch(7))
    hidden = getattr(net, "state_width", 1)
    arrays: dict[str, NDArray[Any]] = {
        "features": features,
        "window": (rng.normal(0.0, 1.0, (n, WINDOW, len(WINDOW_COLUMNS))) * [1e-4, 2.0, 1.0]).astype(np.float32),
        "forecast": np.abs(rng.normal(0.0, 1e-3, (n, len(FORECAST_COLUMNS)))).astype(np.float32),
        "hidden": np.tanh(rng.normal(0.0, 1.0, (len(packing.slots), hidden))).astype(np.float32),
        "noise": rng.normal(0.0, 1.0, (n, WINDOW, NOISE)).astype(np.float32),
        **packing._asdict(),
    }
    return tuple(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUTS[family])


def difference(net: nn.Module, content: bytes, family: str, seed: int = 1, n: int = 300) -> float:
    """Largest difference between ONNX Runtime and PyTorch, absolute or relative, whichever is smaller."""
    inputs = example_inputs(net, family, np.random.default_rng(seed), n)
    with torch.no_grad():
        outputs = net(*inputs)
    expected = [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(
        list(OUTPUTS[family]), {name: x.numpy() for name, x in zip(INPUTS[family], inputs, strict=True)}
    )
    return max(float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max()) for a, b in zip(found, expected, strict=True))


def git_commit() -> str:
    """Commit of the code, "unknown" outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=config.ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _rounded(value: Any) -> Any:
    """Numbers of a card with the digits that mean something."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_rounded(item) for item in value]
    return value
