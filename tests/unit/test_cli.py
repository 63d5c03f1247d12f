"""The command line: help, exit codes, one-line errors, and settings that print as they load."""

import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import cli, config, toml
from stream.config import ROOT, Settings, Topics, Worker


def tapewatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tapewatch: ")
    for part in parts:
        assert part in line


def test_help_names_every_command() -> None:
    done = tapewatch("--help")
    assert done.returncode == 0
    for command in ("worker", "broker", "topics", "replay", "tail", "demo", "backtest", "config", "compile", "train"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("words", ["tapewatch --help", "tapewatch models show ", "tapewatch tail "])
def test_neither_help_nor_completion_imports_anything_heavy(words: str) -> None:
    asked = {"_TAPEWATCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = (
        "import os, sys; sys.argv = ['tapewatch', '--help']\n"
        f"if not {words!r}.endswith('--help'): os.environ |= {asked!r}\n"
        "from stream.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'faust', 'numpy', 'pyarrow', 'onnxruntime', 'kafka', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", ["worker", "broker", "replay", "tail", "demo", "backtest", "config", "compile"])
def test_each_command_has_help(command: str) -> None:
    assert tapewatch(command, "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("replay", "x.csv", "--speed", "0"),
        ("replay", "x.csv", "--speed", "nan"),
        ("replay", "x.csv", "--speed", "fast"),
        ("replay", "x.csv", "--rate", "nan"),
        ("replay", "x.csv", "--rate", "-1"),
        ("replay", "x.csv", "--rate", "5", "--speed", "2"),
        ("backtest", "x.csv"),
        ("backtest", "stream/feeds/samples/binance_sample.parquet", "--out", "README.md"),
        ("download", "binance", "BTCUSDT", "2025-01-31", "--out", "README.md"),
        ("demo", "--seconds", "0"),
        ("tail", "risk", "--count", "0"),
        ("evaluate", "--nonsense"),
        ("bench", "--nonsense"),
    ],
)
def test_wrong_usage_is_2_and_one_line_that_says_where_to_look(arguments: tuple[str, ...]) -> None:
    done = tapewatch(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tapewatch: ")
    assert "--help`" in line


@pytest.mark.parametrize("command", ["show", "retry"])
def test_a_reason_that_is_none_is_answered_with_those_there_are(command: str) -> None:
    done = tapewatch("rejected", command, "--reason", "duplicates")
    assert done.returncode == 2
    assert "nothing is refused as 'duplicates'; did you mean duplicate? there are json, schema, " in done.stderr


def test_a_missing_command_is_answered_with_the_list() -> None:
    done = tapewatch("topics")
    assert done.returncode == 2
    assert "Commands:\n  create " in done.stderr


def test_a_missing_file_is_one_line() -> None:
    assert_one_line(tapewatch("replay", "absent.parquet"), "absent.parquet", "No such file")


def test_an_unreachable_broker_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text("symbol,exchange_ns,price,size\nA,1700000000000000000,1,1\n")
    for arguments in (("replay", str(file)), ("tail", "risk"), ("topics", "create"), ("demo",)):
        assert_one_line(tapewatch(*arguments, "--broker", "127.0.0.1:1"), "127.0.0.1:1", "tapewatch broker")


def test_a_simulation_without_a_broker_is_told_that_a_file_will_do() -> None:
    done = tapewatch("simulate", "--scenario", "flash-crash", "--broker", "127.0.0.1:1")
    assert_one_line(done, "127.0.0.1:1", "or write a file with --out FILE")


def test_a_topic_that_is_none_of_ours_is_one_line() -> None:
    assert_one_line(tapewatch("tail", "positions"), "positions is no topic of ours")


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[worker]\nchunk_tics = 5\n")
    assert_one_line(tapewatch("--config", str(file), "config"), "chunk_tics")


def test_missing_models_are_one_line(tmp_path: Path) -> None:
    done = tapewatch("worker", "--models", str(tmp_path / "absent"), "--broker", "127.0.0.1:1")
    assert_one_line(done, "absent", "does not exist")


def test_options_come_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('broker = "10.0.0.1:9092"\n[worker]\nport = 7000\n')
    monkeypatch.setenv("TAPEWATCH_WORKER__PORT", "7001")
    done = tapewatch("--config", str(file), "config")
    assert 'broker = "10.0.0.1:9092"\n' in done.stdout
    assert "\nport = 7001\n" in done.stdout


def test_what_config_prints_loads_to_the_same_settings(tmp_path: Path) -> None:
    file = tmp_path / "printed.toml"
    file.write_text(tapewatch("config").stdout)
    assert config.load(file, environ={}) == config.load(environ={})


@given(
    watch=st.lists(st.text(max_size=8), max_size=4),
    group=st.text(min_size=1, max_size=20),
    band=st.floats(1e-9, 9.999),
    partitions=st.integers(1, 10_000),
)
def test_any_settings_print_as_they_load(
    tmp_path_factory: pytest.TempPathFactory, watch: list[str], group: str, band: float, partitions: int
) -> None:
    settings = Settings(
        topics=Topics(partitions=partitions),
        worker=Worker(group=group, watch=watch),
        features=msgspec.structs.replace(Settings().features, band=band),
    )
    file = tmp_path_factory.mktemp("settings") / "printed.toml"
    file.write_text(toml.to_toml(settings), encoding="utf-8")
    assert config.load(file, environ={}) == settings


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("training.cli", ["train", "--help"]), ("training.comparison", ["evaluate", "ticks.parquet", "--out", "report"])],
)
def test_training_without_its_extra_says_what_to_install(missing: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {['tapewatch', *arguments]}\n"
        "from stream.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert_one_line(done, "extra `training`", missing, "make setup-dev")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, click.Abort])
def test_an_interrupt_is_130_without_traceback(
    interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise interrupt

    monkeypatch.setattr(cli.commands, "main", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == ""


def test_no_folder_for_compiled_kernels_is_one_line(tmp_path: Path) -> None:
    """As where the program and HOME are both read-only: numba looks for a folder at the first kernel that it meets."""
    program = (
        "import numba.core.caching as caching; caching.CacheImpl._locator_classes = []; "
        "from stream.cli import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "backtest",
        "stream/feeds/samples/binance_sample.parquet",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert_one_line(done, "NUMBA_CACHE_DIR")
