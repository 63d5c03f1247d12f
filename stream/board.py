"""The live board of `tapewatch demo`: what is known of each symbol, drawn into a terminal of any size from 80x24."""

import io
import re
from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from stream.accounting import NO_LATENCY, Latency
from stream.messages import Action, Alert, Prediction, Risk
from stream.tail import ACTION_STYLES, LEVEL_STYLES, SEVERITY_STYLES, clock_text, reasons, safe

BARS: Final = "▁▂▃▄▅▆▇█"
HISTORY: Final = 120
WIDE: Final = 120  # columns from which there is room for more
PRICE_DIGITS: Final = 10  # significant; a feed may send the noise of binary fractions
MOST_ALERTS: Final = 200
SILENT_NS: Final = 60_000_000_000  # of event time
_BAR_WIDTH: Final = 8


@dataclass(slots=True)
class Instrument:
    """The newest that is known of a symbol."""

    symbol: str
    price: float
    exchange_ns: int = 0  # of its newest tick
    prices: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))  # one a refresh
    prediction: Prediction | None = None
    risk: Risk | None = None
    action: Action | None = None


@dataclass(slots=True)
class View:
    """All that the board shows."""

    title: str
    seconds: float  # of the whole show
    elapsed: float = 0.0
    exchange_ns: int = 0  # event time
    instruments: dict[str, Instrument] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)  # by id, as opened or last updated, the newest last
    closed: set[str] = field(default_factory=set)  # ids of those that are over
    alerts_opened: int = 0
    ticks_a_second: float = 0.0
    results_a_second: float = 0.0
    rejects: Counter[str] = field(default_factory=Counter)  # by reason
    open: int = 0  # ticks on their way
    latency: Latency = NO_LATENCY  # of late
    models: dict[str, str] = field(default_factory=dict)
    address: str = ""  # of the board in the browser

    def note(self, alert: Alert) -> None:
        """Take a change of an alert; one that is updated or closes keeps the reasons it was opened for."""
        self.alerts_opened += alert.state == "opened"
        if alert.state == "closed":
            self.closed.add(alert.alert_id)
            self.alerts.setdefault(alert.alert_id, alert)
        else:
            before = self.alerts.get(alert.alert_id, alert)
            reasons_known = alert.reasons or before.reasons
            self.alerts[alert.alert_id] = msgspec.structs.replace(alert, reasons=reasons_known)
        if len(self.alerts) > MOST_ALERTS:
            oldest = next(iter(self.alerts))
            del self.alerts[oldest]
            self.closed.discard(oldest)


def render(view: View, width: int, height: int) -> RenderableType:
    """The board for a terminal of `width` columns and `height` lines."""
    head: list[RenderableType] = [_title(view, width), _instruments(view, width), Text(), _alerts_title(view, width)]
    foot = [_rates(view), _health(view)]
    # Title, head of the table, a line between, title of the alerts, and the foot.
    room = height - 4 - len(view.instruments) - len(foot) - 1
    return Group(*head, *_alerts(view, width, max(room, 1)), *foot)


def _title(view: View, width: int) -> Text:
    left = min(view.elapsed, view.seconds)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(" tapewatch ", "bold white on blue").append(f" {view.title}", "bold")
    when = clock_text(view.exchange_ns)[:19] if view.exchange_ns else ""
    end = f"{when}  {left:3.0f} of {view.seconds:.0f} s "
    line.append(" " * max(1, width - line.cell_len - len(end)))
    return line.append(end, "dim")


def _instruments(view: View, width: int) -> Table:
    wide = width >= WIDE
    spark = max(8, min(HISTORY, width - (122 if wide else 72)))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=False, pad_edge=False)
    table.add_column(" symbol", no_wrap=True, min_width=15)
    table.add_column("price", justify="right", no_wrap=True, min_width=9)
    table.add_column("", no_wrap=True, width=spark)
    table.add_column("vol 60s", justify="right", no_wrap=True)
    if wide:
        table.add_column("up", justify="right", no_wrap=True)
    table.add_column("VaR 99", justify="right", no_wrap=True)
    if wide:
        for name in ("ES 97.5", "anomaly", "flow", "liquid"):
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("score", no_wrap=True, width=_BAR_WIDTH + 4)
    table.add_column("level", no_wrap=True, width=8)
    table.add_column("action", no_wrap=True)
    for _, instrument in sorted(view.instruments.items()):
        table.add_row(*_row(instrument, spark, wide, view.exchange_ns))
    return table


def _row(instrument: Instrument, spark: int, wide: bool, now_ns: int) -> list[Text]:
    prediction, risk = instrument.prediction, instrument.risk
    cells = [
        Text(f" {safe(instrument.symbol)[:24]}", "bold"),
        Text(_price(instrument)),
        sparkline(list(instrument.prices)[-spark:]),
        Text(_bp(prediction.horizons[-1].volatility) if prediction else ""),
    ]
    if wide:
        cells.append(Text(f"{prediction.horizons[-1].probability_up:.0%}" if prediction else ""))
    cells.append(Text(_bp(risk.var_99) if risk else ""))
    if wide and risk:
        cells += [Text(_bp(risk.es_975)), Text(f"{risk.anomaly:.3f}"), Text(f"{risk.flow:.2f}")]
        cells.append(Text(f"{risk.liquidity:.2f}"))
    elif wide:
        cells += [Text()] * 4
    silent = now_ns - instrument.exchange_ns
    return cells + (_silence(silent) if silent > SILENT_NS else _verdict(risk, instrument.action))


