"""The command `tapewatch`: reads options, calls the rest, prints errors as one line.

Each command imports what it needs when it runs, so that `tapewatch --help` does not wait for numba or Faust.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Final

import click

from stream import completion as completions
from stream.commands import models, results, switch, ticks
from stream.commands.options import broker_option, existing_file, folder, positive, settings_of
from stream.config import ROOT
from stream.errors import TapewatchError
from stream.help import Group, show

NO_CACHE: Final = (
    "tapewatch: no folder can be written for the compiled kernels, neither the program's own nor one of the user's: "
    "set NUMBA_CACHE_DIR to one that can"
)
INTERRUPTED: Final = 130  # what a shell gives for a program ended by Ctrl-C


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config_file", type=existing_file, metavar="FILE", help="Settings, TOML.")
@click.version_option(package_name="tapewatch", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context, config_file: Path | None) -> None:
    """Watch the tape: trade ticks in, forecasts, risk, actions and alerts out, over Kafka."""
    context.obj = config_file


@commands.command()
@broker_option
@click.option("--group", metavar="NAME", help="Consumer group; workers of one group share the partitions.")
@click.option("--models", type=existing_file, metavar="DIR", help="Folder of model bundles.")
@click.option("--host", metavar="ADDRESS", help="Where the board, /metrics and /health listen.")
@click.option("--port", type=int, metavar="N", help="Port of the board, /metrics and /health; 0: a free one.")
@click.pass_context
def worker(
    context: click.Context,
    broker: str | None,
    group: str | None,
    models: Path | None,
    host: str | None,
    port: int | None,
) -> None:
    """Run the stream processor; Ctrl-C or SIGTERM stops it cleanly."""
    settings = settings_of(
        context,
        broker=broker,
        worker__group=group,
        worker__models=None if models is None else str(models),
        worker__host=host,
        worker__port=port,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("tapewatch").setLevel(logging.INFO)  # ours; Faust and aiokafka tell of each step otherwise
    from stream import app

    app.run(settings)


@commands.command()
@click.option("--kafka", is_flag=True, help="Apache Kafka instead (`make kafka`, Java 17); forgets all when it stops.")
def broker(kafka: bool) -> None:
    """Run the embedded broker until Ctrl-C; it prints its address."""
    from stream.broker import run, run_kafka

    (run_kafka if kafka else run)()


@commands.group()
def topics() -> None:
    """Topics on Kafka."""


@topics.command()
@broker_option
@click.pass_context
def create(context: click.Context, broker: str | None) -> None:
    """Make the topics that are not there yet.

    Of those that are there it says how they differ from the settings.
    """
    settings = settings_of(context, broker=broker)
    from stream.topics import run_create

    run_create(settings)


@commands.command()
@click.option("--seconds", type=positive, default=60.0, show_default=True, metavar="N", help="How long ticks are sent.")
@click.option(
    "--broker",
    default="embedded",
    show_default=True,
    metavar="embedded|kafka|HOST:PORT",
    help="Start the embedded one, start Kafka (see `make kafka`), or use one that runs.",
)
@click.option("--rate", type=positive, metavar="N", help="Ticks a second; by default the recorded time, speeded up.")
@click.option("--scenario", metavar="NAME", help="A made market with this in it instead; `list` names them.")
@click.option("--summary", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also as JSON.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Last board, SVG.")
@click.pass_context
def demo(
    context: click.Context,
    seconds: float,
    broker: str,
    rate: float | None,
    scenario: str | None,
    summary: Path | None,
    picture: Path | None,
) -> None:
    """Broker, worker and a replay of recorded trades, or a scenario, at once, with a live board."""
    if scenario is not None and rate is not None:
        raise click.UsageError("--rate ignores the time that a --scenario needs: give one of them")
    if scenario == "list":
        from stream.feeds.simulator import show_scenarios

        show_scenarios()
        return
    from stream.demo import OWN_BROKERS, run

    settings = settings_of(context, broker=broker if broker not in OWN_BROKERS else None)
    sys.exit(run(settings, seconds, broker, rate, summary, picture, context.obj, scenario=scenario))


@commands.command()
@click.argument("file", type=existing_file)
@click.option("--out", type=folder, required=True, metavar="DIR", help="Folder for the Parquet files.")
@click.option("--models", type=existing_file, metavar="DIR", help="Folder of model bundles.")
@click.option("--chunk-ticks", type=click.IntRange(1, 8192), metavar="N", help="Ticks a chunk; changes no result.")
@click.pass_context
def backtest(context: click.Context, file: Path, out: Path, models: Path | None, chunk_ticks: int | None) -> None:
    """Run the same pipeline over FILE without Kafka and write its answers as Parquet.

    What an earlier backtest wrote into DIR is replaced; what no backtest wrote is not.
    """
    settings = settings_of(context)
    from stream.backtest import run

    found = run(file, out, models, settings, chunk_ticks)
    click.echo(
        f"{found.ticks:,} ticks: {found.accepted:,} answered, {found.rejected:,} rejected, "
        f"{found.alerts_opened:,} alerts opened; written to {out}"
        f"{', over those of an earlier backtest' if found.replaced else ''}"
    )
    if found.rejected:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.reasons.items()))
        click.echo(f"rejected: {counts}; the first: {found.first_rule}")


@commands.command()
@broker_option
@click.option("--json", "as_json", is_flag=True, help="All findings as one JSON object.")
@click.pass_context
def doctor(context: click.Context, broker: str | None, as_json: bool) -> None:
    """Look at broker, topics, models, clock, port and disk, and say what to do; 1 if anything fails."""
    settings = settings_of(context, broker=broker)
    from rich.console import Console

    from stream.doctor import run

    sys.exit(run(settings, as_json, Console(soft_wrap=True, highlight=False)))


@commands.command("config")
@click.pass_context
def show_config(context: click.Context) -> None:
    """Print the settings in force, as TOML."""
    from stream.toml import to_toml

    click.echo(to_toml(settings_of(context)), nl=False)


@commands.command()
@click.argument("shell", type=click.Choice(completions.SHELLS))
def completion(shell: str) -> None:
    """Print the text that makes SHELL complete commands, options and files."""
    click.echo(completions.script(commands, shell))


@commands.command("compile")
@click.pass_context
def compile_kernels(context: click.Context) -> None:
    """Compile the kernels and keep the machine code, so that no start waits for it."""
    settings = settings_of(context)
    from stream import inference, pipeline, signatures

    pipeline.compile_kernels(inference.load(Path(settings.worker.models), signatures.trust(settings.models)), settings)


@commands.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure throughput and latency on a Kafka of its own (from a checkout of the source)."""
    if context.obj is not None:
        raise click.UsageError("bench measures the default settings: leave --config away")
    if not (ROOT / "tests" / "benchmark").is_dir():
        raise TapewatchError(
            f"bench is not installed with the package, and {ROOT} is no checkout of the source: run it in one"
        )
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # -P: the folder one stands in may hold a package `tests` of its own.
    command = [sys.executable, "-P", "-m", "tests.benchmark", *arguments]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path})


for each in (
    *(ticks.replay, ticks.download, ticks.feed, ticks.simulate),
    *(results.tail, results.verify, results.rejected),
    *(switch.halt, switch.resume, switch.audit),
    *(models.models, models.train, models.evaluate),
):
    commands.add_command(each)


def main() -> None:
    """The console script: one line and 1 for what the user can mend, 2 for usage, 130 for Ctrl-C."""
    # What goes wrong with a broker is told by our own errors, not by the lines of a client that tries again.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        status = commands.main(prog_name="tapewatch", standalone_mode=False)
    except click.ClickException as error:
        show(error)
        status = error.exit_code
    except TapewatchError as error:
        print(f"tapewatch: {' '.join(str(error).split())}", file=sys.stderr)
        status = 1
    except (click.Abort, KeyboardInterrupt):  # Abort is a RuntimeError
        status = INTERRUPTED
    except RuntimeError as error:
        if "cannot cache function" not in str(error):  # as numba says it
            raise
        print(NO_CACHE, file=sys.stderr)
        status = 1
    except BrokenPipeError:
        # The reader of our output has gone, as in `tapewatch tail risk | head`; nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
