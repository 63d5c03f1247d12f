"""Records on the topic of snapshots, sealed: the last four bytes are a CRC-32C, little-endian, of all before them.

Beside the snapshots of the instruments a partition has some records of one kind each, a `Form`: `magic`, `version` (two
bytes, little-endian), content, seal.
"""

from typing import Final, NamedTuple

from google_crc32c import value as crc32c

from stream.errors import DamagedSnapshot

SEAL_BYTES: Final = 4
_HEAD: Final = 4


class Stored(NamedTuple):
    """A record of the topic of snapshots."""

    key: bytes
    value: bytes
    offset: int


def seal(body: bytes) -> bytes:
    """A value that ends with its checksum."""
    crc: int = crc32c(body)
    return body + crc.to_bytes(SEAL_BYTES, "little")


def is_whole(value: bytes) -> bool:
    """Whether a sealed value is as it was written."""
    return bool(crc32c(value[:-SEAL_BYTES]) == int.from_bytes(value[-SEAL_BYTES:], "little"))


class Form(NamedTuple):
    """How one kind of record is written. Never change one that was released: add the next, and read both."""

    magic: bytes  # two of them
    version: int
    what: str  # it holds, for people
    cold: str  # how a partition starts without it

    def write(self, content: bytes) -> bytes:
        """The value of a record."""
        return seal(self.magic + self.version.to_bytes(2, "little") + content)

    def read(self, stored: Stored, topic: str, partition: int) -> bytes:
        """The content of a record.

        Raises
        ------
        DamagedSnapshot
            Naming topic, partition and offset, if it is damaged or of a form not known here.
        """
        value = stored.value
        if value[:2] != self.magic or not is_whole(value):
            raise self._damaged(stored, topic, partition, "its checksum does not match its content")
        version = int.from_bytes(value[2:_HEAD], "little")
        if version != self.version:
            why = f"its form {version} is newer than {self.version}, the newest known here"
            raise self._damaged(stored, topic, partition, why)
        return value[_HEAD:-SEAL_BYTES]

    def _damaged(self, stored: Stored, topic: str, partition: int, why: str) -> DamagedSnapshot:
        return DamagedSnapshot(
            f"the record of {self.what} in topic {topic}, partition {partition}, offset {stored.offset} cannot be "
            f"used: {why}; restore the topic, run the release that wrote it, or, to start {self.cold}, name another "
            "topic in topics.state"
        )
