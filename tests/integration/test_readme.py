"""Every example of the README and docs/ is run, or at least held against the command it names."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer

from stream.backtest import SCHEMAS
from stream.broker import EmbeddedBroker
from stream.children import Child
from stream.cli import commands
from stream.config import ROOT, Settings, Topics, load
from stream.feeds.files import OPTIONAL, REQUIRED
from stream.feeds.scenarios import SCENARIOS
from stream.messages import decode_tick
from training import cli as training_cli

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
}
TAPEWATCH = str(Path(sys.executable).parent / "tapewatch")
ADDRESS = "127.0.0.1:40321"  # of the embedded broker, as the README has it


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The README's text under a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def lines(text: str = README) -> list[str]:
    """The commands of a text's shell blocks, without comments."""
    stripped = (line.split(" #")[0].strip() for block in blocks("sh", text) for line in block.splitlines())
    return [line for line in stripped if line]


def mentions(text: str) -> list[str]:
    """Commands of shell blocks, and `tapewatch ...` inside running text."""
    inline = re.findall(r"`(tapewatch [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return lines(text) + inline


def words_of(line: str) -> list[str]:
    """Arguments of `tapewatch` in a line, variables before it left out."""
    words = shlex.split(line)
    return words[words.index("tapewatch") + 1 :] if "tapewatch" in words else []


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and what is left of them."""
    command: click.Command = commands
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        assert found is not None, f"no command {words[0]!r} in `tapewatch`"
        command, words = found, words[1:]
    return command, words


def options_of(command: click.Command) -> set[str]:
    # These two hand everything over to training, which is not imported where it is not installed.
    command = {"train": training_cli.train, "evaluate": training_cli.evaluate}.get(command.name or "", command)
    own = {name for parameter in command.params for name in parameter.opts}
    return own | {name for parameter in commands.params for name in parameter.opts} | {"--help", "-h"}


@pytest.mark.parametrize(("file", "text"), DOCS.items(), ids=list(DOCS))
def test_every_command_and_option_in_the_text_exists(file: str, text: str) -> None:
    for mention in mentions(text):
        command, rest = command_of(words_of(mention))
        unknown = {word for word in rest if word.startswith("--")} - options_of(command)
        assert not unknown, f"{file}: {mention!r}: {command.name} has no {unknown}"


def test_table_of_commands_names_all_of_them_with_options_they_have() -> None:
    rows = re.findall(r"^\| `tapewatch ([a-z ]+?)(?: [A-Z][A-Z. ]*)?` \| (.*) \|$", README, re.MULTILINE)
    assert {name.split()[0] for name, _ in rows} == set(commands.commands)
    for name, what in rows:
        command, _ = command_of(name.split())
        assert set(re.findall(r"`(--[a-z-]+)", what)) <= options_of(command), name


def test_every_make_target_in_the_docs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {target for text in DOCS.values() for target in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)?)`", text)}
    named |= {line.split()[1] for line in lines() if line.startswith("make ")}
    assert {"setup", "demo", "test", "kafka"} <= named <= targets


def test_every_relative_link_leads_to_a_file() -> None:
    for file, text in DOCS.items():
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / file).parent / link).exists(), f"{file}: {link}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the README's relative paths hold, and what a command writes stays out of the tree."""
    (tmp_path / "stream").symlink_to(ROOT / "stream")
    return tmp_path


def run(line: str, checkout: Path) -> str:
    """Run a line of the README as a shell would, and give what it prints."""
    environ = os.environ | {"PATH": f"{Path(TAPEWATCH).parent}:{os.environ['PATH']}"}
    done = subprocess.run(line, shell=True, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def line_with(part: str) -> str:
    return next(line for line in lines() if part in line)


def test_help_names_every_command(checkout: Path) -> None:
    shown = run(line_with("tapewatch --help"), checkout)
    assert all(f"\n  {name} " in shown for name in commands.commands)


def test_config_prints_settings_that_can_be_read_back(checkout: Path) -> None:
    (plain, variable) = [line for line in lines() if line.endswith("tapewatch config")]
    settings = msgspec.convert(tomllib.loads(run(plain, checkout)), Settings)
    assert settings == Settings()
    assert tomllib.loads(run(variable, checkout))["worker"]["port"] == 6067


def test_backtest_writes_the_files_and_columns_of_the_table(checkout: Path) -> None:
    run(line_with("tapewatch backtest"), checkout)
    out = checkout / "backtest"
    tables = dict(re.findall(r"^\| (\w+)\.parquet \| [^|]+ \| (.*) \|$", README, re.MULTILINE))
    assert set(tables) == set(SCHEMAS) == {file.stem for file in out.iterdir()}
    shared = {"symbol", "venue", "offset", "exchange_ns", "price", "warming"}
    for name, columns in tables.items():
        written = set(pq.read_schema(out / f"{name}.parquet").names)
        assert set(re.findall(r"\w+", columns)) & written >= written - shared - _ranges(written), name
    assert pq.read_metadata(out / "risk.parquet").num_rows > 100_000


def _ranges(written: set[str]) -> set[str]:
    """Columns that the table gives as a range: the quantiles, and 60 s like 10 s."""
    return {name for name in written if name.startswith("quantile_") or name.endswith("_60s")}


@pytest.mark.timeout(300)
def test_demo_ends_by_itself_with_a_summary(checkout: Path) -> None:
    run(line_with("--summary"), checkout)
    summary = json.loads((checkout / "summary.json").read_text(encoding="utf-8"))
    answered = summary["ticks_sent"] - summary["ticks_rejected"]
    assert answered > 0
    assert summary["predictions"] == summary["risk"] == summary["actions"] == answered
    assert (summary["missing"], summary["duplicates"]) == (0, 0)


def test_table_of_scenarios_is_that_of_the_simulator(checkout: Path) -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.*) \|$", section("Your own ticks"), re.MULTILINE)
    named = {name: (opens, what) for name, opens, what in rows if name in SCENARIOS}
    assert named == {name: (each.opens or "nothing", each.what) for name, each in SCENARIOS.items()}
    run(line_with("--out crash.parquet"), checkout)
    assert pq.read_metadata(checkout / "crash.parquet").num_rows > 10_000
    assert (checkout / "crash.truth.jsonl").exists()


@pytest.fixture
def children() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.timeout(300)
def test_parts_of_the_demo_work_together_as_written(
    checkout: Path, children: ExitStack, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    def start(part: str, address: str = "") -> Child:
        words = words_of(line_with(part).replace(ADDRESS, address))
        log = checkout / f"{words[0]}.log"
        environ = os.environ | {"TAPEWATCH_WORKER__PORT": "0"}
        return children.enter_context(Child([TAPEWATCH, *words], log, environ, checkout))

    def said(child: Child, what: str) -> bool:
        assert child.running, child.last_lines()
        return re.search(what, child.log.read_text(encoding="utf-8")) is not None

    broker = start("tapewatch broker")
    eventually(lambda: said(broker, r"127\.0\.0\.1:\d+"))
    found = re.search(r"127\.0\.0\.1:\d+", broker.log.read_text(encoding="utf-8"))
    assert found
    worker = start("tapewatch worker", found[0])
    eventually(lambda: said(worker, "ready"))
    tail = start("tapewatch tail", found[0])
    replay = start("tapewatch replay", found[0])
    eventually(lambda: said(tail, r"BTCUSDT\.USDM"))
    assert [child.stop() for child in (replay, tail, worker)] == [0, 0, 0]
    broker.stop()


def test_toml_examples_are_files_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "tapewatch.toml"
    read = []
    for example in blocks("toml"):
        file.write_text(example, encoding="utf-8")
        read.append(load(file, {}))
    several, secured, board, shown, exactly_once = read
    assert board.web.viewers == 32
    assert shown.web.password_file
    assert shown.web.key_file
    assert secured.security.sasl
    assert secured.security.tls
    assert several.worker.watch == ["BTCUSDT", "ETHUSDT"]
    assert several.alerts.pump_return == 0.02
    assert exactly_once.worker.delivery == "exactly_once"
    assert exactly_once.worker.commit_interval_seconds == 0.1


def test_python_example_puts_a_tick_on_the_topic(embedded: EmbeddedBroker) -> None:
    (example,) = blocks("python")
    exec(compile(example.replace("127.0.0.1:9092", embedded.address), "README.md", "exec"), {})
    options = {"bootstrap.servers": embedded.address, "group.id": "readme", "auto.offset.reset": "earliest"}
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


def test_table_of_columns_is_what_files_are_read_by() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", README, re.MULTILINE)
    assert [name for name, needed in rows if needed == "yes"] == list(REQUIRED)
    assert [name for name, needed in rows if needed == "no"] == list(OPTIONAL)


def test_table_of_topics_has_their_default_names() -> None:
    rows = re.findall(r"^\| `([a-z.]+)`(?: \(in\))? \| [a-z ]+ \|", section("What it is"), re.MULTILINE)
    defaults = Topics()
    assert rows == [value for value in msgspec.structs.astuple(defaults) if isinstance(value, str)]


def test_numbers_in_the_text_are_the_defaults() -> None:
    settings = Settings()
    assert f"first {settings.features.warm_ticks} ticks and its first {settings.features.warm_seconds:g} seconds" in (
        " ".join(README.split())
    )
    assert f"`{settings.worker.host}:{settings.worker.port}`" in README


def test_first_screen_has_what_a_visitor_looks_for() -> None:
    first = README.split("\n## ")[0]
    assert first.startswith("# Tapewatch\n")
    assert "make demo" in first
    assert "make test" in first
    assert "docs/board.svg" in first
    assert (ROOT / "docs" / "board.svg").exists(), "the picture of the board is missing"
    assert "<!-- measured -->" not in first, "the measured line is missing"
