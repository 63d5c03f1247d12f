"""The findings as tables: on the terminal, and in docs/performance/README.md between its markers.

`python -m tests.benchmark.report` writes page and plots again from results.json, and measures nothing; with files that
`--json` wrote it takes their parts into results.json first.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

from stream.config import ROOT
from tests.benchmark import findings as kept
from tests.benchmark import plots, targets
from tests.benchmark.backtest import Backtested
from tests.benchmark.burst import Burst
from tests.benchmark.checkpoints import PLAIN, Kept, Recovered
from tests.benchmark.drain import Drained, Run
from tests.benchmark.edges import EDGES
from tests.benchmark.findings import Findings
from tests.benchmark.latency import Rated
from tests.benchmark.stages import STAGES, Staged
from tests.benchmark.start import Started
from tests.benchmark.symbols import Symbols

FOLDER: Final = ROOT / "docs" / "performance"
PAGE: Final = FOLDER / "README.md"
RESULTS: Final = FOLDER / "results.json"
START: Final = "<!-- tables: written by `python -m tests.benchmark.report` from results.json -->"
END: Final = "<!-- end of tables -->"
SAME: Final = ("processor", "cores", "memory", "system", "python", "libraries", "kafka")  # of all parts, as a rule
MEGABYTE: Final = 1e-6


class Table(NamedTuple):
    """A table for people; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]


def tables(findings: Findings) -> list[Table]:
    """Where and when, and the tables of each part that was measured."""
    judged = [[each.measure, each.target, each.found, each.verdict] for each in targets.judge(findings)]
    found = [Table("Targets", ("", "target", "found", ""), judged)] if judged else []
    found += _machine(findings.taken)
    for part in kept.PARTS:
        measured = getattr(findings, part)
        if measured is not None:
            found += TABLES[part](measured)
    return found


def _machine(taken: dict[str, dict[str, str]]) -> list[Table]:
    """What all parts have in common once, and the rest by part."""
    common = {
        name: values.pop() for name in SAME if len(values := {each.get(name, "") for each in taken.values()}) == 1
    }
    own = [name for name in SAME if name not in common]
    columns = ("part", "date", "commit", "load before", "command", *own)
    rows = [
        [
            part,
            each["date"],
            each["commit"],
            each["load"].split()[0],  # behind it stands what it is
            f"`{each['command']}`",
            *(each.get(name, "") for name in own),
        ]
        for part, each in taken.items()
    ]
    shown = [Table("Machine", ("", ""), [[name, value] for name, value in common.items() if value])] if common else []
    return [*shown, Table("Parts", columns, rows)] if rows else shown


def _drain(drained: list[Drained]) -> list[Table]:
    rows = _ratios(drained, "worker", ("raw loop", "naive"))
    return [
        _drained("Draining a filled topic, three results a tick", drained),
        Table("Ratios on one partition, pair by pair", ("", "by the wall", "per CPU second"), rows),
    ]


def _peers(drained: list[Drained]) -> list[Table]:
    others = [each.name for each in drained if each.name != "worker"]
    return [
        _drained("Peers: the same work as their documentation teaches it", drained),
        Table(
            "Worker over peer, pair by pair",
            ("", "by the wall", "per CPU second"),
            _ratios(drained, "worker", others),
        ),
    ]


def _skew(drained: list[Drained]) -> list[Table]:
    rows = _ratios(drained, "skewed", ["even"])
    return [
        _drained("Skew: nine ticks of ten on one symbol", drained),
        Table("Skewed over even, pair by pair", ("", "by the wall", "per CPU second"), rows),
    ]


def _workers(drained: list[Drained]) -> list[Table]:
    rows = _ratios(drained, "two workers", ["one worker"])
    return [
        _drained("Two workers that share four partitions", drained),
        Table("Two workers over one, pair by pair", ("", "by the wall", "per CPU second"), rows),
    ]


