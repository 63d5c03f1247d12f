"""A fake exchange on loopback: speaks the venues' messages, as they are documented, and does what they do wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import WSMsgType, web

NS: Final = 1_723_161_257_250_123_000
CLOSE: Final = "<close>"
ABORT: Final = "<abort>"  # no goodbye, as where a line is cut

Frame = Callable[[str, int], str]


def _time(trade_id: int) -> str:
    moment = datetime.fromtimestamp(NS // 1_000 / 1e6, UTC).replace(microsecond=100 + trade_id)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def binance(symbol: str, trade_id: int) -> str:
    """A `trade`, of a buyer who was the maker: the taker sold."""
    trade = {"e": "trade", "E": NS // 1_000, "s": symbol, "t": trade_id, "p": "61602.02000000", "q": "0.00536000"}
    trade |= {"T": NS // 1_000 + trade_id, "m": True, "M": True}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": trade})


def binance_usdm(symbol: str, trade_id: int) -> str:
    """An `aggTrade`, in milliseconds."""
    trade = {"e": "aggTrade", "E": NS // 1_000_000, "s": symbol, "a": trade_id, "p": "61602.02", "q": "0.00536"}
    trade |= {"f": 100 + trade_id, "l": 105 + trade_id, "T": NS // 1_000_000 + trade_id, "m": True}
    return json.dumps({"stream": f"{symbol.lower()}@aggTrade", "data": trade})


def coinbase(symbol: str, trade_id: int, kind: str = "match") -> str:
    """A `match` with a buyer as maker: the taker sold."""
    ids = {"maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8", "sequence": 50 + trade_id}
    ids |= {"taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1", "trade_id": trade_id}
    what = {"product_id": symbol, "price": "61602.02", "size": "0.00536", "side": "buy", "time": _time(trade_id)}
    return json.dumps({"type": kind, **ids, **what})


def kraken(symbol: str, *trade_ids: int, kind: str = "update") -> str:
    """A message of `trade`, version 2, of takers who sold."""
    common = {"symbol": symbol, "side": "sell", "price": 61602.02, "qty": 0.00536, "ord_type": "market"}
    data = [{**common, "trade_id": trade_id, "timestamp": _time(trade_id)} for trade_id in trade_ids]
    return json.dumps({"channel": "trade", "type": kind, "data": data})


FRAMES: Final[dict[str, tuple[str, Frame]]] = {
    "binance": ("BTCUSDT", binance),
    "binance-usdm": ("BTCUSDT", binance_usdm),
    "coinbase": ("BTC-USD", coinbase),
    "kraken": ("BTC/USD", kraken),
}


class FakeExchange:
    """Plays an act for each connection, once it has heard a subscription; after the last it is silent."""

    def __init__(self, *acts: Sequence[str]) -> None:
        self._acts = list(acts)
        self.subscriptions: list[Any] = []
        self.address = ""
        self.played = asyncio.Event()  # all acts are over

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["FakeExchange"]:
        """Listen on a free port meanwhile."""
        app = web.Application()
        app.router.add_get("/", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        message = await socket.receive()
        if message.type is not WSMsgType.TEXT:
            return socket
        self.subscriptions.append(json.loads(message.data))
        act = self._acts.pop(0) if self._acts else []
        for frame in act:
            if frame == CLOSE:
                await socket.close()
            elif frame == ABORT:
                assert request.transport is not None
                await asyncio.sleep(0)  # what was written leaves first
                request.transport.close()
            elif frame.startswith("\0"):
                await socket.send_bytes(frame.encode())
            else:
                await socket.send_str(frame)
        if not self._acts:
            self.played.set()
        async for _ in socket:
            pass
        return socket
