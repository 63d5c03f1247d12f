"""`tapewatch feed`: an exchange's trades put on Kafka as they come.

What an exchange does wrong costs a line and a count, never the feed: it connects again with back-off, drops what is
repeated, tells of trades that are missing by their ids, and goes on with the other symbols where one is unknown.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import aiohttp
import click
from prometheus_client import start_http_server

from stream import messages, topics
from stream.config import Settings
from stream.errors import ConfigError, TapewatchError
from stream.feeds.replay import KafkaSink, Sink
from stream.feeds.sequence import Sequence as Ids
from stream.feeds.venues import VENUES, Refusal, Trades, Venue
from stream.messages import DECODE_ERRORS, Tick
from stream.metrics import FeedMetrics
from stream.signals import STOP_SIGNALS
from stream.suggestions import did_you_mean
from stream.tail import safe_bytes

FIRST_DELAY_SECONDS: Final = 1.0
MOST_DELAY_SECONDS: Final = 60.0
HEARTBEAT_SECONDS: Final = 15.0  # a ping without its pong ends a connection that is dead and does not say so
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
MOST_FRAME_BYTES: Final = 4 * 1_048_576
FRAME_LENGTH: Final = 300  # bytes of a frame that a line shows
LINE_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 60.0
REPEAT_SECONDS: Final = 30.0  # the same complaint is not made more often


class _SubscriptionRefused(Exception):
    """The venue refuses all that was asked for."""


class Complaints:
    """Lines for people; one about the same matter at most every REPEAT_SECONDS, with how often it was meanwhile."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def make(self, matter: str, text: str) -> None:
        """Say `text`, unless something about `matter` was said a moment ago."""
        now = self._now()
        if matter in self._last and now - self._last[matter] < REPEAT_SECONDS:
            self._held[matter] = self._held.get(matter, 0) + 1
            return
        held = self._held.pop(matter, 0)
        self._last[matter] = now
        self._say(text + (f" (and {held:,} more like it)" if held else ""))


