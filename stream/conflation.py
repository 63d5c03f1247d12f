"""When the results that conflation holds back are published: for each lane at most once an interval of the clock.

A chunk is done when the moment that publishes its results is acknowledged; until then nothing of it is committed. So
whatever is lost with a worker comes again. Where results and offset are one transaction, the checkpoint waits for the
moment and takes its place (`come`): what it commits has no result that is still held.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

from aiokafka.errors import KafkaError

from stream.core.conflation import Chosen, Newest, next_moment
from stream.encoding import PackedBatch
from stream.errors import TapewatchError, WorkerFailed
from stream.metrics import Metrics
from stream.pipeline import Output
from stream.telemetry import note_newest
from stream.transport import Delivery

MOST_TICKS: Final = 500_000  # of a lane wait for a moment, and as many for its acknowledgement: some 125 MB each


class Outlet(Protocol):
    """Where results go."""

    async def send(self, topic: str, partition: int, batch: Any) -> "asyncio.Future[Any]":
        """Queue a batch; the future is done when it is acknowledged."""


class Encoder(Protocol):
    """What makes batches of what was chosen; `pipeline.Pipeline` does."""

    def encode_newest(self, chosen: Iterable[Chosen], timestamp_ms: int) -> list[PackedBatch]:
        """As record batches of the three topics."""


class Held:
    """What waits for one moment."""

    def __init__(self, due_ms: int) -> None:
        self.due_ms = due_ms
        self.timer: asyncio.TimerHandle
        self.published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.published.add_done_callback(_look_at)
        self.deliveries: list[Delivery] = []
        self.ticks = 0


class Conflation:
    """Of one lane.

    Parameters
    ----------
    interval_ms
        `worker.conflate_ms`.
    outlet
        Where the results of the partition go now.
    current
        Whether the lane is still the partition's: of one that is not, nothing is published.
    clock
        ms since the Unix epoch.
    """

    def __init__(
        self,
        interval_ms: int,
        partition: int,
        encoder: Encoder,
        outlet: Callable[[], Outlet],
        current: Callable[["Conflation"], bool],
        metrics: Metrics,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._interval_ms = interval_ms
        self._partition = partition
        self._encoder = encoder
        self._outlet = outlet
        self._current = current
        self._metrics = metrics
        self._clock = clock
        self._newest = Newest()
        self._held: Held | None = None
        self._last_ms: int | None = None
        self._sending = asyncio.Lock()  # one moment at a time is on its way: a slow broker makes for fewer
        self._tasks: set[asyncio.Task[None]] = set()

    async def room(self) -> None:
        """Wait while so much is held that memory would grow: the broker takes nothing."""
        while self._held is not None and self._held.ticks >= MOST_TICKS:
            await asyncio.wait({self._held.published})

    def hold(self, delivery: Delivery, output: Output) -> "asyncio.Future[None] | None":
        """Keep the newest results of a chunk; the future is done when they, or newer ones, are acknowledged."""
        if not len(output.results.slot):
            return None
        for models, results in output.answered:
            self._newest.add(models, results)
        if self._held is None:
            self._held = self._arm()
        self._held.deliveries.append(delivery)
        self._held.ticks += len(delivery.chunk.offsets)
        return self._held.published

    def _arm(self) -> Held:
        now_ms = self._clock()
        self._last_ms = next_moment(now_ms, self._interval_ms, self._last_ms)
        held, loop = Held(self._last_ms), asyncio.get_running_loop()
        held.timer = loop.call_later((self._last_ms - now_ms) / 1000, self._begin, held)
        return held

    def _begin(self, held: Held) -> None:
        self._run(self._publish(held))

    async def come(self) -> None:
        """Wait for the moment of what is held, if anything is, and send it.

        When this returns nothing is held: between the sending and the caller the loop has no turn.
        """
        loop = asyncio.get_running_loop()
        while (held := self._held) is not None:
            held.timer.cancel()
            try:
                await asyncio.sleep(held.timer.when() - loop.time())
                await self._publish(held)
            except asyncio.CancelledError:
                held.timer = loop.call_at(held.timer.when(), self._begin, held)
                raise

    async def _publish(self, held: Held) -> None:
        await self._sending.acquire()  # until it is acknowledged
        if self._held is not held:
            self._sending.release()
            return
        self._held = None
        chosen, at = self._newest.take(), time.perf_counter()
        futures = await self._sent(chosen, max(held.due_ms, self._clock()))
        self._run(self._acknowledged(held, chosen, futures, at))

    async def _sent(self, chosen: Sequence[Chosen], timestamp_ms: int) -> Sequence["asyncio.Future[Any]"]:
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._current(self):
            failed.cancel()
            return [failed]
        try:
            batches, outlet = self._encoder.encode_newest(chosen, timestamp_ms), self._outlet()
            return [await outlet.send(batch.topic, self._partition, batch) for batch in batches]
        except Exception as error:  # noqa: BLE001  whatever it is, the chunks that wait are not done
            failed.set_exception(error)
            return [failed]

    async def _acknowledged(
        self, held: Held, chosen: Sequence[Chosen], futures: Sequence["asyncio.Future[Any]"], at: float
    ) -> None:
        try:
            await asyncio.gather(*futures)
        except asyncio.CancelledError:
            held.published.cancel()
        except (KafkaError, TapewatchError) as error:
            held.published.set_exception(error)
        except Exception as error:  # noqa: BLE001  told by the chunks that wait
            held.published.set_exception(WorkerFailed(f"cannot publish what was held of a partition: {error!r}"))
        else:
            note_newest(self._metrics, held.deliveries, chosen, time.perf_counter() - at)
            held.published.set_result(None)
        finally:
            self._sending.release()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _look_at(future: "asyncio.Future[None]") -> None:
    """Who waits is told too; where nobody does any more, the log need not say so."""
    if not future.cancelled():
        future.exception()
