"""What many instruments cost the pipeline alone, a part of `tapewatch bench symbols`. No Kafka.

Made-up ticks of 16 to 10,000 instruments at the same total rate, in chunks of 512, drawn evenly or with Zipf's
frequencies (exponent 1), as a market's are; all cases in turns, CPU time of the thread. Every instrument has had a tick
before the clock runs.
"""

import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream import inference
from stream.config import Settings
from stream.decoding import Chunk
from stream.messages import Tick
from stream.pipeline import Pipeline, compile_kernels
from tests.benchmark.drain import Drained
from tests.benchmark.machine import cores, pinned

CHUNK: Final = 512
RATE: Final = 5_000  # ticks a second of event time, whatever the number of instruments
FIRST_NS: Final = 1_723_161_255_000_000_000
MICROSECONDS: Final = 1e6


class Case(NamedTuple):
    """So many instruments, and how often each of them trades."""

    instruments: int
    even: bool

    def draw(self, ticks: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Instrument of each tick; the first ticks go through all of them."""
        weight = np.ones(self.instruments) if self.even else 1.0 / np.arange(1, self.instruments + 1)
        drawn = rng.choice(self.instruments, ticks, p=weight / weight.sum())
        return np.concatenate((np.arange(self.instruments), drawn))


NUMBERS: Final = (16, 100, 1000, 10_000)
CASES: Final = [Case(number, even) for number in NUMBERS for even in (True, False)]


class Cost(msgspec.Struct, frozen=True):
    """Of one case, against 16 instruments drawn evenly."""

    instruments: int
    even: bool
    us_a_tick: float  # median of the chunks
    ratio: float  # median, chunk by chunk


class Symbols(msgspec.Struct, frozen=True):
    """The pipeline alone, and the whole worker on Kafka."""

    pipeline: list[Cost]
    worker: list[Drained]


class Play:
    """The ticks of a case on their way through a pipeline of its own."""

    def __init__(self, case: Case, ticks: int, settings: Settings, models: inference.Models) -> None:
        rng = np.random.default_rng(0)
        drawn = case.draw(ticks, rng)
        price = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, len(drawn)))).round(6)
        self._pipeline = Pipeline(settings, models, 0)
        self._keys = [f"S{number:05d}".encode() for number in drawn.tolist()]
        self._values = [
            msgspec.json.encode(
                Tick(f"S{number:05d}", FIRST_NS + at * 10**9 // RATE, paid, 1.0, "buy", at + 1, "made-up")
            )
            for at, (number, paid) in enumerate(zip(drawn.tolist(), price.tolist(), strict=True))
        ]
        self._next = 0
        while self._next < case.instruments:
            self.step()

    def step(self) -> float:
        """Process the next chunk; its CPU seconds."""
        part = slice(self._next, self._next + CHUNK)
        self._next += CHUNK
        chunk = Chunk(0, range(part.start, part.start + len(self._keys[part])), self._keys[part], self._values[part])
        start = time.thread_time()
        for batch in self._pipeline.process(chunk, 0).batches:
            batch.to_bytes()
        return time.thread_time() - start


def measure(chunks: int) -> list[Cost]:
    """So many chunks of each case, in turns, on the measured processes' core."""
    settings = Settings()
    models = inference.load(Path(settings.worker.models))
    with pinned(cores().measured[0]):
        compile_kernels(models, settings)
        plays = [Play(case, (chunks + 1) * CHUNK, settings, models) for case in CASES]
        taken = [[play.step() * MICROSECONDS / CHUNK for play in plays] for _ in range(chunks)]
    return [
        Cost(
            case.instruments,
            case.even,
            median(row[number] for row in taken),
            median(row[number] / row[0] for row in taken),
        )
        for number, case in enumerate(CASES)
    ]
