"""Fetched record batches as columns, and these as deliveries; passing errors of the group's coordinator."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    IllegalGenerationError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v1
from aiokafka.protocol.group import HeartbeatResponse_v0
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.transport.drivers import by_url

from stream.ledger import Ledger
from stream.transport import SCHEME, Columns, Consumer, Delivery, Transport, cut, tried_again, unpack

BASE_OFFSET_BYTES = 8
ATTRIBUTES_AT = 22  # behind base offset, length, epoch, magic, checksum and its first byte
CRC_AT = 17
COVERED_FROM = 21


def batch(base: int, relative: Sequence[int], producer: int = -1, transactional: bool = False) -> bytes:
    """A record batch as a broker returns it, with records at `base` + `relative`."""
    builder = DefaultRecordBatchBuilder(2, 0, int(transactional), producer, 0 if producer >= 0 else -1, 0, 1_000_000)
    for offset in relative:
        builder.append(offset, 1_000 + offset, b"k%d" % (base + offset), b"v%d" % (base + offset), [])
    return base.to_bytes(BASE_OFFSET_BYTES, "big") + bytes(builder.build())[BASE_OFFSET_BYTES:]


def marker(offset: int, producer: int, commit: bool) -> bytes:
    """A control batch that ends a transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, -1, 1_000)
    builder.append(0, 1_000, b"\x00\x00\x00" + (b"\x01" if commit else b"\x00"), b"\x00" * 6, [])
    raw = bytearray(offset.to_bytes(BASE_OFFSET_BYTES, "big") + bytes(builder.build())[BASE_OFFSET_BYTES:])
    raw[ATTRIBUTES_AT] |= 0x20
    return bytes(raw)


def fetched(*batches: bytes, at: int = 0, aborted: Sequence[tuple[int, int]] = (), crcs: bool = False) -> Any:
    """What aiokafka holds after a fetch from offset `at`."""
    records = MemoryRecords(b"".join(batches))
    return PartitionRecords(TopicPartition("ticks", 3), records, list(aborted), at, None, None, crcs, READ_COMMITTED)


def test_records_of_several_batches_become_columns() -> None:
    columns = unpack(fetched(batch(10, [0, 1]), batch(12, [0]), at=10))
    assert columns.offsets == [10, 11, 12]
    assert columns.timestamps == [1000, 1001, 1000]
    assert columns.keys == [b"k10", b"k11", b"k12"]
    assert columns.values == [b"v10", b"v11", b"v12"]
    assert columns.next_offset == 13


def test_reading_starts_inside_a_batch() -> None:
    columns = unpack(fetched(batch(10, [0, 1, 2]), at=12))
    assert columns.offsets == [12]
    assert columns.next_offset == 13


def test_compacted_offsets_are_passed_over() -> None:
    columns = unpack(fetched(batch(10, [0, 3, 7]), at=10))
    assert columns.offsets == [10, 13, 17]
    assert columns.next_offset == 18


def test_markers_of_transactions_are_no_records() -> None:
    columns = unpack(fetched(batch(0, [0, 1], producer=7, transactional=True), marker(2, 7, commit=True)))
    assert columns.offsets == [0, 1]
    assert columns.next_offset == 3


def test_aborted_records_are_left_out() -> None:
    columns = unpack(
        fetched(
            batch(0, [0, 1], producer=7, transactional=True),
            batch(2, [0]),
            marker(3, 7, commit=False),
            batch(4, [0], producer=7, transactional=True),
            aborted=[(7, 0)],
        )
    )
    assert columns.offsets == [2, 4]
    assert columns.next_offset == 5


def test_only_aborted_records_leave_nothing_but_a_position() -> None:
    columns = unpack(
        fetched(batch(0, [0, 1], producer=7, transactional=True), marker(2, 7, commit=False), aborted=[(7, 0)])
    )
    assert columns == Columns([], [], [], [], 3)


def test_a_damaged_batch_is_refused() -> None:
    raw = bytearray(batch(0, [0, 1]))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="at or after offset 0"):
        unpack(fetched(bytes(raw), crcs=True))


def test_a_sound_batch_passes_its_checksum() -> None:
    assert unpack(fetched(batch(0, [0, 1]), crcs=True)).offsets == [0, 1]


def columns_at(offsets: Sequence[int], next_offset: int) -> Columns:
    return Columns(
        list(offsets), [0] * len(offsets), [None] * len(offsets), [b"%d" % offset for offset in offsets], next_offset
    )


def delivered(columns: Columns, ticks: int, ledger: Ledger) -> list[Delivery]:
    return list(cut(3, columns, ticks, ledger, 0.0))


def test_deliveries_hold_at_most_so_many_records() -> None:
    parts = delivered(columns_at(range(100, 107), 107), 3, Ledger(100))
    assert [list(part.chunk.offsets) for part in parts] == [[100, 101, 102], [103, 104, 105], [106]]
    assert [part.chunk.partition for part in parts] == [3, 3, 3]
    assert [list(part.chunk.values) for part in parts][2] == [b"106"]


