"""What encoding costs: `python -m tests.benchmark.encoding`.

Three results for each of `rows` ticks of 16 instruments, numbers of six digits drawn in the ranges of real ones, to
three record batches with header and checksum. Compared in the same run, turn by turn, with the plain way: structs
that are made already, msgspec, and a record appended at a time to aiokafka's own (compiled) batch builder. Then the
decoding of ticks. Both as JSON and as MessagePack.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder
from numpy.typing import NDArray

from stream import messages
from stream.core.digits import round_significant
from stream.core.results import Results
from stream.decoding import Chunk, Instruments, decode
from stream.encoding import ResultEncoder
from stream.messages import Format
from tests.results import draw_results, structs

MODELS: Final = ("forecaster@12", "critic@3", "policy@7")
INSTRUMENTS: Final = [(f"COIN{number}USDT", "binance-usdm") for number in range(16)]
PARTITION: Final = 3
TIMESTAMP_MS: Final = 1_723_161_257_700
TICK_NS: Final = 1_723_161_257_700_000_000
WARM_UP: Final = 5


def compiled(encoder: ResultEncoder, results: Results) -> int:
    """Results to finished batches; their bytes."""
    return sum(len(batch._build()) for batch in encoder.encode(results, PARTITION, TIMESTAMP_MS))


def appended(topics: list[list[Any]]) -> int:
    """Structs to finished batches, a record at a time; their bytes."""
    return sum(len(_append(topic)._build()) for topic in topics)


def _append(topic: list[Any]) -> BatchBuilder:
    batch = BatchBuilder(10**8, 0)
    for record in topic:
        batch.append(timestamp=TIMESTAMP_MS, key=record.symbol.encode(), value=messages.encode(record))
    return batch


def time_in_turns(calls: list[Callable[[], object]], repeats: int) -> NDArray[np.float64]:
    """Seconds of each call, so that what else the machine does falls on all alike: float64[calls, repeats]."""
    taken = np.empty((len(calls), WARM_UP + repeats))
    for turn in range(WARM_UP + repeats):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            taken[place, turn] = time.perf_counter() - start
    return taken[:, WARM_UP:]


def encoder_of(form: Format) -> ResultEncoder:
    """An encoder that knows the instruments."""
    encoder = ResultEncoder(MODELS, form=form)
    for slot, instrument in enumerate(INSTRUMENTS):
        encoder.add(slot, *instrument)
    return encoder


def measure(rows: int, repeats: int) -> None:
    """Print the table of one size of chunk."""
    encoder, packer = encoder_of("json"), encoder_of("msgpack")
    results = draw_results(rows, len(INSTRUMENTS))
    topics = structs(results, INSTRUMENTS, PARTITION, MODELS)
    numbers = np.concatenate((results.forecast, results.risk), axis=1)
    assert compiled(encoder, results) == appended(topics) or rows > 1000  # larger chunks are cut
    ways: dict[str, Callable[[], object]] = {
        "compiled": partial(compiled, encoder, results),
        "compiled, MessagePack": partial(compiled, packer, results),
        "msgspec and append": partial(appended, topics),
        "rounding of 23 numbers": partial(round_significant, numbers),
    }
    taken = time_in_turns(list(ways.values()), repeats)
    sizes = compiled(encoder, results) / rows, compiled(packer, results) / rows
    print(f"\n{rows} ticks, bytes a tick: {sizes[0]:.0f} as JSON, {sizes[1]:.0f} as MessagePack")
    print(f"{'':<26}{'p50 us':>10}{'p99 us':>10}{'us a tick':>12}")
    for name, column in zip(ways, taken, strict=True):
        p50, p99 = np.quantile(column, (0.5, 0.99)) * 1e6
        print(f"{name:<26}{p50:>10.1f}{p99:>10.1f}{p50 / rows:>12.2f}")


def measure_decoding(rows: int, repeats: int) -> None:
    """Print what the worker's decoding of a chunk of ticks takes, JSON against MessagePack."""
    ticks = [
        messages.Tick(*INSTRUMENTS[row % len(INSTRUMENTS)][:1], TICK_NS + row, 61_234.5, 0.25, "buy", row + 1)
        for row in range(rows)
    ]
    known = Instruments(len(INSTRUMENTS))
    chunks = {
        form: Chunk(0, range(rows), [tick.symbol.encode() for tick in ticks], [encode(tick) for tick in ticks])
        for form, encode in messages.ENCODERS.items()
    }
    taken = time_in_turns([partial(decode, chunk, known, 65_536) for chunk in chunks.values()], repeats)
    print(f"\ndecoding {rows} ticks\n{'':<26}{'p50 us':>10}{'bytes':>10}{'us a tick':>12}")
    for (form, chunk), column in zip(chunks.items(), taken, strict=True):
        p50, size = np.median(column) * 1e6, sum(len(value or b"") for value in chunk.values) / rows
        print(f"{form:<26}{p50:>10.1f}{size:>10.0f}{p50 / rows:>12.2f}")


def main() -> None:
    """Measure every size of chunk that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 512, 8192], help="ticks a chunk")
    parser.add_argument("--repeats", type=int, default=200, help="turns of a chunk of 512; fewer for larger ones")
    options = parser.parse_args()
    encoder = encoder_of("json")
    start = time.perf_counter()
    encoder.encode(draw_results(1, len(INSTRUMENTS)), PARTITION, TIMESTAMP_MS)
    print(f"first call, with the compiler or numba's cache: {time.perf_counter() - start:.2f} s")
    for rows in options.rows:
        measure(rows, max(10, options.repeats * 512 // max(rows, 512)))
    measure_decoding(512, options.repeats)


if __name__ == "__main__":
    main()
