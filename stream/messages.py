"""The wire contract: one frozen struct a topic, JSON or MessagePack, keyed by symbol.

Decoding is validation: what a decoder of this module lets through satisfies every bound written here. New fields
go last, with a default, so that old and new processes can share a topic. Results carry the partition and offset
of the tick they answer and no clock of ours, so the same ticks always give the same bytes; where results are conflated
(`core.conflation`) that holds for all but their last field, `ticks`.

`stream/encoding.py` writes the three result structs with a compiled encoder; tests decode its bytes with the
structs of this module.
"""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

HORIZONS: Final = (10, 60)
"""Forecast horizons, seconds of event time."""

QUANTILE_LEVELS: Final = (0.01, 0.05, 0.50, 0.95, 0.99)
"""Levels of the forecast quantiles, in the order in which `Horizon.quantiles` holds them."""

MIN_EXCHANGE_NS: Final = 946_684_800_000_000_000  # 2000-01-01: earlier means seconds, ms or us were sent
MAX_EXCHANGE_NS: Final = 4_102_444_800_000_000_000  # 2100-01-01
MAX_SYMBOL_LENGTH: Final = 64

# Bounds wide enough for 1e-10 BTC altcoins and for 1e9 units of account, narrow enough that squares and ratios of
# them stay finite in float32.
Price = Annotated[float, Meta(ge=1e-12, le=1e12, description="quote currency per base unit")]
Size = Annotated[float, Meta(ge=1e-12, le=1e15, description="base units, shares or contracts")]
ExchangeNs = Annotated[
    int,
    Meta(ge=MIN_EXCHANGE_NS, le=MAX_EXCHANGE_NS, description="venue clock, ns since the Unix epoch, UTC"),
]
# Printable is checked when an instrument is first seen (pipeline.Instruments): a pattern here would cost more
# than the rest of the decoding.
Symbol = Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_LENGTH, description="1 to 64 printable characters")]
Venue = Annotated[str, Meta(max_length=MAX_SYMBOL_LENGTH, description="up to 64 printable characters; may be empty")]
TradeId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(min_length=1, max_length=64)]
Partition = Annotated[int, Meta(ge=0, description="partition of the tick this answers")]
Offset = Annotated[int, Meta(ge=0, description="offset of the tick this answers")]
Warming = Annotated[bool, Meta(description="the instrument has too little history: read the numbers as untested")]
Model = Annotated[str, Meta(description="name@version")]
Ticks = Annotated[
    int,
    Meta(
        ge=1,
        description="accepted ticks of the instrument that this stands for, from the one behind its last result to its "
        "own; absent: 1. Only where results are conflated (worker.conflate_ms)",
    ),
]
LogReturn = Annotated[float, Meta(description="log return")]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
Score = Annotated[float, Meta(ge=0.0, le=100.0)]

Side = Literal["buy", "sell"]
Level = Literal["normal", "elevated", "high", "critical"]
ActionName = Literal["short", "flat", "long"]
Gate = Literal["warming", "level", "es_limit", "halted"]
AlertKind = Literal["volatility", "price_jump", "anomaly", "pump", "flow", "liquidity", "feed"]
Severity = Literal["info", "warning", "critical"]
AlertState = Literal["opened", "updated", "closed"]
Reason = Literal[
    "json",
    "schema",
    "range",
    "symbol",
    "key",
    "too_many_symbols",
    "duplicate",
    "band",
    "too_large",
    "internal",
    "msgpack",
    "control",
]
ControlName = Literal["halt", "resume"]
AuditEvent = Literal["asked", "taken"]

LEVELS: Final[tuple[Level, ...]] = ("normal", "elevated", "high", "critical")
ACTIONS: Final[tuple[ActionName, ...]] = ("short", "flat", "long")
GATES: Final[tuple[Gate | None, ...]] = (None, "warming", "level", "es_limit", "halted")
ALERT_KINDS: Final[tuple[AlertKind, ...]] = ("volatility", "price_jump", "anomaly", "pump", "flow", "liquidity", "feed")
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")

