"""The documentation's marked blocks, run as a reader would run them: see tests/documents.py for the marks."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer

from stream.backtest import SCHEMAS
from stream.broker import EmbeddedBroker
from stream.children import Child
from stream.config import ROOT
from stream.messages import decode_tick
from tests.documents import TEXTS, Block, blocks

RUN = [page for page in TEXTS if any(block.mark for block in blocks(page))]
ADDRESS = "127.0.0.1:40321"  # of the embedded broker, as the pages have it
READY = {"broker": r"127\.0\.0\.1:\d+", "worker": "ready", "tail": r"\S"}
"""What a program that goes on says when it works."""


class Reader:
    """Somebody who does what a page says, in a folder in which its relative paths hold."""

    def __init__(self, folder: Path, children: ExitStack, eventually: Callable[[Callable[[], bool]], None]) -> None:
        self.folder, self._children, self._eventually = folder, children, eventually
        self._address = ADDRESS
        self._started: list[Child] = []
        (folder / "stream").symlink_to(ROOT / "stream")
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environ = os.environ | {"PATH": tools, "TAPEWATCH_WORKER__PORT": "0"}

    def follow(self, block: Block) -> None:
        """Do what a block says, or keep the settings that it shows."""
        if block.language == "toml":
            (self.folder / "tapewatch.toml").write_text(block.text, encoding="utf-8")
        elif block.mark == "start":
            for line in block.lines:
                self._start(line)
        elif block.mark == "run" and block.language == "python":
            self._run([sys.executable, "-c", block.text], "the Python block")
        elif block.mark == "run":
            for line in block.lines:
                self._run(["bash", "-c", line.replace(ADDRESS, self._address)], line)

    def stop(self) -> None:
        """End what was started, the last first."""
        for child in reversed(self._started):
            child.stop()

    def _start(self, line: str) -> None:
        words = line.replace(ADDRESS, self._address).split()
        child = self._children.enter_context(
            Child(words, self.folder / f"{len(self._started)}.log", self._environ, self.folder)
        )
        self._started.append(child)
        wanted = READY.get(words[1])
        if wanted is None:
            return
        self._eventually(lambda: self._said(child, wanted))
        if words[1] == "broker":
            found = re.search(wanted, child.log.read_text(encoding="utf-8"))
            assert found
            self._address = found[0]

    def _said(self, child: Child, what: str) -> bool:
        assert child.running, child.last_lines()
        return re.search(what, child.log.read_text(encoding="utf-8")) is not None

    def _run(self, command: list[str], what: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{what}: {done.stderr}"
        assert done.stdout.strip(), f"{what} prints nothing"


@pytest.fixture
def reader(tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]) -> Iterator[Reader]:
    with ExitStack() as children:
        yield Reader(tmp_path, children, eventually)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", RUN)
def test_what_a_page_says_works_as_written(page: str, reader: Reader) -> None:
    for block in blocks(page):
        reader.follow(block)
    reader.stop()
    check = AFTER.get(page)
    if check:
        check(reader.folder)


def _backtest_has_the_files_and_columns_of_its_table(folder: Path) -> None:
    text = TEXTS["docs/how-to/backtest.md"]
    tables = dict(re.findall(r"^\| (\w+)\.parquet \| [^|]+ \| (.*) \|$", text, re.MULTILINE))
    assert set(tables) == set(SCHEMAS) == {file.stem for file in (folder / "backtest").iterdir()}
    shared = {"symbol", "venue", "offset", "exchange_ns", "price", "warming"}
    for name, columns in tables.items():
        written = set(pq.read_schema(folder / "backtest" / f"{name}.parquet").names)
        # The table gives as a range: the quantiles, and 60 s like 10 s.
        ranges = {column for column in written if column.startswith("quantile_") or column.endswith("_60s")}
        assert set(re.findall(r"\w+", columns)) & written >= written - shared - ranges, name
    assert pq.read_metadata(folder / "backtest" / "risk.parquet").num_rows > 100_000


def _the_crash_was_found(folder: Path) -> None:
    kinds = pq.read_table(folder / "crash" / "alerts.parquet")["kind"].to_pylist()
    assert set(kinds) == {"price_jump"}


AFTER: dict[str, Callable[[Path], None]] = {
    "docs/how-to/backtest.md": _backtest_has_the_files_and_columns_of_its_table,
    "docs/tutorial.md": _the_crash_was_found,
}


def test_the_tutorial_and_the_how_to_pages_are_among_those_that_are_run() -> None:
    assert {"docs/tutorial.md", "docs/how-to/settings.md", *AFTER} <= set(RUN)


def test_python_example_puts_a_tick_on_the_topic(embedded: EmbeddedBroker) -> None:
    (example,) = blocks("docs/how-to/own-ticks.md", "python")
    exec(compile(example.text.replace("127.0.0.1:9092", embedded.address), "own-ticks.md", "exec"), {})
    options = {"bootstrap.servers": embedded.address, "group.id": "documents", "auto.offset.reset": "earliest"}
    consumer = Consumer(options)
    consumer.subscribe(["ticks"])
    try:
        record = consumer.poll(30.0)
    finally:
        consumer.close()
    assert record is not None
    value = record.value()
    assert value is not None
    tick = decode_tick(value)
    assert record.key() == tick.symbol.encode() == b"ACME"
    assert (tick.price, tick.size, tick.side) == (12.5, 100.0, "buy")
