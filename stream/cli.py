"""The command `tapewatch`: reads options, calls the rest, prints errors as one line.

Each command imports what it needs when it runs, so that `tapewatch --help` does not wait for numba or Faust.
"""

import logging
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from stream import completion as completions
from stream.config import ROOT, Settings, load
from stream.errors import TapewatchError
from stream.help import Group

NO_CACHE: Final = (
    "tapewatch: no folder can be written for the compiled kernels, neither the program's own nor one of the user's: "
    "set NUMBA_CACHE_DIR to one that can"
)
INTERRUPTED: Final = 130  # what a shell gives for a program ended by Ctrl-C
Command = TypeVar("Command", bound=Callable[..., Any])

existing_file = click.Path(path_type=Path)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config_file", type=existing_file, metavar="FILE", help="Settings, TOML.")
@click.version_option(package_name="tapewatch", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context, config_file: Path | None) -> None:
    """Watch the tape: trade ticks in, forecasts, risk, actions and alerts out, over Kafka."""
    context.obj = config_file


def _settings(context: click.Context, **overrides: Any) -> Settings:
    """Settings in force; `worker__port=0` is the key worker.port."""
    return load(context.obj, overrides={key.replace("__", "."): value for key, value in overrides.items()})


def _broker_option(command: Command) -> Command:
    return click.option("--broker", metavar="HOST:PORT", help="Kafka broker; several with commas between.")(command)