def _price(instrument: Instrument) -> str:
    """As many decimals as the recent prices had at most, so that the column stands still."""
    recent = [instrument.price, *list(instrument.prices)[-20:]]
    return f"{instrument.price:,.{max(map(_decimals, recent))}f}"


def _decimals(price: float) -> int:
    exponent = Decimal(f"{price:.{PRICE_DIGITS}g}").normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _silence(silent_ns: int) -> list[Text]:
    """A feed that has stopped says nothing about now."""
    return [Text(f"silent {silent_ns / 1e9:.0f} s", "dim"), Text("-", "dim"), Text("-", "dim")]


def _verdict(risk: Risk | None, action: Action | None) -> list[Text]:
    if risk is None or action is None:
        return [Text()] * 3
    if risk.warming:
        return [score_bar(risk.score, "dim"), Text("warming", "dim italic"), Text("-", "dim")]
    style = LEVEL_STYLES[risk.level]
    done = Text(action.action, ACTION_STYLES[action.action])
    return [
        score_bar(risk.score, style),
        Text(risk.level, style),
        done.append("!" if action.gated_by else "", "yellow"),
    ]


def _bp(value: float) -> str:
    return f"{value * 1e4:.1f} bp"


def sparkline(values: list[float]) -> Text:
    """The course of some values between their lowest and highest; green if it ends no lower than it began."""
    if not values:
        return Text()
    low, high = min(values), max(values)
    step = (high - low) / (len(BARS) - 1) or 1.0
    line = "".join(BARS[round((value - low) / step)] for value in values)
    return Text(line, "green" if values[-1] >= values[0] else "red")


def score_bar(score: float, style: str) -> Text:
    """A score of 0 to 100 as a bar and a number."""
    full = round(score / 100 * _BAR_WIDTH)
    return Text.assemble(("━" * full, style), ("┄" * (_BAR_WIDTH - full), "grey50"), (f"{score:4.0f}", style))


def _alerts_title(view: View, width: int) -> Text:
    still = len(view.alerts) - len(view.closed)
    line = Text(f" alerts: {view.alerts_opened} opened, {still} open", "dim", no_wrap=True, overflow="ellipsis")
    end = f"in the browser: {view.address} " if view.address else ""
    return line.append(" " * max(1, width - line.cell_len - len(end))).append(end)


def _alerts(view: View, width: int, room: int) -> list[Text]:
    """The newest alerts first, and lines to fill the room, so that nothing below moves."""
    newest = list(view.alerts.values())[::-1][:room]
    lines = [alert_line(alert, width, alert.alert_id in view.closed) for alert in newest]
    return lines + [Text()] * (room - len(newest))


def alert_line(alert: Alert, width: int, closed: bool = False) -> Text:
    """An alert in one line: time, symbol, kind, value against threshold, and what drove it."""
    style = "dim" if closed else SEVERITY_STYLES[alert.severity]
    kind = f"{alert.kind} {safe(alert.detail)}" if alert.detail else alert.kind
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" {clock_text(alert.exchange_ns)[11:19]} ", "dim")
    line.append(f"{safe(alert.symbol)[:15]:<15} ", "dim" if closed else "bold")
    line.append(f"{kind[:14]:<14} {'closed' if closed else alert.severity:<8} ", style)
    line.append(f"{alert.value:.3g} > {alert.threshold:.3g}".ljust(14), "dim" if closed else "")
    if why := reasons(alert):
        line.append(f" {why}", "dim")
    line.truncate(width, overflow="ellipsis")
    return line


def rejects_text(rejects: Counter[str]) -> str:
    """How many were refused, and why."""
    if not rejects:
        return "0 rejected"
    each = ", ".join(f"{safe(reason)} {count}" for reason, count in sorted(rejects.items()))
    return f"{rejects.total():,} rejected ({each})"


def _rates(view: View) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" in {view.ticks_a_second:,.0f}/s", "bold").append(f"  out {view.results_a_second:,.0f}/s  ", "bold")
    return line.append(rejects_text(view.rejects), "yellow" if view.rejects else "dim")


def _health(view: View) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" lag {view.open:,} ticks  latency p50 {view.latency.p50:.1f} ms  p99 {view.latency.p99:.1f} ms")
    return line.append(f"  {' '.join(view.models.values())}", "dim")


def picture(view: View, width: int = 100, height: int = 30) -> str:
    """The board as SVG, with no font fetched from anywhere."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(view, width, height))
    drawn = console.export_svg(title="tapewatch demo", unique_id="board")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def plain(view: View) -> str:
    """The board in a line, where there is no terminal."""
    levels = Counter(
        "warming" if each.risk.warming else each.risk.level for each in view.instruments.values() if each.risk
    )
    stand = ", ".join(f"{count} {level}" for level, count in levels.items())
    return (
        f"{min(view.elapsed, view.seconds):.0f} of {view.seconds:.0f} s: in {view.ticks_a_second:,.0f}/s, "
        f"out {view.results_a_second:,.0f}/s, {rejects_text(view.rejects)}, {view.alerts_opened} alerts opened, "
        f"lag {view.open:,} ticks, latency p50 {view.latency.p50:.1f} ms p99 {view.latency.p99:.1f} ms; "
        f"{len(view.instruments)} symbols: {stand}"
    )
