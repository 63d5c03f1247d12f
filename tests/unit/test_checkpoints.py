"""What each checkpoint of a partition holds: the offset always, snapshots now and then, nothing that is not done."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiokafka.errors import ProducerFenced
from faust.types import TP

from stream import halts, recomputation, snapshots
from stream.challenger import Shadow
from stream.checkpoints import Checkpoints
from stream.config import Settings, Worker
from stream.errors import TapewatchError
from stream.inference import Models
from stream.lanes import Lane
from stream.ledger import Ledger
from stream.messages import CONTROL_KEY, Control, encode
from stream.metrics import Metrics
from stream.pipeline import Pipeline
from stream.swaps import Swaps
from stream.telemetry import Scores
from stream.transactions import Checkpoint
from tests.fakes import FakeModels
from tests.ticks import SECOND, START_NS, chunk, message

TICKS = TP("ticks", 0)
SETTINGS = Settings(worker=Worker(group="g", delivery="exactly_once", snapshot_interval_seconds=3600.0))
RECORD = recomputation.key("g")


class Kafka:
    """Takes checkpoints, or fails."""

    waiting = False

    def __init__(self) -> None:
        self.offsets: list[int | None] = []
        self.records: list[dict[bytes | None, bytes | None]] = []
        self.error: BaseException | None = None
        self.asked = asyncio.Event()

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Keep what a transaction holds."""
        if self.error is not None:
            raise self.error
        self.asked.set()
        await asyncio.sleep(0)
        self.offsets.append(checkpoint.offset)
        self.records.append({record.key: record.value for piece in checkpoint.pieces for record in piece})


class Partition:
    """A partition with its checkpoints."""

    def __init__(self) -> None:
        self.kafka = Kafka()
        pipeline = Pipeline(SETTINGS, cast(Models, FakeModels()), 0)
        self.lane = Lane(pipeline, Scores(0), None, 4, Shadow(SETTINGS))
        self.failures: list[TapewatchError] = []
        swaps, metrics = Swaps(SETTINGS, None, Metrics()), Metrics()
        self._checkpoints = Checkpoints(SETTINGS, {0: self.lane}, swaps, metrics, self.failures.append)
        self._checkpoints.transactions = cast(Any, {0: self.kafka})
        self._ledgers = {TICKS: Ledger(0)}
        self._committed: dict[TP, int] = {}

    def feed(self, *symbols: str, control: str = "") -> None:
        """A tick of each symbol, or a control."""
        first = self.lane.next_offset or 0
        values = [message(symbol=symbol, exchange_ns=START_NS + first * SECOND) for symbol in symbols]
        keys: list[bytes] = [symbol.encode() for symbol in symbols]
        if control:
            values, keys = [encode(Control(cast(Any, control), "c", START_NS, "anna", "why"))], [CONTROL_KEY]
        self.lane.pipeline.process(chunk(values, keys, first), 1)
        self.lane.next_offset = first + len(values)
        ledger = self._ledgers[TICKS]
        ledger.done(ledger.open(first, self.lane.next_offset))

    def commit(self, *, everything: bool = False) -> int | None:
        """One checkpoint; the offset, if it was made."""
        return asyncio.run(self.committing(everything=everything))

    async def committing(self, *, everything: bool) -> int | None:
        """The same, beside others."""
        made = await self._checkpoints.commit([TICKS], self._ledgers, self._committed, everything=everything)
        self._committed.update(made)
        return made.get(TICKS)

    def write_all(self) -> None:
        """The topic of snapshots was made again."""
        self._checkpoints.write_all()


def of(*symbols: str) -> set[bytes]:
    return {snapshots.key("g", symbol, "") for symbol in symbols}


def test_snapshots_come_with_the_first_checkpoint_and_at_the_end_and_offsets_alone_in_between() -> None:
    one = Partition()
    one.feed("A", "B")
    assert one.commit() == 2
    assert one.kafka.records[-1].keys() == of("A", "B") | {RECORD}
    assert one.kafka.records[-1][RECORD] == recomputation.write(2)
    for symbol, end in (("B", 3), ("C", 4)):
        one.feed(symbol)
        assert one.commit() == end
        assert one.kafka.records[-1] == {}
    assert one.commit() is None
    assert one.commit(everything=True) == 4
    assert one.kafka.records[-1].keys() == of("B", "C") | {RECORD}
    assert one.kafka.records[-1][RECORD] is None
    assert one.commit(everything=True) is None


