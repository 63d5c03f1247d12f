"""`make dashboards-check`: every query of every panel and every rule, asked of a Prometheus that scrapes a worker."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from grafana import picture
from grafana.dashboards import BOARDS
from grafana.panels import Board, Panel, Query
from grafana.server import Prometheus, Series, Stand
from stream.errors import TapewatchError

PATIENCE_SECONDS: Final = 60.0
POINTS: Final = 120
RANGED: Final = ("timeseries", "state-timeline", "status-history")


class Asked(NamedTuple):
    """One query with its answer."""

    board: Board
    panel: Panel
    query: Query
    series: list[Series]
    problem: str  # empty if there is none

    def __str__(self) -> str:
        return f"{self.board.title} / {self.panel.title} / {self.query.expr}: {self.problem}"


def substituted(expr: str, symbol: str, venue: str) -> str:
    """The expression as Grafana sends it, with these values of the variables."""
    return expr.replace("$symbol", symbol).replace("$venue", venue)


def problem_of(query: Query, series: Sequence[Series]) -> str:
    """What is wrong with an answer: none, other labels, or values out of range; empty if nothing is."""
    if not series:
        return "no data"
    for labels, points in series:
        if set(labels) != set(query.by):
            return f"labels {sorted(labels)} instead of {sorted(query.by)}"
        for _, value in points:
            if not (math.isnan(value) and query.undefined) and not query.low <= value <= query.high:
                return f"{labels}: {value} is not from {query.low:g} to {query.high:g}"
    if all(math.isnan(points[-1][1]) for _, points in series):
        return "only NaN"
    return ""


def ask(prometheus: Prometheus, since: float, ahead: bool, instrument: tuple[str, str]) -> list[Asked]:
    """Every query of every panel, over the time since `since`.

    With `ahead`, a query that looks back is asked as of that much later than now: its shape is seen early.
    """
    found = []
    now = time.time()
    for board in BOARDS:
        for panel in board.asking:
            for query in panel.queries:
                expr = substituted(query.expr, *instrument)
                at = now + (query.after_seconds if ahead else 0.0)
                if panel.kind in RANGED:
                    step = max(1.0, math.ceil((now - since) / POINTS))
                    series = prometheus.over(expr, max(since, at - POINTS * step), at, step)
                else:
                    series = prometheus.now(expr)
                found.append(Asked(board, panel, query, series, problem_of(query, series)))
    return found


def instruments(prometheus: Prometheus) -> list[tuple[str, str]]:
    """What the variables symbol and venue offer."""
    return sorted((each.labels["symbol"], each.labels["venue"]) for each in prometheus.now("tapewatch_score"))


def faults_of_rules(prometheus: Prometheus) -> list[str]:
    """Rules that cannot be evaluated, and those that should have recorded something and have not."""
    found = []
    for rule in prometheus.rules():
        if rule["health"] != "ok":
            found.append(f"rule {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        elif rule["type"] == "recording" and not prometheus.now(rule["name"]):
            found.append(f"rule {rule['name']}: records nothing")
    return found


def alerts_seen(prometheus: Prometheus, since: float) -> dict[str, set[str]]:
    """State (pending, firing) -> names of the alerts that were in it at any time since `since`."""
    found: dict[str, set[str]] = {"pending": set(), "firing": set()}
    now = time.time()
    for series in prometheus.over("ALERTS", since, now, max(1.0, math.ceil((now - since) / 5000))):
        found[series.labels["alertstate"]].add(series.labels["alertname"])
    return found


def check_empty(prometheus: Prometheus) -> int:
    """Ask everything of a system without a worker: an answer may be empty, and none may be refused.

    Gives the number of queries; raises TapewatchError where Prometheus refuses one.
    """
    now = time.time()
    return len(ask(prometheus, now - 5, False, ("", "")))


def settle(stand: Stand, since: float, ahead: bool, patience: float = PATIENCE_SECONDS) -> list[Asked]:
    """Ask until nothing is wrong, or `patience` has passed; gives the last answers."""
    end = time.monotonic() + patience
    while True:
        stand.check()
        known = instruments(stand.prometheus)
        asked = ask(stand.prometheus, since, ahead, known[0] if known else ("", ""))
        wrong = [each for each in asked if each.problem] or faults_of_rules(stand.prometheus)
        if not wrong or time.monotonic() > end:
            return asked
        time.sleep(1.0)


@click.command()
@click.option("--seconds", type=float, default=90.0, show_default=True, help="How long ticks are sent.")
@click.option("--speed", type=float, default=30.0, show_default=True, help="Times the recorded speed.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for a picture of each dashboard.")
def main(seconds: float, speed: float, pictures: Path | None) -> None:
    """Check dashboards and rules against a running worker."""
    try:
        wrong = _run(seconds, speed, pictures)
    except TapewatchError as error:
        raise SystemExit(f"dashboards-check: {error}") from None
    for line in wrong:
        click.echo(f"WRONG {line}")
    raise SystemExit(1 if wrong else 0)


def _run(seconds: float, speed: float, pictures: Path | None) -> list[str]:
    with Stand(speed) as stand:
        click.echo(f"empty system: {check_empty(stand.prometheus)} queries, none refused")
        stand.start()
        since = time.time()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stand.check()
            time.sleep(0.5)
        asked = settle(stand, since, ahead=False)
        seen = alerts_seen(stand.prometheus, since)
        wrong = [str(each) for each in asked if each.problem] + faults_of_rules(stand.prometheus)
        wrong += [f"alert {name} fired on the sample" for name in sorted(seen["firing"])]
        _tell(asked, stand.prometheus, seen)
        if pictures is not None:
            picture.write(pictures, asked)
    return wrong


def _tell(asked: list[Asked], prometheus: Prometheus, seen: dict[str, set[str]]) -> None:
    ticks = prometheus.now("sum(tapewatch_ticks_total)")
    click.echo(
        f"{len(BOARDS)} dashboards, {sum(len(board.asking) for board in BOARDS)} panels, {len(asked)} queries, "
        f"{len(prometheus.rules())} rules, {len(instruments(prometheus))} instruments, "
        f"{sum(point[1] for each in ticks for point in each.points):,.0f} ticks"
    )
    click.echo(f"alerts that fired: {', '.join(sorted(seen['firing'])) or 'none'}")
    click.echo(f"alerts that were pending at some time: {', '.join(sorted(seen['pending'])) or 'none'}")


if __name__ == "__main__":
    main()
