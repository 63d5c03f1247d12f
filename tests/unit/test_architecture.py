"""The tree is the architecture: what may import what, and that docs/architecture.md names every module."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.config import ROOT

STREAM = sorted((ROOT / "stream").rglob("*.py"))
# Lower may not import higher; modules on one level may import each other where they do not go round in circles.
EDGES = ("cli", "commands", "demo", "app", "backtest", "broker", "topics", "web")
MIDDLE = ("pipeline", "decoding", "inference", "encoding", "messages", "metrics", "explanations", "config", "errors")


def imports(module: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", STREAM, ids=name)
def test_stream_imports_neither_torch_nor_tests(module: Path) -> None:
    top = {imported.split(".")[0] for imported in imports(module)}
    assert not top & {"torch", "tests", "onnxscript", "arch", "lightgbm", "matplotlib", "scipy"}


@pytest.mark.parametrize("module", sorted((ROOT / "stream" / "core").glob("*.py")), ids=name)
def test_core_is_numpy_and_numba_without_clock_or_files(module: Path) -> None:
    found = set(imports(module))
    outside = {imported.split(".")[0] for imported in found} - set(sys.stdlib_module_names)
    assert outside <= {"numpy", "numba", "llvmlite", "stream"}  # llvmlite is numba's own, for an intrinsic
    assert not {imported.split(".")[0] for imported in found} & {"time", "datetime", "os", "io", "pathlib", "random"}
    ours = {imported for imported in found if imported.startswith("stream.")}
    assert all(imported.startswith("stream.core") for imported in ours)
    assert "open(" not in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("middle", MIDDLE)
def test_pipeline_and_below_do_not_know_their_callers(middle: str) -> None:
    found = set(imports(ROOT / "stream" / f"{middle}.py"))
    assert not found & {f"stream.{edge}" for edge in EDGES}


@pytest.mark.parametrize("module", sorted((ROOT / "training").rglob("*.py")), ids=name)
def test_training_needs_no_kafka(module: Path) -> None:
    assert not {imported.split(".")[0] for imported in imports(module)} & {"aiokafka", "faust", "kafka", "tests"}


def test_every_module_stands_in_the_tree_with_a_line_of_its_own() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^ +(\w+\.py) +\S", text.split("## The tree")[1], re.MULTILINE))
    there = {module.name for module in STREAM if module.name != "__init__.py"}
    assert listed == there, "docs/architecture.md: bring the tree up to date"