CONTROL_KEY: Final = b"\0control"
"""Key of a control on topic `ticks`. No symbol has it, for it cannot be printed."""
ControlId = Annotated[str, Meta(min_length=1, max_length=64, description="the same in every partition")]
ControlScope = Annotated[Symbol | None, Meta(description="at every venue; null: all symbols")]
ControlTime = Annotated[ExchangeNs, Meta(description="clock of who asked, ns since the Unix epoch, UTC")]
ControlBy = Annotated[str, Meta(min_length=1, max_length=128, description="who asked, as they say")]
ControlReason = Annotated[str, Meta(min_length=1, max_length=500, description="why")]


class Tick(msgspec.Struct, frozen=True, gc=False):
    """One print on topic `ticks`, keyed by its symbol. Unknown fields are ignored."""

    symbol: Symbol
    exchange_ns: ExchangeNs
    price: Price
    size: Size
    side: Annotated[Side | None, Meta(description="the taker's; absent: inferred by the tick rule")] = None
    trade_id: TradeId | None = None
    venue: Venue = ""
    account: str | None = None


class Horizon(msgspec.Struct, frozen=True):
    """The forecast distribution of the log return over the next `horizon_seconds` of event time."""

    horizon_seconds: int
    expected_return: LogReturn
    volatility: Annotated[
        float, Meta(ge=0.0, description="realised, log return: root of the summed squared 1 s returns")
    ]
    probability_up: Unit
    quantiles: Annotated[
        list[float],
        Meta(min_length=5, max_length=5, description="log return at probability 0.01, 0.05, 0.50, 0.95, 0.99"),
    ]


