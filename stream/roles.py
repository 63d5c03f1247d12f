"""Which of several forecasters in one folder of models answers, the champion, and which is scored in its shadow.

The folder says so itself, so that all workers that have it agree, in roles.toml, both lines optional:

    champion = "gru"            # NAME: the highest version of it that fits; NAME@VERSION: just this one
    challenger = "lstm@1"       # likewise

Without a champion it is the highest version of all forecasters but the challenger, and two of one version are refused.
`tapewatch models promote` and `tapewatch models challenge` write the file; a worker that runs takes it up as it takes
up bundles.
"""

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from stream.errors import ModelMismatch

FILE: Final = "roles.toml"
Role = Literal["champion", "challenger"]
_NAMED: Final = re.compile(r"[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?")


class Roles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What roles.toml says of the forecasters: NAME or NAME@VERSION each, or nothing."""

    champion: str = ""
    challenger: str = ""


class Versioned(Protocol):
    """A card, or what stands for one."""

    @property
    def name(self) -> str:
        """Of the bundle."""

    @property
    def version(self) -> str:
        """Of the bundle."""


Some = TypeVar("Some", bound=Versioned)


def version_key(version: str) -> tuple[int, str]:
    """Sorts versions in numeric order: 10 after 9; a version that is no number comes before all that are."""
    return (int(version), version) if version.isdecimal() else (-1, version)


def read(models: Path, trust: Callable[[Path, bytes], None] | None = None) -> Roles:
    """The roles in a folder of models; none where it has no roles.toml.

    Raises
    ------
    ModelMismatch
        If the file cannot be read, is no TOML, has another key, names one forecaster for both, or does not pass `trust`
        (see `stream.signatures`).
    """
    file = models / FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Roles()
    except OSError as error:
        raise ModelMismatch(f"cannot read {file}: {error.strerror}") from None
    if trust is not None:
        trust(file, content)
    return _parsed(file, content)


def _parsed(file: Path, content: bytes) -> Roles:
    try:
        found = msgspec.convert(tomllib.loads(content.decode("utf-8")), Roles)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ModelMismatch(f"{file}: {error}; it knows champion and challenger, each NAME or NAME@VERSION") from None
    for role, wanted in msgspec.structs.asdict(found).items():
        if wanted and not _NAMED.fullmatch(wanted):
            raise ModelMismatch(f"{file}: {role} = {wanted!r} is no NAME or NAME@VERSION")
    if found.champion and found.champion == found.challenger:
        raise ModelMismatch(f"{file}: champion and challenger are both {found.champion}")
    return found


def write(models: Path, roles: Roles) -> Path:
    """Put roles.toml into a folder of models, at once: a worker sees the old one or the new one; gives its path.

    Raises
    ------
    ModelMismatch
        If it cannot be written.
    """
    file, part = models / FILE, models / f"{FILE}.part"
    lines = [f'{role} = "{wanted}"\n' for role, wanted in msgspec.structs.asdict(roles).items() if wanted]
    try:
        part.write_text("".join(lines), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ModelMismatch(f"cannot write {file}: {error.strerror}") from None
    return file


def champions(forecasters: Sequence[Some], roles: Roles) -> list[Some]:
    """Those that may answer, the one to take first in front."""
    pinned = [one for one in forecasters if _exact(one) == roles.champion]
    free = [
        one
        for one in forecasters
        if (not roles.champion or one.name == roles.champion) and not _means(roles.challenger, one)
    ]
    return pinned or _newest_first(free)


def challengers(forecasters: Sequence[Some], roles: Roles) -> list[Some]:
    """Those that may be scored in the champion's shadow, the one to take first in front."""
    return _newest_first(
        [one for one in forecasters if _means(roles.challenger, one) and _exact(one) != roles.champion]
    )


def rival(one: Some, ranked: Sequence[Some]) -> Some | None:
    """Another of the same version, where nothing says which of the two is meant."""
    key = version_key(one.version)
    return next((other for other in ranked if other is not one and version_key(other.version) == key), None)


def _newest_first(some: Sequence[Some]) -> list[Some]:
    return sorted(some, key=lambda one: version_key(one.version), reverse=True)


def _means(wanted: str, one: Versioned) -> bool:
    return wanted in (one.name, _exact(one))


def _exact(one: Versioned) -> str:
    return f"{one.name}@{one.version}"
