"""Records of the topic of snapshots as releases wrote them, kept for ever: `python -m tests.golden.snapshot` wrote each
file, once.

There is a file for each layout of the instruments' snapshots, and for each form of the models in force and of the
offset of the snapshots. It holds, for each record, the lengths of key and value (two little-endian int32), then both.
"""

import struct
from pathlib import Path
from typing import Final, cast

from stream import recomputation, snapshots, succession
from stream.config import Features, Settings
from stream.inference import Models
from stream.pipeline import Pipeline
from stream.sealed import Stored
from stream.succession import Reign, Succession
from tests.fakes import FakeModels
from tests.ticks import SECOND, START_NS, chunk, message

TICKS: Final = 100
SETTINGS: Final = Settings(features=Features(warm_ticks=5, warm_seconds=2.0))  # 1 and 2 were still warming
OFFSET: Final = 0x0102_0304_0506_0708  # no two bytes are alike, so that their order shows
MODELS: Final = Succession(
    (
        Reign(0, ("gru@1", "gan@1", "dqn@1"), ("d1" * 16, "e1" * 16, "f1" * 16)),
        Reign(5_000_000_000, ("tcn@12", "gan@1", "dqn@2"), ("d2" * 16, "e1" * 16, "f2" * 16)),
    )
)
_LENGTHS: Final = struct.Struct("<ii")


def file(version: int, kind: str = "snapshot") -> Path:
    """Where the records of a layout, or of a form, are."""
    return Path(__file__).parent / f"{kind}_v{version}.bin"


def read(path: Path) -> list[Stored]:
    """The records of a file, as if they lay on a topic from offset 0 on."""
    raw, at, found = path.read_bytes(), 0, list[Stored]()
    while at < len(raw):
        key, value = _LENGTHS.unpack_from(raw, at)
        at += _LENGTHS.size
        found.append(Stored(raw[at : at + key], raw[at + key : at + key + value], len(found)))
        at += key + value
    return found


def two_instruments() -> list[tuple[bytes, bytes]]:
    """Snapshots of two instruments after 50 ticks each."""
    pipeline = Pipeline(SETTINGS, cast(Models, FakeModels()), 0)
    symbols = [("A", "", 100.0), ("B", "VENUE", 200.0)]
    for k in range(TICKS):
        symbol, venue, price = symbols[k % 2]
        tick = message(
            symbol=symbol, venue=venue, exchange_ns=START_NS + k * SECOND, price=price + (k // 2 % 8) * price / 200
        )
        pipeline.process(chunk([tick], [symbol.encode()], first=k), 0)
    return snapshots.write(pipeline.capture(TICKS), "g")


def models() -> list[tuple[bytes, bytes]]:
    """The record of the models in force."""
    return [(succession.key("g"), succession.write(MODELS))]


def offset() -> list[tuple[bytes, bytes]]:
    """The record of the offset of the snapshots."""
    return [(recomputation.key("g"), recomputation.write(OFFSET))]


def pack(records: list[tuple[bytes, bytes]]) -> bytes:
    """What a file holds."""
    return b"".join(_LENGTHS.pack(len(key), len(value)) + key + value for key, value in records)


if __name__ == "__main__":
    for path, records in (
        (file(snapshots.VERSION), two_instruments),
        (file(succession.FORM.version, "models"), models),
        (file(recomputation.FORM.version, "offset"), offset),
    ):
        if not path.exists():  # what a release wrote is never written again
            path.write_bytes(pack(records()))
