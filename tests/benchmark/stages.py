"""Where a tick's time goes: the stages of the pipeline, and what lies around it. `tapewatch bench stages`.

No Kafka and no Faust: see `tests.benchmark.edges` for what is measured around the pipeline, and how.
"""

from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.config import Settings
from stream.decoding import Chunk
from stream.library import Library
from stream.pipeline import Pipeline, compile_kernels
from tests.benchmark import edges
from tests.benchmark.machine import cores, pinned
from tests.benchmark.tape import Tape, record

STAGES: Final = ("decode", "features", "inference", "risk", "encode")
CHUNKS: Final = (512, 32, 1)
MICROSECONDS: Final = 1e6


class Staged(msgspec.Struct, frozen=True):
    """Microseconds a tick of each stage and edge at one size of chunk: of each run the median chunk's."""

    chunk_ticks: int
    ticks: int
    runs: list[dict[str, float]]

    def median(self, stage: str) -> float:
        """Over the runs."""
        return median(run[stage] for run in self.runs)


def measure(ticks: int, runs: int) -> list[Staged]:
    """Run the pipeline over the tape: all of `ticks` in chunks of 512, fewer in smaller ones."""
    tape = record(ticks)
    settings = Settings()
    library = Library(Path(settings.worker.models))
    with pinned(cores().measured[0]):
        compile_kernels(library.newest, settings)
        sizes = [(size, max(1000, ticks * size // CHUNKS[0])) for size in CHUNKS]
        found: dict[int, list[dict[str, float]]] = {size: [] for size in CHUNKS}
        for _ in range(runs):
            for size, count in sizes:
                inside = _run(Pipeline(settings, library.newest, 0), tape, size, count)
                around = edges.measure(settings, library, tape, size, count)
                found[size].append(inside | {edge: _a_tick(np.array(around[edge]), size) for edge in edges.EDGES})
    return [Staged(size, count, found[size]) for size, count in sizes]


def _run(pipeline: Pipeline, tape: Tape, size: int, ticks: int) -> dict[str, float]:
    taken = []
    for first in range(0, ticks - size + 1, size):
        part = slice(first, first + size)
        chunk = Chunk(0, list(range(first, first + size)), tape.keys[part], tape.values[part])
        seconds = pipeline.process(chunk, 0).seconds
        taken.append([seconds[stage] for stage in STAGES])
    chunks = np.array(taken)
    stages = {stage: _a_tick(chunks[:, column], size) for column, stage in enumerate(STAGES)}
    return stages | {"all": _a_tick(chunks.sum(axis=1), size)}


def _a_tick(seconds: NDArray[np.float64], size: int) -> float:
    """Microseconds a tick of the median chunk, less the first tenth of them."""
    return float(np.median(seconds[len(seconds) // 10 :])) * MICROSECONDS / size
