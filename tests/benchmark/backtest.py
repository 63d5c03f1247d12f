"""How fast a file of ticks is gone through: `tapewatch bench backtest`. No Kafka.

`stream.backtest.run` as `tapewatch backtest` calls it, from Parquet to Parquet, with loading the models and the first
cold chunk in its time. The file is the sample of LTCUSDT several times over, with later times and other trade ids.
"""

import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream import backtest
from stream.errors import TapewatchError
from tests.benchmark.machine import cores, load, pinned
from tests.benchmark.tape import PAUSE_NS, SAMPLES

ROUNDS: Final = 5
SAMPLE: Final = SAMPLES / "binance_ltcusdt.parquet"


class Run(msgspec.Struct, frozen=True):
    """One pass over the file."""

    ticks_per_second: float
    ticks_per_cpu_second: float
    load: float


class Backtested(msgspec.Struct, frozen=True):
    """All passes."""

    ticks: int
    runs: list[Run]


def measure(runs: int, rounds: int = ROUNDS) -> Backtested:
    """Go through the file once to warm up, and `runs` times."""
    with tempfile.TemporaryDirectory(prefix="tapewatch-bench-") as folder, pinned(cores().measured[0]):
        file, out = Path(folder) / "ticks.parquet", Path(folder) / "out"
        ticks = write(file, rounds)
        _run(file, out, ticks)
        return Backtested(ticks, [_run(file, out, ticks) for _ in range(runs)])


def write(file: Path, rounds: int) -> int:
    """The sample so often; gives the number of ticks."""
    table = pq.read_table(SAMPLE)
    time_ns, trade_id = table["exchange_ns"], pc.cast(table["trade_id"], pa.int64())
    width_ns = pc.max(time_ns).as_py() - pc.min(time_ns).as_py() + PAUSE_NS
    width_id = pc.max(trade_id).as_py() - pc.min(trade_id).as_py() + 1
    with pq.ParquetWriter(file, table.schema) as writer:
        for number in range(rounds):
            later = table
            for name, column, width in (("exchange_ns", time_ns, width_ns), ("trade_id", trade_id, width_id)):
                field = table.schema.field(name)
                moved = pc.cast(pc.add(column, number * width), field.type)
                later = later.set_column(table.schema.get_field_index(name), field, moved)
            writer.write_table(later)
    return rounds * int(table.num_rows)


def _run(file: Path, out: Path, ticks: int) -> Run:
    before, wall, cpu = load(), time.perf_counter(), time.process_time()
    found = backtest.run(file, out, quiet=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if found.accepted != ticks:
        raise TapewatchError(f"{found.accepted} of {ticks} ticks were accepted: {found.first_rule}")
    return Run(ticks / wall, ticks / cpu, before)
