"""What a worker keeps of its state on Kafka: checkpoints while it runs, and what it goes on from after an assignment.

A checkpoint of a partition is one transaction: the snapshots of the instruments that changed, and the offset that they
include; with exactly-once delivery the results as well.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Final

from aiokafka import TopicPartition
from faust.types import TP

from stream import halts, recovery, snapshots, succession, topics
from stream.config import Settings
from stream.errors import TapewatchError, WorkerFailed
from stream.lanes import Lane
from stream.ledger import Ledger
from stream.metrics import Metrics
from stream.pipeline import Restored
from stream.publisher import Record
from stream.snapshots import Captured, Stored
from stream.swaps import Swaps, settle
from stream.transactions import Checkpoint, Transactions, is_fenced

SILENCE_SECONDS: Final = 10.0  # a broker that sends nothing for so long while snapshots are read has gone
log = logging.getLogger("tapewatch.worker")


class Checkpoints:
    """Makes the checkpoints of the assigned partitions, and takes them up again.

    Parameters
    ----------
    lanes
        The worker's, by partition.
    swaps
        Which models each lane has.
    fail
        Stops the worker.
    """

    def __init__(
        self,
        settings: Settings,
        lanes: MutableMapping[int, Lane],
        swaps: Swaps,
        metrics: Metrics,
        fail: Callable[[TapewatchError], None],
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._swaps = swaps
        self._metrics = metrics
        self._fail = fail
        self._exactly_once = settings.worker.delivery == "exactly_once"
        self.transactions: dict[int, Transactions] = {}  # of the assigned partitions, where there are snapshots
        self.allowed = True  # a worker that stops since it cannot compute a chunk still commits those before it

    async def fence(self, assigned: Iterable[TP]) -> None:
        """Fence whoever had the partitions: what it has committed is final, and only then is it read."""
        await self.close()
        worker, names = self._settings.worker, topics.written(self._settings.topics)
        self.transactions = {
            tp.partition: Transactions(
                self._settings.cluster,
                worker.group,
                TopicPartition(tp.topic, tp.partition),
                worker.commit_interval_seconds,
            )
            for tp in assigned
        }
        await asyncio.gather(*(each.start(names) for each in self.transactions.values()))

    async def close(self) -> None:
        """Abort what is open, and disconnect."""
        closing, self.transactions = self.transactions, {}
        await asyncio.gather(*(each.stop() for each in closing.values()))

    def abandon(self, error: Exception) -> None:
        """Wait for nothing any more: what is not committed will not be."""
        self.allowed = False
        for each in self.transactions.values():
            each.abandon(error)

    async def recover(self, lanes: Mapping[TP, Lane], ticks_id: str | None) -> dict[TP, int]:
        """Give new lanes the state of their snapshots; returns where to read on, where not as committed.

        Snapshots of a topic of ticks that has another id than the present one are of no use, and will be deleted;
        nor is the committed offset, and reading begins anew.

        Raises
        ------
        TapewatchError
            If they cannot be read, or one of them is damaged.
        """
        began = time.monotonic()
        topic, group = self._settings.topics.state, self._settings.worker.group
        stored = await recovery.read(
            self._settings.cluster, topic, [tp.partition for tp in lanes], group, SILENCE_SECONDS
        )
        elsewhere, instruments = {}, 0
        for tp, lane in lanes.items():
            committed = lane.next_offset
            restored = await self._take_up(tp, lane, stored[tp.partition], ticks_id)
            instruments += restored.instruments
            _tell(tp, lane, restored)
            goes_on = max(lane.next_offset or 0, restored.next_offset)
            if goes_on != (committed or 0):
                elsewhere[tp] = lane.next_offset = goes_on
            await asyncio.sleep(0)
        await asyncio.gather(*(self._record(tp, lane) for tp, lane in lanes.items()))
        seconds = time.monotonic() - began
        self._metrics.recovered(seconds)
        log.info(
            "recovered partitions=%s instruments=%d seconds=%.3f",
            ",".join(str(tp.partition) for tp in sorted(lanes)),
            instruments,
            seconds,
        )
        return elsewhere

    async def _take_up(self, tp: TP, lane: Lane, stored: list[Stored], ticks_id: str | None) -> Restored:
        fitting = self._of_these_ticks(tp, lane, stored, ticks_id)
        record, kept = succession.part(fitting, self._settings.worker.group)
        await self._swaps.open(lane, record, tp.partition)
        return lane.pipeline.restore(kept, self._settings.topics.state)

    async def _record(self, tp: TP, lane: Lane) -> None:
        """Kafka must know which models are in force before they answer the first tick."""
        records = self._swaps.record(lane)
        if not records:
            return
        target = TopicPartition(tp.topic, tp.partition)
        try:
            await self.transactions[tp.partition].commit(
                Checkpoint(self._settings.topics.state, [records], target, None, _now_ms())
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the partition cannot begin
            self._not_committed(error, lane, tp.partition, lane.next_offset or 0)
        else:
            settle(lane, committed=True)

    def _of_these_ticks(self, tp: TP, lane: Lane, stored: list[Stored], ticks_id: str | None) -> list[Stored]:
        """The snapshots, without the record of their origin; none if that is another topic of the same name."""
        mark = snapshots.origin_key(self._settings.worker.group)
        lane.origin = None if ticks_id is None else ticks_id.encode()
        kept = [each for each in stored if each.key != mark]
        origin = next((each.value for each in stored if each.key == mark), None)
        if origin is None or lane.origin in (None, origin):
            return kept
        log.warning(
            "topic made again topic=%s partition=%s: its snapshots are of the old one, and state starts cold, at the "
            "first tick",
            tp.topic,
            tp.partition,
        )
        # Kafka deletes the offsets with the topic, but a worker that reads on in the new one, where it was in the old,
        # commits before it notices: what is below was never answered.
        if lane.next_offset is not None:
            lane.next_offset = lane.checkpoint_offset = 0
        models = succession.key(self._settings.worker.group)  # which are recorded anew at once
        lane.obsolete = {each.key for each in kept} - {models}
        return []

    def write_all(self) -> None:
        """The topic of snapshots was made again: the next checkpoint holds everything."""
        for lane in self._lanes.values():
            lane.pipeline.recapture()
            lane.marked = False
            lane.must_record = lane.succession is not None

    async def commit(
        self, tps: Iterable[TP], ledgers: Mapping[TP, Ledger], committed: Mapping[TP, int]
    ) -> Mapping[TP, int]:
        """A checkpoint of each partition; returns the offsets that are committed now.

        The stream is not held up: the state is copied between two chunks, all else happens while it goes on.
        """
        tps = list(tps)
        done = await asyncio.gather(*(self._checkpoint(tp, ledgers, committed.get(tp)) for tp in tps))
        return {tp: offset for tp, offset in zip(tps, done, strict=True) if offset is not None}

    async def _checkpoint(self, tp: TP, ledgers: Mapping[TP, Ledger], committed: int | None) -> int | None:
        await self._send_held(tp.partition)
        lane, transactions = self._lanes.get(tp.partition), self.transactions.get(tp.partition)
        if lane is None or transactions is None or lane.lost is not None or not self.allowed:
            return None
        offset = _done_with(ledgers.get(tp), lane)
        if offset is None:
            return None
        lane.note_checkpoint(offset)
        if offset == committed and not transactions.waiting and self._swaps.due(lane) is None:
            return None
        lane.next_offset = offset
        captured, obsolete, origin = lane.pipeline.capture(offset), lane.obsolete, None if lane.marked else lane.origin
        lane.obsolete, lane.marked = set(), True
        if not self._exactly_once:
            # Results go another way here: only when those of all ticks below the offset are acknowledged is it done.
            if lane.in_flight:
                await asyncio.wait(set(lane.in_flight))
            point = ledgers[tp].point if tp in ledgers else None
            if point is None or point < offset:
                return None  # one of them was given up, and the worker stops
        self._swaps.announce(lane)
        pieces = self._pieces(captured, obsolete, origin, self._swaps.record(lane))
        target = TopicPartition(tp.topic, tp.partition)
        committed = None
        try:
            await transactions.commit(Checkpoint(self._settings.topics.state, pieces, target, offset, _now_ms()))
            committed = offset
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None  # the producer was closed: a new assignment
        except Exception as error:  # noqa: BLE001  whatever it is, this checkpoint is not made
            self._not_committed(error, lane, tp.partition, offset)
            return None
        finally:
            settle(lane, committed=committed is not None)
        self._metrics.snapshots(len(captured.names))
        return committed

    async def _send_held(self, partition: int) -> None:
        """What conflation holds back belongs into the transaction of its ticks."""
        lane = self._lanes.get(partition)
        if self._exactly_once and lane is not None and lane.conflation is not None:
            await lane.conflation.come()

    def _pieces(
        self, captured: Captured, obsolete: set[bytes], origin: bytes | None, models: list[Record]
    ) -> Iterator[list[Record]]:
        group = self._settings.worker.group
        if origin is not None:
            yield [Record(snapshots.origin_key(group), origin)]
        for piece in snapshots.pieces(captured, group):
            yield [Record(key, value) for key, value in piece]
        written = {snapshots.key(group, *name) for name in captured.names}
        own = [] if captured.halts is None else [Record(halts.key(group), captured.halts or None)]
        yield [*(Record(key, None) for key in sorted(obsolete - written)), *own, *models]

    def _not_committed(self, error: Exception, lane: Lane, partition: int, offset: int) -> None:
        if is_fenced(error):
            lane.lose(partition)
        elif isinstance(error, TapewatchError):
            self._fail(error)
        else:
            self._fail(WorkerFailed(f"cannot commit partition {partition} up to offset {offset}: {error!r}"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tell(tp: TP, lane: Lane, restored: Restored) -> None:
    if restored.without_hidden:
        log.warning(
            "forecaster changed partition=%s instruments=%s: its state starts anew, all else goes on",
            tp.partition,
            restored.without_hidden,
        )
    if not restored.instruments and lane.next_offset:
        log.warning("no snapshots partition=%s committed=%s: state starts cold there", tp.partition, lane.next_offset)
    if restored.next_offset > (lane.next_offset or 0):
        log.warning(
            "snapshots are ahead partition=%s committed=%s: reading goes on where they end, at %s",
            tp.partition,
            lane.next_offset,
            restored.next_offset,
        )


def _done_with(ledger: Ledger | None, lane: Lane) -> int | None:
    """The offset below which everything is computed: between chunks, and behind gaps where nothing is in flight."""
    point = ledger.point if ledger is not None else None
    if point is None or lane.next_offset is None:
        return lane.next_offset if point is None else point
    return max(point, lane.next_offset)
