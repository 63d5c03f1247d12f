"""`tapewatch bench [PART...]`, or `python -m tests.benchmark`: what `make bench` runs.

Starts a Kafka of its own from `make kafka`, on 127.0.0.1, and leaves nothing running. Without a part, all of them.
"""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np
from rich.console import Console

from stream import inference
from stream.config import Settings
from stream.errors import TapewatchError
from stream.help import Command, show
from stream.pipeline import compile_kernels
from tests.benchmark import (
    backtest,
    burst,
    checkpoints,
    drain,
    findings,
    journey,
    latency,
    machine,
    report,
    stages,
    start,
    symbols,
)
from tests.benchmark.findings import Findings
from tests.benchmark.stand import Stand

WIDTH: Final = 140  # of the tables, where the output is no terminal
STAGES_SHARE: Final = 2
WITHOUT_KAFKA: Final = ("stages", "backtest")
TIMED: Final = ("latency", "burst")  # on a broker that is warm


class Options(NamedTuple):
    """How much is measured."""

    runs: int = 5
    ticks: int = 300_000
    seconds: int = 3
    warm_up: int = 60
    instruments: tuple[int, ...] = (16, 10_000)


count = click.IntRange(min=1)


class Bench:
    """One call: the parts that are wanted, in order."""

    def __init__(self, options: Options, out: Console) -> None:
        self._options = options
        self._out = out
        self._began = time.monotonic()

    def measure(self, parts: Sequence[str]) -> Findings:
        """All of them; those that need Kafka on one stand."""
        found = Findings()
        self._say("compiling the kernels that have changed")  # no start that is measured or waited for does it then
        settings = Settings()
        compile_kernels(inference.load(Path(settings.worker.models)), settings)
        for part in [part for part in parts if part in WITHOUT_KAFKA]:
            self._take(found, part, WITHOUT[part], self._options)
        on_kafka = [part for part in parts if part not in WITHOUT_KAFKA]
        if on_kafka:
            self._say("starting Kafka")
            with Stand() as stand:
                if any(part in TIMED for part in on_kafka):
                    self._say("warming the broker up")
                    journey.warm_up(stand, self._options.warm_up)
                for part in on_kafka:
                    self._take(found, part, ON_KAFKA[part], stand, self._options, self._say)
        self._say("done")
        return found

    def _take(self, found: Findings, part: str, measure: Callable[..., Any], *arguments: Any) -> None:
        self._say(part)
        taken = machine.describe() | {"command": command(part, self._options)}
        setattr(found, part, measure(*arguments))
        found.taken[part] = taken

    def _say(self, what: str) -> None:
        self._out.print(f"{time.monotonic() - self._began:6.0f} s  {what}", highlight=False)


def command(part: str, options: Options) -> str:
    """That measures the part again in the same way."""
    words = ["tapewatch", "bench", part]
    for name, value in options._asdict().items():
        if value != Options._field_defaults[name]:
            option = f"--{name.replace('_', '-')}"
            words += [word for each in np.atleast_1d(value).tolist() for word in (option, str(each))]
    return shlex.join(words)


def _drain(stand: Stand, options: Options, say: Callable[[str], None]) -> Any:
    return drain.measure(stand, drain.drain_cases(options.ticks), options.runs, say)


def _peers(stand: Stand, options: Options, say: Callable[[str], None]) -> Any:
    wanted, missing = drain.peer_cases(options.ticks)
    for reason in missing:
        say(f"left out: {reason}")
    return drain.measure(stand, wanted, options.runs, say)


def _symbols(stand: Stand, options: Options, say: Callable[[str], None]) -> Any:
    alone = symbols.measure(chunks=10 * options.runs)
    return symbols.Symbols(alone, drain.measure(stand, drain.symbol_cases(options.ticks), options.runs, say))


def _checkpoints(stand: Stand, options: Options, _say: Callable[[str], None]) -> Any:
    return checkpoints.measure(stand, options.instruments, options.ticks, options.runs)


WITHOUT: Final[dict[str, Callable[[Options], Any]]] = {
    "stages": lambda options: stages.measure(options.ticks // STAGES_SHARE, options.runs),
    "backtest": lambda options: backtest.measure(options.runs),
}
ON_KAFKA: Final[dict[str, Callable[[Stand, Options, Callable[[str], None]], Any]]] = {
    "drain": _drain,
    "peers": _peers,
    "latency": lambda stand, options, say: latency.measure(stand, latency.RATES, options.seconds, options.runs, say),
    "burst": lambda stand, options, say: burst.measure(stand, burst.PEAK_TICKS, options.runs, say),
    "symbols": _symbols,
    "skew": lambda stand, options, say: drain.measure(stand, drain.skew_cases(options.ticks), options.runs, say),
    "workers": lambda stand, options, say: drain.measure(stand, drain.worker_cases(options.ticks), options.runs, say),
    "start": lambda stand, options, _say: start.measure(stand, options.runs),
    "checkpoints": _checkpoints,
    "recovery": lambda stand, options, _say: [
        checkpoints.recover(stand, number, options.runs) for number in options.instruments
    ],
}


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("parts", nargs=-1, type=click.Choice(findings.PARTS), metavar="[PART]...")
@click.option("--runs", type=count, default=Options().runs, show_default=True, metavar="N", help="Of each case.")
@click.option("--ticks", type=count, default=Options().ticks, show_default=True, metavar="N", help="To drain.")
@click.option("--seconds", type=count, default=Options().seconds, show_default=True, metavar="N", help="At each rate.")
@click.option(
    "--warm-up",
    type=count,
    default=Options().warm_up,
    show_default=True,
    metavar="N",
    help="Seconds of load that warm the broker up before latency and burst.",
)
@click.option(
    "--instruments",
    type=count,
    multiple=True,
    default=Options().instruments,
    show_default=True,
    metavar="N",
    help="Of checkpoints and recovery; may be given several times.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write every run's figures.")
@click.option("--docs", is_flag=True, help="Write these parts in docs/performance/ again.")
def bench(
    parts: tuple[str, ...],
    runs: int,
    ticks: int,
    seconds: int,
    warm_up: int,
    instruments: tuple[int, ...],
    file: Path | None,
    docs: bool,
) -> None:
    """Measure throughput and latency on a Kafka of its own, from a checkout of the source.

    PART is drain, peers, latency, burst, symbols, skew, workers, start, backtest, stages, checkpoints or recovery; all
    if none is named.
    """
    console = Console()
    console.width = max(console.width, WIDTH)
    options = Options(runs, ticks, seconds, warm_up, instruments)
    found = Bench(options, Console(stderr=True)).measure(parts or findings.PARTS)
    report.show(found, console)
    if file:
        findings.write(found, file)
    if docs:
        report.write_docs(found)


if __name__ == "__main__":
    try:
        bench(prog_name="tapewatch bench", standalone_mode=False)
    except click.ClickException as error:
        show(error)
        sys.exit(error.exit_code)
    except TapewatchError as error:
        sys.exit(f"tapewatch bench: {error}")
