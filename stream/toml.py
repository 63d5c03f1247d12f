"""Settings as TOML: what `tapewatch config` prints, and the defaults in the reference."""

from typing import Any

import msgspec

from stream.config import HIDDEN, Settings, masked


def to_toml(settings: Settings) -> str:
    """Settings as TOML: `config.load` of the text gives them back."""
    tree = msgspec.to_builtins(settings) | {"security": masked(settings.security)}
    lines = [f"{key} = {value_text(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for section, values in tree.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(_line(key, value) for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    return f"# {key} is set, and not shown" if value == HIDDEN else f"{key} = {value_text(value)}"


def value_text(value: Any) -> str:
    if isinstance(value, str):
        # A literal text would need no escapes, but cannot hold an apostrophe.
        plain = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in value)
        return f'"{"".join(plain)}"'
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
