"""A lane: one assigned partition in a worker, from its pipeline to what is on its way to the broker."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from stream.challenger import Shadow
from stream.conflation import Conflation
from stream.core.conflation import Chosen
from stream.decoding import Chunk, Instruments
from stream.encoding import PackedBatch
from stream.halts import Halts
from stream.inference import Models
from stream.messages import Alert
from stream.pipeline import Output, Restored
from stream.sealed import Stored
from stream.snapshots import Captured
from stream.succession import Names, Succession
from stream.telemetry import Scores

log = logging.getLogger("tapewatch.worker")


class ChunkPipeline(Protocol):
    """What the worker needs of `pipeline.Pipeline`."""

    @property
    def instruments(self) -> Instruments:
        """The instruments of the partition so far."""

    @property
    def halts(self) -> Halts:
        """Where the agent's actions are halted."""

    def process(self, chunk: Chunk, timestamp_ms: int) -> Output:
        """Answer every message of a chunk."""

    def encode_newest(self, chosen: Iterable[Chosen], timestamp_ms: int) -> list[PackedBatch]:
        """What conflation has chosen of the results, as record batches."""

    def stale(self, now_ms: int) -> list[Alert]:
        """Alerts of instruments that have fallen silent."""

    def recapture(self) -> None:
        """The snapshots that were written are gone: the next capture is of everything."""

    def capture(self, next_offset: int) -> Captured:
        """A copy of what has changed since the last one; all ticks below `next_offset` are computed."""

    @property
    def models(self) -> Names:
        """name@version of forecaster, critic and policy in force."""

    def succeed(self, next_offset: int, successors: Iterable[tuple[int, Models]]) -> None:
        """Let other models be in force from offsets on; all ticks below `next_offset` are processed."""

    def restore(self, stored: Sequence[Stored], topic: str) -> Restored:
        """Take up snapshots, before the first tick."""


MakePipeline = Callable[[int], ChunkPipeline]
"""Makes the pipeline of a partition, with a state of its own."""


class Unsettled:
    """A change of models that is decided and not committed: before it is, no tick from `first` on may be answered."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.over = asyncio.Event()


class Lane:
    """One assigned partition: its pipeline, and how many chunks may be on their way to the broker."""

    def __init__(
        self,
        pipeline: ChunkPipeline,
        scores: Scores,
        next_offset: int | None,
        chunks_in_flight: int,
        shadow: Shadow,
        conflation: Conflation | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.conflation = conflation  # None: every result is published at once
        self.scores = scores
        self.shadow = shadow  # of the champion: the challenger, if there is one
        self.next_offset = next_offset  # the first offset that the pipeline's state does not hold
        self.slots = asyncio.Semaphore(chunks_in_flight)
        self.in_flight: set[asyncio.Future[None]] = set()  # one for each chunk that is computed and not acknowledged
        self.lost: float | None = None  # time.monotonic() when another worker was found to have the partition
        self.obsolete: set[bytes] = set()  # keys of snapshots of a topic that began anew
        self.succession: Succession | None = None  # of the models; None where they never change
        self.must_record = False  # Kafka does not have the succession yet
        self.unsettled: Unsettled | None = None
        self.answered_until = 0  # who had the partition before may have answered the ticks below it already
        self.checkpoint_offset = next_offset  # of the last checkpoint, made or not
        self.pace = 0  # ticks from the one before to it
        self.origin: bytes | None = None  # id of the topic of ticks, ...
        self.marked = False  # ... and whether it stands beside the snapshots
        self.publish_from = 0  # the ticks below it are answered and committed: they are only computed again
        self.kept: int | None = None  # the snapshots on Kafka include all ticks below it; None: write all
        self.recorded = False  # Kafka has that offset: only then may it have a later one of the group's
        self.kept_models: Names | None = None  # in force when the snapshots were taken
        self.keep_at = 0.0  # time.monotonic() from which on they are due again
        self.unsaved = False  # snapshots were taken, and Kafka does not have them
        self.failed = False  # a chunk was: the state may hold ticks of it whose results are published nowhere
        self.checkpointing = asyncio.Lock()  # the last checkpoint of a stop comes beside those of the timer

    def depart(self) -> "asyncio.Future[None]":
        """A chunk is computed; the future is to be done when it is acknowledged or given up."""
        flight: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.in_flight.add(flight)
        flight.add_done_callback(self.in_flight.discard)
        return flight

    async def settled(self, end: int) -> None:
        """Wait until it is settled which models are in force for the ticks below `end`, or the lane is lost.

        A reign is announced so early that hardly ever anything waits.
        """
        while self.unsettled is not None and end > self.unsettled.first:
            await self.unsettled.over.wait()

    @property
    def sound(self) -> bool:
        """Whether what it holds may be committed: the partition is ours, results and state are where they belong."""
        return self.lost is None and not self.unsaved and not self.failed

    @property
    def recomputing(self) -> bool:
        """Whether ticks are computed that were answered before the lane began."""
        return (self.next_offset or 0) < self.publish_from

    def must_keep(self, offset: int, *, everything: bool, now: float) -> bool:
        """Whether a checkpoint at this offset has snapshots; one of `everything` leaves nothing to be computed again.

        Behind a swap they are due at once, so that the models before it are asked for no longer.
        """
        if self.kept is None:
            return True
        if offset == self.kept:
            return everything and self.recorded
        swapped = self.kept_models != self.pipeline.models
        return everything or not self.recorded or swapped or now >= self.keep_at

    def note_kept(self, offset: int, *, recorded: bool, keep_at: float) -> None:
        """Kafka has the snapshots that were taken at this offset."""
        self.kept, self.recorded, self.keep_at = offset, recorded, keep_at

    def note_checkpoint(self, offset: int) -> None:
        """A checkpoint is due at this offset."""
        self.pace = 0 if self.checkpoint_offset is None else max(0, offset - self.checkpoint_offset)
        self.checkpoint_offset = offset

    def give_up(self) -> None:
        """What Kafka has of the partition is not known: it begins again with the next assignment."""
        if self.lost is None:
            self.lost = time.monotonic()

    def lose(self, partition: int) -> None:
        """Kafka has told that the partition has another owner: nothing of it is published or committed any more."""
        if self.lost is None:
            self.lost = time.monotonic()
            log.warning("lost partition=%s: another worker has taken it over", partition)
