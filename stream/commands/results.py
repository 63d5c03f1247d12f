"""Commands that read what workers wrote: `tail`, `verify`, `rejected`."""

import sys
from pathlib import Path
from typing import Any, get_args

import click

from stream import completion as completions
from stream.commands.options import broker_option, existing_file, settings_of
from stream.help import Command, Group


@click.command(cls=Command)
@click.argument("topic", shell_complete=completions.topics)
@broker_option
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
    settings = settings_of(context, broker=broker)
    from stream.tail import run

    run(settings, topic, symbol=symbol, from_beginning=start == "beginning", count=count, as_json=as_json)


def _offsets(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    from stream.verify import parse

    try:
        return parse(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not `beginning` or PARTITION:OFFSET,... such as 0:1000,1:500") from None


@click.command(cls=Command)
@broker_option
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
    settings = settings_of(
        context, broker=broker, worker__group=group, worker__models=None if models is None else str(models)
    )
    from stream.verify import run

    sys.exit(run(settings, start, stop, as_json))


@click.group(cls=Group)
def rejected() -> None:
    """What was refused: list it, put it back."""


def _reason(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from stream.messages import Reason
    from stream.suggestions import did_you_mean

    known = get_args(Reason)
    if value is not None and value not in known:
        meant = did_you_mean(value, known)
        raise click.BadParameter(f"nothing is refused as {value!r}; {meant}there are {', '.join(known)}")
    return value


@rejected.command("show")
@broker_option
@click.option("--reason", callback=_reason, metavar="R", help="Only those refused as R.")
@click.option(
    "--count", type=click.IntRange(min=0), default=3, show_default=True, metavar="N", help="Examples of each reason."
)
@click.pass_context
def show_rejected(context: click.Context, broker: str | None, reason: str | None, count: int) -> None:
    """List what was refused, by reason, with the newest of each."""
    settings = settings_of(context, broker=broker)
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
@broker_option
@click.option("--reason", callback=_reason, metavar="R", help="All that were refused as R.")
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
    settings = settings_of(context, broker=broker)
    from stream.rejected import retry

    retry(settings, reason, places, lambda question: yes or click.confirm(question))
