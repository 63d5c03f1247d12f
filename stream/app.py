"""`tapewatch worker`: the Faust app around the pipeline."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import faust
import msgspec
from aiokafka.errors import KafkaError
from faust.types import TP, ServiceT

from stream import clients, controls, halts, messages, recomputation, security, signatures, snapshots, switch, topics
from stream.challenger import Challenger, Shadow
from stream.checkpoints import Checkpoints
from stream.config import Settings
from stream.conflation import Conflation
from stream.errors import ConfigError, MissingTopic, TapewatchError, WorkerFailed
from stream.health import Health
from stream.inference import Card
from stream.lanes import ChunkPipeline, Lane, MakePipeline
from stream.library import Library
from stream.messages import Alert
from stream.metrics import HEADS, Metrics
from stream.pipeline import Output, Pipeline, compile_kernels
from stream.presence import LOOK_SECONDS, Presence
from stream.publisher import METADATA_MS, Publisher, Record, rejected_record
from stream.reach import Reach, Repeats
from stream.swaps import Swaps
from stream.switch import Switch
from stream.telemetry import Drift, Scores, note_computed, note_held, note_published
from stream.transactions import is_fenced
from stream.transport import SCHEME, ChunkSchema, Consumer, Delivery, Listener, Options, Resume, Transport
from stream.web.desk import Desk
from stream.web.halting import Halting
from stream.web.pages import Pages

STOP_SECONDS: Final = 20.0  # the longest a stop may take; a broker that answers needs far less
GRACE_SECONDS: Final = 5.0  # and so much longer until it is ended by force
FETCH_SECONDS: Final = 3.0  # an idle partition's fetch is answered every `fetch_max_wait_ms`
SESSION_SECONDS: Final = 10.0  # after so long without a sign of life another worker gets the partitions
HEARTBEAT_SECONDS: Final = 1.0  # with the next one a worker hears that others have come or gone
RECOVERY_SECONDS: Final = 300.0  # the longest that an assignment, snapshots included, may take
# With exactly-once delivery results wait while a transaction ends, some 30 ms of each 100: with so many times the
# chunks on their way the ticks go on meanwhile. Of the drain without snapshots 0.82 and 0.97 was kept with 16 chunks,
# 0.63 and 0.80 with 4 (two runs each in turns, 16 instruments).
DURING_COMMIT: Final = 4
log = logging.getLogger("tapewatch.worker")


class Worker(Listener):
    """Takes chunks from Faust, has them computed, publishes the results and acknowledges."""

    def __init__(
        self, settings: Settings, make_pipeline: MakePipeline, metrics: Metrics, library: Library | None = None
    ) -> None:
        self._settings = settings
        self._make_pipeline = make_pipeline
        self._metrics = metrics
        self._health = Health(settings.worker.stall_seconds)
        self._desk = Desk(settings.web.courses)
        self._lanes: dict[int, Lane] = {}
        self._switch = Switch(self._lanes, metrics)
        halting = Halting(settings, self._switch.in_force, partial(controls.send, settings))
        self._pages = Pages(settings, metrics, self._health, self._desk, self._partitions_in_all, halting)
        self._publisher = Publisher(settings.cluster, f"{settings.worker.group}-results")
        self._exactly_once = settings.worker.delivery == "exactly_once"
        self._swaps = Swaps(settings, library, metrics)
        self._library = library
        self._drift = Drift(self._wanted)
        self._checkpoints = Checkpoints(settings, self._lanes, self._swaps, metrics, self._stop_for)
        self._presence = Presence(settings, self._abandon, self._checkpoints.write_all)
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: TapewatchError | None = None
        self.stopping = asyncio.Event()
        self.app = self._build_app()

    def _build_app(self) -> "WorkerApp":
        app = WorkerApp(self, self._settings)
        ticks = app.topic(self._settings.topics.ticks, schema=ChunkSchema())

        @app.agent(ticks, name="ticks")
        async def compute(stream: faust.StreamT[Any]) -> None:
            async for event in cast(faust.Stream[Any], stream).noack().events():
                await self.take(event)

        @app.timer(1.0, name="progress")
        async def progress() -> None:
            await self.look()

        app.timer(1.0, name="reach")(Reach(self._settings.broker, lambda: self.consumer.connected).look)
        if self._settings.worker.snapshots:  # the embedded broker gives topics no ids
            app.timer(LOOK_SECONDS, name="presence")(self._presence.look)

        return app

    @property
    def consumer(self) -> Consumer:
        """The app's consumer."""
        return cast(Consumer, self.app.consumer)

    async def start(self) -> None:
        """Connect the producer, open the pages, listen to the consumer."""
        self.consumer.listener = self
        if not self._exactly_once:
            await self._publisher.start(topics.streams(self._settings.topics)[1:])
        self._swaps.start()
        url = await self._pages.start()
        log.info("serving board=%s/ metrics=%s/metrics health=%s/health", url, url, url)

    async def stop(self) -> None:
        """Close what `start` opened."""
        await self._pages.stop()
        await self._swaps.stop()
        await self._checkpoints.close()
        await self._publisher.stop()

    def _partitions_in_all(self) -> int | None:
        return self.consumer.partitions_in_all(self._settings.topics.ticks) if self._lanes else None

    async def before_position(self, assigned: set[TP]) -> None:
        """Fence whoever had the partitions."""
        if self._settings.worker.snapshots:
            await self._checkpoints.fence(assigned)

    async def on_position(self, offsets: Mapping[TP, int | None]) -> Mapping[TP, Resume]:
        """After an assignment: a pipeline is kept only if its state ends where reading begins.

        Else it begins with the partition's snapshots, and reading where they end, even if the group's offsets were lost
        or moved.
        """
        fresh = [tp for tp, offset in offsets.items() if self._must_open(tp.partition, offset)]
        # Another rebalance may end this in the middle: a lane that is there has all of its state.
        for tp in fresh:
            self._lanes.pop(tp.partition, None)
        lanes = {tp: self._new_lane(tp.partition, offsets[tp]) for tp in fresh}
        for tp in offsets.keys() - lanes.keys():
            self._lanes[tp.partition].recorded = False  # another may have had the partition, and got no further
        elsewhere: dict[TP, Resume] = {}
        if fresh and self._settings.worker.snapshots:
            try:
                for tp, end in (await self._answered(fresh)).items():
                    lanes[tp].answered_until = end
                elsewhere = await self._checkpoints.recover(lanes, await self._presence.ticks_id())
            except TapewatchError as error:
                self._stop_for(error)
        self._lanes.update({tp.partition: lane for tp, lane in lanes.items()})
        log.info(
            "assigned topic=%s partitions=%s", self._settings.topics.ticks, _listed(tp.partition for tp in offsets)
        )
        return elsewhere

    async def _answered(self, tps: Sequence[TP]) -> Mapping[TP, int]:
        """Where the ticks end that whoever had the partitions before may have answered without committing them."""
        if self._exactly_once:
            return {}  # what is not committed, nobody sees
        try:
            return await self.consumer.highwaters(*tps)
        except KafkaError as error:
            raise WorkerFailed(f"cannot learn where topic {self._settings.topics.ticks} ends: {error!r}") from None

    def _must_open(self, partition: int, offset: int | None) -> bool:
        lane = self._lanes.get(partition)
        return lane is None or not lane.sound or lane.next_offset != offset

    async def commit(self, tps: set[TP], *, everything: bool) -> Mapping[TP, int] | None:
        """A checkpoint of each partition, where there are snapshots."""
        if not self._settings.worker.snapshots:
            return None
        ledgers, committed = self.consumer.ledgers, self.consumer.committed_offsets
        return await self._checkpoints.commit(tps, ledgers, committed, everything=everything)

    def _stop_for(self, error: TapewatchError) -> None:
        self._checkpoints.allowed = False
        if self.failure is None:
            self.failure = error
        self.stopping.set()

    def _abandon(self, error: TapewatchError) -> None:
        """Stop, and wait for nothing that is on its way: it can never arrive."""
        self._stop_for(error)
        self._checkpoints.abandon(error)
        self._publisher.abandon(error)

    def on_assigned(self, assigned: set[TP]) -> None:
        """Drop the pipelines of partitions that other workers have now."""
        partitions = {tp.partition for tp in assigned}
        self._health.assign(partitions)
        for partition in self._lanes.keys() - partitions:
            del self._lanes[partition]
            self._metrics.forget(partition)
            self._desk.close(partition)
        self._swaps.keep(self._lanes.keys())

    def on_commit(self, offsets: Mapping[TP, int]) -> None:
        """Count the commit."""
        self._metrics.committed()

    def _new_lane(self, partition: int, offset: int | None) -> Lane:
        scores = Scores(partition, self._settings.features.session_gap_seconds)
        pipeline = self._make_pipeline(partition)
        self._desk.open(partition, pipeline.instruments)
        shadow = Shadow(self._settings, self._challenger)
        conflation = self._new_conflation(partition, pipeline) if self._settings.worker.conflate_ms else None
        return Lane(pipeline, scores, offset, self._most_in_flight(), shadow, conflation)

    def _most_in_flight(self) -> int:
        """Chunks of a partition that may be on their way to the broker."""
        return self._settings.worker.chunks_in_flight * (DURING_COMMIT if self._exactly_once else 1)

    def _new_conflation(self, partition: int, pipeline: ChunkPipeline) -> Conflation:
        def current(conflation: Conflation) -> bool:
            lane = self._lanes.get(partition)
            is_ours = lane is not None and lane.conflation is conflation and lane.lost is None
            return is_ours and self._checkpoints.allowed

        interval, outlet = self._settings.worker.conflate_ms, partial(self._outlet, partition)
        return Conflation(interval, partition, pipeline, outlet, current, self._metrics)

    def _wanted(self) -> Card | None:
        """Of the forecaster that is in force, or about to be."""
        return None if self._library is None else self._library.newest.cards[0]

    def _challenger(self) -> Challenger | None:
        return None if self._library is None else self._library.challenger

    def _outlet(self, partition: int) -> Publisher:
        """Where the results of a partition go."""
        return self._checkpoints.transactions[partition] if self._exactly_once else self._publisher

    async def take(self, event: faust.EventT[Any]) -> None:
        """Compute one chunk and put its results on their way.

        Nothing is raised: Faust would go on with the next event. What cannot be done stops the worker, and its
        chunk is never acknowledged.
        """
        delivery = cast(Delivery, event.value)
        lane = self._lane(delivery)
        if lane is None:
            self.consumer.give_up(event.message)
            return
        if lane.conflation is not None:
            await lane.conflation.room()
        await lane.slots.acquire()
        await lane.settled(delivery.span.end)
        if self.failure is not None or lane.lost is not None:
            self.consumer.give_up(event.message)
            lane.slots.release()
            return
        flight = None
        try:
            left = self._recompute(lane, delivery)
            if left is None:
                event.ack()
                lane.slots.release()
                await asyncio.sleep(0)
                return
            output = self._compute(lane, left)
            flight = lane.depart()
            held = None if lane.conflation is None else lane.conflation.hold(left, output)
            sent = time.perf_counter()
            futures = await self._publish(delivery.chunk.partition, output)
        except Exception as error:  # noqa: BLE001  whatever it is, the chunk is not done
            self._fail(error, lane, delivery)
            self.consumer.give_up(event.message)
            lane.slots.release()
            if flight is not None:
                flight.set_result(None)
            return
        arrived = asyncio.gather(*futures)
        arrived.add_done_callback(lambda _: lane.slots.release())
        task = asyncio.create_task(self._finish(event, lane, flight, arrived, held, output, sent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)  # lets the producer take the batches before the next chunk occupies the loop
        lane.shadow.note(output.results, output.features, lane.scores.row_of_slot)

    def _lane(self, delivery: Delivery) -> Lane | None:
        """Where a chunk goes on; None if its partition has been taken away."""
        lane = self._lanes.get(delivery.chunk.partition)
        if lane is None:
            return None
        if lane.next_offset is not None and delivery.span.first < lane.next_offset:
            log.warning(
                "rewound partition=%s from=%s to=%s", delivery.chunk.partition, lane.next_offset, delivery.span.first
            )
            group, known = self._settings.worker.group, lane.pipeline.instruments.names
            lane = self._lanes[delivery.chunk.partition] = self._new_lane(delivery.chunk.partition, delivery.span.first)
            lane.obsolete = {snapshots.origin_key(group), halts.key(group)} | {
                snapshots.key(group, *name) for name in known
            }
            self._swaps.begin(lane, delivery.span.first)
        return lane

    def _recompute(self, lane: Lane, delivery: Delivery) -> Delivery | None:
        """Only the state is wanted of ticks that are answered and committed; returns the others of a chunk."""
        again, left = recomputation.cut(delivery, lane.publish_from)
        if again is not None:
            output = lane.pipeline.process(again, _now_ms())
            lane.next_offset = delivery.span.end if left is None else lane.publish_from
            self._metrics.recomputed(len(again.offsets) - len(output.controls))
            _log_errors(output, again.partition)
        return left

    def _compute(self, lane: Lane, delivery: Delivery) -> Output:
        if not self._settings.worker.snapshots:
            self._swaps.change_at_once(lane, delivery.span.first)
        now_ms = _now_ms()
        output = lane.pipeline.process(delivery.chunk, now_ms)
        lane.next_offset = delivery.span.end
        self._swaps.show(delivery.chunk.partition, lane)
        lane.scores.note(output.results)
        self._drift.note(output, lane.pipeline.models[0])
        self._switch.note(delivery.chunk.partition, output.controls)
        _log_errors(output, delivery.chunk.partition)
        note_computed(self._metrics, delivery, output)
        self._desk.note(delivery.chunk.partition, output, now_ms)
        return output

    async def _publish(self, partition: int, output: Output) -> list[asyncio.Future[Any]]:
        outlet = self._outlet(partition)
        futures = [await outlet.send(batch.topic, partition, batch) for batch in output.batches]
        if output.alerts:
            futures += await self._publish_alerts(partition, output.alerts)
        if output.controls:
            told = switch.records(partition, output.controls)
            futures += await outlet.send_records(self._settings.topics.audit, partition, told, _now_ms())
        if output.rejected:
            records = [rejected_record(partition, *each) for each in output.rejected]
            futures += await outlet.send_records(self._settings.topics.rejected, partition, records, _now_ms())
        return futures

    async def _publish_alerts(self, partition: int, alerts: list[Alert]) -> list[asyncio.Future[Any]]:
        write = messages.ENCODERS[self._settings.format]
        records = [Record(alert.symbol.encode(), write(alert)) for alert in alerts]
        outlet = self._outlet(partition)
        return await outlet.send_records(self._settings.topics.alerts, partition, records, _now_ms())

    async def _finish(
        self,
        event: faust.EventT[Any],
        lane: Lane,
        flight: "asyncio.Future[None]",
        arrived: "asyncio.Future[Any]",
        held: "asyncio.Future[None] | None",
        output: Output,
        sent: float,
    ) -> None:
        delivery = cast(Delivery, event.value)
        try:
            await arrived
            if held is not None:
                await asyncio.shield(held)  # others wait for it as well
        except asyncio.CancelledError:
            self.consumer.give_up(event.message)  # the partition's producer was closed: a new assignment
        except (KafkaError, TapewatchError) as error:
            self._fail(error, lane, delivery)
            self.consumer.give_up(event.message)
        else:
            event.ack()
            if held is None:
                note_published(self._metrics, delivery, output, time.perf_counter() - sent)
            else:
                note_held(self._metrics, output)
        finally:
            flight.set_result(None)

    def _fail(self, error: Exception, lane: Lane, delivery: Delivery) -> None:
        """Stop the worker. Only the first failure is told: the others follow from it."""
        if is_fenced(error):
            lane.lose(delivery.chunk.partition)
            return
        lane.failed = True
        if isinstance(error, KafkaError | TapewatchError):
            self._checkpoints.allowed = False
        if self.failure is not None:
            return
        where = f"partition {delivery.chunk.partition}, offsets {delivery.span.first} to {delivery.span.end - 1}"
        if isinstance(error, TapewatchError):
            self.failure = error
        elif isinstance(error, KafkaError):
            self.failure = WorkerFailed(f"the broker did not take the results of {where}: {error!r}; not committed")
        else:
            log.error("cannot compute %s", where, exc_info=error)
            self.failure = WorkerFailed(f"cannot compute {where}: {error!r}; not committed, nothing is lost")
        self.stopping.set()

    async def look(self) -> None:
        """Once a second: how far each partition is, and which instruments have fallen silent."""
        for tp in list(self.consumer.ledgers):
            await self.consumer.find_position(tp)
            self._look_at_progress(tp, time.monotonic())
        self._drift.show(self._metrics)
        challenger = self._challenger()
        self._metrics.challenger("" if challenger is None or challenger.failed else challenger.name)
        self._switch.show()
        for partition, lane in list(self._lanes.items()):
            if lane.lost is not None:
                self._look_at_lost(partition, time.monotonic() - lane.lost)
                continue
            lane.scores.show(self._metrics, lane.pipeline.instruments)
            lane.shadow.show(self._metrics)
            self._metrics.symbols(partition, len(lane.pipeline.instruments))
            if not lane.recomputing:
                await self._publish_stale(partition, lane)

    def _look_at_progress(self, tp: TP, now: float) -> None:
        ledger, committed = self.consumer.ledgers.get(tp), self.consumer.committed_offsets.get(tp)
        unread = self.consumer.unread(tp)
        if ledger is None or unread is None or ledger.position is None or ledger.start is None:
            return
        if self.consumer.silence(tp) > FETCH_SECONDS:
            return  # what the broker said before it fell silent is no news
        lag = unread + ledger.position - (ledger.start if committed is None else committed)
        self._metrics.lag(tp.partition, unread)
        lane = self._lanes.get(tp.partition)
        recomputed = lane.next_offset if lane is not None and lane.recomputing else None
        self._health.update(tp.partition, committed, ledger.position, lag, self._age(tp, now), now, recomputed)

    def _look_at_lost(self, partition: int, seconds: float) -> None:
        """The group takes a lost partition away within a session; if it does not, something else is wrong."""
        if seconds > 2 * SESSION_SECONDS:
            self._stop_for(
                WorkerFailed(
                    f"Kafka refuses what this worker does for partition {partition} since {seconds:.0f} s, and the "
                    f"group {self._settings.worker.group} has not given the partition to another: its transaction was "
                    "open too long, or another program uses its transactional id; nothing is lost, start again"
                )
            )

    async def _publish_stale(self, partition: int, lane: Lane) -> None:
        """No tick answers for these alerts, so nothing waits for their acknowledgement."""
        alerts = lane.pipeline.stale(_now_ms())
        for alert in alerts:
            self._metrics.alert(alert.partition, alert.kind, alert.state)
        self._desk.alerts.note(alerts)
        if alerts and self.failure is None:
            for future in await self._publish_alerts(partition, alerts):
                future.add_done_callback(_log_lost)

    def commit_age(self) -> float:
        """Seconds since the oldest record was read that is not committed; 0 where all are."""
        now = time.monotonic()
        return max((self._age(tp, now) for tp in self.consumer.ledgers), default=0.0)

    def _age(self, tp: TP, now: float) -> float:
        since = self.consumer.oldest_uncommitted(tp)
        return 0.0 if since is None else now - since

    def ready(self) -> None:
        """Everything is loaded: keep it out of the garbage collector's way."""
        gc.collect()
        gc.freeze()
        self._metrics.commit_age_from(self.commit_age)
        log.info("ready group=%s broker=%s", self._settings.worker.group, self._settings.broker)


class WorkerApp(faust.App):
    """Faust with what a worker does not use switched off: monitor, folders, leader, web server."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self._worker = worker
        super().__init__(
            settings.worker.group,
            broker=[f"{SCHEME}://{address}" for address in settings.broker.split(",")],
            broker_client_id=settings.worker.group,
            broker_commit_interval=settings.worker.commit_interval_seconds,
            broker_session_timeout=SESSION_SECONDS,
            broker_heartbeat_interval=HEARTBEAT_SECONDS,
            broker_request_timeout=RECOVERY_SECONDS,
            consumer_max_fetch_size=settings.worker.fetch_max_bytes,
            consumer_auto_offset_reset="earliest",
            consumer_metadata_max_age_ms=METADATA_MS,
            stream_buffer_maxsize=settings.worker.chunks_in_flight,
            stream_wait_empty=True,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        self.finalize()
        transport = cast(Transport, self.transport)
        transport.options = Options(
            ticks=settings.worker.chunk_ticks,
            fetch_max_wait_ms=settings.worker.fetch_max_wait_ms,
            request_timeout_ms=int(2000 * SESSION_SECONDS),
            access=security.python_options(settings.security),
        )
        self.on_partitions_assigned.connect(self._tell_assigned)  # type: ignore[arg-type]  # typed for plain functions

    async def _tell_assigned(self, app: Any, *assignments: Any, **_options: Any) -> None:
        (assigned,) = assignments
        self._worker.on_assigned(assigned)

    def on_rebalance_start(self) -> None:
        """As Faust's, with a state for the sensors that it would miss (there are none) and warn of."""
        super().on_rebalance_start()
        self._rebalancing_sensor_state = {"sensors": None}

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        """As Faust's, less the monitor, whose sensors cost time in the tick path."""
        return self.boot_strategy.server()

    def _create_directories(self) -> None:
        """Nothing: there are no tables, so no folder in the working directory either."""

    async def on_start(self) -> None:
        """Start the worker's own parts before Faust's."""
        await super().on_start()
        await self._worker.start()

    async def on_started(self) -> None:
        """Everything runs and the partitions are assigned."""
        await super().on_started()
        if not self.should_stop:
            self._worker.ready()

    async def on_shutdown(self) -> None:
        """The consumer has left the group: close the worker's own parts."""
        await super().on_shutdown()
        await self._worker.stop()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _log_errors(output: Output, partition: int) -> None:
    for error in output.errors:
        log.error("cannot compute a tick, refused as internal partition=%s", partition, exc_info=error)


def _log_lost(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is not None:
        log.warning("lost feed alert error=%r", future.exception())


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in sorted(numbers))


def suited(settings: Settings) -> Settings:
    """The settings as the broker allows them: the embedded one has no compaction, so there are no snapshots on it.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    ConfigError
        If results are wanted exactly once of the embedded broker.
    """
    if not settings.worker.snapshots or not clients.is_embedded(settings.cluster):
        return settings
    if settings.worker.delivery == "exactly_once":
        raise ConfigError(
            f"setting worker.delivery = 'exactly_once' needs Kafka, and the broker at {settings.broker} is the "
            "embedded one, which keeps no state: leave it at at_least_once there"
        )
    log.info("snapshots=off: the embedded broker has no compacted topics, so state does not survive a restart")
    return msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, snapshots=False))