def _symbols(found: Symbols) -> list[Table]:
    first, *others = found.worker
    rows = [
        [f"{each.instruments:,}", "evenly" if each.even else "Zipf", f"{each.us_a_tick:.2f}", f"{each.ratio:.2f}"]
        for each in found.pipeline
    ]
    ratios = [
        [
            f"{each.name} / {first.name}",
            _spread(
                [
                    few.ticks_per_cpu_second / many.ticks_per_cpu_second
                    for few, many in zip(first.runs, each.runs, strict=True)
                ],
                ".2f",
            ),
        ]
        for each in others
    ]
    return [
        Table("Cost over symbols, the pipeline alone", ("symbols", "drawn", "us a tick", "of 16 symbols'"), rows),
        _drained("Few symbols and many, the whole worker", found.worker),
        Table("CPU time a tick, pair by pair", ("", ""), ratios),
    ]


def _drained(title: str, drained: list[Drained]) -> Table:
    columns = ("", "partitions", "ticks", "runs", "ticks/s by the wall", "ticks a CPU second", "cores used", "peak MB")
    return Table(title, columns, [_drain_row(each) for each in drained])


def _drain_row(each: Drained) -> list[str]:
    return [
        each.name,
        str(each.partitions),
        f"{each.ticks:,}",
        str(len(each.runs)),
        _spread([run.ticks_per_second for run in each.runs], ",.0f"),
        _spread([run.ticks_per_cpu_second for run in each.runs], ",.0f"),
        f"{each.median('cpu_share'):.2f}",
        f"{peak * MEGABYTE:,.0f}" if (peak := each.median("peak_memory_bytes")) else "not taken",
    ]


def _ratios(drained: list[Drained], one: str, others: Sequence[str]) -> list[list[str]]:
    """One case over others, run by run."""
    named = {each.name: each for each in drained}
    return [
        [f"{one} / {other}", *_over(named[one].runs, named[other].runs)]
        for other in others
        if one in named and other in named
    ]


def _over(ours: list[Run], theirs: list[Run]) -> list[str]:
    """How many times as fast, run by run: by the wall, and per CPU second."""
    pairs = list(zip(ours, theirs, strict=True))
    wall = [one.ticks_per_second / other.ticks_per_second for one, other in pairs]
    cpu = [one.ticks_per_cpu_second / other.ticks_per_cpu_second for one, other in pairs]
    return [_spread(wall, ".2f"), _spread(cpu, ".2f")]


def _latency(rated: list[Rated]) -> list[Table]:
    columns = ("", "ticks/s", "runs", "p50 ms", "p99 ms", "p99.9 ms", "worst ms", "producer late, p99 ms")
    rows = [
        [
            each.subject,
            f"{each.median('sent_per_second'):,.0f}",
            str(len(each.runs)),
            *(_spread([getattr(run, name) for run in each.runs], ".1f") for name in ("p50", "p99", "p999", "worst")),
            f"{each.median('late_p99'):.1f}",
        ]
        for each in rated
    ]
    shares = [
        [
            f"{each.ticks_per_second:,.0f}",
            f"{median(own.ticks_a_chunk for own in owned):.0f}",
            _spread([own.stages_mean for own in owned], ".2f"),
            _spread([own.acknowledged_p50 for own in owned], ".2f"),
        ]
        for each in rated
        if each.subject == "worker" and (owned := [run.own for run in each.runs if run.own is not None])
    ]
    own = ("ticks/s", "ticks a chunk", "decode to encode of a chunk, mean ms", "received to acknowledged, p50 ms")
    return [
        Table("From the producer's hands to a consumer's", columns, rows),
        Table("The worker's own share of it", own, shares),
    ]


def _burst(bursts: list[Burst]) -> list[Table]:
    columns = ("", "ticks/s", "runs", "p50 before, ms", "worst lag, s", "normal again, s after", "sent within, s")
    rows = [
        [
            each.subject,
            f"{each.ticks_per_second:,.0f}",
            str(len(each.runs)),
            _spread([run.before_p50_ms for run in each.runs], ".1f"),
            _spread([run.worst_seconds for run in each.runs], ".2f"),
            _normal([run.normal_after_seconds for run in each.runs]),
            _spread([run.sent_in_seconds for run in each.runs], ".2f"),
        ]
        for each in bursts
    ]
    return [Table(f"A burst of {bursts[0].ticks:,} ticks within a second", columns, rows)]


