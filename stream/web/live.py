"""The board's news, as server-sent events: one snapshot a tick of a clock, encoded once for all viewers.

A viewer may also follow one instrument. One that does not take its news in time is dropped, never buffered for, and
beyond a number of viewers the next one is told so.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from aiohttp import web

from stream.web.desk import Course, Desk, Snapshot

SLOW_SECONDS: Final = 5.0
"""A viewer whose connection takes nothing for so long is dropped."""
KEPT_MS: Final = 2_000
"""After a drop the browser tries again after so long, unless the page is quicker."""
HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Key = tuple[str, str]
"""Symbol and venue."""
_encode = msgspec.json.Encoder().encode


class Beat:
    """The news of one tick of the clock."""

    def __init__(self, number: int, common: bytes, courses: dict[Key, bytes]) -> None:
        self.number = number
        self._common = common
        self._courses = courses

    def news(self, key: Key | None) -> bytes:
        """For a viewer that follows the instrument `key`, if any."""
        return self._common + (self._courses.get(key, b"") if key else b"")


class Live:
    """Viewers, and the clock that they share.

    Parameters
    ----------
    desk
        What there is to see.
    snapshot
        Makes the part of it that is the same for all.
    refresh_seconds
        Between two ticks of the clock.
    most_viewers
        At one time.
    """

    def __init__(self, desk: Desk, snapshot: Callable[[], Snapshot], refresh_seconds: float, most_viewers: int) -> None:
        self._desk = desk
        self._snapshot = snapshot
        self._refresh_seconds = refresh_seconds
        self._most_viewers = most_viewers
        self._followed: Counter[Key | None] = Counter()
        self._beat = Beat(0, b"", {})
        self._next: asyncio.Future[Beat] | None = None
        self._clock: asyncio.Task[None] | None = None
        self._last_second: dict[Key, int] = {}
        self._alerts_told = -1
        self._all: tuple[int, bytes] = (-1, b"")  # snapshot and alerts for newcomers, of the beat of that number
        self._whole: dict[Key, bytes] = {}  # courses for newcomers, of this beat
        self.dropped = 0

    @property
    def viewers(self) -> int:
        """How many there are."""
        return self._followed.total()

    @property
    def beats(self) -> int:
        """Ticks of the clock at which there was somebody to tell."""
        return self._beat.number

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """GET /live[?symbol=S&venue=V]: news until the viewer leaves."""
        if self._next is None or self.viewers >= self._most_viewers:
            return web.Response(
                status=503, text=f"the board has its {self._most_viewers} viewers (web.viewers); try later\n"
            )
        symbol = request.query.get("symbol")
        key = (symbol, request.query.get("venue", "")) if symbol else None
        self._followed[key] += 1
        try:
            return await self._tell(request, key)
        finally:
            self._followed[key] -= 1

    async def tick(self) -> Beat:
        """Wait for the clock's next tick; CancelledError if it stops."""
        if self._next is None:
            raise asyncio.CancelledError
        return await asyncio.shield(self._next)

    def start(self) -> None:
        """Let the clock run."""
        self._next = asyncio.get_running_loop().create_future()
        self._clock = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send all viewers away."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._next is not None:
            self._next.cancel()
            self._next = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            told, self._next = self._next, asyncio.get_running_loop().create_future()
            if self.viewers:
                self._beat = self._make_beat()
            if told is not None and not told.done():
                told.set_result(self._beat)

    async def _tell(self, request: web.Request, key: Key | None) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            seen, news = self._beat.number, self._everything(key)
            while await self._taken(request, response, news) and self._next is not None:
                beat = await self.tick()
                # One that was too slow for the last beat has missed points of its course.
                news = beat.news(key) if beat.number == seen + 1 else self._everything(key)
                seen = beat.number
        except asyncio.CancelledError:
            if self._next is not None:
                raise  # the viewer has left
        return response

    async def _taken(self, request: web.Request, response: web.StreamResponse, news: bytes) -> bool:
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await response.write(news)
        except TimeoutError:
            self.dropped += 1
            if request.transport is not None:
                request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True

    def _make_beat(self) -> Beat:
        common = [_event("snapshot", self._snapshot())]
        if self._alerts_told != self._desk.alerts.revision:
            self._alerts_told = self._desk.alerts.revision
            common.append(self._alerts())
        self._whole.clear()
        followed = [key for key, count in self._followed.items() if key is not None and count > 0]
        courses = {key: _event("course", self._newest_of(key)) for key in followed}
        self._last_second = {key: self._last_second[key] for key in followed if key in self._last_second}
        self._followed = +self._followed
        return Beat(self._beat.number + 1, b"".join(common), courses)

    def _newest_of(self, key: Key) -> Course:
        """What has come since the last beat; all of it where there was none, or the venue's clock was set back."""
        since = self._last_second.get(key, 0)
        course = self._desk.course(*key, since)
        if since and not course.second:
            course = self._desk.course(*key)
        if course.second:
            self._last_second[key] = course.second[-1]
        return course

    def _everything(self, key: Key | None) -> bytes:
        """For a viewer that has nothing yet; made once a beat, for many may come at once."""
        if self._all[0] != self._beat.number:
            retry = b"retry: %d\n\n" % KEPT_MS
            self._all = self._beat.number, retry + _event("snapshot", self._snapshot()) + self._alerts()
            self._whole.clear()
        if key is None:
            return self._all[1]
        if key not in self._whole:
            self._whole[key] = _event("course", self._desk.course(*key))
        return self._all[1] + self._whole[key]

    def _alerts(self) -> bytes:
        return _event("alerts", self._desk.alerts.newest())


def _event(name: str, content: msgspec.Struct | Iterable[msgspec.Struct]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(content))
