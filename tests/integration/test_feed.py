"""A feed of an exchange that repeats, drops, delays, junks and disconnects; the exchange is a fake on loopback."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream.cli import commands
from stream.config import ROOT, Settings
from stream.errors import TapewatchError
from stream.feeds import live
from stream.feeds.live import Complaints, Feed
from stream.feeds.venues import VENUES
from stream.messages import Tick, decode_tick
from stream.metrics import FeedMetrics
from stream.tail import Reader
from tests.exchange import ABORT, CLOSE, FRAMES, FakeExchange, binance, coinbase, kraken

PATIENCE = 60.0


class Sent:
    """What a feed has sent, in its order."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []

    def send(self, key: bytes | None, value: bytes) -> None:
        """Take one."""
        tick = decode_tick(value)
        assert key == tick.symbol.encode()
        self.ticks.append(tick)

    @property
    def ids(self) -> list[int | str | None]:
        return [tick.trade_id for tick in self.ticks]


class Played:
    """A feed of `venue` for `symbols`, run against the acts of a fake exchange until `until` holds."""

    def __init__(self, venue: str, symbols: list[str], *acts: list[str]) -> None:
        self.sent = Sent()
        self.lines: list[str] = []
        self.metrics = FeedMetrics(venue, symbols)
        self.exchange = FakeExchange(*acts)
        self._venue = venue
        self._symbols = symbols
        self.feed: Feed

    def until(self, condition: Callable[["Played"], bool]) -> "Played":
        asyncio.run(self._play(condition))
        return self

    async def _play(self, condition: Callable[["Played"], bool]) -> None:
        async with self.exchange.open():
            self.feed = Feed(
                VENUES[self._venue],
                self._symbols,
                self.sent,
                self.metrics,
                self.lines.append,
                self.exchange.address,
                first_delay_seconds=0.01,
            )
            stop = asyncio.Event()
            await _stopped_when(lambda: self.exchange.played.is_set() and condition(self), stop, self.feed.run(stop))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tapewatch_feed_{name}", labels)


