"""`tapewatch tail`: the records of a topic as lines for people.

What stands in a record may come from anybody: everything that is not printable is escaped before it is shown.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

import click
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, TopicPartition
from rich.console import Console
from rich.text import Text

from stream import clients, messages, topics
from stream.config import Cluster, Settings, Topics
from stream.errors import BrokerUnreachable, MissingTopic, TapewatchError
from stream.signals import stop_on_signals
from stream.suggestions import did_you_mean, some_of

POLL_SECONDS: Final = 0.2
RAW_LENGTH: Final = 100
PATIENCE_SECONDS: Final = 5.0
"""So long without a record of the symbol that was asked for, and a line says so."""
MOST_SYMBOLS: Final = 10_000
"""Whose names are kept meanwhile, so that a topic of very many costs no more."""
LEVEL_STYLES: Final[dict[str, str]] = {
    "normal": "green",
    "elevated": "yellow",
    "high": "dark_orange",
    "critical": "bold red",
}
SEVERITY_STYLES: Final[dict[str, str]] = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
ACTION_STYLES: Final[dict[str, str]] = {"short": "magenta", "flat": "dim", "long": "blue"}
SIDE_STYLES: Final[dict[str | None, str]] = {"buy": "green", "sell": "red", None: "dim"}


class Record(NamedTuple):
    """A record as it came from the broker."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]