class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record on topic `predictions` for each accepted tick."""

    symbol: Symbol
    venue: Venue
    partition: Partition
    offset: Offset
    exchange_ns: ExchangeNs
    warming: Warming
    horizons: list[Horizon]
    model: Model  # name@version of the forecaster
    ticks: Ticks = 1


class Risk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record on topic `risk` for each accepted tick. Positive VaR and ES are losses of a long position."""

    symbol: Symbol
    venue: Venue
    partition: Partition
    offset: Offset
    exchange_ns: ExchangeNs
    warming: Warming
    anomaly: Annotated[
        float, Meta(ge=0.0, le=1.0, description="calibrated: 0.99 is exceeded by 1 % of the instrument's own ticks")
    ]
    var_99: Annotated[float, Meta(ge=0.0, description="VaR 99 % of one unit of notional over 60 s")]
    es_975: Annotated[float, Meta(ge=0.0, description="ES 97.5 % of one unit of notional over 60 s")]
    volatility_ratio: Annotated[
        float, Meta(ge=0.0, description="forecast volatility over the instrument's own long-run volatility")
    ]
    flow: Annotated[
        float,
        Meta(ge=0.0, le=1.0, description="one-sidedness of the order flow, weighted by how unusual its volume is"),
    ]
    liquidity: Annotated[
        float, Meta(ge=0.0, le=1.0, description="price impact and spread against the instrument's normal")
    ]
    score: Score
    level: Level
    model: Model  # name@version of the critic
    ticks: Ticks = 1


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record on topic `actions` for each accepted tick."""

    symbol: Symbol
    venue: Venue
    partition: Partition
    offset: Offset
    exchange_ns: ExchangeNs
    warming: Warming
    action: Annotated[ActionName, Meta(description="after the risk rules")]
    target_position: Annotated[float, Meta(ge=-1.0, le=1.0, description="units of the notional limit")]
    action_values: Annotated[list[float], Meta(min_length=3, max_length=3, description="of short, flat, long")]
    expected_reward: Annotated[float, Meta(description="of the action, log return after costs")]
    gated_by: Annotated[Gate | None, Meta(description="the risk rule that overrode the agent")]
    model: Model  # name@version of the policy
    ticks: Ticks = 1


class Contribution(msgspec.Struct, frozen=True):
    """A feature that drove an alert: how much of `value` goes away when the feature is put back to normal."""

    feature: str
    value: float
    contribution: float


class Alert(msgspec.Struct, frozen=True):
    """One record on topic `alerts` for each change of an alert's state."""

    alert_id: str
    symbol: Symbol
    venue: Venue
    kind: AlertKind
    severity: Severity
    state: AlertState
    partition: Partition
    offset: Offset
    exchange_ns: ExchangeNs
    value: float
    threshold: float
    reasons: list[Contribution]
    detail: Annotated[str, Meta(description="feed alerts: stale, late, gapped, duplicated, band, internal")] = ""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Beside the ticks, in every partition, under the key CONTROL_KEY: halts or resumes actions from there on."""

    # A field that is not known is refused, unlike everywhere else: it may narrow what is asked.
    control: ControlName
    control_id: ControlId
    at_ns: ControlTime
    by: ControlBy
    reason: ControlReason
    symbol: ControlScope = None


class Audit(msgspec.Struct, frozen=True):
    """One record on topic `audit` for each control that is asked for, and for each partition that has taken it."""

    event: AuditEvent
    control: ControlName
    control_id: ControlId
    at_ns: ControlTime
    by: ControlBy
    reason: ControlReason
    symbol: ControlScope = None
    partition: Annotated[int | None, Meta(description="which has taken it")] = None
    offset: Annotated[int | None, Meta(description="of the control there: it holds for the ticks behind it")] = None
    changed: Annotated[bool | None, Meta(description="false: it was so before")] = None
    known: Annotated[bool | None, Meta(description="false: the symbol had no tick there before it")] = None


class Injection(msgspec.Struct, frozen=True):
    """One record on topic `truth` for each thing that the simulator does to a symbol: what a detector should find."""

    symbol: Symbol
    venue: Venue
    scenario: str
    begin_ns: ExchangeNs
    end_ns: ExchangeNs
    opens: Annotated[AlertKind, Meta(description="the kind of alert that must open in between")]
    seed: Annotated[int, Meta(ge=0, description="gives the same ticks again")]


def exchange_ns_rule(value: int) -> str:
    """Why a time is refused, guessing the unit that was meant."""
    for unit, scale in (("seconds", 10**9), ("milliseconds", 10**6), ("microseconds", 10**3)):
        if MIN_EXCHANGE_NS <= value * scale <= MAX_EXCHANGE_NS:
            return f"exchange_ns {value} looks like {unit}: nanoseconds since 1970 are needed"
    return f"exchange_ns {value} is not between {MIN_EXCHANGE_NS} (2000) and {MAX_EXCHANGE_NS} (2100)"


def trade_key(trade_id: int | str | None) -> int:
    """A trade id as one int64, 0 where absent: a decimal text is its number, other text a 64-bit hash.

    The hash does not change between processes, as Python's own does.
    """
    if trade_id is None:
        return 0
    if isinstance(trade_id, int):
        return trade_id
    if len(trade_id) <= 18 and trade_id.isascii() and trade_id.isdecimal():
        return int(trade_id)
    return int.from_bytes(hashlib.blake2b(trade_id.encode(), digest_size=8).digest(), "little", signed=True)


DECODE_ERRORS: Final = (ValueError, RecursionError)
"""All that a decoder here raises: msgspec's errors and UnicodeDecodeError are ValueErrors; an unknown field that
nests a thousand deep is a RecursionError."""

Format = Literal["json", "msgpack"]
"""How the messages of a topic are written; what is read may be either, message by message."""

_T = TypeVar("_T")
_MSGPACK_MAPS: Final = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE, 0xDF))


def is_msgpack(value: bytes) -> bool:
    """Whether a message is a MessagePack map: no JSON text begins with the first byte of one."""
    return value[:1] in _MSGPACK_MAPS


def decoder(kind: type[_T]) -> Callable[[bytes], _T]:
    """A function that makes a `kind` of a message, JSON or MessagePack; it raises DECODE_ERRORS."""
    from_json, from_msgpack = msgspec.json.Decoder(kind).decode, msgspec.msgpack.Decoder(kind).decode

    def decode(value: bytes) -> _T:
        return from_msgpack(value) if value[:1] in _MSGPACK_MAPS else from_json(value)

    return decode


decode_tick = decoder(Tick)
decode_prediction = decoder(Prediction)
decode_risk = decoder(Risk)
decode_action = decoder(Action)
decode_alert = decoder(Alert)
decode_injection = decoder(Injection)
decode_control = decoder(Control)
decode_audit = decoder(Audit)
decode_any: Callable[[bytes], Any] = decoder(object)
TICK_DECODERS: Final[dict[Format, Callable[[bytes], Tick]]] = {
    "json": msgspec.json.Decoder(Tick).decode,
    "msgpack": msgspec.msgpack.Decoder(Tick).decode,
}
"""For many messages that are all written alike."""

encode = msgspec.json.Encoder().encode
ENCODERS: Final[dict[Format, Callable[[object], bytes]]] = {
    "json": encode,
    "msgpack": msgspec.msgpack.Encoder().encode,
}
