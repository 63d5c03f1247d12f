"""Which models are in force from which offset of a partition on: decided once, and kept on the topic of snapshots.

One record a partition, with a key of its own beside those of the instruments. It is committed before the first result
of the models that it names is published, so whoever computes a tick again computes it with the same models.

The content of a record is JSON.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from stream.sealed import Form, Stored

FORM: Final = Form(b"TM", 1, "the models in force", "cold")
KEPT: Final = 32  # reigns in a record: more than anything asks for, so that people can read what was in force

Names = tuple[str, str, str]
"""Of forecaster, critic and policy."""


class Reign(msgspec.Struct, frozen=True):
    """The models in force from an offset on, until the next reign begins."""

    first: int
    models: Names  # name@version
    digests: Names  # inference.digest

    def same(self, other: "Reign") -> bool:
        """Whether the models are the same, whenever they begin."""
        return (self.models, self.digests) == (other.models, other.digests)


class Succession(msgspec.Struct, frozen=True):
    """The reigns of a partition, in their order; there is one at least."""

    reigns: tuple[Reign, ...]

    @property
    def last(self) -> Reign:
        """The newest reign; it may not have begun yet."""
        return self.reigns[-1]

    def since(self, offset: int) -> list[Reign]:
        """The reign in force at an offset, and those that begin behind it."""
        begun = sum(reign.first <= offset for reign in self.reigns)
        return list(self.reigns[max(0, begun - 1) :])

    def followed(self, reign: Reign, next_offset: int) -> "Succession":
        """With one more reign, in place of what has not begun at `next_offset`: all ticks below it are answered."""
        begun = [each for each in self.reigns if each.first <= next_offset]
        if begun and begun[-1].same(reign):
            return Succession(tuple(begun))
        return Succession((*begun, reign)[-KEPT:])


def key(group: str) -> bytes:
    """Key of the record of a partition; no instrument has it, for none is without a symbol."""
    return f"{group}\0\0models".encode()


def write(succession: Succession) -> bytes:
    """The value of a record."""
    return FORM.write(msgspec.json.encode(succession))


def read(stored: Stored, topic: str, partition: int) -> Succession:
    """A record as it was written.

    Raises
    ------
    DamagedSnapshot
        Naming topic, partition and offset, if it is damaged or of a form not known here.
    """
    return msgspec.json.decode(FORM.read(stored, topic, partition), type=Succession)


def part(stored: Sequence[Stored], group: str) -> tuple[Stored | None, list[Stored]]:
    """The record among all that a partition of the topic holds, if there is one, and the snapshots."""
    own = key(group)
    return next((each for each in stored if each.key == own), None), [each for each in stored if each.key != own]
