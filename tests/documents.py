"""The pages of the documentation, and their code blocks.

A block behind the line `<!-- run -->` is run by tests/integration/test_documents.py: shell lines and Python programs,
in the order of the page, in a folder of its own, where the page's last block of TOML is `tapewatch.toml`. The lines of
one behind `<!-- start -->` are started, and run until the page is done. All other shell blocks are run by
tests/integration/test_howto.py, or it says why not; of each line the arguments must parse.
"""

import re
import shlex
from typing import Final, NamedTuple

import click

from docs.reference import HANDED_OVER
from stream.cli import commands
from stream.config import ROOT

README: Final = ROOT / "README.md"
TEXTS: Final = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in [README, *sorted((ROOT / "docs").rglob("*.md"))]
}
"""Text of each page by its place in the tree."""
LISTED_BY: Final = ("decisions/", "models/", "runbooks/")
"""Folders whose pages are reached from a page that lists them."""
_BLOCK: Final = re.compile(r"^(?:<!-- (run|start) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A code block of a page."""

    mark: str  # run, start or nothing
    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, without comments."""
        stripped = (line.split(" #")[0].strip() for line in self.text.splitlines())
        return [line for line in stripped if line]


def blocks(page: str, language: str = "") -> list[Block]:
    """Code blocks of a page, of one language or of all."""
    found = [Block(*match) for match in _BLOCK.findall(TEXTS[page])]
    return [block for block in found if language in ("", block.language)]


def prose(page: str) -> str:
    """The page without its code blocks."""
    return _BLOCK.sub("", TEXTS[page])


def section(page: str, title: str) -> str:
    """The page's text under a heading of the second level."""
    return TEXTS[page].split(f"\n## {title}\n")[1].split("\n## ")[0]


def words_of(line: str) -> list[str]:
    """Arguments of `tapewatch` in a line, variables before it left out."""
    words = shlex.split(line)
    return words[words.index("tapewatch") + 1 :] if "tapewatch" in words else []


def command_of(words: list[str]) -> click.Command:
    """The command that the words name, options before it left out."""
    command: click.Command = commands
    while isinstance(command, click.Group):
        rest = command.make_parser(click.Context(command)).parse_args(list(words))[1]
        if not rest or rest[0] not in command.commands:
            assert not rest, f"no command {rest[0]!r} in `tapewatch`"
            return command
        command, words = command.commands[rest[0]], rest[1:]
    return HANDED_OVER.get(command.name or "", command)


def parse(words: list[str]) -> None:
    """Parse a command's arguments as the command would, without running it.

    Raises
    ------
    click.UsageError
        As the command says it.
    """
    command: click.Command = commands
    context = click.Context(command, info_name="tapewatch")
    while isinstance(command, click.Group):
        words = command.make_parser(context).parse_args(list(words))[1]
        if not words:
            return
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = HANDED_OVER.get(name or "", found)
    command.make_context(command.name, list(words), parent=context)


def options_of(command: click.Command) -> set[str]:
    """Names of a command's options, and of those that stand before it."""
    own = {name for parameter in command.params for name in parameter.opts}
    return own | {name for parameter in commands.params for name in parameter.opts} | {"--help", "-h"}


def heading_anchors(text: str) -> set[str]:
    """What a link into a page can name."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}
