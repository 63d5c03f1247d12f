"""Commands that bring ticks: `replay`, `download`, `feed`, `simulate`."""

from datetime import date
from pathlib import Path

import click

from stream.commands.options import broker_option, check_speed, existing_file, folder, positive, settings_of
from stream.help import Command


@click.command(cls=Command)
@click.argument("file", type=existing_file, required=False)
@broker_option
@click.option("--speed", metavar="X|max", callback=check_speed, help="Times the recorded speed, or all at once.")
@click.option("--rate", type=positive, metavar="N", help="Ticks a second, whatever was recorded.")
@click.option("--loop", is_flag=True, help="Begin again at the end, with time going on.")
@click.option("--symbol", metavar="S", help="Only this symbol.")
@click.pass_context
def replay(
    context: click.Context,
    file: Path | None,
    broker: str | None,
    speed: str | None,
    rate: float | None,
    loop: bool,
    symbol: str | None,
) -> None:
    """Put the ticks of FILE (Parquet or CSV) on Kafka, in their recorded time unless told otherwise.

    Without FILE they are the recorded trades of the demo: seven symbols, eleven minutes.
    """
    if speed is not None and rate is not None:
        raise click.UsageError("--speed scales the recorded time and --rate ignores it: give one of them")
    settings = settings_of(context, broker=broker)
    from stream.feeds import replay as feed
    from stream.feeds import sample
    from stream.feeds.files import open_ticks

    feed.run(sample.bundled() if file is None else open_ticks(file), settings, speed, rate, loop, symbol)


def _day(context: click.Context, option: click.Parameter, value: str | None) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a day such as 2025-01-31") from None


@click.command(cls=Command)
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
@click.option("--out", type=folder, default=Path(), metavar="DIR", help="Folder for the files; default: here.")
@click.option("--address", metavar="URL", help="A copy of the archive, in place of the public one.")
def download(
    venue: str, symbol: str, day: date, last: date | None, market: str, out: Path, address: str | None
) -> None:
    """Fetch the trades of SYMBOL on a DAY from the public archive of VENUE, check them, and write Parquet.

    The files are for `backtest`, `replay` and `train`. What was cut off goes on where it ended.
    """
    from stream.feeds import archive

    archive.run(symbol, day, last or day, market, out, address or archive.ADDRESS)


@click.command(cls=Command)
@click.argument("venue")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@broker_option
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
    settings = settings_of(context, broker=broker)
    from stream.feeds.live import run

    run(venue, symbols, settings, address, host, port)


@click.command(cls=Command)
@click.option(
    "--out", type=existing_file, metavar="FILE", help="Write .parquet or .csv, the truth beside it; no Kafka."
)
@broker_option
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
@click.option("--speed", metavar="X|max", callback=check_speed, help="Times as fast as time, or all at once.")
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
    settings = settings_of(context, broker=broker)
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