def test_spans_cover_the_gaps_behind_their_records() -> None:
    ledger = Ledger(10)
    parts = delivered(columns_at([12, 15, 20], 25), 2, ledger)
    assert [(part.span.first, part.span.end) for part in parts] == [(12, 20), (20, 25)]
    for part in parts:
        ledger.done(part.span)
    assert ledger.point == 25


def test_offsets_without_records_are_done_at_once() -> None:
    ledger = Ledger(10)
    assert delivered(columns_at([], 14), 2, ledger) == []
    assert ledger.point == 14


def test_offsets_without_records_wait_for_what_is_in_flight_before_them() -> None:
    ledger = Ledger(10)
    (part,) = delivered(columns_at([10], 11), 2, ledger)
    delivered(columns_at([], 14), 2, ledger)
    assert ledger.point == 10
    ledger.done(part.span)
    assert ledger.point == 14


def test_a_partition_without_a_committed_offset_starts_where_its_records_start() -> None:
    ledger = Ledger()
    (part,) = delivered(columns_at([500], 501), 2, ledger)
    assert ledger.point == 500
    ledger.done(part.span)
    assert ledger.point == 501


def test_faust_finds_the_transport_by_its_scheme() -> None:
    (entry,) = entry_points(group="faust.transports", name=SCHEME)
    assert entry.load() is Transport
    assert by_url(f"{SCHEME}://127.0.0.1:9092") is Transport


def answered(response: Any) -> Any:
    """What a coordinator's request comes to."""

    async def send(_request: Any) -> Any:
        return response

    async def ask() -> Any:
        return await tried_again(send)(None)

    return asyncio.run(ask())


def offsets(error: type[KafkaError]) -> Any:
    return OffsetFetchResponse_v1([("ticks", [(0, 5, "", 0), (1, -1, "", error.errno)])])


@pytest.mark.parametrize("error", [GroupCoordinatorNotAvailableError, GroupLoadInProgressError])
def test_a_coordinator_that_is_only_starting_is_asked_again(error: type[KafkaError]) -> None:
    for response in (offsets(error), HeartbeatResponse_v0(error.errno)):
        with pytest.raises(GroupCoordinatorNotAvailableError) as raised:
            answered(response)
        assert raised.value.retriable


@pytest.mark.parametrize("error", [UnknownTopicOrPartitionError, NotCoordinatorForGroupError, IllegalGenerationError])
def test_other_errors_of_a_coordinator_are_left_to_the_client(error: type[KafkaError]) -> None:
    response = offsets(error)
    assert answered(response) is response


class Committing:
    """What `Consumer._begin_commit` needs of a consumer; commits end when they are let go."""

    def __init__(self) -> None:
        self._commits: dict[Any, Any] = {}
        self.begun: list[Any] = []
        self.may_end = asyncio.Event()

    async def _checkpoint(self, tps: set[Any], *, everything: bool) -> bool:
        assert not everything
        self.begun += tps
        return await self.may_end.wait()

    add_future = staticmethod(asyncio.ensure_future)


def test_partitions_commit_beside_each_other_and_none_twice_at_once() -> None:
    async def play() -> list[Any]:
        consumer: Any = Committing()
        for partition in (0, 1, 0):
            Consumer._begin_commit(consumer, TopicPartition("ticks", partition))
        consumer.may_end.set()
        await asyncio.gather(*consumer._commits.values())
        Consumer._begin_commit(consumer, TopicPartition("ticks", 0))
        await asyncio.gather(*consumer._commits.values())
        return [tp.partition for tp in consumer.begun]

    assert asyncio.run(play()) == [0, 1, 0]


class Beating:
    """What `Consumer._commit_handler` needs of a consumer, on a clock of its own; each commit holds it up."""

    commit_interval = 0.2
    ledgers = (TopicPartition("ticks", 0), TopicPartition("ticks", 1))
    should_stop = False
    _sleep_until = Consumer._sleep_until

    def __init__(self, held_up: Sequence[float]) -> None:
        self.now = 100.0
        self._held_up = list(held_up)
        self.begun: list[tuple[int, float]] = []

    async def sleep(self, seconds: float) -> None:
        """The clock moves on."""
        self.now += seconds

    def _begin_commit(self, tp: TopicPartition) -> None:
        self.begun.append((tp.partition, round(self.now - 100.0, 9)))
        self.now += self._held_up.pop(0)
        self.should_stop = not self._held_up


def begun(monkeypatch: pytest.MonkeyPatch, *held_up: float) -> list[tuple[int, float]]:
    consumer = Beating(held_up)
    monkeypatch.setattr("stream.transport.time.monotonic", lambda: consumer.now)
    handler: Any = Consumer._commit_handler
    asyncio.run(handler.fun(consumer))
    return consumer.begun


def test_the_interval_of_commits_is_kept_however_long_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun(monkeypatch, 0.05, 0.09, 0.05, 0.0) == [(0, 0.1), (1, 0.2), (0, 0.3), (1, 0.4)]


def test_what_a_delay_has_left_out_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun(monkeypatch, 0.0, 1.0, 0.0, 0.0) == [(0, 0.1), (1, 0.2), (0, 1.2), (1, 1.3)]