class Feed:
    """The trades of some symbols of one venue, handed to a sink until stopped."""

    def __init__(
        self,
        venue: Venue,
        symbols: Sequence[str],
        sink: Sink,
        metrics: FeedMetrics,
        say: Callable[[str], None],
        address: str | None = None,
        first_delay_seconds: float = FIRST_DELAY_SECONDS,
        form: messages.Format = "json",
    ) -> None:
        """Nothing is connected yet; `address` in place of the venue's own."""
        self._venue = venue
        self._ids = {symbol: Ids() for symbol in symbols}
        self._refused: set[str] = set()
        self._silent = set(symbols)
        self._sink = sink
        self._write = messages.ENCODERS[form]
        self._metrics = metrics
        self._say = say
        self._complaints = Complaints(say)
        self._address = address or venue.address
        self._first_delay = first_delay_seconds
        self.connected = False
        self.ticks = 0
        self.missing = 0
        self.duplicates = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until stopped.

        Raises
        ------
        TapewatchError
            If the venue knows none of the symbols.
        BrokerUnreachable
            If the sink cannot take more.
        """
        delay = self._first_delay
        async with aiohttp.ClientSession() as session:
            while not stop.is_set():
                before = self.ticks
                why = await self._connection(session, stop)
                if stop.is_set():
                    return
                delay = self._first_delay if self.ticks > before else delay
                self._metrics.reconnects.inc()
                self._say(f"{self._venue.name}: {why}; connecting again in {delay:.2g} s")
                # Not all at once, where a venue has dropped many.
                await _wait(stop, delay * random.uniform(0.8, 1.2))
                delay = min(2.0 * delay, MOST_DELAY_SECONDS)

    async def _connection(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> str:
        """Listen until the connection ends; gives why it did."""
        timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await session.ws_connect(
                    self._address, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MOST_FRAME_BYTES, timeout=timeout
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"no connection to {self._address} ({str(error) or type(error).__name__})"
        closing = asyncio.create_task(self._close_when(stop, socket))
        self._show_connected(True)
        try:
            for message in self._venue.subscribe([symbol for symbol in self._ids if symbol not in self._refused]):
                await socket.send_str(message.decode())
            async for received in socket:
                self._take(received.data if isinstance(received.data, bytes) else str(received.data).encode())
            ended = socket.exception()
            return f"the connection ended ({ended or f'code {socket.close_code}'})"
        except _SubscriptionRefused as error:
            return f"the subscription was refused: {error}"
        except (aiohttp.ClientError, OSError) as error:
            return f"the connection broke ({str(error) or type(error).__name__})"
        finally:
            self._show_connected(False)
            closing.cancel()
            await socket.close()

    async def _close_when(self, stop: asyncio.Event, socket: aiohttp.ClientWebSocketResponse) -> None:
        await stop.wait()
        await socket.close()

    def _show_connected(self, connected: bool) -> None:
        self.connected = connected
        self._metrics.connected.set(connected)

    def _take(self, frame: bytes) -> None:
        """One frame of the venue's."""
        try:
            news = self._venue.read(frame)
        except DECODE_ERRORS as error:
            self._metrics.frames_refused.inc()
            self._complaints.make(
                f"frame {error}", f"{self._venue.name}: not understood ({error}): {safe_bytes(frame, FRAME_LENGTH)}"
            )
            return
        if isinstance(news, Refusal):
            self._refuse(news)
        elif news is not None:
            self._take_trades(news)

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.symbol not in self._ids:
            raise _SubscriptionRefused(refusal.why)
        self._refused.add(refusal.symbol)
        self._silent.discard(refusal.symbol)
        text = (
            f"{self._venue.name}: no trades of {refusal.symbol}: {refusal.why}; a symbol there is {self._venue.example}"
        )
        if len(self._refused) == len(self._ids):
            raise TapewatchError(text)
        self._say(text)

    def _take_trades(self, news: Trades) -> None:
        received = time.time()
        # What was before the first subscription is not news; when connecting again it may hold what was missed.
        only_noted = news.history and not any(self._begun(tick.symbol) for tick in news.ticks)
        for tick in news.ticks:
            ids = self._ids.get(tick.symbol)
            if ids is None:
                self._metrics.frames_refused.inc()
                self._complaints.make(f"symbol {tick.symbol}", f"{self._venue.name}: nobody asked for {tick.symbol!a}")
            elif only_noted:
                ids.note(int(tick.trade_id or 0))
            else:
                self._take_trade(tick, ids, received)

    def _begun(self, symbol: str) -> bool:
        return symbol in self._ids and self._ids[symbol].begun

    def _take_trade(self, tick: Tick, ids: Ids, received: float) -> None:
        verdict = ids.note(int(tick.trade_id or 0))
        if not verdict.fresh:
            self.duplicates += 1
            self._metrics.duplicates.labels(tick.symbol).inc()
            return
        if verdict.missing:
            self._miss(tick.symbol, verdict.missing)
        self._silent.discard(tick.symbol)
        self._sink.send(tick.symbol.encode(), self._write(tick))
        self.ticks += 1
        self._metrics.sent(tick.symbol, received - tick.exchange_ns / 1e9)

    def _miss(self, symbol: str, ids: range) -> None:
        self.missing += len(ids)
        self._metrics.missing.labels(symbol).inc(len(ids))
        which = f"id {ids[0]}" if len(ids) == 1 else f"ids {ids[0]} to {ids[-1]}"
        self._complaints.make(
            f"gap {symbol}", f"{self._venue.name}: {len(ids):,} trades of {symbol} are missing ({which})"
        )

    def take_silent(self) -> list[str]:
        """Symbols of which no trade has come since they were asked for; each is named once."""
        silent = sorted(self._silent)
        self._silent.clear()
        return silent

    def describe(self, seconds: float) -> str:
        """Progress in a line."""
        state = "connected" if self.connected else "NOT connected"
        return (
            f"{self._venue.name}: {state}, {self.ticks:,} ticks, {self.ticks / max(seconds, 1e-9):,.1f} a second, "
            f"{self.missing:,} missing, {self.duplicates:,} repeated"
        )


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Until stopped, at most so long."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def run(
    name: str,
    symbols: Sequence[str],
    settings: Settings,
    address: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> None:
    """`tapewatch feed`: until SIGINT or SIGTERM.

    Raises
    ------
    ConfigError
        If the venue is none of ours, or the port of /metrics cannot be had.
    BrokerUnreachable, MissingTopic
        If there is nowhere to send to.
    TapewatchError
        If the venue knows none of the symbols, or ticks could not be delivered.
    """
    if name not in VENUES:
        raise ConfigError(f"no venue {name!r}: {did_you_mean(name, VENUES)}name one of {', '.join(VENUES)}")
    topics.partitions_of(settings.cluster, [settings.topics.ticks])
    wanted = list(dict.fromkeys(symbol.upper() for symbol in symbols))
    metrics = FeedMetrics(name, wanted)
    with served(metrics, host, port) as address_of_metrics:
        if address_of_metrics:
            _say(f"metrics at {address_of_metrics}")
        sink = KafkaSink(settings.cluster, settings.topics.ticks)
        feed = Feed(VENUES[name], wanted, sink, metrics, _say, address, form=settings.format)
        try:
            asyncio.run(_until_stopped(feed, sink))
        finally:
            sink.close()
    click.echo(f"stopped: sent {feed.ticks:,} ticks to {settings.topics.ticks} at {settings.broker}")
    _check(sink)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _check(sink: KafkaSink) -> None:
    if sink.failed:
        raise TapewatchError(f"{sink.failed:,} ticks were not delivered: {sink.first_error}")


@contextlib.contextmanager
def served(metrics: FeedMetrics, host: str, port: int | None) -> Iterator[str]:
    """Serve /metrics meanwhile, where a port is given, at the address yielded; ConfigError if it cannot be had."""
    if port is None:
        yield ""
        return
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from None
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _until_stopped(feed: Feed, sink: KafkaSink) -> None:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, _stop_once, stop, number)
    async with asyncio.TaskGroup() as group:
        report = group.create_task(_report(feed, sink, stop))
        try:
            await feed.run(stop)
        finally:
            report.cancel()


def _stop_once(stop: asyncio.Event, number: signal.Signals) -> None:
    """The second signal ends the process at once, as usual."""
    stop.set()
    asyncio.get_running_loop().remove_signal_handler(number)


async def _report(feed: Feed, sink: KafkaSink, stop: asyncio.Event) -> None:
    began = time.monotonic()
    while not stop.is_set():
        await _wait(stop, LINE_SECONDS)
        seconds = time.monotonic() - began
        _say(feed.describe(seconds))
        _check(sink)
        if seconds >= SILENT_SECONDS and feed.connected:
            for symbol in feed.take_silent():
                _say(f"no trade of {symbol} in {SILENT_SECONDS:g} s: does the venue have it?")