def check_topics(settings: Settings) -> None:
    """See that the broker answers and has our topics.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    MissingTopic
        If a topic is not there, or has fewer partitions than the ticks: results go to the partition of their tick.
    """
    found = topics.require_topics(settings)
    ticks = found[settings.topics.ticks]
    for name, partitions in found.items():
        if partitions < ticks:
            raise MissingTopic(
                f"topic {name} has {partitions} partitions, {settings.topics.ticks} has {ticks}: results go to the "
                f"partition of their tick, so give {name} at least {ticks}"
            )


async def serve(
    settings: Settings, make_pipeline: MakePipeline, metrics: Metrics, library: Library | None = None
) -> None:
    """Work until SIGTERM or SIGINT, then finish what was begun, commit and leave the group.

    Raises
    ------
    TapewatchError
        If the worker had to stop by itself: ticks that were not answered are not committed.
    """
    worker = Worker(settings, make_pipeline, metrics, library)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stopping.set)
    running = asyncio.create_task(_run_app(worker.app))
    stopping = asyncio.create_task(worker.stopping.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    _bound_the_stop(worker)
    have_the_last_word(loop)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await worker.app.stop()
            await running
    except KafkaError as error:
        reason = f"the Kafka client failed while the worker stopped: {error!r}; what was not committed comes again"
        raise worker.failure or WorkerFailed(reason) from None
    except TimeoutError:
        raise WorkerFailed(
            f"the worker did not stop within {STOP_SECONDS:g} s: what was not committed comes again"
        ) from None
    finally:
        running.cancel()
    if worker.failure is not None:
        raise worker.failure
    log.info("stopped group=%s", settings.worker.group)


def have_the_last_word(loop: asyncio.AbstractEventLoop) -> None:
    """Tell no more of errors of Kafka's client that nobody waits for.

    A producer that is fenced in the middle of a transaction leaves a future behind with that error. asyncio tells of
    it, with a traceback, when the future goes away: behind the line that says why the worker ended.
    """

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), KafkaError):
            loop.default_exception_handler(context)

    loop.set_exception_handler(tell)


