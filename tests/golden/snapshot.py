"""Snapshots of the released layouts, kept for ever: `python -m tests.golden.snapshot` wrote each of them, once.

The file holds, for each snapshot, the lengths of key and value (two little-endian int32), then both.
"""

import struct
from pathlib import Path
from typing import Final, cast

from stream import snapshots
from stream.config import Features, Settings
from stream.inference import Models
from stream.pipeline import Pipeline
from stream.sealed import Stored
from tests.fakes import FakeModels
from tests.ticks import SECOND, START_NS, chunk, message

TICKS: Final = 100
SETTINGS: Final = Settings(features=Features(warm_ticks=5, warm_seconds=2.0))  # 1 and 2 were still warming
_LENGTHS: Final = struct.Struct("<ii")


def file(version: int) -> Path:
    """Where the snapshots of a layout are."""
    return Path(__file__).parent / f"snapshot_v{version}.bin"


def read(path: Path) -> list[Stored]:
    """The snapshots of a file, as if they lay on a topic from offset 0 on."""
    raw, at, found = path.read_bytes(), 0, list[Stored]()
    while at < len(raw):
        key, value = _LENGTHS.unpack_from(raw, at)
        at += _LENGTHS.size
        found.append(Stored(raw[at : at + key], raw[at + key : at + key + value], len(found)))
        at += key + value
    return found


def write(path: Path) -> None:
    """Two instruments after 50 ticks each."""
    pipeline = Pipeline(SETTINGS, cast(Models, FakeModels()), 0)
    symbols = [("A", "", 100.0), ("B", "VENUE", 200.0)]
    for k in range(TICKS):
        symbol, venue, price = symbols[k % 2]
        tick = message(
            symbol=symbol, venue=venue, exchange_ns=START_NS + k * SECOND, price=price + (k // 2 % 8) * price / 200
        )
        pipeline.process(chunk([tick], [symbol.encode()], first=k), 0)
    records = snapshots.write(pipeline.capture(TICKS), "g")
    path.write_bytes(b"".join(_LENGTHS.pack(len(key), len(value)) + key + value for key, value in records))


if __name__ == "__main__":
    write(file(snapshots.VERSION))
