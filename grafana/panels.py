"""What a panel of ours says, and how it becomes one of Grafana's.

A `Panel` holds what a reader has to know (unit, description, thresholds, alerts) and what `grafana.check` holds
against a running worker: the labels and the range of each query's result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    statushistory,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as models_common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as models_prometheus
from grafana_foundation_sdk.models import text as models_text

Kind = Literal["timeseries", "stat", "table", "state-timeline", "status-history", "bargauge"]

DATA_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="tapewatch")
"""The uid that provisioning/datasources/prometheus.yaml gives it."""

RUNBOOKS: Final = "/public/tapewatch/runbooks"
"""Where Grafana serves docs/runbooks: mount the folder at /usr/share/grafana/public/tapewatch/runbooks."""

GRID_WIDTH: Final = 24  # columns of a dashboard in Grafana

INTERVAL: Final = "5s"
"""Prometheus' own scrape interval: a smaller step shows nothing more."""

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
INFINITY: Final = float("inf")

LEVELS: Final = {"0": ("normal", GREEN), "1": ("elevated", YELLOW), "2": ("high", ORANGE), "3": ("critical", RED)}
ZONES: Final = {"0": ("green", GREEN), "1": ("yellow", YELLOW), "2": ("red", RED)}
POSITIONS: Final = {"-1": ("short", RED), "0": ("flat", BLUE), "1": ("long", GREEN)}


@dataclass(frozen=True)
class Query:
    """A question to Prometheus.

    `by` are the labels of its series and `low` and `high` bound its values on a healthy system. `undefined` says that
    a value may be NaN: a quantile over a minute in which nothing happened. `after_seconds` is how far back it looks.
    """

    expr: str
    legend: str = ""
    by: tuple[str, ...] = ()
    low: float = 0.0
    high: float = INFINITY
    undefined: bool = False
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Panel:
    """One panel. `thresholds` are (from, colour) and begin with (None, colour); `alerts` have a page each."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    alerts: tuple[str, ...] = ()
    mappings: Mapping[str, tuple[str, str]] | None = None
    decimals: int | None = None
    fill_below: Mapping[str, str] | None = None  # name of a line -> name of the line to fill down to


@dataclass(frozen=True)
class Note:
    """A panel of text: where the answers are that metrics do not hold."""

    title: str
    markdown: str
    width: int = 24
    height: int = 4


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel | Note, ...]
    symbol: bool = False  # whether it has the variables symbol and venue
    annotations: str = ""  # an expression whose series are marked on every panel

    @property
    def asking(self) -> list[Panel]:
        """The panels with queries."""
        return [panel for panel in self.panels if isinstance(panel, Panel)]


_BUILDERS: Final[dict[Kind, Callable[[], Any]]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "table": table.Panel,
    "state-timeline": statetimeline.Panel,
    "status-history": statushistory.Panel,
    "bargauge": bargauge.Panel,
}
_INSTANT: Final = ("stat", "table", "bargauge")


def build(board: Board) -> models.Dashboard:
    """Grafana's own form of a dashboard."""
    found = (
        dashboard.Dashboard(f"Tapewatch: {board.title}")
        .uid(board.uid)
        .description(board.description)
        .tags(["tapewatch"])
        .timezone("utc")
        .time("now-30m", "now")
        .refresh("5s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Tapewatch")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["tapewatch"])
            .keep_time(True)
        )
    )
    for name in ("symbol", "venue") if board.symbol else ():
        found = found.with_variable(_variable(name))
    if board.annotations:
        found = found.annotation(
            dashboard.AnnotationQuery()
            .name("Alerts that fire")
            .datasource(DATA_SOURCE)
            .expr(board.annotations)
            .icon_color(RED)
            .enable(True)
        )
    for number, (panel, place) in enumerate(zip(board.panels, places(board.panels), strict=True), start=1):
        found = found.with_panel(_build_panel(panel, board).id(number).grid_pos(place))
    return found.build()


