"""What the worker itself takes of a tick's way, from its metrics.

Two figures. The stages decode to encode of a chunk, summed: the time in which a tick is with us, from the moment its
chunk is taken up until its results are handed to the client. And `receive_to_publish`, from the arrival of the chunk
until the broker has acknowledged its results: that holds the broker's part as well, and has the resolution of its
buckets (0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10 ms and so on).
"""

import re
import urllib.request
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from stream.children import Child
from stream.errors import TapewatchError

SERVING: Final = re.compile(r" metrics=(\S+)")
STAGES: Final = ("decode", "features", "inference", "risk", "encode")


class OwnShare(msgspec.Struct, frozen=True):
    """Of one stretch of time; milliseconds."""

    stages_mean: float  # of a chunk
    acknowledged_p50: float  # of a tick
    ticks_a_chunk: float


class Note(msgspec.Struct, frozen=True):
    """Counters at one moment."""

    seconds: float
    chunks: float
    buckets: dict[float, float]  # upper bound in seconds -> ticks up to it


def address(child: Child) -> str:
    """Where a worker that is ready tells its metrics."""
    found = SERVING.findall(child.log.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise TapewatchError(f"the worker does not say where its metrics are: {child.last_lines(5)}")
    return str(found[-1])  # the file holds the lines of earlier runs as well


def note(url: str | None) -> Note | None:
    """Look at the counters; None where nobody tells of them."""
    if url is None:
        return None
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    seconds, chunks, buckets = 0.0, 0.0, dict[float, float]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "tapewatch_stage_seconds_sum" and sample.labels["stage"] in STAGES:
                seconds += sample.value
            elif sample.name == "tapewatch_stage_seconds_count" and sample.labels["stage"] == "encode":
                chunks += sample.value
            elif sample.name == "tapewatch_receive_to_publish_seconds_bucket":
                buckets[float(sample.labels["le"])] = sample.value
    return Note(seconds, chunks, buckets)


def between(before: Note | None, after: Note | None) -> OwnShare | None:
    """What happened from one note to the next; None if nothing did."""
    if before is None or after is None or after.chunks == before.chunks:
        return None
    chunks = after.chunks - before.chunks
    counts = {bound: count - before.buckets[bound] for bound, count in sorted(after.buckets.items())}
    ticks = max(counts.values())
    return OwnShare((after.seconds - before.seconds) / chunks * 1e3, quantile(counts, 0.5) * 1e3, ticks / chunks)


def quantile(counts: dict[float, float], share: float) -> float:
    """Of a histogram whose buckets hold all up to their bound, evenly spread within one, as Prometheus has it."""
    wanted = share * max(counts.values())
    low, below = 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / max(count - below, 1.0)
        low, below = bound, count
    return low
