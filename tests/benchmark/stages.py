"""Where a tick's time goes inside the pipeline: `tapewatch bench stages`. No Kafka, no Faust."""

from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np

from stream import inference
from stream.config import Settings
from stream.decoding import Chunk
from stream.pipeline import Pipeline, compile_kernels
from tests.benchmark.machine import cores, pinned
from tests.benchmark.tape import Tape, record

STAGES: Final = ("decode", "features", "inference", "risk", "encode")
CHUNKS: Final = (512, 32, 1)
MICROSECONDS: Final = 1e6


class Staged(msgspec.Struct, frozen=True):
    """Microseconds a tick of each stage at one size of chunk: of each run the median chunk's."""

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
    models = inference.load(Path(settings.worker.models))
    with pinned(cores().measured[0]):
        compile_kernels(models, settings)
        sizes = [(size, max(1000, ticks * size // CHUNKS[0])) for size in CHUNKS]
        found: dict[int, list[dict[str, float]]] = {size: [] for size in CHUNKS}
        for _ in range(runs):
            for size, count in sizes:
                found[size].append(_run(Pipeline(settings, models, 0), tape, size, count))
    return [Staged(size, count, found[size]) for size, count in sizes]


def _run(pipeline: Pipeline, tape: Tape, size: int, ticks: int) -> dict[str, float]:
    taken = []
    for first in range(0, ticks - size + 1, size):
        part = slice(first, first + size)
        chunk = Chunk(0, list(range(first, first + size)), tape.keys[part], tape.values[part])
        seconds = pipeline.process(chunk, 0).seconds
        taken.append([seconds[stage] for stage in STAGES])
    warm = np.array(taken[len(taken) // 10 :]) * MICROSECONDS / size
    stages = dict(zip(STAGES, np.median(warm, axis=0).tolist(), strict=True))
    return stages | {"all": float(np.median(warm.sum(axis=1)))}