def _normal(after: list[float | None]) -> str:
    known = [seconds for seconds in after if seconds is not None]
    text = _spread(known, ".1f") if known else "not while looked at"
    return text if len(known) in (0, len(after)) else f"{text}; not in {len(after) - len(known)} runs"


def _start(started: Started) -> list[Table]:
    row = [str(len(started.seconds)), _spread(started.seconds, ".2f")]
    return [Table("From exec to the first result, caches warm", ("starts", "s"), [row])]


def _backtest(found: Backtested) -> list[Table]:
    columns = ("ticks", "runs", "ticks/s by the wall", "ticks a CPU second")
    row = [
        f"{found.ticks:,}",
        str(len(found.runs)),
        _spread([run.ticks_per_second for run in found.runs], ",.0f"),
        _spread([run.ticks_per_cpu_second for run in found.runs], ",.0f"),
    ]
    return [Table("Backtest, Parquet to Parquet", columns, [row])]


def _checkpoints(found: list[Kept]) -> list[Table]:
    plain = {each.instruments: each.runs for each in found if each.way == PLAIN.name}
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
        for each in found
    ]
    return [Table("Checkpoints while one partition is drained, pair by pair over no snapshots", columns, rows)]


def _recovery(recovered: list[Recovered]) -> list[Table]:
    rows = [[f"{each.instruments:,}", str(len(each.seconds)), _spread(each.seconds, ".2f")] for each in recovered]
    return [Table("From the assignment to the state of all instruments", ("instruments", "starts", "s"), rows)]


def _stages(staged: list[Staged]) -> list[Table]:
    return [
        Table(title, ("us a tick", *names), [_stage_row(each, names) for each in staged])
        for title, names in (
            ("Stages of the pipeline by itself, without Kafka", (*STAGES, "all")),
            ("Around the pipeline, without Kafka and Faust", EDGES),
        )
        if all(names[0] in run for each in staged for run in each.runs)  # figures of before have no edges
    ]


def _stage_row(staged: Staged, names: Sequence[str]) -> list[str]:
    return [f"chunks of {staged.chunk_ticks}", *(f"{staged.median(name):.2f}" for name in names)]


TABLES: Final[dict[str, Callable[[Any], list[Table]]]] = {
    "drain": _drain,
    "peers": _peers,
    "latency": _latency,
    "burst": _burst,
    "symbols": _symbols,
    "skew": _skew,
    "workers": _workers,
    "start": _start,
    "backtest": _backtest,
    "stages": _stages,
    "checkpoints": _checkpoints,
    "recovery": _recovery,
}


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


def write_page(findings: Findings, page: Path = PAGE) -> None:
    """Put plots and tables between the page's markers, and the plots beside the page.

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
    pictures = [f"![{plots.CAPTIONS[name]}]({name}.svg)" for name in plots.write(findings, page.parent)]
    made = "\n\n".join([*pictures, markdown(findings)])
    page.write_text(f"{before}{START}\n\n{made}\n\n{END}{after}", encoding="utf-8")


def write_docs(findings: Findings) -> None:
    """Keep the findings beside those of other parts, and write the page from all of them."""
    together = kept.merged(kept.read(RESULTS), findings)
    kept.write(together, RESULTS)
    write_page(together)


def main() -> None:
    """The page again, from what is kept and from the files that the command line names."""
    for file in map(Path, sys.argv[1:]):
        if not file.exists():
            sys.exit(f"no file {file}")
        kept.write(kept.merged(kept.read(RESULTS), kept.read(file)), RESULTS)
    write_page(kept.read(RESULTS))


if __name__ == "__main__":
    main()
