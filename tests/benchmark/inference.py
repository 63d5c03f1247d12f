"""What the models cost: `python -m tests.benchmark.inference [--models DIR]`.

One call for a chunk of ticks, all heads, one thread, median and least of 500 calls after 50 for warming up; the
inputs are drawn around each feature's normal.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.packing import new_scratch, pack

CHUNK = 512
CALLS = 500
WARM_UP = 50


def measure(models: inference.Models, slot: NDArray[np.int32]) -> tuple[float, float]:
    """Median and least microseconds of a call, packing included."""
    rng = np.random.default_rng(0)
    n = len(slot)
    features = (models.normal + rng.normal(0.0, 0.5, (n, len(FEATURES)))).astype(np.float32)
    window = (rng.normal(0.0, 1.0, (n, WINDOW, len(WINDOW_COLUMNS))) * [1e-4, 2.0, 1.0]).astype(np.float32)
    scratch = new_scratch(int(slot.max()) + 1)
    hidden = np.zeros((len(np.unique(slot)), models.hidden_size), np.float32)
    taken = []
    for _ in range(WARM_UP + CALLS):
        start = time.perf_counter()
        models.run(features, window, pack(slot, scratch), hidden)
        taken.append(time.perf_counter() - start)
    return 1e6 * float(np.median(taken[WARM_UP:])), 1e6 * min(taken[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the models a tick.")
    parser.add_argument("--models", type=Path, default=Path(DEFAULT_MODELS))
    models = inference.load(parser.parse_args().models)
    print(f"{', '.join(models.names)}: us a call, us a tick (median), us a tick (least)")
    zipf = np.minimum(np.random.default_rng(0).zipf(1.3, CHUNK) - 1, 999)
    for what, slot in (
        ("512 ticks, 6 instruments", np.arange(CHUNK) % 6),
        ("512 ticks, 16 instruments", np.arange(CHUNK) % 16),
        ("512 ticks, 1 instrument", np.zeros(CHUNK)),
        ("512 ticks, 512 instruments", np.arange(CHUNK)),
        ("512 ticks, Zipf(1.3) of 1,000", zipf),
        ("1 tick", np.zeros(1)),
    ):
        median, least = measure(models, slot.astype(np.int32))
        print(f"{what:30s} {median:8.1f} {median / len(slot):8.2f} {least / len(slot):8.2f}")


if __name__ == "__main__":
    main()
