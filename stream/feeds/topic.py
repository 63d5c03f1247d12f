"""The ticks of a topic in a range of the venues' time, as a Parquet file like those that are replayed.

The whole topic is read: where ticks were replayed, the time of a record says nothing about the time of its tick.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stream.config import Cluster
from stream.errors import TapewatchError
from stream.feeds.files import SCHEMA
from stream.messages import CONTROL_KEY, Tick, decode_tick
from stream.verify import Topic

# The ids of other people's trades may be any text.
_SCHEMA: Final = SCHEMA.set(SCHEMA.get_field_index("trade_id"), pa.field("trade_id", pa.string()))


class Saved(NamedTuple):
    """Messages of a topic, by what became of them."""

    kept: int
    outside: int  # ticks before or after the range of time
    refused: int  # no ticks


def save(cluster: Cluster, topic: str, since_ns: int, until_ns: int, out: Path) -> Saved:
    """Write the ticks of `topic` with since_ns <= exchange_ns < until_ns into the Parquet file `out`.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    TapewatchError
        If the topic does not exist, cannot be read, or has no tick in that range.
    """
    kept = outside = refused = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    reader = Topic(cluster)
    try:
        with pq.ParquetWriter(out, _SCHEMA) as writer:
            for values in _pieces(reader, topic):
                ticks = _decoded(values)
                inside = [tick for tick in ticks if since_ns <= tick.exchange_ns < until_ns]
                writer.write_table(_table(inside))
                kept += len(inside)
                outside += len(ticks) - len(inside)
                refused += len(values) - len(ticks)
    finally:
        reader.close()
    if not kept:
        out.unlink()
        raise TapewatchError(
            f"topic {topic} holds no tick in that range of time: {outside:,} lie outside it, "
            f"{refused:,} messages are no ticks"
        )
    return Saved(kept, outside, refused)


def _pieces(reader: Topic, topic: str) -> Iterator[list[bytes | None]]:
    partitions = reader.partitions(topic)
    if not partitions:
        raise TapewatchError(f"topic {topic} does not exist: make it with `tapewatch topics create`, or name another")
    for partition in partitions:
        _, end = reader.range(topic, partition)
        for records in reader.read(topic, partition, end):
            yield [record.value() for record in records if record.key() != CONTROL_KEY]


def _decoded(values: list[bytes | None]) -> list[Tick]:
    ticks = []
    for value in values:
        try:
            ticks.append(decode_tick(value or b""))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return ticks


def _table(ticks: list[Tick]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [getattr(tick, name) for tick in ticks] for name in SCHEMA.names}
    columns["trade_id"] = [None if number is None else str(number) for number in columns["trade_id"]]
    return pa.table(columns, schema=_SCHEMA)