def test_behind_one_of_everything_no_offset_goes_alone() -> None:
    one = Partition()
    one.feed("A")
    one.commit(everything=True)
    assert one.kafka.records[-1][RECORD] is None
    one.feed("B")
    assert one.commit() == 2
    assert one.kafka.records[-1] == {**one.kafka.records[-1], RECORD: recomputation.write(2)}
    assert one.kafka.records[-1].keys() == of("B") | {RECORD}


def test_when_the_time_has_come_what_changed_since_the_last_snapshots_is_written_and_the_halts_too() -> None:
    one = Partition()
    one.feed("A", "B", "C")
    one.commit()
    one.feed("A")
    one.commit()
    one.feed(control="halt")
    one.feed("C")
    one.commit()
    assert one.kafka.records[-1] == {}
    one.lane.keep_at = 0.0
    one.feed("C")
    assert one.commit() == 7
    assert one.kafka.records[-1].keys() == of("A", "C") | {RECORD, halts.key("g")}
    assert one.kafka.records[-1][RECORD] == recomputation.write(7)


def test_an_idle_partition_gets_its_snapshots_and_then_nothing_more() -> None:
    one = Partition()
    one.feed("A")
    one.commit()
    one.feed("A")
    one.commit()
    one.lane.keep_at = 0.0
    assert one.commit() == 2
    assert one.kafka.records[-1].keys() == of("A") | {RECORD}
    one.lane.keep_at = 0.0
    assert one.commit() is None


def test_a_topic_of_snapshots_that_was_made_again_gets_all_of_them() -> None:
    one = Partition()
    one.feed("A", "B")
    one.commit()
    one.write_all()
    assert one.commit() == 2
    assert one.kafka.records[-1].keys() >= of("A", "B") | {RECORD}


def test_a_topic_of_snapshots_that_is_made_again_during_a_checkpoint_gets_all_of_them_too() -> None:
    one = Partition()
    one.feed("A", "B")
    one.commit()

    async def made_again() -> int | None:
        one.feed("A")
        one.kafka.asked.clear()
        one.lane.keep_at = 0.0
        under_way = asyncio.create_task(one.committing(everything=False))
        await one.kafka.asked.wait()
        one.write_all()
        return await under_way

    assert asyncio.run(made_again()) == 3
    assert one.commit() == 3
    assert one.kafka.records[-1].keys() >= of("A", "B") | {RECORD}


def test_nothing_below_the_committed_offset_is_committed_whoever_asks() -> None:
    one = Partition()
    one.lane.publish_from = 3
    for everything in (False, True):
        one.feed("A")
        assert one.commit(everything=everything) is None
    assert one.kafka.offsets == []
    one.feed("A")
    assert one.commit() == 3


def test_the_last_checkpoint_of_a_stop_waits_for_the_one_that_is_under_way() -> None:
    one = Partition()
    one.feed("A")

    async def stop() -> list[int | None]:
        under_way = asyncio.create_task(one.committing(everything=False))
        await one.kafka.asked.wait()
        one.feed("B")
        return [await one.committing(everything=True), await under_way]

    assert asyncio.run(stop()) == [2, 1]
    assert [each[RECORD] for each in one.kafka.records] == [recomputation.write(1), None]
    assert one.kafka.records[-1].keys() == of("B") | {RECORD}


def cancelled() -> BaseException:
    return asyncio.CancelledError()  # the producer was closed for a new assignment


@pytest.mark.parametrize("error", [cancelled, ProducerFenced])
def test_after_snapshots_that_kafka_did_not_get_the_lane_is_good_for_nothing(
    error: Callable[[], BaseException],
) -> None:
    one = Partition()
    one.feed("A")
    one.kafka.error = error()
    assert one.commit() is None
    one.kafka.error = None
    one.feed("B")
    assert one.commit() is None
    assert one.lane.unsaved
    assert one.kafka.offsets == []
    assert one.failures == []


def test_of_a_partition_in_which_a_chunk_failed_nothing_more_is_committed() -> None:
    one = Partition()
    one.feed("A")
    assert one.commit() == 1
    one.feed("A")
    one.lane.failed = True
    assert one.commit() is None
    assert one.commit(everything=True) is None
    assert one.kafka.offsets == [1]
