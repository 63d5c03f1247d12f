"""What several commands share: the settings in force, and options."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stream.config import Settings, load

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

existing_file = click.Path(path_type=Path)
folder = click.Path(path_type=Path, file_okay=False)
"""That may be made, but is no file."""


def settings_of(context: click.Context, **overrides: Any) -> Settings:
    """Settings in force; `worker__port=0` is the key worker.port."""
    return load(context.obj, overrides={key.replace("__", "."): value for key, value in overrides.items()})


def broker_option(command: Decorated) -> Decorated:
    """--broker."""
    return click.option("--broker", metavar="HOST:PORT", help="Kafka broker; several with commas between.")(command)


def check_speed(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The value of --speed; raises BadParameter where it is no speed."""
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
