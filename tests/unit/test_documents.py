"""The documentation against the code: commands, settings, links, tables and numbers. What it says to run is run in
tests/integration/test_documents.py."""

import re
from pathlib import Path

import click
import msgspec
import pytest

from stream.config import ROOT, Settings, Topics, load
from stream.feeds.files import OPTIONAL, REQUIRED
from stream.feeds.scenarios import SCENARIOS
from tests.browser.__main__ import FOLDER, PICTURES
from tests.documents import TEXTS, blocks, command_of, heading_anchors, options_of, parse, prose, section, words_of

PAGES = pytest.mark.parametrize("page", TEXTS)


@PAGES
def test_arguments_of_every_command_in_a_block_parse(page: str) -> None:
    for line in (line for block in blocks(page, "sh") for line in block.lines if "tapewatch " in line):
        try:
            parse(words_of(line))
        except click.exceptions.Exit:  # --help and --version
            continue
        except click.UsageError as error:
            pytest.fail(f"{page}: {line!r}: {error.format_message()}")


@PAGES
def test_every_command_and_option_in_the_text_exists(page: str) -> None:
    for mention in re.findall(r"`(tapewatch [^`]+)`", prose(page)):
        words = words_of(mention)
        name = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        command = command_of(name[:1] if len(name) < 2 else _longest(name))
        unknown = {word for word in words if word.startswith("--")} - options_of(command)
        assert not unknown, f"{page}: {mention!r}: {command.name} has no {unknown}"


def _longest(names: list[str]) -> list[str]:
    """The names as far as they are commands: the rest are arguments."""
    group = command_of(names[:1])
    return names[:2] if isinstance(group, click.Group) else names[:1]


@PAGES
def test_every_block_of_toml_is_a_file_of_settings(page: str, tmp_path: Path) -> None:
    file = tmp_path / "tapewatch.toml"
    for block in blocks(page, "toml"):
        file.write_text(block.text, encoding="utf-8")
        load(file, {})


@PAGES
def test_every_setting_in_the_text_exists(page: str) -> None:
    sections = {name for name, kind in Settings.__annotations__.items() if isinstance(kind, type) and kind is not str}
    for name, key in re.findall(rf"`({'|'.join(sections)})\.(\w+)`", prose(page)):
        if key not in {"yaml", "py", "md", "json", "toml"}:
            assert key in Settings.__annotations__[name].__struct_fields__, f"{page}: {name}.{key}"


@PAGES
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {path}"
        if anchor and target.suffix == ".md":
            assert anchor in heading_anchors(target.read_text(encoding="utf-8")), f"{page}: {path}#{anchor}"


def test_every_make_target_in_the_docs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {target for page in TEXTS for target in re.findall(r"`make ([a-z]+(?:-[a-z]+)?)[ `]", prose(page))}
    lines = (line for page in TEXTS for block in blocks(page, "sh") for line in block.lines)
    named |= {line.split()[1] for line in lines if line.startswith("make ")}
    assert {"setup", "demo", "test", "kafka"} <= named
    assert named <= targets


def test_table_of_scenarios_is_that_of_the_simulator() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.*) \|$", TEXTS["docs/how-to/alerts.md"], re.MULTILINE)
    named = {name: (opens, what) for name, opens, what in rows}
    assert named == {name: (each.opens or "nothing", each.what) for name, each in SCENARIOS.items()}


def test_table_of_columns_is_what_files_are_read_by() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", TEXTS["docs/how-to/own-ticks.md"], re.MULTILINE)
    assert [name for name, needed in rows if needed == "yes"] == list(REQUIRED)
    assert [name for name, needed in rows if needed == "no"] == list(OPTIONAL)


def test_table_of_topics_has_their_default_names() -> None:
    rows = re.findall(r"^\| `([a-z.]+)`(?: \(in\))? \| [a-z ]+ \|", section("README.md", "What it is"), re.MULTILINE)
    assert rows == [value for value in msgspec.structs.astuple(Topics()) if isinstance(value, str)]


def test_numbers_in_the_text_are_the_defaults() -> None:
    settings = Settings()
    ticks = " ".join(TEXTS["docs/how-to/own-ticks.md"].split())
    warm = settings.features
    assert f"first {warm.warm_ticks} ticks and its first {warm.warm_seconds:g} seconds" in ticks
    assert f"`{settings.worker.host}:{settings.worker.port}`" in TEXTS["docs/how-to/kafka.md"]
    assert f"`topics.partitions`, {settings.topics.partitions} by default" in TEXTS["docs/how-to/scale-out.md"]
    for key, default in re.findall(r"^(\w+) = .*# .* (\S+) by default$", TEXTS["docs/how-to/alerts.md"], re.MULTILINE):
        assert getattr(settings.alerts, key) == float(default), key


def test_first_screen_has_what_a_visitor_looks_for() -> None:
    first = TEXTS["README.md"].split("\n## ")[0]
    assert first.startswith("# Tapewatch\n")
    assert "make demo" in first
    assert "make test" in first
    assert "docs/images/board-table-light.png" in first
    assert "Measured with `tapewatch bench" in first


def test_every_picture_of_the_board_is_there_shown_and_light() -> None:
    for picture in PICTURES:
        file = FOLDER / f"{picture.name}.png"
        assert file.read_bytes().startswith(b"\x89PNG"), f"{file}: make pictures"
        assert file.stat().st_size < 200_000
        assert f"../images/{file.name}" in TEXTS["docs/how-to/board.md"]
