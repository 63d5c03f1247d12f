"""A Faust transport, `chunk://HOST:PORT`, that hands over many records of one partition as one event.

Faust costs 80 to 90 us for each event, so an event here is a `Delivery`: up to `Options.ticks` records of one
partition as plain lists. Everything below the agent is Faust's aiokafka driver, except for three things:

- records are read batch by batch from what aiokafka fetched, without an object for each record;
- aiokafka runs in Faust's own event loop, not in a thread beside it;
- an acknowledged event is a done span in a `Ledger`, from which the offset to commit follows. Faust's own counting
  of single offsets is not used.

All topics of an app with this transport come as deliveries; subscribe with `ChunkSchema`.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import aiokafka
import faust
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
    for_code,
)
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, Message
from mode import Service
from mode.utils.futures import maybe_async, notify

from stream.decoding import Chunk
from stream.ledger import Ledger, Span

SCHEME: Final = "chunk"
UNDERSTOOD: Final = (NotCoordinatorForGroupError, UnknownTopicOrPartitionError)  # aiokafka does what is right for them


class Options(NamedTuple):
    """What Faust has no setting for, or fixes otherwise: set on `Transport.options` before the app starts."""

    ticks: int = 512  # most records in a delivery
    request_timeout_ms: int = 20_000  # Faust's own setting also bounds how long an assignment may take
    access: Mapping[str, Any] = {}  # aiokafka's options for TLS and SASL, a password among them
    fetch_max_wait_ms: int = 5  # Faust fixes it to 1500; the embedded broker answers only when it has passed


class Delivery(NamedTuple):
    """Consecutive records of one partition. Offsets ascend, possibly with gaps."""

    chunk: Chunk
    timestamps: Sequence[int]  # of the records, ms since the Unix epoch
    span: Span  # offsets this stands for, gaps included
    received: float  # time.monotonic() when it was read from the fetch response


class Resume(NamedTuple):
    """Where reading of a partition goes on, if not at its committed offset."""

    offset: int
    is_again: bool = False  # what is committed holds: ticks below it are read again, that is all


class Columns(NamedTuple):
    """Records as columns, and the offset at which reading goes on: behind the last record, markers and gaps."""

    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    next_offset: int


def unpack(fetched: PartitionRecords) -> Columns:
    """All records that `fetched` holds from its position on.

    As `PartitionRecords._unpack_records`, whose rules these are, without a ConsumerRecord for each message: control
    batches and, when reading committed records, aborted ones are left out.

    Raises
    ------
    CorruptRecordException
        If a batch does not have its checksum.
    """
    columns = Columns([], [], [], [], 0)
    position: int = fetched.next_fetch_offset
    while fetched._records.has_next():
        batch = fetched._records.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"a record batch at or after offset {position} of {fetched._tp} is damaged")
        if not _is_left_out(fetched, batch):
            _append(columns, batch, position)
        position = batch.next_offset
    return columns._replace(next_offset=position)


def _is_left_out(fetched: PartitionRecords, batch: Any) -> bool:
    if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        fetched._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and fetched._contains_abort_marker(batch):
            fetched._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in fetched._aborted_producers:
            return True
    return bool(batch.is_control_batch)


def _append(columns: Columns, batch: Any, position: int) -> None:
    records = list(batch)
    if records and records[0].offset < position:  # a seek into the middle of a batch
        records = [record for record in records if record.offset >= position]
    columns.offsets.extend([record.offset for record in records])
    columns.timestamps.extend([record.timestamp for record in records])
    columns.keys.extend([record.key for record in records])
    columns.values.extend([record.value for record in records])


def cut(partition: int, columns: Columns, ticks: int, ledger: Ledger, received: float) -> Iterator[Delivery]:
    """Cut `columns` into deliveries of at most `ticks` records, each with its span open in `ledger`.

    The last span reaches to `columns.next_offset`. Where there are no records at all, what was skipped is done.
    """
    offsets, timestamps, keys, values, next_offset = columns
    count = len(offsets)
    if not count:
        start = ledger.position if ledger.position is not None else next_offset
        ledger.done(ledger.open(min(start, next_offset), next_offset))
    for start in range(0, count, ticks):
        stop = min(start + ticks, count)
        end = next_offset if stop == count else offsets[stop]
        span = ledger.open(offsets[start], end)
        part = slice(start, stop)
        chunk = Chunk(partition, offsets[part], keys[part], values[part])
        yield Delivery(chunk, timestamps[part], span, received)


class ChunkSchema(faust.Schema[Any, Any]):
    """Hands a delivery to the agent as it is."""

    def compile(self, app: AppT, **_options: Any) -> Callable[..., Awaitable[Any]]:
        """The function that makes an event of a message."""

        async def decode(message: Message, *, propagate: bool = False) -> Any:
            return app.create_event(None, cast(Any, message.value), message.headers, message)

        return decode


class LoopConsumer(driver.AIOKafkaConsumerThread):
    """Faust's holder of the aiokafka consumer, in the event loop of the app instead of a thread of its own.

    A thread costs two hand-overs for each fetch, and under load the interpreter lock changes hands only every 5 ms.
    """

    wait_for_shutdown = False

    def __init__(self, consumer: "Consumer", options: Options, **kwargs: Any) -> None:
        super().__init__(consumer, thread_loop=asyncio.get_running_loop(), **kwargs)
        self._options = options

    async def start(self) -> None:
        """Start as any service does."""
        await Service.start(self)

    async def stop(self) -> None:
        """Stop as any service does."""
        await Service.stop(self)

    async def crash(self, exc: BaseException) -> None:
        """Crash as any service does."""
        await Service.crash(self, exc)

    async def on_start(self) -> None:
        """Connect; the group is joined later, with the subscription."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        coordinator._send_req = tried_again(coordinator._send_req)

    async def on_stop(self) -> None:
        """Leave the group and close the connections."""
        await self.on_thread_stop()

    def _stopped_set(self) -> None:
        self._stopped.set()

    async def _stop_children(self) -> None:
        await self._default_stop_children()

    async def _stop_futures(self) -> None:
        await self._default_stop_futures()

    async def _stop_exit_stacks(self) -> None:
        await self._default_stop_exit_stacks()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fun`; there is no thread to hand it to."""
        return await maybe_async(fun(*args, **kwargs))

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        # Faust's verify_event_path and friends read this; there are no tables, so no assignor of Faust's.
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=self._options.fetch_max_wait_ms,
            request_timeout_ms=self._options.request_timeout_ms,
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            # An aborted tick never happened. Costs nothing where ticks come without transactions.
            isolation_level="read_committed",
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **self._options.access,
        )

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  # Faust's signature
        max_records: int | None = None,
    ) -> dict[TP, list[Delivery]]:
        fetcher = consumer._fetcher
        with fetcher._subscriptions.fetch_context():
            while self.consumer.flow_active:
                if fetcher._subscriptions.reassignment_in_progress:
                    await fetcher._subscriptions.wait_for_assignment()
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError()
                deliveries = self._take(fetcher, active_partitions)
                if deliveries or not await arrival(fetcher, timeout):
                    return deliveries
        return {}

    def _take(self, fetcher: Fetcher, active: set[TP]) -> dict[TP, list[Delivery]]:
        """Everything that is fetched, so that aiokafka sends the next request at once."""
        owner = cast(Consumer, self.consumer)
        taken: dict[TP, list[Delivery]] = {}
        received = time.monotonic()
        for tp in [tp for tp in fetcher._records if tp in active or not fetcher._subscriptions.is_assigned(tp)]:
            if taken and not isinstance(fetcher._records[tp], FetchResult):
                continue  # an error is raised by the next call, so that what is taken is not lost
            columns = consume(fetcher, tp)
            if columns is None or tp not in active:
                continue
            deliveries = list(cut(tp.partition, columns, self._options.ticks, owner.ledgers[tp], received))
            if deliveries:
                taken[tp] = deliveries
                owner.note_read(tp, received)
        return taken

    @property
    def connected(self) -> bool:
        """Whether a broker has a connection with us; True where there is no client, for then nothing is missed."""
        if self._consumer is None or self._consumer._closed:
            return True
        return any(connection.connected() for connection in self._consumer._client._conns.values())

    def last_answer(self, tp: TP) -> float | None:
        """time.time() of the last answer to a fetch of `tp`; None before the first."""
        answered_ms: int | None = self._ensure_consumer().last_poll_timestamp(tp)
        return None if answered_ms is None else answered_ms / 1000

    def last_stable_offset(self, tp: TP) -> int | None:
        """The end of what may be read of `tp`, as of the last fetch; None before the first."""
        end: int | None = self._ensure_consumer().last_stable_offset(tp)
        return end

    def partitions_in_all(self, topic: str) -> int | None:
        """How many partitions a topic has, as of the client's newest metadata; None where it has none."""
        partitions: set[int] | None = self._ensure_consumer().partitions_for_topic(topic)
        return len(partitions) if partitions else None


SendRequest = Callable[[Any], Awaitable[Any]]


def tried_again(send: SendRequest) -> SendRequest:
    """A group coordinator's requests, so that a passing error which aiokafka does not know is a passing error.

    aiokafka 0.14 gives the consumer up for each error code that it does not expect of a request, among them
    COORDINATOR_NOT_AVAILABLE to a question for offsets, which a broker that is only starting answers. One that may be
    tried again is told as a coordinator that has gone, for which all callers look once more.
    """

    async def patient(request: Any) -> Any:
        response = await send(request)
        codes = [getattr(response, "error_code", 0)]
        if hasattr(response, "topics"):
            codes += [partition[-1] for _, partitions in response.topics for partition in partitions]
        for error in map(for_code, codes):
            if error.retriable and error not in UNDERSTOOD:
                raise GroupCoordinatorNotAvailableError(repr(error))
        return response

    return patient


def consume(fetcher: Fetcher, tp: Any) -> Columns | None:
    """Take what was fetched of `tp` and move the position behind it; None if it is of an older one.

    Raises
    ------
    KafkaError
        If an error was fetched.
    """
    result = fetcher._records.pop(tp)
    fetcher._notify(fetcher._wait_consume_future)
    if not isinstance(result, FetchResult):
        result.check_raise()
    if not result.check_assignment(result._topic_partition):
        return None
    records = result._partition_records
    columns = unpack(records)
    records.next_fetch_offset = columns.next_offset
    result._update_position()
    return columns


async def arrival(fetcher: Fetcher, seconds: float | None) -> bool:
    """Wait until something was fetched; False after `seconds` without."""
    waiter = fetcher._create_fetch_waiter()
    try:
        async with asyncio.timeout(seconds):
            await waiter  # raises what the coordinator could not mend, such as a refused authorization
    except TimeoutError:
        return False
    return True


class Listener:
    """What an app may want to know of its consumer; does nothing by itself."""

    async def before_position(self, assigned: set[TP]) -> None:
        """These partitions are assigned; what is committed of them is asked next."""

    async def on_position(self, offsets: Mapping[TP, int | None]) -> Mapping[TP, Resume]:
        """Reading goes on from these committed offsets; None where nothing was committed yet.

        Returns where to go on instead, for the partitions that it knows better of.
        """
        return {}

    async def commit(self, tps: set[TP], *, everything: bool) -> Mapping[TP, int] | None:
        """Commit what is done of these partitions; returns the offsets, or None where the consumer shall do it.

        `everything`: nothing more may come, the partitions may be another's next.
        """
        return None

    def on_commit(self, offsets: Mapping[TP, int]) -> None:
        """The broker has acknowledged these offsets."""


class Consumer(driver.Consumer):
    """Faust's consumer, with a ledger for each assigned partition in place of lists of acknowledged offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledgers: dict[TP, Ledger] = {}
        self.committed_offsets: dict[TP, int] = {}
        self.listener = Listener()
        self._uncommitted_since: dict[TP, float] = {}
        self._assignments = 0  # so many were made ...
        self._sought = 0  # ... and this is the last one after which reading was set to the committed offsets
        self._seeking = asyncio.Lock()
        self._commits: dict[TP, asyncio.Future[Any]] = {}  # the last one of each partition

    _thread: "LoopConsumer"

    def _new_consumer_thread(self) -> LoopConsumer:
        options = cast(Transport, self.transport).options
        return LoopConsumer(self, options, loop=self.loop, beacon=self.beacon)

    def give_up(self, message: Message) -> None:
        """Wait no longer for `message` to be acknowledged; its span stays unfinished."""
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)

    async def wait_empty(self) -> None:
        """Wait until every delivery that an agent has begun is acknowledged, then commit.

        Faust's own also collects garbage and commits on each turn, and can miss the last commit when one is under
        way.
        """
        while self._unacked_messages and not self.should_stop:
            await self._wait_for_ack(timeout=1)
            self._clean_unacked_messages()
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    def note_read(self, tp: TP, now: float) -> None:
        """Records of `tp` were read at `now`, time.monotonic(); those that are committed are of no account."""
        if (self.ledgers[tp].position or 0) > self.committed_offsets.get(tp, -1):
            self._uncommitted_since.setdefault(tp, now)

    def oldest_uncommitted(self, tp: TP) -> float | None:
        """time.monotonic() at which the oldest record of `tp` that is not committed was read; None if all are."""
        return self._uncommitted_since.get(tp)

    @property
    def connected(self) -> bool:
        """Whether a broker has a connection with us."""
        return self._thread.connected

    def silence(self, tp: TP) -> float:
        """Seconds since the broker last answered a fetch of `tp`, be it with nothing; 0 before the first answer."""
        answered = self._thread.last_answer(tp)
        return 0.0 if answered is None else max(0.0, time.time() - answered)

    def partitions_in_all(self, topic: str) -> int | None:
        """How many partitions a topic has; None while that is unknown."""
        return self._thread.partitions_in_all(topic)

    def unread(self, tp: TP) -> int | None:
        """Offsets of `tp` that are not read yet, as of the last fetch; None while that is unknown."""
        end = self._thread.last_stable_offset(tp)
        ledger = self.ledgers.get(tp)
        if end is None or ledger is None or ledger.position is None:
            return None
        return max(0, end - ledger.position)

    async def find_position(self, tp: TP) -> None:
        """Learn where reading of `tp` begins where nothing was committed and nothing was read yet."""
        ledger = self.ledgers.get(tp)
        if ledger is None or ledger.position is not None:
            return
        with contextlib.suppress(KafkaError):  # the partition has just been taken away
            position = await self.position(tp)
            if ledger.position is None:
                ledger.reset(position)

    @Service.task
    async def _commit_handler(self) -> None:
        """Commit each partition once in the interval, one after the other: all at once would hold the stream up."""
        moment = time.monotonic()
        while not self.should_stop:
            tps = sorted(self.ledgers)
            for tp in tps:
                moment = await self._sleep_until(moment + self.commit_interval / len(tps))
                self._begin_commit(tp)
            if not tps:
                moment = await self._sleep_until(moment + self.commit_interval)

    async def _sleep_until(self, moment: float) -> float:
        """Returns `moment` (time.monotonic()), or now where that is later, so that no delay shifts what follows it."""
        now = time.monotonic()
        await self.sleep(max(0.0, moment - now))
        return max(moment, now)

    def _begin_commit(self, tp: TP) -> None:
        """Commit `tp` beside the stream, unless its last commit is still under way."""
        under_way = self._commits.get(tp)
        if under_way is None or under_way.done():
            self._commits[tp] = self.add_future(self._checkpoint({tp}, everything=False))

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit all, after the commits of single partitions that are under way."""
        if under_way := [commit for commit in self._commits.values() if not commit.done()]:
            await asyncio.wait(under_way)
        return await super().commit(topics, start_new_transaction)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Note that there is an assignment whose committed offsets are to be found."""
        self._assignments += 1
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Go on from the committed offsets, once for each assignment.

        Faust's fetcher asks for it as well when it finds the flow stopped, in the middle of a rebalance: what is in
        flight then would be forgotten while it is being finished.
        """
        async with self._seeking:
            assignments = self._assignments
            if self._sought != assignments:
                await super().perform_seek()
                self._sought = assignments

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to the committed offsets: what was in flight is forgotten and will come again."""
        await self.listener.before_position(set(self.assignment()))
        offsets = await super().seek_to_committed()
        self.committed_offsets = {tp: offset for tp, offset in offsets.items() if offset is not None and offset >= 0}
        self.ledgers = {tp: Ledger(self.committed_offsets.get(tp)) for tp in offsets}
        self._uncommitted_since.clear()
        elsewhere = await self.listener.on_position({tp: self.committed_offsets.get(tp) for tp in offsets})
        for tp, (offset, is_again) in elsewhere.items():
            await self._seek(tp, offset)
            self.ledgers[tp].reset(offset)
            if not is_again:
                self.committed_offsets.pop(tp, None)
        sought = {tp: resume.offset for tp, resume in elsewhere.items()}
        return {**offsets, **sought}  # Faust drops what is below, without a word

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish, commit, then forget the revoked partitions."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self.ledgers.pop(tp, None)
            self.committed_offsets.pop(tp, None)
            self._uncommitted_since.pop(tp, None)
            self._commits.pop(tp, None)

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: what is fetched is taken at once, and the stream's queue holds the fetching up when it is full."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing, as above."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust judges by its monitor, which is off; /health judges by the offsets' progress."""

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        delivery: Delivery = record
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            delivery.span.end - 1,  # where Faust's own reading stands after it
            delivery.timestamps[-1] / 1000,
            0,
            None,
            None,
            cast(bytes, delivery),
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def ack(self, message: Message) -> bool:
        """The last reference to a delivery is acknowledged: its span is done."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        ledger = self.ledgers.get(message.tp)
        if ledger is not None:
            ledger.done(cast(Delivery, message.value).span)
        notify(self._waiting_for_ack)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: spans cover gaps."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.ledgers if topics is None or tp in topics or tp.topic in topics)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        points = {tp: self.ledgers[tp].point for tp in tps}
        return {
            tp: point for tp, point in points.items() if point is not None and point != self.committed_offsets.get(tp)
        }

    async def _commit_tps(self, tps: Iterable[TP], start_new_transaction: bool) -> bool:
        return await self._checkpoint(set(tps), everything=True)

    async def _checkpoint(self, tps: set[TP], *, everything: bool) -> bool:
        asked = time.monotonic()
        committed = await self.listener.commit(tps, everything=everything)
        if committed is None:
            return await super()._commit_tps(tps, start_new_transaction=True)
        self._note_commits(committed, asked)
        return bool(committed)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        asked = time.monotonic()
        committed = await super()._commit(offsets)
        if committed:
            self._note_commits(offsets, asked)
        return committed

    def _note_commits(self, offsets: Mapping[TP, int], asked: float) -> None:
        for tp, offset in offsets.items():
            self._note_commit(tp, offset, asked)
        if offsets:
            self.listener.on_commit(offsets)

    def _note_commit(self, tp: TP, offset: int, asked: float) -> None:
        self.committed_offsets[tp] = offset
        ledger = self.ledgers.get(tp)
        if ledger is None or ledger.position == offset:
            self._uncommitted_since.pop(tp, None)
        else:
            self._uncommitted_since[tp] = asked  # what is not committed yet was read, or not done yet, by then


class Producer(driver.Producer):
    """Faust's producer, which it starts though nothing is sent by it: it too must be let in."""

    def _settings_auth(self) -> Mapping[str, Any]:
        return cast(Transport, self.transport).options.access


class Transport(driver.Transport):
    """The scheme `chunk://`: Faust's aiokafka driver with the classes of this module."""

    Consumer = Consumer
    Producer = Producer
    options = Options()


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