def safe(text: str) -> str:
    """`text` with everything that is not printable escaped, so that it cannot steer the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def safe_bytes(raw: bytes, length: int = RAW_LENGTH) -> str:
    """The beginning of `raw` as printable text; bytes that are no UTF-8 as \\xNN."""
    text = safe(raw[:length].decode("utf-8", "backslashreplace"))
    return f"{text}… ({len(raw):,} bytes)" if len(raw) > length else text


def clock_text(exchange_ns: int) -> str:
    """Event time to the millisecond, UTC."""
    return datetime.fromtimestamp(exchange_ns // 1_000_000 / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def number(value: float, width: int = 0) -> str:
    """A price or size: the digits it was written with, thousands with commas, no exponent."""
    return f"{Decimal(repr(value)):,f}".removesuffix(".0").rjust(width)


def bps(value: float) -> str:
    """A log return or a loss in basis points."""
    return f"{value * 1e4:+.2f}"


def _head(record: messages.Tick | messages.Prediction | messages.Risk | messages.Action | messages.Alert) -> Text:
    symbol = safe(record.symbol + (f" @{record.venue}" if record.venue else ""))
    return Text.assemble((clock_text(record.exchange_ns), "dim"), "  ", (f"{symbol:<26}", "bold"), " ")


def _warming(warming: bool) -> tuple[str, str]:
    return ("  warming", "dim italic") if warming else ("", "")


def control_text(control: messages.Control | messages.Audit) -> str:
    """When, halt or resume, of what, by whom and why."""
    scope = "all symbols" if control.symbol is None else safe(control.symbol)
    return f"{clock_text(control.at_ns)}  {control.control:<6}  {scope}  by {safe(control.by)}: {safe(control.reason)}"


def audit_line(record: Record) -> Text:
    """What was asked for, or which partition took it."""
    audit = messages.decode_audit(record.value)
    where = "" if audit.event == "asked" else f" by {audit.partition}:{audit.offset}"
    changed = "" if audit.changed is not False else ", as before"
    return Text.assemble(control_text(audit), (f"  {audit.event}{where}{changed}", "yellow"))


def tick_line(record: Record) -> Text:
    """Price, side and size; of a control what it says."""
    if record.key == messages.CONTROL_KEY:
        return Text(control_text(messages.decode_control(record.value)), "bold yellow")
    tick = messages.decode_tick(record.value)
    side = (f"{tick.side or '-':<4}", SIDE_STYLES[tick.side])
    trade = f"  #{safe(str(tick.trade_id))}" if tick.trade_id is not None else ""
    return _head(tick).append_text(
        Text.assemble(number(tick.price, 14), "  ", side, "  ", number(tick.size, 12), (trade, "dim"))
    )


def prediction_line(record: Record) -> Text:
    """For each horizon: volatility, probability up and the outer quantiles, in basis points."""
    prediction = messages.decode_prediction(record.value)
    line = _head(prediction)
    for horizon in prediction.horizons:
        low, high = horizon.quantiles[0], horizon.quantiles[-1]
        line.append(f"{horizon.horizon_seconds:>3} s ", "cyan")
        line.append(f"vol {horizon.volatility * 1e4:6.2f} bp  up {horizon.probability_up:4.0%}  ")
        line.append(f"1-99% {bps(low):>7} to {bps(high):>6}  ", "dim")
    return line.append(*_warming(prediction.warming))


def risk_line(record: Record) -> Text:
    """Score, level, VaR and ES in basis points, and the components."""
    risk = messages.decode_risk(record.value)
    level = LEVEL_STYLES[risk.level]
    return _head(risk).append_text(
        Text.assemble(
            (f"score {risk.score:5.1f} ", level),
            (f"{risk.level:<8}", level),
            f"  VaR {risk.var_99 * 1e4:6.1f} bp  ES {risk.es_975 * 1e4:6.1f} bp  anomaly {risk.anomaly:5.3f}  ",
            (f"vol x{risk.volatility_ratio:.1f}  flow {risk.flow:.2f}  liquidity {risk.liquidity:.2f}", "dim"),
            _warming(risk.warming),
        )
    )


def action_line(record: Record) -> Text:
    """Action, target position, the values behind it, and the rule that overrode the agent."""
    action = messages.decode_action(record.value)
    values = "  ".join(
        f"{name} {bps(value)}" for name, value in zip(messages.ACTIONS, action.action_values, strict=True)
    )
    gate = f"  gated by {action.gated_by}" if action.gated_by else ""
    return _head(action).append_text(
        Text.assemble(
            (f"{action.action:<5}", ACTION_STYLES[action.action]),
            f"  target {action.target_position:+.2f}  ",
            (f"values in bp: {values}", "dim"),
            (gate, "yellow"),
        )
    )


def alert_line(record: Record) -> Text:
    """Severity, kind, state, value against threshold, and what drove it."""
    alert = messages.decode_alert(record.value)
    style = SEVERITY_STYLES[alert.severity]
    return _head(alert).append_text(
        Text.assemble(
            (f"{alert.severity:<8} ", style),
            (f"{alert.kind + (':' + safe(alert.detail) if alert.detail else ''):<15} {alert.state:<7}", style),
            f"  {alert.value:.4g} against {alert.threshold:.4g}",
            (f"  {reasons(alert)}", "dim"),
        )
    )


def reasons(alert: messages.Alert, most: int = 3) -> str:
    """The features that drove an alert, the strongest first."""
    strongest = sorted(alert.reasons, key=lambda reason: -abs(reason.contribution))[:most]
    return ", ".join(f"{safe(reason.feature)} {reason.value:.3g} ({reason.contribution:+.3g})" for reason in strongest)


def truth_line(record: Record) -> Text:
    """Scenario, until when, and the alert that must open."""
    injection = messages.decode_injection(record.value)
    symbol = safe(injection.symbol + (f" @{injection.venue}" if injection.venue else ""))
    return Text.assemble(
        (clock_text(injection.begin_ns), "dim"),
        "  ",
        (f"{symbol:<26}", "bold"),
        f" {safe(injection.scenario)} until {clock_text(injection.end_ns)[11:]}, opens {injection.opens}",
        (f"  seed {injection.seed}", "dim"),
    )


def rejected_line(record: Record) -> Text:
    """Reason, rule and the beginning of the message."""
    headers = {name: safe(text) for name, text in record.headers.items()}
    place = f"{headers.get('partition', '?')}:{headers.get('offset', '?')}"
    return Text.assemble(
        (f"{place:>12}  ", "dim"),
        (f"{headers.get('reason', '?'):<10}", "bold red"),
        f" {headers.get('rule', '')}  ",
        (safe_bytes(record.value), "dim"),
    )


LINES: Final[dict[str, Callable[[Record], Text]]] = {
    "ticks": tick_line,
    "predictions": prediction_line,
    "risk": risk_line,
    "actions": action_line,
    "alerts": alert_line,
    "rejected": rejected_line,
    "truth": truth_line,
    "audit": audit_line,
}


def line(kind: str, record: Record) -> Text:
    """A record of one of our topics as a line; a broken one is shown as it is."""
    try:
        return LINES[kind](record)
    except messages.DECODE_ERRORS as error:
        return Text.assemble(
            (f"{record.partition}:{record.offset}".rjust(12) + "  ", "dim"),
            ("not readable ", "red"),
            f"{safe(str(error))}  ",
            (safe_bytes(record.value), "dim"),
        )


def json_line(record: Record) -> str:
    """A record as one line of JSON; a value that is none stands as text."""
    try:
        value = messages.decode_any(record.value)
    except messages.DECODE_ERRORS:
        value = record.value.decode("utf-8", "backslashreplace")
    whole = {
        "partition": record.partition,
        "offset": record.offset,
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": record.headers,
        "value": value,
    }
    return json.dumps(whole, separators=(",", ":"))  # in ASCII, so nothing in it steers the terminal


def kind_of(topics_: Topics, name: str) -> str:
    """Which of our topics `name` is: by its key in the settings or its name on the broker.

    Raises
    ------
    MissingTopic
        If it is none of ours.
    """
    for kind in LINES:
        if name in (kind, getattr(topics_, kind)):
            return kind
    ours = [getattr(topics_, kind) for kind in LINES]
    raise MissingTopic(f"{safe(name)} is no topic of ours: {did_you_mean(name, ours)}name one of {', '.join(ours)}")


class Reader:
    """The records of a topic, all partitions, as they come."""

    def __init__(self, cluster: Cluster, topic: str, from_beginning: bool) -> None:
        """Start reading; raises BrokerUnreachable or MissingTopic."""
        partitions = topics.partitions_of(cluster, [topic])[topic]
        self._broker = cluster.broker
        self._down = ""
        self._consumer = clients.consumer(cluster, self._note)
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        self._consumer.assign([TopicPartition(topic, partition, start) for partition in range(partitions)])

    def records(self, stop: threading.Event, idle: Callable[[], None] = lambda: None) -> Iterator[Record]:
        """Until stopped; `idle` is called whenever none has come for POLL_SECONDS.

        Raises
        ------
        BrokerUnreachable
            When the broker has gone.
        """
        while not stop.is_set():
            message = self._consumer.poll(POLL_SECONDS)
            if self._down:
                raise BrokerUnreachable(clients.unreachable(self._broker, self._down))
            if message is None:
                idle()
                continue
            if (error := message.error()) is not None:
                raise TapewatchError(f"cannot read from {self._broker}: {error}")
            yield record_of(message)

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = "it has gone"


def record_of(message: Any) -> Record:
    """A record from librdkafka's message."""
    headers = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in message.headers() or ()}
    return Record(message.partition(), message.offset(), message.key(), message.value() or b"", headers)


