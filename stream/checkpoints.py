"""What a worker keeps of its state on Kafka: checkpoints while it runs, and what it goes on from after an assignment.

A checkpoint of a partition is one transaction: the offset below which all is done, and now and then the snapshots of
all instruments that changed since the last ones; with exactly-once delivery the results as well.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from faust.types import TP

from stream import halts, recomputation, recovery, snapshots, succession, topics
from stream.config import Settings
from stream.errors import TapewatchError, WorkerFailed
from stream.lanes import Lane
from stream.ledger import Ledger
from stream.metrics import Metrics
from stream.pipeline import Restored
from stream.publisher import Record
from stream.sealed import Stored
from stream.snapshots import Captured
from stream.swaps import Swaps, settle
from stream.transactions import Checkpoint, Transactions, is_fenced
from stream.transport import Resume

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

    async def recover(self, lanes: Mapping[TP, Lane], ticks_id: str | None) -> dict[TP, Resume]:
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
        committed = {tp: lane.next_offset for tp, lane in lanes.items()}
        fitting = {tp: self._of_these_ticks(tp, lane, stored[tp.partition], ticks_id) for tp, lane in lanes.items()}
        included = await self._go_back(lanes, fitting)
        for tp, lane in lanes.items():
            restored = await self._take_up(tp, lane, fitting[tp], included[tp])
            instruments += restored.instruments
            _tell(tp, lane, restored, included[tp])
            goes_on = max(lane.next_offset or 0, restored.next_offset)
            if goes_on != (committed[tp] or 0):
                lane.next_offset = goes_on
                elsewhere[tp] = Resume(goes_on, lane.recomputing)
            _note_found(lane, restored, included[tp])
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

    async def _go_back(self, lanes: Mapping[TP, Lane], stored: Mapping[TP, list[Stored]]) -> dict[TP, int | None]:
        """Let lanes whose snapshots are older than what is committed begin where these end.

        Returns the offset that the snapshots of each include, where there is a record of it.
        """
        names, group = self._settings.topics, self._settings.worker.group
        records = {tp: recomputation.part(each, group)[0] for tp, each in stored.items()}
        included = {
            tp: None if record is None else recomputation.read(record, names.state, tp.partition)
            for tp, record in records.items()
        }
        behind = {
            tp: offset
            for tp, offset in included.items()
            if offset is not None and offset < (lanes[tp].next_offset or 0)
        }
        if behind:
            spans = await recovery.spans(self._settings.cluster, names.ticks, [tp.partition for tp in behind], group)
            for tp, offset in behind.items():
                _begin_behind(tp, lanes[tp], offset, *spans[tp.partition])
        return included

    async def _take_up(self, tp: TP, lane: Lane, stored: list[Stored], included: int | None) -> Restored:
        group = self._settings.worker.group
        record, rest = succession.part(stored, group)
        await self._swaps.open(lane, record, tp.partition)
        restored = lane.pipeline.restore(recomputation.part(rest, group)[1], self._settings.topics.state)
        return restored._replace(next_offset=max(restored.next_offset, included or 0))

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
            lane.kept, lane.marked = None, False
            lane.must_record = lane.succession is not None

    async def commit(
        self, tps: Iterable[TP], ledgers: Mapping[TP, Ledger], committed: Mapping[TP, int], *, everything: bool
    ) -> Mapping[TP, int]:
        """A checkpoint of each partition; returns the offsets that are committed now.

        `everything`: with snapshots, so that whoever has the partition next computes nothing again.

        The stream is not held up: the state is copied between two chunks, all else happens while it goes on.
        """
        tps = list(tps)
        done = await asyncio.gather(*(self._checkpoint(tp, ledgers, committed.get(tp), everything) for tp in tps))
        return {tp: offset for tp, offset in zip(tps, done, strict=True) if offset is not None}

    async def _checkpoint(
        self, tp: TP, ledgers: Mapping[TP, Ledger], committed: int | None, everything: bool
    ) -> int | None:
        lane = self._lanes.get(tp.partition)
        if lane is None:
            return None
        async with lane.checkpointing:
            await self._send_held(lane)
            transactions = self.transactions.get(tp.partition)
            if transactions is None or self._lanes.get(tp.partition) is not lane or not (self.allowed and lane.sound):
                return None
            return await self._commit(tp, lane, transactions, ledgers, committed, everything)

    async def _commit(
        self,
        tp: TP,
        lane: Lane,
        transactions: Transactions,
        ledgers: Mapping[TP, Ledger],
        committed: int | None,
        everything: bool,
    ) -> int | None:
        offset = _done_with(ledgers.get(tp), lane)
        if offset is None or offset < lane.publish_from:
            return None
        lane.note_checkpoint(offset)
        now = time.monotonic()
        must_keep = lane.must_keep(offset, everything=everything, now=now)
        if offset == committed and not must_keep and not transactions.waiting and self._swaps.due(lane) is None:
            return None
        lane.next_offset = offset
        kept = self._capture(lane, offset, recorded=not everything) if must_keep else None
        if not self._exactly_once:
            # Results go another way here: only when those of all ticks below the offset are acknowledged is it done.
            if lane.in_flight:
                await asyncio.wait(set(lane.in_flight))
            point = ledgers[tp].point if tp in ledgers else None
            if point is None or point < offset:
                return None  # one of them was given up, and the worker stops
        self._swaps.announce(lane)
        pieces = self._pieces(kept, self._swaps.record(lane))
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
        if kept is not None:
            lane.unsaved = False
            if lane.marked:  # else the topic of snapshots was made again meanwhile, and may not have these
                keep_at = now + self._settings.worker.snapshot_interval_seconds
                lane.note_kept(offset, recorded=kept.recorded, keep_at=keep_at)
            self._metrics.snapshots(len(kept.captured.names))
        return committed

    async def _send_held(self, lane: Lane) -> None:
        """What conflation holds back belongs into the transaction of its ticks."""
        if self._exactly_once and lane.conflation is not None:
            await lane.conflation.come()

    def _capture(self, lane: Lane, offset: int, *, recorded: bool) -> "_Kept":
        """What the topic of snapshots must get; from now on the lane is good for nothing if it does not."""
        origin = None if lane.marked else lane.origin
        kept = _Kept(lane.pipeline.capture(offset), lane.obsolete, origin, recorded)
        lane.obsolete, lane.marked, lane.unsaved = set(), True, True
        lane.kept_models = lane.pipeline.models
        return kept

    def _pieces(self, kept: "_Kept | None", models: list[Record]) -> Iterator[list[Record]]:
        if kept is not None:
            yield from self._snapshots(kept)
        yield models

    def _snapshots(self, kept: "_Kept") -> Iterator[list[Record]]:
        group, captured = self._settings.worker.group, kept.captured
        if kept.origin is not None:
            yield [Record(snapshots.origin_key(group), kept.origin)]
        for piece in snapshots.pieces(captured, group):
            yield [Record(key, value) for key, value in piece]
        written = {snapshots.key(group, *name) for name in captured.names}
        yield [Record(key, None) for key in sorted(kept.obsolete - written)]
        if captured.halts is not None:
            yield [Record(halts.key(group), captured.halts or None)]
        # After one of everything what is committed says it, and an earlier release can go on from there.
        yield [Record(recomputation.key(group), recomputation.write(captured.next_offset) if kept.recorded else None)]

    def _not_committed(self, error: Exception, lane: Lane, partition: int, offset: int) -> None:
        if is_fenced(error):
            lane.lose(partition)
        elif isinstance(error, TapewatchError):
            self._fail(error)
        else:
            self._fail(WorkerFailed(f"cannot commit partition {partition} up to offset {offset}: {error!r}"))


class _Kept(NamedTuple):
    """What the topic of snapshots gets with a checkpoint, the models aside."""

    captured: Captured
    obsolete: set[bytes]
    origin: bytes | None
    recorded: bool  # whether the offset is to stand beside the snapshots


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _begin_behind(tp: TP, lane: Lane, included: int, first: int, end: int) -> None:
    """The snapshots are older than what is committed: the ticks in between are computed again."""
    committed = lane.next_offset or 0
    lane.next_offset = recomputation.begin(included, committed, first, end)
    if included < first:
        log.warning(
            "ticks are gone that the snapshots do not include partition=%s snapshots=%s first=%s committed=%s: state "
            "goes on without them",
            tp.partition,
            included,
            first,
            committed,
        )
    if lane.next_offset < committed:
        lane.publish_from = committed
        log.info("recomputing partition=%s from=%s to=%s", tp.partition, lane.next_offset, committed)


def _note_found(lane: Lane, restored: Restored, included: int | None) -> None:
    """What a lane knows of what Kafka has of it; the next checkpoint has snapshots if that is not the newest."""
    if not lane.obsolete and (included is not None or restored.instruments):
        lane.kept = lane.next_offset if included is None else included
        lane.recorded = included is not None


def _tell(tp: TP, lane: Lane, restored: Restored, included: int | None) -> None:
    if restored.without_hidden:
        log.warning(
            "forecaster changed partition=%s instruments=%s: its state starts anew, all else goes on",
            tp.partition,
            restored.without_hidden,
        )
    if not restored.instruments and included is None and lane.next_offset:
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
