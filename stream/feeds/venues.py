"""What the exchanges say and want to hear: addresses, subscriptions, and their messages of trades as our ticks.

The shapes are those of the venues' documentation: Binance `trade` (spot) and `aggTrade` (USD-M futures), Coinbase
Exchange `matches`, Kraken `trade` of version 2. Pure: bytes in, news out.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from stream.messages import Side, Tick

MICROSECONDS_FROM: Final = 10**14  # a time above is in microseconds: in milliseconds it would be the year 5138


class Trades(NamedTuple):
    """Trades that the venue has told of, in their order."""

    ticks: list[Tick]
    history: bool = False  # from before the subscription: a snapshot


class Refusal(NamedTuple):
    """The venue refuses something; where it does not say for which symbol, for all that are asked for."""

    why: str
    symbol: str = ""


News = Trades | Refusal | None
"""None: a heartbeat, an acknowledgement, or what is new since this was written."""


class Venue(NamedTuple):
    """An exchange's public websocket."""

    name: str  # the tick's venue
    address: str
    example: str  # of a symbol
    subscribe: Callable[[Sequence[str]], list[bytes]]
    read: Callable[[bytes], News]  # raises messages.DECODE_ERRORS


_encode: Final = msgspec.json.encode


# Binance. One connection takes few messages a second, so all symbols stand in one; an unknown symbol is never told.


class _BinanceTrade(msgspec.Struct, frozen=True):
    """`trade` and `aggTrade`."""

    e: str
    s: str
    p: str
    q: str
    T: int  # ms, or us where asked for
    m: bool  # the buyer was the maker
    t: int | None = None
    a: int | None = None


class _BinanceError(msgspec.Struct, frozen=True):
    msg: str
    code: int = 0


class _BinanceFrame(msgspec.Struct, frozen=True):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    error: _BinanceError | None = None


class _BinanceKind(msgspec.Struct, frozen=True):
    e: str


_binance_frame: Final = msgspec.json.Decoder(_BinanceFrame).decode
_binance_kind: Final = msgspec.json.Decoder(_BinanceKind).decode
_binance_trade: Final = msgspec.json.Decoder(_BinanceTrade).decode


def _binance_subscribe(channel: str) -> Callable[[Sequence[str]], list[bytes]]:
    def subscribe(symbols: Sequence[str]) -> list[bytes]:
        streams = [f"{symbol.lower()}@{channel}" for symbol in symbols]
        return [_encode({"method": "SUBSCRIBE", "params": streams, "id": 1})]

    return subscribe


def _read_binance(name: str) -> Callable[[bytes], News]:
    def read(frame: bytes) -> News:
        message = _binance_frame(frame)
        if message.error is not None:
            return Refusal(message.error.msg)
        if not bytes(message.data) or _binance_kind(message.data).e not in ("trade", "aggTrade"):
            return None
        trade = _binance_trade(message.data)
        number = trade.t if trade.t is not None else trade.a
        if number is None:
            raise msgspec.ValidationError("Object missing required field `t` or `a`")
        side: Side = "sell" if trade.m else "buy"
        return Trades([_tick(name, trade.s, _binance_ns(trade.T), trade.p, trade.q, side, number)])

    return read


def _binance_ns(time: int) -> int:
    return time * (1_000 if time > MICROSECONDS_FROM else 1_000_000)


# Coinbase Exchange. One product that it does not know spoils a subscription, so each symbol has its own.


class _Match(msgspec.Struct, frozen=True):
    product_id: str
    trade_id: int
    price: str
    size: str
    side: Side  # the maker's
    time: str


class _CoinbaseFrame(msgspec.Struct, frozen=True):
    type: str
    message: str = ""
    reason: str = ""


_coinbase_frame: Final = msgspec.json.Decoder(_CoinbaseFrame).decode
_match: Final = msgspec.json.Decoder(_Match).decode


def _coinbase_subscribe(symbols: Sequence[str]) -> list[bytes]:
    channel = [{"type": "subscribe", "product_ids": [symbol], "channels": ["matches"]} for symbol in symbols]
    return [_encode(each) for each in channel]


def _read_coinbase(frame: bytes) -> News:
    message = _coinbase_frame(frame)
    if message.type == "error":
        # The reason begins with the product, as in "FOO-BAR is not a valid product".
        return Refusal(f"{message.message}: {message.reason}".strip(": "), message.reason.partition(" ")[0])
    if message.type not in ("match", "last_match"):
        return None
    match = _match(frame)
    taker: Side = "sell" if match.side == "buy" else "buy"
    tick = _tick("coinbase", match.product_id, _iso_ns(match.time), match.price, match.size, taker, match.trade_id)
    return Trades([tick], history=message.type == "last_match")


# Kraken, version 2.


class _KrakenTrade(msgspec.Struct, frozen=True):
    symbol: str
    side: Side  # the taker's
    price: float
    qty: float
    trade_id: int
    timestamp: str


class _KrakenFrame(msgspec.Struct, frozen=True):
    channel: str = ""
    type: Literal["snapshot", "update"] | str = ""
    data: msgspec.Raw = msgspec.Raw()
    success: bool = True
    error: str = ""
    symbol: str = ""


_kraken_frame: Final = msgspec.json.Decoder(_KrakenFrame).decode
_kraken_trades: Final = msgspec.json.Decoder(list[_KrakenTrade]).decode


def _kraken_subscribe(symbols: Sequence[str]) -> list[bytes]:
    params = {"channel": "trade", "symbol": list(symbols), "snapshot": True}
    return [_encode({"method": "subscribe", "params": params})]


def _read_kraken(frame: bytes) -> News:
    message = _kraken_frame(frame)
    if not message.success:
        return Refusal(message.error, message.symbol)
    if message.channel != "trade":
        return None
    trades = sorted(_kraken_trades(message.data), key=lambda trade: trade.trade_id)
    ticks = [
        _tick("kraken", each.symbol, _iso_ns(each.timestamp), each.price, each.qty, each.side, each.trade_id)
        for each in trades
    ]
    return Trades(ticks, history=message.type == "snapshot")


def _iso_ns(text: str) -> int:
    """Whole microseconds: datetime drops the digits beyond, of which no venue here has any."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def _tick(venue: str, symbol: str, ns: int, price: Any, size: Any, side: Side, trade_id: int) -> Tick:
    """A tick that satisfies the contract; raises msgspec.ValidationError."""
    fields = {"symbol": symbol, "exchange_ns": ns, "price": price, "size": size, "side": side, "trade_id": trade_id}
    return msgspec.convert({**fields, "venue": venue}, Tick, strict=False)


VENUES: Final = {
    venue.name: venue
    for venue in (
        Venue(
            "binance",
            "wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND",
            "BTCUSDT",
            _binance_subscribe("trade"),
            _read_binance("binance"),
        ),
        Venue(
            "binance-usdm",
            "wss://fstream.binance.com/stream",
            "BTCUSDT",
            _binance_subscribe("aggTrade"),
            _read_binance("binance-usdm"),
        ),
        Venue("coinbase", "wss://ws-feed.exchange.coinbase.com", "BTC-USD", _coinbase_subscribe, _read_coinbase),
        Venue("kraken", "wss://ws.kraken.com/v2", "BTC/USD", _kraken_subscribe, _read_kraken),
    )
}