def _bound_the_stop(worker: Worker) -> None:
    """End the process if it does not end by itself: asyncio waits for tasks of a client that may never end."""

    def give_up() -> None:
        reason = worker.failure or f"the worker did not stop within {STOP_SECONDS + GRACE_SECONDS:g} s"
        os.write(2, f"tapewatch: {reason}; ended by force, what was not committed comes again\n".encode())
        os._exit(1)

    timer = threading.Timer(STOP_SECONDS + GRACE_SECONDS, give_up)
    timer.daemon = True
    timer.start()


async def _run_app(app: WorkerApp) -> None:
    """Start the app and wait until it stops; raises why it crashed, if it did."""
    try:
        await app.start()
    except KafkaError as error:
        raise WorkerFailed(f"Kafka went away while the worker started, start it again: {error}") from None
    await app.wait_until_stopped()
    if app.crash_reason is not None:
        raise WorkerFailed(f"the Kafka client gave up: {app.crash_reason!r}") from None


def run(settings: Settings) -> None:
    """`tapewatch worker`.

    Raises
    ------
    TapewatchError
        If the broker does not answer, a topic is missing, the models do not fit, or the worker had to stop by
        itself.
    """
    library = Library(Path(settings.worker.models), signatures.trust(settings.models))
    compile_kernels(library.newest, settings)
    metrics = Metrics(settings.worker.watch, settings.worker.watch_limit)
    metrics.models(zip(HEADS, library.newest.names, strict=True))
    log.info("models forecaster=%s critic=%s policy=%s", *library.newest.names)
    work(settings, lambda partition: Pipeline(settings, library.newest, partition), metrics, library)


def work(settings: Settings, make_pipeline: MakePipeline, metrics: Metrics, library: Library | None = None) -> None:
    """A worker with pipelines made by `make_pipeline`, until a signal ends it; raises as `run` does."""
    settings = suited(settings)
    check_topics(settings)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    asyncio.run(serve(settings, make_pipeline, metrics, library))
