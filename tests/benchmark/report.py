"""The findings as tables: on the terminal, and in docs/performance/README.md between its markers."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table as RichTable

from stream.config import ROOT
from tests.benchmark.checkpoints import PLAIN, Kept, Recovered
from tests.benchmark.drain import Drained, Run
from tests.benchmark.latency import Rate
from tests.benchmark.stages import STAGES, Staged

FOLDER: Final = ROOT / "docs" / "performance"
PAGE: Final = FOLDER / "README.md"
RESULTS: Final = FOLDER / "results.json"
START: Final = "<!-- tables: written by `make bench ARGS=--docs` -->"
END: Final = "<!-- end of tables -->"


class Findings(msgspec.Struct):
    """All that a call of the benchmark found."""

    machine: dict[str, str]
    drain: list[Drained] = []
    latency: list[Rate] = []
    stages: list[Staged] = []
    checkpoints: list[Kept] = []
    recovery: list[Recovered] = []


class Table(NamedTuple):
    """A table for people; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def tables(findings: Findings) -> list[Table]:
    """One for each part that was measured."""
    found = [_machine(findings.machine)]
    if findings.drain:
        found += [_drain(findings.drain), _ratios(findings.drain)]
    if findings.latency:
        found.append(_latency(findings.latency))
    if findings.stages:
        found.append(_stages(findings.stages))
    if findings.checkpoints:
        found.append(_checkpoints(findings.checkpoints))
    if findings.recovery:
        found.append(_recovery(findings.recovery))
    return found


def _machine(machine: dict[str, str]) -> Table:
    return Table("Machine", ("", ""), [[name, value] for name, value in machine.items()])


def _drain(drained: list[Drained]) -> Table:
    columns = ("", "partitions", "ticks", "runs", "ticks/s by the wall", "ticks a CPU second", "core used")
    return Table("Draining a filled topic, three results a tick", columns, [_drain_row(each) for each in drained])


def _drain_row(each: Drained) -> list[str]:
    return [
        each.subject,
        str(each.partitions),
        f"{each.ticks:,}",
        str(len(each.runs)),
        _spread([run.ticks_per_second for run in each.runs], ",.0f"),
        _spread([run.ticks_per_cpu_second for run in each.runs], ",.0f"),
        f"{median(run.cpu_share for run in each.runs):.0%}",
    ]


def _ratios(drained: list[Drained]) -> Table:
    """The worker on one partition over the others on one, run by run."""
    on_one = {each.subject: each for each in drained if each.partitions == 1}
    rows = []
    for subject in ("raw loop", "naive"):
        if "worker" not in on_one or subject not in on_one:
            continue
        rows.append([f"worker / {subject}", *_over(on_one["worker"].runs, on_one[subject].runs)])
    return Table("Ratios on one partition, pair by pair", ("", "by the wall", "per CPU second"), rows)


def _over(ours: list[Run], theirs: list[Run]) -> list[str]:
    """How many times as fast, run by run: by the wall, and per CPU second."""
    pairs = list(zip(ours, theirs, strict=True))
    wall = [one.ticks_per_second / other.ticks_per_second for one, other in pairs]
    cpu = [one.ticks_per_cpu_second / other.ticks_per_cpu_second for one, other in pairs]
    return [_spread(wall, ".2f"), _spread(cpu, ".2f")]


def _checkpoints(kept: list[Kept]) -> Table:
    plain = {each.instruments: each.runs for each in kept if each.way == PLAIN.name}
    columns = ("", "instruments", "ticks", "runs", "ticks/s by the wall", "of it without", "per CPU second")
    rows = [
        [
            each.way,
            f"{each.instruments:,}",
            f"{each.ticks:,}",
            str(len(each.runs)),
            _spread([run.ticks_per_second for run in each.runs], ",.0f"),
            *_over(each.runs, plain[each.instruments]),
        ]
        for each in kept
    ]
    return Table("Checkpoints while one partition is drained, pair by pair over no snapshots", columns, rows)


def _recovery(recovered: list[Recovered]) -> Table:
    rows = [[f"{each.instruments:,}", str(len(each.seconds)), _spread(each.seconds, ".2f")] for each in recovered]
    return Table("From the assignment to the state of all instruments", ("instruments", "starts", "s"), rows)


def _latency(rates: list[Rate]) -> Table:
    columns = ("", "ticks/s", "answered", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "producer late, p99 ms")
    rows = [
        [
            each.subject,
            f"{each.sent_per_second:,.0f}",
            f"{each.answered:,}",
            *(f"{value:.1f}" for value in (each.p50, each.p99, each.p999, each.worst, each.late_p99)),
        ]
        for each in rates
    ]
    return Table("From the producer's hands to a consumer's", columns, rows)


def _stages(staged: list[Staged]) -> Table:
    columns = ("us a tick", *STAGES, "all")
    rows = [
        [f"chunks of {each.chunk_ticks}", *(f"{each.median(stage):.2f}" for stage in (*STAGES, "all"))]
        for each in staged
    ]
    return Table("Stages of the pipeline by itself, without Kafka", columns, rows)


def _spread(values: list[float], form: str) -> str:
    """Median, and lowest to highest."""
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def show(findings: Findings, console: Console) -> None:
    """Print the tables."""
    for table in tables(findings):
        drawn = RichTable(title=table.title, title_justify="left", show_header=any(table.columns))
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number == 0 or not any(table.columns) else "right")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def markdown(findings: Findings) -> str:
    """The tables as Markdown."""
    parts = []
    for table in tables(findings):
        lines = [f"### {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines.append(f"|---|{'---:|' * (len(table.columns) - 1)}" if any(table.columns) else "|---|---|")
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_docs(findings: Findings, page: Path = PAGE, results: Path = RESULTS) -> None:
    """Put the tables between the page's markers, and the findings beside it.

    Raises
    ------
    ValueError
        If the page lacks the markers.
    """
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"{page} must hold the lines {START} and {END}")
    page.write_text(f"{before}{START}\n\n{markdown(findings)}\n\n{END}{after}", encoding="utf-8")
    write_json(findings, results)


def write_json(findings: Findings, file: Path) -> None:
    """Every run's figures, for programs."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n")
