"""The site of docs/: it builds strictly, every page has its place, and the pages made from code say what it says."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import reference, site
from stream.cli import commands
from stream.config import Settings
from tests.documents import LISTED_BY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder / "manual", folder / "site") == 0
    return folder / "site"


def test_it_fetches_nothing_from_the_network(built: Path) -> None:
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)\s[^>]*(?:src|href)=\"?(https?:[^\" >]+)", text), page
    assert (built / "vendor" / "iframe-worker.js").is_file()


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = tmp_path / "docs"
    pages.mkdir()
    shutil.copyfile(site.CONFIG, pages / "zensical.toml")
    (pages / "page.md").write_text("# Page\n\n[nowhere](#nowhere)\n")
    monkeypatch.setattr(site, "FOLDER", pages)
    monkeypatch.setattr(site, "MOVED", {})
    assert site.build(tmp_path / "manual", tmp_path / "site") != 0
    assert not (tmp_path / "site").exists()
    (pages / "page.md").write_text("# Page\n\n[nowhere](nowhere.md)\n")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.md"):
        site.lay_out(tmp_path / "manual")


def _named(nav: Any) -> Iterator[str]:
    for entry in nav if isinstance(nav, list) else [nav]:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from _named(value)


def test_every_page_has_its_place_and_every_place_its_page() -> None:
    named = list(_named(tomllib.loads(site.CONFIG.read_text(encoding="utf-8"))["project"]["nav"]))
    assert len(named) == len(set(named))
    pages = {str(place) for _, place in site.pages() if place.suffix == ".md"}
    pages |= {f"reference/{name}" for name in reference.pages()}
    listed = {page for page in pages if any(page.startswith(folder) for folder in LISTED_BY)}
    assert set(named) - pages == set(), "places without a page"
    assert pages - set(named) - listed == set(), "pages without a place"


def test_reference_has_every_command_with_its_options() -> None:
    text = reference.command_page()
    for name, command in reference.walk(commands, "tapewatch"):
        chapter = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert [option for option in options if option not in chapter] == [], name


def test_reference_has_every_setting_with_its_default() -> None:
    text = reference.settings_page()
    settings = Settings()
    assert '| `broker` | `"127.0.0.1:9092"` |' in text
    for section in ("topics", "worker", "web", "features", "risk", "conformal", "rarity", "alerts", "security"):
        for key in getattr(settings, section).__struct_fields__:
            assert f"\n| `{section}.{key}` | " in text
    assert "| `risk.elevated` | `40.0` | number > 0 < 100 |" in text


def test_reference_has_every_alert_rule_with_its_runbook(built: Path) -> None:
    pages = {file.stem for file in (built / "runbooks").glob("Tapewatch*.html")}
    assert set(re.findall(r"^\| \[(\w+)\]", reference.rules_page(), re.MULTILINE)) == pages


def test_what_comments_say_of_a_setting_is_found() -> None:
    said = reference.comments(type(Settings().worker))
    assert said["chunk_ticks"].startswith("most ticks a chunk")
    assert said["delivery"].startswith("What repeats after a crash")
    assert said["delivery"].endswith("commit interval.")
    assert "port" not in said
