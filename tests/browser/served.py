"""A board without Kafka: the worker's pages over a desk that is filled by hand, in a thread of their own."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVar

from stream.config import Settings, Web, Worker
from stream.controls import Asked
from stream.health import Health
from stream.messages import Control
from stream.metrics import Metrics
from stream.switch import InForce
from stream.web.desk import Desk
from stream.web.halting import Halting
from stream.web.pages import Pages
from tests.bundles import DQN, GRU, WGAN

T = TypeVar("T")
REFRESH_SECONDS: Final = 0.2
STALL_SECONDS: Final = 1e9
"""Progress is told once, and a slow machine must not look like a worker that stands still."""
MODELS: Final = (("forecaster", GRU), ("critic", WGAN), ("policy", DQN))


class Served:
    """Pages at a free port of 127.0.0.1 while in `with`."""

    def __init__(self, web: Web | None = None, partitions: int = 4) -> None:
        self.web = web or Web(refresh_seconds=REFRESH_SECONDS)
        self.partitions = partitions
        self.desk = Desk(self.web.courses)
        self.health = Health(STALL_SECONDS)
        self.url = ""
        self.halts: list[InForce] = []  # in force, as the board shows them
        self.asked: list[Control] = []  # by the board's switch
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="board", daemon=True)
        self._thaw = threading.Event()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self.url = self.awaited(self._start)
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop listening."""
        self._thaw.set()
        self.awaited(self.pages.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def awaited(self, call: Callable[[], Awaitable[T]]) -> T:
        """What comes of a coroutine in the thread of the pages."""

        async def run() -> T:
            return await call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def do(self, call: Callable[[], T]) -> T:
        """What comes of a call in the thread of the pages: that in which a worker fills its desk."""

        async def run() -> T:
            return call()

        return self.awaited(run)

    def freeze(self) -> None:
        """Let the whole worker stand still: connections stay, and nothing comes."""
        self._thaw.clear()
        self._loop.call_soon_threadsafe(self._thaw.wait)

    def thaw(self) -> None:
        """Let it go on."""
        self._thaw.set()

    def _send(self, control: Control) -> Asked:
        self.asked.append(control)
        return Asked(control, dict.fromkeys(range(self.partitions), 0), {})

    async def _start(self) -> str:
        settings, metrics = Settings(worker=Worker(port=0), web=self.web), Metrics()
        metrics.models(MODELS)
        halting = Halting(settings, lambda: self.halts, self._send)
        self.pages = Pages(settings, metrics, self.health, self.desk, lambda: self.partitions, halting)
        self.health.assign(range(self.partitions))
        for partition in range(self.partitions):
            self.health.update(partition, 0, 0, 0, 0.0, time.monotonic())
        return await self.pages.start()