async def _stopped_when(condition: Callable[[], bool], stop: asyncio.Event, running: Awaitable[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        task = asyncio.ensure_future(running)
        while not condition() and not task.done():  # noqa: ASYNC110 - no event tells of what a test waits for
            await asyncio.sleep(0.005)
        stop.set()
        await task


@pytest.mark.parametrize("venue", VENUES)
def test_what_is_repeated_is_dropped_what_is_missing_is_told_and_a_cut_line_mended(venue: str) -> None:
    symbol, frame = FRAMES[venue]
    first = [*(frame(symbol, number) for number in (1, 2, 3, 2, 3, 4)), frame(symbol, 8), ABORT]
    second = [*(frame(symbol, number) for number in (8, 7, 9, 10)), CLOSE]
    third = [frame(symbol, 10), frame(symbol, 11)]
    played = Played(venue, [symbol], first, second, third).until(lambda played: 11 in played.sent.ids)
    assert played.sent.ids == [1, 2, 3, 4, 8, 7, 9, 10, 11]
    assert (played.feed.missing, played.feed.duplicates) == (3, 4)
    assert played.metric("missing_total", symbol=symbol) == 3
    assert played.metric("duplicates_total", symbol=symbol) == 4
    assert played.metric("ticks_total", symbol=symbol) == 9
    assert played.metric("reconnects_total") == 2
    assert len(played.exchange.subscriptions) == 3
    assert f"{venue}: 3 trades of {symbol} are missing (ids 5 to 7)" in played.lines
    assert sum("connecting again" in line for line in played.lines) == 2


@pytest.mark.parametrize("venue", VENUES)
def test_a_trade_is_a_tick_with_the_taker_s_side_and_the_venue_s_time(venue: str) -> None:
    symbol, frame = FRAMES[venue]
    played = Played(venue, [symbol], [frame(symbol, 1)]).until(lambda played: played.sent.ids == [1])
    (tick,) = played.sent.ticks
    ns = {"binance": 1_723_161_257_250_124_000, "binance-usdm": 1_723_161_257_251_000_000}
    expected = ns.get(venue, 1_723_161_257_000_101_000)
    assert tick == Tick(symbol, expected, 61602.02, 0.00536, "sell", 1, venue)


@pytest.mark.parametrize("venue", VENUES)
def test_junk_and_a_changed_field_cost_a_line_and_the_feed_goes_on(venue: str) -> None:
    symbol, frame = FRAMES[venue]
    price = '"p":' if venue.startswith("binance") else '"price":'
    changed = frame(symbol, 2).replace(price, '"cost":')
    negative = frame(symbol, 3).replace("61602.02", "-61602.02")
    junk = ["not json", "\0\x01\x02", "[1,2]", "{}", changed, negative, frame(symbol, 4)[:-5], "null"]
    played = Played(venue, [symbol], [frame(symbol, 1), *junk, frame(symbol, 5)]).until(
        lambda played: 5 in played.sent.ids
    )
    assert played.sent.ids == [1, 5]
    assert played.metric("reconnects_total") == 0
    refused = played.metric("frames_refused_total")
    assert refused is not None
    assert refused >= 6
    assert any("missing required field" in line and "cost" in line for line in played.lines)
    assert all(line.isprintable() for line in played.lines)


def test_a_symbol_that_kraken_does_not_know_is_told_and_the_others_go_on() -> None:
    refused = '{"error":"Currency pair not supported FOO/BAR","method":"subscribe","success":false,"symbol":"FOO/BAR"}'
    acts = [[refused, kraken("BTC/USD", 1), CLOSE], [kraken("BTC/USD", 2)]]
    played = Played("kraken", ["BTC/USD", "FOO/BAR"], *acts).until(lambda played: 2 in played.sent.ids)
    assert played.sent.ids == [1, 2]
    assert any(line.startswith("kraken: no trades of FOO/BAR: Currency pair not supported") for line in played.lines)
    asked = [each["params"]["symbol"] for each in played.exchange.subscriptions]
    assert asked == [["BTC/USD", "FOO/BAR"], ["BTC/USD"]]


def test_a_symbol_that_coinbase_does_not_know_is_told_and_the_others_go_on() -> None:
    refused = '{"type":"error","message":"Failed to subscribe","reason":"FOO-BAR is not a valid product"}'
    played = Played("coinbase", ["BTC-USD", "FOO-BAR"], [refused, coinbase("BTC-USD", 1)])
    played.until(lambda played: 1 in played.sent.ids)
    assert any("coinbase: no trades of FOO-BAR: Failed to subscribe" in line for line in played.lines)


def test_where_no_symbol_is_known_the_feed_ends_with_a_line() -> None:
    refused = '{"type":"error","message":"Failed to subscribe","reason":"FOO-BAR is not a valid product"}'
    with pytest.raises(TapewatchError, match=r"no trades of FOO-BAR.*a symbol there is BTC-USD"):
        Played("coinbase", ["FOO-BAR"], [refused]).until(lambda played: False)


def test_a_refused_subscription_is_tried_again() -> None:
    refused = '{"error":{"code":3,"msg":"Invalid JSON: too many requests"},"id":1}'
    played = Played("binance", ["BTCUSDT"], [refused], ['{"result":null,"id":1}', binance("BTCUSDT", 1)])
    played.until(lambda played: 1 in played.sent.ids)
    assert played.lines == [
        "binance: the subscription was refused: Invalid JSON: too many requests; connecting again in 0.01 s"
    ]


def test_a_first_snapshot_is_no_news_and_a_later_one_fills_the_gap() -> None:
    acts = [
        [kraken("BTC/USD", 3, 1, 2, kind="snapshot"), kraken("BTC/USD", 4), ABORT],
        [kraken("BTC/USD", 6, 5, 4, kind="snapshot"), kraken("BTC/USD", 7)],
    ]
    played = Played("kraken", ["BTC/USD"], *acts).until(lambda played: 7 in played.sent.ids)
    assert played.sent.ids == [4, 5, 6, 7]
    assert played.feed.missing == 0


def test_coinbase_s_last_match_shows_what_was_missed_meanwhile() -> None:
    acts = [
        [coinbase("BTC-USD", 1, "last_match"), coinbase("BTC-USD", 2), ABORT],
        [coinbase("BTC-USD", 5, "last_match"), coinbase("BTC-USD", 6)],
    ]
    played = Played("coinbase", ["BTC-USD"], *acts).until(lambda played: 6 in played.sent.ids)
    assert played.sent.ids == [2, 5, 6]
    assert played.feed.missing == 2


def test_a_trade_that_nobody_asked_for_is_no_tick() -> None:
    played = Played("kraken", ["BTC/USD"], [kraken("ETH/USD", 1), kraken("BTC/USD", 1)])
    played.until(lambda played: bool(played.sent.ids))
    assert [tick.symbol for tick in played.sent.ticks] == ["BTC/USD"]
    assert "kraken: nobody asked for 'ETH/USD'" in played.lines


def test_an_exchange_that_is_not_there_is_tried_with_longer_and_longer_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_DELAY_SECONDS", 0.04)
    lines: list[str] = []
    metrics = FeedMetrics("kraken", ["BTC/USD"])

    async def play() -> None:
        feed = Feed(VENUES["kraken"], ["BTC/USD"], Sent(), metrics, lines.append, "ws://127.0.0.1:9/", 0.01)
        stop = asyncio.Event()
        await _stopped_when(lambda: len(lines) >= 4, stop, feed.run(stop))

    asyncio.run(play())
    assert [line.rpartition(" in ")[2] for line in lines[:4]] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]
    assert all("kraken: no connection to ws://127.0.0.1:9/" in line for line in lines)


def test_a_symbol_of_which_nothing_is_heard_is_named_once() -> None:
    played = Played("binance", ["BTCUSDT", "NOSUCH"], [binance("BTCUSDT", 1)]).until(
        lambda played: bool(played.sent.ids)
    )
    assert played.feed.take_silent() == ["NOSUCH"]
    assert played.feed.take_silent() == []


def test_the_same_complaint_is_not_made_again_at_once() -> None:
    lines: list[str] = []
    clock = iter([0.0, 1.0, 2.0, 50.0])
    complaints = Complaints(lines.append, lambda: next(clock))
    for _ in range(4):
        complaints.make("gap A", "a gap")
    assert lines == ["a gap", "a gap (and 2 more like it)"]


def test_the_command_sends_to_kafka_serves_metrics_and_stops_cleanly(embedded_settings: Settings) -> None:
    acts = [binance("BTCUSDT", number) for number in (1, 2, 2, 3)]
    exchange = FakeExchange(acts)
    names = {"TAPEWATCH_TOPICS__TICKS": embedded_settings.topics.ticks}

    async def play() -> tuple[int, str, str]:
        async with exchange.open():
            command = [sys.executable, "-m", "stream.cli", "feed", "binance", "btcusdt", "--port", "0"]
            options = ["--broker", embedded_settings.broker, "--address", exchange.address]
            process = await asyncio.create_subprocess_exec(
                *command,
                *options,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=ROOT,
                env=os.environ | names | {"PYTHONUNBUFFERED": "1"},
            )
            assert process.stderr is not None
            at = (await process.stderr.readline()).decode().split()[-1]
            await asyncio.to_thread(_scraped, at, 'tapewatch_feed_ticks_total{symbol="BTCUSDT"} 3.0')
            process.send_signal(signal.SIGTERM)
            shown, said = await process.communicate()
            assert process.returncode is not None
            return process.returncode, shown.decode(), said.decode()

    status, shown, said = asyncio.run(play())
    assert status == 0, said
    assert f"stopped: sent 3 ticks to {embedded_settings.topics.ticks}" in shown
    reader = Reader(embedded_settings.cluster, embedded_settings.topics.ticks, from_beginning=True)
    try:
        found = reader.records(threading.Event())
        ticks = [decode_tick(next(found).value) for _ in range(3)]
    finally:
        reader.close()
    assert [tick.trade_id for tick in ticks] == [1, 2, 3]


def _scraped(address: str, line: str) -> None:
    """Wait until the metrics hold a line."""
    while True:
        with urllib.request.urlopen(address, timeout=10) as answer:
            if line in answer.read().decode():
                return


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["nowhere", "BTCUSDT"], "no venue 'nowhere': name one of binance, binance-usdm, coinbase, kraken"),
        (["kraken", "BTC/USD", "--broker", "127.0.0.1:9"], "no Kafka broker answers at 127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], rule: str) -> None:
    shown = CliRunner().invoke(commands, ["feed", *arguments])
    assert isinstance(shown.exception, TapewatchError)
    assert rule in str(shown.exception)


def test_a_port_that_is_taken_is_one_line(embedded_settings: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    import socket

    monkeypatch.setenv("TAPEWATCH_TOPICS__TICKS", embedded_settings.topics.ticks)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        shown = CliRunner().invoke(
            commands, ["feed", "kraken", "BTC/USD", "--broker", embedded_settings.broker, "--port", port]
        )
    assert isinstance(shown.exception, TapewatchError)
    assert f"cannot listen on 127.0.0.1:{port}" in str(shown.exception)