@commands.command()
@_broker_option
@click.option("--group", metavar="NAME", help="Consumer group; workers of one group share the partitions.")
@click.option("--models", type=existing_file, metavar="DIR", help="Folder of model bundles.")
@click.option("--host", metavar="ADDRESS", help="Where /metrics and /health listen.")
@click.option("--port", type=int, metavar="N", help="Port of /metrics and /health; 0 takes a free one.")
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
    settings = _settings(
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
@_broker_option
@click.pass_context
def create(context: click.Context, broker: str | None) -> None:
    """Make the topics that are not there yet.

    Of those that are there it says how they differ from the settings.
    """
    settings = _settings(context, broker=broker)
    from stream.topics import run_create

    run_create(settings)


def _check_speed(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None or value == "max":
        return value
    try:
        speed = float(value)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise click.BadParameter(f"{value!r} is not `max` or a number above 0")
    return value


class _Positive(click.FloatRange):
    """A number above 0; not nan, which lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if number == number else self.fail(f"{value!r} is not a number", param, ctx)


positive = _Positive(min=0, min_open=True, max=1e9)


@commands.command()
@click.argument("file", type=existing_file)
@_broker_option
@click.option("--speed", metavar="X|max", callback=_check_speed, help="Times the recorded speed, or all at once.")
@click.option("--rate", type=positive, metavar="N", help="Ticks a second, whatever was recorded.")
@click.option("--loop", is_flag=True, help="Begin again at the end, with time going on.")
@click.option("--symbol", metavar="S", help="Only this symbol.")
@click.pass_context
def replay(
    context: click.Context,
    file: Path,
    broker: str | None,
    speed: str | None,
    rate: float | None,
    loop: bool,
    symbol: str | None,
) -> None:
    """Put the ticks of FILE (Parquet or CSV) on Kafka, in their recorded time unless told otherwise."""
    if speed is not None and rate is not None:
        raise click.UsageError("--speed scales the recorded time and --rate ignores it: give one of them")
    settings = _settings(context, broker=broker)
    from stream.feeds import replay as feed

    feed.run(file, settings, speed, rate, loop, symbol)


def _day(context: click.Context, option: click.Parameter, value: str | None) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day such as 2025-01-31") from None


@commands.command()
@click.argument("venue", type=click.Choice(["binance"]))
@click.argument("symbol")
@click.argument("day", callback=_day)
@click.option("--to", "last", callback=_day, metavar="DAY", help="The last day of several.")
@click.option(
    "--market",
    type=click.Choice(["spot", "usdm", "coinm"]),
    default="spot",
    show_default=True,
    help="Spot, or futures settled in USD or in the coin.",
)
@click.option("--out", type=existing_file, default=Path(), metavar="DIR", help="Folder for the files; default: here.")
@click.option("--address", metavar="URL", help="A copy of the archive, in place of the public one.")
def download(
    venue: str, symbol: str, day: date, last: date | None, market: str, out: Path, address: str | None
) -> None:
    """Fetch the trades of SYMBOL on a DAY from the public archive of VENUE, check them, and write Parquet.

    The files are for `backtest`, `replay` and `train`. What was cut off goes on where it ended.
    """
    from stream.feeds import archive

    archive.run(symbol, day, last or day, market, out, address or archive.ADDRESS)


@commands.command()
@click.argument("venue")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@_broker_option
@click.option("--address", metavar="URL", help="The venue's websocket, ws:// or wss://, in place of its public one.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where /metrics listens.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Serve /metrics there; 0 takes a free port.")
@click.pass_context
def feed(
    context: click.Context,
    venue: str,
    symbols: tuple[str, ...],
    broker: str | None,
    address: str | None,
    host: str,
    port: int | None,
) -> None:
    """Put the trades of an exchange on Kafka: VENUE is binance, binance-usdm, coinbase or kraken.

    SYMBOL is the exchange's own: BTCUSDT, BTC-USD, BTC/USD. Ctrl-C or SIGTERM stops it cleanly.
    """
    settings = _settings(context, broker=broker)
    from stream.feeds.live import run

    run(venue, symbols, settings, address, host, port)


@commands.command()
@click.option(
    "--out", type=existing_file, metavar="FILE", help="Write .parquet or .csv, the truth beside it; no Kafka."
)
@_broker_option
@click.option(
    "--scenario", metavar="NAME", default="calm", show_default=True, help="What to inject; `list` names them."
)
@click.option(
    "--symbol", "symbols", multiple=True, metavar="S", help="One of several; the first is the one it befalls."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="For the same ticks again.",
)
@click.option("--seconds", type=click.IntRange(60), default=2700, show_default=True, metavar="N", help="Event time.")
@click.option(
    "--at", type=click.IntRange(0), default=1800, show_default=True, metavar="N", help="Second in which it begins."
)
@click.option("--speed", metavar="X|max", callback=_check_speed, help="Times as fast as time, or all at once.")
@click.option(
    "--generator", "by_generator", is_flag=True, help="Trades by the generator among the models; no scenario."
)
@click.option("--volatility", type=positive, metavar="X", help="With --generator: times the usual volatility.")
@click.option("--models", type=existing_file, metavar="DIR", help="With --generator: folder of model bundles.")
@click.pass_context
def simulate(
    context: click.Context,
    out: Path | None,
    broker: str | None,
    scenario: str,
    symbols: tuple[str, ...],
    seed: int,
    seconds: int,
    at: int,
    speed: str | None,
    by_generator: bool,
    volatility: float | None,
    models: Path | None,
) -> None:
    """Make ticks of a market that does not exist, with a scenario in it, to a file or to Kafka."""
    if out is not None and (broker is not None or speed is not None):
        raise click.UsageError("--out writes a file; --broker and --speed are for Kafka: give one or the other")
    from stream.feeds import simulator

    if scenario == "list":
        simulator.show_scenarios()
        return
    if not by_generator and (volatility is not None or models is not None):
        raise click.UsageError("--volatility and --models are for --generator")
    settings = _settings(context, broker=broker)
    plan = simulator.Plan(
        scenario, symbols or simulator.SYMBOLS, seed, seconds, at, volatility=1.0 if volatility is None else volatility
    )
    generator = None
    if by_generator:
        from stream import signatures

        generator = simulator.generator_in(models or Path(settings.worker.models), signatures.trust(settings.models))
    if out is not None:
        simulator.run_to_file(plan, out, generator)
    else:
        simulator.run_to_kafka(plan, settings, speed, generator)


@commands.command()
@click.argument("topic", shell_complete=completions.topics)
@_broker_option
@click.option("--symbol", metavar="S", help="Only records keyed by this symbol.")
@click.option(
    "--from", "start", type=click.Choice(["beginning", "end"]), default="end", show_default=True, help="Where to begin."
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after so many records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, as it is on the topic.")
@click.pass_context
def tail(
    context: click.Context,
    topic: str,
    broker: str | None,
    symbol: str | None,
    start: str,
    count: int | None,
    as_json: bool,
) -> None:
    """Print TOPIC readably: ticks, predictions, risk, actions, alerts, ticks.rejected, truth or audit."""
    settings = _settings(context, broker=broker)
    from stream.tail import run

    run(settings, topic, symbol=symbol, from_beginning=start == "beginning", count=count, as_json=as_json)


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

    settings = _settings(context, broker=broker if broker not in OWN_BROKERS else None)
    sys.exit(run(settings, seconds, broker, rate, summary, picture, context.obj, scenario=scenario))


@commands.command()
@click.argument("file", type=existing_file)
@click.option("--out", type=existing_file, required=True, metavar="DIR", help="Folder for the Parquet files.")
@click.option("--models", type=existing_file, metavar="DIR", help="Folder of model bundles.")
@click.option("--chunk-ticks", type=click.IntRange(1, 8192), metavar="N", help="Ticks a chunk; changes no result.")
@click.pass_context
def backtest(context: click.Context, file: Path, out: Path, models: Path | None, chunk_ticks: int | None) -> None:
    """Run the same pipeline over FILE without Kafka and write its answers as Parquet."""
    settings = _settings(context)
    from stream.backtest import run

    found = run(file, out, models, settings, chunk_ticks)
    click.echo(
        f"{found.ticks:,} ticks: {found.accepted:,} answered, {found.rejected:,} rejected, "
        f"{found.alerts_opened:,} alerts opened; written to {out}"
    )
    if found.rejected:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.reasons.items()))
        click.echo(f"rejected: {counts}; the first: {found.first_rule}")


def _offsets(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    from stream.verify import parse

    try:
        return parse(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not `beginning` or PARTITION:OFFSET,... such as 0:1000,1:500") from None


@commands.command()
@_broker_option
@click.option("--group", metavar="NAME", help="Consumer group of the workers.")
@click.option("--models", type=existing_file, metavar="DIR", help="Folder of model bundles.")
@click.option(
    "--from", "start", callback=_offsets, metavar="OFFSETS", help="First ticks, as 0:1000,1:500; default: beginning."
)
@click.option(
    "--to", "stop", callback=_offsets, metavar="OFFSETS", help="Ticks behind the last; default: what is committed."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def verify(
    context: click.Context,
    broker: str | None,
    group: str | None,
    models: Path | None,
    start: dict[int, int] | None,
    stop: dict[int, int] | None,
    as_json: bool,
) -> None:
    """Compute ticks on Kafka afresh and compare them with what was published; 1 if anything differs."""
    settings = _settings(
        context, broker=broker, worker__group=group, worker__models=None if models is None else str(models)
    )
    from stream.verify import run

    sys.exit(run(settings, start, stop, as_json))


def _switch_options(command: Command) -> Command:
    options = (
        click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept on the topic audit."),
        click.option("--symbol", metavar="S", help="Of this symbol only, at every venue."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--wait",
            type=click.FloatRange(0, 3600),
            default=10.0,
            show_default=True,
            metavar="N",
            help="Seconds in which the partitions must say that they took it.",
        ),
        _broker_option,
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _switch(context: click.Context, name: Any, broker: str | None, asked: tuple[str, str | None, float, bool]) -> None:
    settings = _settings(context, broker=broker)
    reason, symbol, seconds, yes = asked
    from stream.controls import run

    def confirm(question: str, word: str) -> bool:
        click.echo(question)
        return yes or click.prompt(f"type {word} to go on", default="", show_default=False) == word

    sys.exit(run(settings, name, reason, symbol, seconds, confirm))


@commands.command()
@_switch_options
def halt(context: click.Context, broker: str | None, reason: str, symbol: str | None, yes: bool, wait: float) -> None:
    """Halt the agent's actions: each is flat from the next tick on, until `resume`."""
    _switch(context, "halt", broker, (reason, symbol, wait, yes))


@commands.command()
@_switch_options
def resume(context: click.Context, broker: str | None, reason: str, symbol: str | None, yes: bool, wait: float) -> None:
    """Let the agent act again; the halts of symbols end with `--symbol` alone."""
    _switch(context, "resume", broker, (reason, symbol, wait, yes))


@commands.command()
@_broker_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, as it is on the topic.")
@click.pass_context
def audit(context: click.Context, broker: str | None, as_json: bool) -> None:
    """Who halted and resumed the agent's actions, why, which partitions took it, and what is halted now."""
    settings = _settings(context, broker=broker)
    from stream.controls import run_audit

    run_audit(settings, as_json)


@commands.group()
def rejected() -> None:
    """What was refused: list it, put it back."""


@rejected.command("show")
@_broker_option
@click.option("--reason", metavar="R", help="Only those refused as R.")
@click.option(
    "--count", type=click.IntRange(min=0), default=3, show_default=True, metavar="N", help="Examples of each reason."
)
@click.pass_context
def show_rejected(context: click.Context, broker: str | None, reason: str | None, count: int) -> None:
    """List what was refused, by reason, with the newest of each."""
    settings = _settings(context, broker=broker)
    from rich.console import Console

    from stream.rejected import show

    show(settings, reason, count, Console(soft_wrap=True, highlight=False))


def _places(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> Any:
    from stream.rejected import place_of

    places = {value: place_of(value) for value in values}
    for value, place in places.items():
        if place is None:
            raise click.BadParameter(f"{value!r} is not PARTITION:OFFSET such as 0:1234")
    return set(places.values())


@rejected.command("retry")
@_broker_option
@click.option("--reason", metavar="R", help="All that were refused as R.")
@click.option(
    "--offset", "places", callback=_places, multiple=True, metavar="P:O", help="The tick at this partition and offset."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def retry_rejected(
    context: click.Context, broker: str | None, reason: str | None, places: set[tuple[int, int]], yes: bool
) -> None:
    """Put refused messages back on the topic of ticks.

    As they were and where they were, each once. It asks first.
    """
    if reason is None and not places:
        raise click.UsageError("which ones? --reason R or --offset P:O, more than once if need be")
    settings = _settings(context, broker=broker)
    from stream.rejected import retry

    retry(settings, reason, places, lambda question: yes or click.confirm(question))


@commands.command()
@_broker_option
@click.option("--json", "as_json", is_flag=True, help="All findings as one JSON object.")
@click.pass_context
def doctor(context: click.Context, broker: str | None, as_json: bool) -> None:
    """Look at broker, topics, models, clock, port and disk, and say what to do; 1 if anything fails."""
    settings = _settings(context, broker=broker)
    from rich.console import Console

    from stream.doctor import run

    sys.exit(run(settings, as_json, Console(soft_wrap=True, highlight=False)))


@commands.command("config")
@click.pass_context
def show_config(context: click.Context) -> None:
    """Print the settings in force, as TOML."""
    from stream.toml import to_toml

    click.echo(to_toml(_settings(context)), nl=False)


@commands.command()
@click.argument("shell", type=click.Choice(completions.SHELLS))
def completion(shell: str) -> None:
    """Print the text that makes SHELL complete commands, options and files."""
    click.echo(completions.script(commands, shell))


@commands.command("compile")
@click.pass_context
def compile_kernels(context: click.Context) -> None:
    """Compile the kernels and keep the machine code, so that no start waits for it."""
    settings = _settings(context)
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


@commands.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.Path())
def train(arguments: tuple[str, ...]) -> None:
    """Train models and export them (needs the extra `training`)."""
    _training("train", arguments)


@commands.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.Path())
def evaluate(arguments: tuple[str, ...]) -> None:
    """Compare a forecaster with plain baselines (needs the extra `training`)."""
    _training("evaluate", arguments)


def _training(name: str, arguments: tuple[str, ...]) -> None:
    try:
        from training import cli as training
    except ImportError as error:
        raise TapewatchError(
            f"{name} needs the extra `training` ({error.name} is missing): run `make setup-dev`, "
            "or pip install 'tapewatch[training]'"
        ) from None
    command: click.Command = getattr(training, name)
    command.main(
        list(arguments), prog_name=f"tapewatch {name}", standalone_mode=False, obj=click.get_current_context().obj
    )


@commands.group()
def models() -> None:
    """Model bundles: what there is, and whether it runs here."""


def _models_option(command: Command) -> Command:
    return click.option("--models", "folder", type=existing_file, metavar="DIR", help="Folder of model bundles.")(
        command
    )


@models.command("list")
@_models_option
@click.pass_context
def list_models(context: click.Context, folder: Path | None) -> None:
    """List all bundles, a line each."""
    models_in, console = _catalogue(context, folder)
    from stream.catalogue import show_list

    show_list(models_in, console)


@models.command("show")
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=completions.models)
@_models_option
@click.pass_context
def show_model(context: click.Context, name: str, folder: Path | None) -> None:
    """Print a bundle's card; of the newest version unless told otherwise."""
    models_in, console = _catalogue(context, folder)
    from stream.catalogue import show_card

    show_card(models_in, name, console)


@models.command("verify")
@click.option("--key", type=existing_file, metavar="FILE", help="Public key of who must have signed.")
@_models_option
@click.pass_context
def verify_models(context: click.Context, key: Path | None, folder: Path | None) -> None:
    """Check every bundle, and run it in ONNX Runtime.

    Held against each other are the graph's hash, features and shapes, and what its card says; with a key, by
    --key or models.public_key, the card against its signature too.
    """
    models_in, console = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import run_verify

    trust = signatures.of_key(key) if key is not None else signatures.trust(_settings(context).models)
    run_verify(models_in, console, trust)


@models.command("keygen")
@click.argument("file", type=existing_file)
def make_keys(file: Path) -> None:
    """Make a pair of keys to sign bundles with: FILE, which stays secret, and FILE.pub."""
    from stream import signatures

    click.echo(f"public key, for models.public_key of the workers: {signatures.keygen(file)}")


@models.command("sign")
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=completions.models)
@click.option("--key", type=existing_file, required=True, metavar="FILE", help="Private key, from `models keygen`.")
@_models_option
@click.pass_context
def sign_model(context: click.Context, name: str, key: Path, folder: Path | None) -> None:
    """Sign a bundle that loads, so that workers with the public key take it."""
    models_in, _ = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import find

    click.echo(signatures.sign(find(models_in, name).folder, key))


