"""The bundled recordings as one feed, and messages made bad on purpose.

Six symbols of Binance (2024-08-08 23:54 to 2024-08-09 00:05 UTC: spot, USD-M and COIN-M futures on BTC and ETH) and
LTCUSDT in the sell-off of 2025-06-22, its times moved so that both begin together; nothing else is changed.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from stream import messages
from stream.feeds.files import BATCH_ROWS, OPTIONAL, REQUIRED, SCHEMA, TickFile
from stream.feeds.replay import Block

SAMPLES: Final = Path(__file__).resolve().parent / "samples"
SIX: Final = SAMPLES / "binance_sample.parquet"
LTC: Final = SAMPLES / "binance_ltcusdt.parquet"
BEGIN_NS: Final = 1_723_161_255_000_000_000  # 2024-08-08 23:54:15 UTC, the third recording of the sample
LTC_BEGIN_NS: Final = 1_750_598_460_000_000_000  # 2025-06-22 13:21:00 UTC: the steep part begins five minutes later
SPAN_NS: Final = 651_000_000_000  # to the end of the third recording

FAULT_EVERY: Final = 500  # messages: two or three bad ones a second at the demo's pace


def bundled() -> TickFile:
    """About 86,000 ticks of seven symbols over 651 s of event time, sorted by it."""
    table = pa.concat_tables([_part(SIX, BEGIN_NS), _part(LTC, LTC_BEGIN_NS)])
    order = np.argsort(table["exchange_ns"].to_numpy(), kind="stable")
    table = table.take(order).combine_chunks()
    return TickFile(SAMPLES, table.num_rows, lambda: iter(table.to_batches(BATCH_ROWS)))


def _part(path: Path, begin_ns: int) -> pa.Table:
    table = pyarrow.parquet.read_table(path, columns=list(REQUIRED + OPTIONAL))
    times = table["exchange_ns"]
    table = table.filter(pc.and_(pc.greater_equal(times, begin_ns), pc.less(times, begin_ns + SPAN_NS)))
    table = table.select(SCHEMA.names).cast(SCHEMA)
    moved = pc.add(table["exchange_ns"], BEGIN_NS - begin_ns)
    return table.set_column(SCHEMA.get_field_index("exchange_ns"), "exchange_ns", moved)


def with_faults(blocks: Iterable[Block], every: int = FAULT_EVERY) -> Iterator[Block]:
    """After each `every`th message a bad one made from it, of each kind in turn, at the same time."""
    count = 0
    for block in blocks:
        keys: list[bytes | None] = []
        values: list[bytes] = []
        rows: list[int] = []
        for row, message in enumerate(zip(block.keys, block.values, strict=True)):
            count += 1
            bad = [_fault(*message, number=count // every)] if count % every == 0 else []
            for key, value in (message, *bad):
                keys.append(key)
                values.append(value)
                rows.append(row)
        yield Block(keys, values, block.exchange_ns[rows])


def _fault(key: bytes | None, value: bytes, number: int) -> tuple[bytes | None, bytes]:
    tick: dict[str, Any] = messages.decode_any(value)
    match number % 5:
        case 0:
            return key, value[: len(value) // 2]  # cut off
        case 1:
            return key, msgspec.json.encode(tick | {"price": 0}).replace(b'"price":0', b'"price":NaN')
        case 2:
            return key, msgspec.json.encode(tick | {"price": -tick["price"]})
        case 3:
            return key, msgspec.json.encode(tick | {"exchange_ns": tick["exchange_ns"] // 10**9})
        case _:
            return b"not-" + (key or b""), value
