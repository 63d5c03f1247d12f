"""Hot swap: new models come into force while a worker runs, at an offset that is decided once for each partition.

The order of things, for a partition:

1. The library finds new models and loads, checks and warms them, in a thread of its own.
2. The partition's next checkpoint carries a reign with the new models, which begins further on than what was computed:
   by as many ticks as came since the last checkpoint, a second's at most. So Kafka has usually committed it when the
   stream gets there, and no tick waits; if not, that chunk waits for the commit.
3. The chunk that holds the first tick of the reign is cut there, and the new models answer from it on.

Whoever computes the ticks again, after a crash or a rebalance, finds the reign and changes the models at the same tick.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from stream import succession
from stream.config import Settings
from stream.inference import Models
from stream.lanes import Lane, Unsettled
from stream.library import Library
from stream.metrics import HEADS, Metrics
from stream.publisher import Record
from stream.sealed import Stored
from stream.succession import Names, Reign, Succession

AHEAD_SECONDS: Final = 1.0  # a reign begins at most so far ahead: a commit takes some tens of milliseconds
log = logging.getLogger("tapewatch.models")


class Swaps:
    """Which models each lane has, and when it gets others.

    Parameters
    ----------
    library
        None: the models never change.
    """

    def __init__(self, settings: Settings, library: Library | None, metrics: Metrics) -> None:
        self._settings = settings
        self._library = library
        self._newest = None if library is None else library.newest  # it is another thread that changes the library's
        self._metrics = metrics
        self._watching: asyncio.Task[None] | None = None
        self._answering: dict[int, Names] = {}  # partition -> models of its last chunk

    def start(self) -> None:
        """Begin to watch the folder of models."""
        if self._library is not None:
            self._watching = asyncio.create_task(self._watch(self._library))

    async def stop(self) -> None:
        """Watch no longer."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self, library: Library) -> None:
        while True:
            self._metrics.refused_models(len(library.refused))
            await asyncio.sleep(self._settings.worker.models_poll_seconds)
            await asyncio.to_thread(library.look)
            if self._newest is not library.newest:
                self._newest = library.newest
                log.info("found models %s", _listed(self._newest))

    # --- A lane's beginning ------------------------------------------------------------------------------------------

    async def open(self, lane: Lane, stored: Stored | None, partition: int) -> None:
        """Give a new lane the models that are in force where it begins, before it takes up snapshots.

        Raises
        ------
        DamagedSnapshot
            If the record of them is damaged.
        """
        if self._library is None:
            return
        first = lane.next_offset or 0
        if stored is None:
            self.begin(lane, first)
            return
        lane.succession = succession.read(stored, self._settings.topics.state, partition)
        successors = []
        for reign in lane.succession.since(first):
            models = await asyncio.to_thread(self._library.find, reign.models, reign.digests)
            if models is None:
                successors.append(self._substitute(lane, partition, max(first, reign.first), reign))
                break
            successors.append((max(first, reign.first), models))
        lane.pipeline.succeed(first, successors)

    def begin(self, lane: Lane, first: int) -> None:
        """The newest models are the first of a lane."""
        if self._newest is not None:
            lane.pipeline.succeed(first, [(first, self._newest)])
            lane.succession = Succession((_reign(first, self._newest),))
            lane.must_record = True

    def _substitute(self, lane: Lane, partition: int, first: int, lacking: Reign) -> tuple[int, Models]:
        """Models that are in force are not there any more: the newest take their place from where the lane goes on."""
        assert self._newest is not None
        assert lane.succession is not None
        newest = self._newest
        log.warning(
            "models in force are not in the folder any more, or were changed there partition=%s models=%s: %s are in "
            "force from offset %s on; what was published from there on before a crash may differ",
            partition,
            ",".join(lacking.models),
            _listed(newest),
            first,
        )
        lane.succession = lane.succession.followed(_reign(first, newest), lane.next_offset or 0)
        lane.must_record = True
        return first, newest

    # --- While it runs ----------------------------------------------------------------------------------------------

    def due(self, lane: Lane) -> Reign | None:
        """The reign that a lane should get with its next checkpoint, if any.

        One that has not begun yet is moved to an earlier tick where the stream has become slower, and replaced where
        there are newer models still. Nothing changes for ticks that may have been answered before a crash, for their
        answers come again, and must be the same: a reign begins behind them, and one on record among them stays.
        """
        if self._newest is None or lane.succession is None:
            return None
        last, next_offset = lane.succession.last, lane.next_offset or 0
        ahead = int(lane.pace * min(1.0, AHEAD_SECONDS / self._settings.worker.commit_interval_seconds))
        reign = _reign(max(next_offset, lane.answered_until) + ahead, self._newest)
        stays = next_offset < last.first < lane.answered_until
        return None if stays or (last.same(reign) and last.first <= reign.first) else reign

    def announce(self, lane: Lane) -> None:
        """Decide which tick a due reign begins at; it is committed with the checkpoint that is about to be made."""
        reign = self.due(lane)
        if reign is None:
            return
        assert self._newest is not None
        assert lane.succession is not None
        next_offset = lane.next_offset or 0
        pending = [each.first for each in lane.succession.reigns if each.first > next_offset]
        lane.succession = lane.succession.followed(reign, next_offset)
        lane.must_record = True
        lane.unsettled = Unsettled(min([*pending, reign.first]))
        begins = lane.succession.last is reign
        lane.pipeline.succeed(next_offset, [(reign.first, self._newest)] if begins else [])

    def record(self, lane: Lane) -> list[Record]:
        """What Kafka must learn of a lane's models."""
        if lane.succession is None or not lane.must_record:
            return []
        return [Record(succession.key(self._settings.worker.group), succession.write(lane.succession))]

    def change_at_once(self, lane: Lane, first: int) -> None:
        """Where nothing is kept on Kafka, the newest models answer from the next chunk on."""
        if self._newest is not None and lane.pipeline.models != self._newest.names:
            lane.pipeline.succeed(first, [(first, self._newest)])

    def show(self, partition: int, lane: Lane) -> None:
        """After a chunk: tell of a change."""
        models, before = lane.pipeline.models, self._answering.get(partition)
        if models == before or self._library is None:
            return
        self._answering[partition] = models
        if before is not None:
            log.info("swapped models partition=%s from=%s to=%s", partition, ",".join(before), ",".join(models))
            self._metrics.swapped([head for head, old, new in zip(HEADS, before, models, strict=True) if old != new])
        self._tell()

    def keep(self, partitions: Collection[int]) -> None:
        """Forget all partitions but these: others have them now."""
        for partition in self._answering.keys() - partitions:
            del self._answering[partition]
        self._tell()

    def _tell(self) -> None:
        """Show every model that answers in some partition."""
        if self._answering:
            shown = {pair for names in self._answering.values() for pair in zip(HEADS, names, strict=True)}
            self._metrics.models(sorted(shown))


def settle(lane: Lane, *, committed: bool) -> None:
    """The transaction with a lane's record has ended.

    Where nobody knows whether Kafka has it, the lane is given up, and begins again with what Kafka has.
    """
    if committed:
        lane.must_record = False
    if lane.unsettled is not None:
        if not committed:
            lane.give_up()
        lane.unsettled.over.set()
        lane.unsettled = None


def _reign(first: int, models: Models) -> Reign:
    return Reign(first, models.names, models.digests)


def _listed(models: Models) -> str:
    return ",".join(models.names)