class Awaited:
    """The records of one symbol, or of all, of which there may be none: after PATIENCE_SECONDS a line says so, once.

    Parameters
    ----------
    symbol
        Whose records are shown; of all if None.
    topic
        On which they are looked for.
    say
        Takes the line.
    now
        A clock, in seconds.
    """

    def __init__(
        self, symbol: str | None, topic: str, say: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._symbol = symbol
        self._topic = topic
        self._say = say
        self._now = now
        self._until = now() + PATIENCE_SECONDS
        self._others: set[bytes] = set()
        self._told = False  # or there is nothing to tell: the symbol is there

    def shows(self, key: bytes | None) -> bool:
        """Whether a record under this key is one of them."""
        if self._symbol is None or key == self._symbol.encode():
            self._told = True
            return True
        if key and key != messages.CONTROL_KEY and not self._told and len(self._others) < MOST_SYMBOLS:
            self._others.add(key)
        self.look()
        return False

    def look(self) -> None:
        """Say that none has come, if it is time to."""
        if self._told or self._now() < self._until:
            return
        self._told = True
        which = "" if self._symbol is None else f" of {safe(self._symbol)}"
        self._say(
            f"no record{which} has come on {self._topic} in {PATIENCE_SECONDS:g} s; {self._what_comes()}waiting on"
        )
        self._others.clear()

    def _what_comes(self) -> str:
        if self._symbol is None:
            return ""
        if not self._others:
            return "nor one of any other symbol; "
        return f"there are records of {some_of(self._symbol, map(safe_bytes, self._others))}; "


def run(
    settings: Settings,
    topic: str,
    *,
    symbol: str | None = None,
    from_beginning: bool = False,
    count: int | None = None,
    as_json: bool = False,
) -> None:
    """`tapewatch tail`; ends after `count` records or when stopped.

    Raises
    ------
    BrokerUnreachable, MissingTopic
        If there is nothing to read from.
    """
    kind = kind_of(settings.topics, topic)
    stop = stop_on_signals()
    console = Console(soft_wrap=True, highlight=False)
    reader = Reader(settings.cluster, getattr(settings.topics, kind), from_beginning)
    awaited = Awaited(symbol, getattr(settings.topics, kind), partial(click.echo, err=True))
    shown = 0
    try:
        for record in reader.records(stop, awaited.look):
            if not awaited.shows(record.key):
                continue
            console.print(Text(json_line(record)) if as_json else line(kind, record))
            shown += 1
            if shown == count:
                break
    finally:
        reader.close()
