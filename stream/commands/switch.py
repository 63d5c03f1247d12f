"""Commands of the switch of the agent's actions: `halt`, `resume`, `audit`."""

import sys
from typing import Any

import click

from stream.commands.options import Decorated, broker_option, settings_of
from stream.help import Command


def _switch_options(command: Decorated) -> Decorated:
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
        broker_option,
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _switch(context: click.Context, name: Any, broker: str | None, asked: tuple[str, str | None, float, bool]) -> None:
    settings = settings_of(context, broker=broker)
    reason, symbol, seconds, yes = asked
    from stream.controls import run

    def confirm(question: str, word: str) -> bool:
        click.echo(question)
        return yes or click.prompt(f"type {word} to go on", default="", show_default=False) == word

    sys.exit(run(settings, name, reason, symbol, seconds, confirm))


@click.command(cls=Command)
@_switch_options
def halt(context: click.Context, broker: str | None, reason: str, symbol: str | None, yes: bool, wait: float) -> None:
    """Halt the agent's actions: each is flat from the next tick on, until `resume`."""
    _switch(context, "halt", broker, (reason, symbol, wait, yes))


@click.command(cls=Command)
@_switch_options
def resume(context: click.Context, broker: str | None, reason: str, symbol: str | None, yes: bool, wait: float) -> None:
    """Let the agent act again; the halts of symbols end with `--symbol` alone."""
    _switch(context, "resume", broker, (reason, symbol, wait, yes))


@click.command(cls=Command)
@broker_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, as it is on the topic.")
@click.pass_context
def audit(context: click.Context, broker: str | None, as_json: bool) -> None:
    """Who halted and resumed the agent's actions, why, which partitions took it, and what is halted now."""
    settings = settings_of(context, broker=broker)
    from stream.controls import run_audit

    run_audit(settings, as_json)