def places(panels: Sequence[Panel | Note]) -> list[models.GridPos]:
    """Where each panel goes on a grid 24 wide: in turn, as high as it fits, then as far left."""
    ground = [0] * GRID_WIDTH  # first free row of each column
    found = []
    for panel in panels:
        spans = [(max(ground[x : x + panel.width]), x) for x in range(GRID_WIDTH - panel.width + 1)]
        y, x = min(spans)
        ground[x : x + panel.width] = [y + panel.height] * panel.width
        found.append(models.GridPos(h=panel.height, w=panel.width, x=x, y=y))
    return found


def _variable(name: str) -> dashboard.QueryVariable:
    among = '{symbol="$symbol"}' if name == "venue" else ""
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .description("Instruments on the watch-list: worker.watch, or the first worker.watch_limit seen.")
        .datasource(DATA_SOURCE)
        .query(f"label_values(tapewatch_score{among}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _build_panel(panel: Panel | Note, board: Board) -> Any:
    if isinstance(panel, Note):
        return text.Panel().title(panel.title).mode(models_text.TextMode.MARKDOWN).content(panel.markdown)
    found = (
        _BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATA_SOURCE)
        .interval(INTERVAL)
        .no_value("no data yet")
        .thresholds(_thresholds(panel))
        .links(_links(panel, board))
    )
    if panel.decimals is not None:
        found = found.decimals(panel.decimals)
    if panel.mappings is not None:
        found = found.mappings([_mapping(panel.mappings)])
    for number, query in enumerate(panel.queries):
        found = found.with_target(_target(query, chr(ord("A") + number), panel.kind))
    return _finish(found, panel)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in panel.thresholds])
    )


def _mapping(texts: Mapping[str, tuple[str, str]]) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=word, color=color, index=index)
            for index, (value, (word, color)) in enumerate(texts.items())
        }
    )


def _links(panel: Panel, board: Board) -> list[dashboard.DashboardLink]:
    """To each alert and its page; a panel without an alert leads to what is said of its dashboard."""
    links = []
    for alert in panel.alerts:
        links.append(_link(f"Alert {alert}", f"/alerting/list?search={alert}"))
        links.append(_link(f"Runbook {alert}", f"{RUNBOOKS}/{alert}.md"))
    return links or [_link("How to read this", f"{RUNBOOKS}/dashboards.md#{board.title.lower().replace(' ', '-')}")]


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url).target_blank(True)


def _target(query: Query, ref_id: str, kind: Kind) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).datasource(DATA_SOURCE)
    target = target.legend_format(query.legend or "__auto")
    if kind == "table":
        target = target.format(models_prometheus.PromQueryFormat.TABLE)
    return target.instant() if kind in _INSTANT else target.range()


def _finish(found: Any, panel: Panel) -> Any:
    """What only one kind of panel has."""
    if panel.kind == "timeseries":
        return _finish_lines(found, panel)
    if panel.kind == "stat":
        return found.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).color_mode(
            models_common.BigValueColorMode.BACKGROUND
        )
    if panel.kind == "bargauge":
        return found.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.kind in ("state-timeline", "status-history"):
        by_threshold = dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
        return found.color_scheme(by_threshold).show_value(models_common.VisibilityMode.NEVER)
    return found


def _finish_lines(found: Any, panel: Panel) -> Any:
    shown = common.VizLegendOptions().display_mode(models_common.LegendDisplayMode.LIST).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(models_common.TooltipDisplayMode.MULTI)
    found = found.legend(shown.placement(models_common.LegendPlacement.BOTTOM)).tooltip(tooltip).line_width(1)
    if len(panel.thresholds) > 1:
        mode = models_common.GraphThresholdsStyleMode.DASHED
        found = found.thresholds_style(common.GraphThresholdsStyleConfig().mode(mode))
    for line, below in (panel.fill_below or {}).items():
        values = [
            models.DynamicConfigValue(id_val="custom.fillBelowTo", value=below),
            models.DynamicConfigValue(id_val="custom.fillOpacity", value=15),
        ]
        found = found.override_by_name(line, values)
    return found
