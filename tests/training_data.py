"""Small data sets for the tests of training, from the bundled LTCUSDT trades."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stream.config import ROOT
from training import data

SAMPLE = ROOT / "stream" / "feeds" / "samples" / "binance_ltcusdt.parquet"


def write_sample(path: Path, ticks: int = 20_000, **columns: object) -> Path:
    """The first ticks of LTCUSDT, some columns replaced, None to leave one out."""
    table = pq.read_table(SAMPLE).slice(0, ticks)
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.remove_column(at) if values is None else table.set_column(at, name, pa.array(values))
    pq.write_table(table, path)
    return path


@cache
def sample() -> data.Dataset:
    """20,000 ticks of LTCUSDT, as training sees them; not to be changed."""
    dataset = data.load([SAMPLE], data.quiet)
    (one,) = dataset.series
    columns: list[Any] = [column[:20_000].copy() for column in one[2:]]
    head = data.Series(one.file, one.symbol, *columns)
    part = np.full(20_000, data.TRAIN, np.int8)
    part[12_000:] = data.VALIDATION
    part[15_000:] = data.TEST
    return dataset._replace(series=(head._replace(part=part),))