@models.command("promote")
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@_models_option
@click.pass_context
def promote_model(context: click.Context, name: str | None, folder: Path | None) -> None:
    """Make a forecaster the champion, whose forecasts are published; the challenger unless told otherwise.

    NAME stands for its highest version. Workers that run take it up as they take up a new version.
    """
    models_in, _ = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import promote

    trust = signatures.trust(_settings(context).models)
    click.echo(promote(models_in, name, trust).read_text(encoding="utf-8"), nl=False)


@models.command("challenge")
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@click.option("--none", "nobody", is_flag=True, help="Score nobody any more.")
@_models_option
@click.pass_context
def challenge_model(context: click.Context, name: str | None, nobody: bool, folder: Path | None) -> None:
    """Score a forecaster in the champion's shadow: on every tick, and never published."""
    if (name is None) != nobody:
        raise click.UsageError("whom? NAME, NAME@VERSION, or --none")
    models_in, _ = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import challenge

    trust = signatures.trust(_settings(context).models)
    click.echo(challenge(models_in, name, trust).read_text(encoding="utf-8"), nl=False)


def _catalogue(context: click.Context, folder: Path | None) -> tuple[Path, Any]:
    """Folder of bundles, and a console that does not wrap a table when it is piped."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200)
    return folder or Path(_settings(context).worker.models), console


def main() -> None:
    """The console script: one line and 1 for what the user can mend, 2 for usage, 130 for Ctrl-C."""
    # What goes wrong with a broker is told by our own errors, not by the lines of a client that tries again.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        status = commands.main(prog_name="tapewatch", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except TapewatchError as error:
        print(f"tapewatch: {' '.join(str(error).split())}", file=sys.stderr)
        status = 1
    except RuntimeError as error:
        if "cannot cache function" not in str(error):  # as numba says it
            raise
        print(NO_CACHE, file=sys.stderr)
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as in `tapewatch tail risk | head`; nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
