"""How the command line helps: whole lines in groups, examples that parse, names that were meant, completion."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs.reference import walk
from stream.cli import commands
from stream.completion import SHELLS, script
from stream.config import DEFAULT_MODELS
from stream.errors import TapewatchError
from stream.help import EXAMPLES, GROUPS
from tests.documents import parse, words_of

TAPEWATCH = Path(sys.executable).parent / "tapewatch"


def run(*arguments: str) -> str:
    """What a command prints, its error included."""
    done = CliRunner().invoke(commands, list(arguments), prog_name="tapewatch", terminal_width=100)
    return done.output + (str(done.exception) if isinstance(done.exception, TapewatchError) else "")


def test_every_command_stands_in_a_group_in_one_whole_line() -> None:
    shown = run("--help")
    rest = set(commands.commands) - {name for group in GROUPS.values() for name in group}
    assert ("More:" in shown) == bool(rest)
    assert all(f"\n  {name} " in shown for name in commands.commands)
    for heading, lines in GROUPS.items():
        for name, line in lines.items():
            if name in commands.commands:
                assert re.search(rf"^  {name} +{re.escape(line)}$", shown.split(f"{heading}:")[1], re.MULTILINE), name


def test_lines_of_the_groups_below_are_whole() -> None:
    for name, group in commands.commands.items():
        if isinstance(group, click.Group):
            assert "..." not in run(name, "--help").split("Commands:")[1]


@pytest.mark.parametrize(("name", "command"), list(walk(commands, "tapewatch")))
def test_every_command_says_what_it_does_and_shows_how(name: str, command: click.Command) -> None:
    shown = command.get_help(click.Context(command, info_name=name))
    first = inspect.cleandoc(command.help or "").split("\n\n")[0]
    assert first.endswith("."), first
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []
    assert ("Examples:\n  " in shown) == (name.removeprefix("tapewatch ") in EXAMPLES)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_parses(line: str) -> None:
    words = words_of(line.split(" #")[0].replace("<(", "").replace(")", ""))
    parse(words[: words.index(">")] if ">" in words else words)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("wroker",), "did you mean worker?"),
        (("topics", "creat"), "did you mean create?"),
        (("worker", "--prot", "5"), "--port"),
        (("feed", "binanse", "BTCUSDT"), "did you mean binance?"),
        (("tail", "predictons"), "did you mean predictions?"),
        (("simulate", "--scenario", "flash-crsh", "--out", "x.csv"), "did you mean flash-crash?"),
        (("simulate", "--scenario", "crash", "--out", "x.csv"), "no scenario 'crash': did you mean flash-crash?"),
        (("models", "show", "wgna"), "did you mean wgan?"),
        (
            ("backtest", "x", "--out", "y", "--config", "z"),
            "before the command: `tapewatch --config FILE backtest ...`",
        ),
        (("topics", "create", "--config=z"), "goes before the command: `tapewatch --config FILE topics create ...`"),
        (("evaluate", "--config", "z"), "goes before the command: `tapewatch --config FILE evaluate ...`"),
        (("worker", "--version"), "goes before the command: `tapewatch --version worker ...`"),
        (("--broker", "a:1", "worker"), "goes behind the command: `tapewatch worker --broker ...`"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_likely_one(arguments: tuple[str, ...], meant: str) -> None:
    assert meant in run(*arguments)


def test_what_is_like_nothing_is_answered_with_where_to_look() -> None:
    assert "no command 'xyzzy': `tapewatch --help` lists all" in run("xyzzy")


def completed(shell: str, words: str, word: str) -> str:
    """What a shell is told: bash and zsh name the number of the word that is being typed, fish its beginning."""
    asked = {"_TAPEWATCH_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": word}
    return subprocess.run([TAPEWATCH], env=os.environ | asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("typed", "wanted"), [("wor", "worker"), ("simulate --sce", "--scenario"), ("tail pred", "predictions")]
)
def test_bash_completes_commands_options_and_names(tmp_path: Path, typed: str, wanted: str) -> None:
    file = tmp_path / "completion.bash"
    file.write_text(script(commands, "bash"), encoding="utf-8")
    line = (
        f"source {file}; COMP_WORDS=(tapewatch {typed}); COMP_CWORD={len(typed.split())}; "
        "_tapewatch_completion tapewatch; echo ${COMPREPLY[@]}"
    )
    environ = os.environ | {"PATH": f"{TAPEWATCH.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [wanted], done.stderr


def test_zsh_and_fish_are_told_the_same() -> None:
    assert completed("zsh", "tapewatch wor", "1").splitlines()[:2] == ["plain", "worker"]
    assert completed("fish", "tapewatch wor", "wor").startswith("plain,worker")
    for shell in SHELLS:
        assert "_TAPEWATCH_COMPLETE" in run("completion", shell)


def test_the_models_that_ship_are_completed() -> None:
    ships = sorted({card.parent.parent.name for card in Path(DEFAULT_MODELS).glob("*/*/card.json")})
    assert ships
    assert completed("bash", "tapewatch models show ", "3").split() == [f"plain,{name}" for name in ships]
