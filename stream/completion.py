"""What shells ask of `tapewatch` to complete commands, options, files and the names that they take.

The scripts are click's own. A shell that has one starts `tapewatch` at each Tab, which imports nothing heavy for it:
measured at 0.1 s on a loaded machine, of which Python itself takes a third.
"""

from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

from stream.config import DEFAULT_MODELS, Topics

SHELLS: Final = ("bash", "zsh", "fish")


def script(program: click.Command, shell: str) -> str:
    """The text that makes a shell complete the arguments of `tapewatch`."""
    found = get_completion_class(shell)
    assert found is not None
    # Not through `source`, which starts a bash to learn its version, and warns where there is none.
    completion = found(program, {}, "tapewatch", "_TAPEWATCH_COMPLETE")
    return completion.source_template % completion.source_vars()


def topics(context: click.Context, option: click.Parameter, start: str) -> list[str]:
    """Names of topics as they are by default."""
    names = [name for name in _values(Topics()) if name != Topics().state]
    return [name for name in names if name.startswith(start)]


def models(context: click.Context, option: click.Parameter, start: str) -> list[str]:
    """Names of bundles in the folder that is given, or of those that ship."""
    folder = Path(context.params.get("folder") or DEFAULT_MODELS)
    return sorted({card.parent.parent.name for card in folder.glob(f"{start}*/*/card.json")})


def _values(names: Topics) -> list[Any]:
    return [value for value in (getattr(names, field) for field in names.__struct_fields__) if isinstance(value, str)]
