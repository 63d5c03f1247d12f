"""`python -m tests.benchmark [stages] [drain] [latency] [checkpoints] [recovery]`: what `make bench` runs, all of them.

Starts a Kafka of its own from `make kafka`, on 127.0.0.1, and leaves nothing running.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from stream.errors import TapewatchError
from tests.benchmark import checkpoints, drain, latency, machine, report, stages, tape
from tests.benchmark.stand import Stand
from tests.benchmark.tape import Tape

PARTS: Final = ("stages", "drain", "latency", "checkpoints", "recovery")
RATES: Final[list[tuple[latency.Measured, float]]] = [
    ("worker", 1000.0),
    ("worker", 5000.0),
    ("worker", 20_000.0),
    ("worker, exactly once", 5000.0),
    ("naive", 1000.0),
    ("Kafka alone", 5000.0),
]
WIDTH: Final = 120  # of the tables, where the output is no terminal
NAIVE_SHARE: Final = 40  # the naive agent gets so many times fewer ticks to drain: it is slower by more than that


def main() -> None:
    """Measure what the command line names, show it, and keep it where asked."""
    options = _parser().parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        sys.exit(f"tests.benchmark: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    console = Console()
    console.width = max(console.width, WIDTH)
    try:
        findings = measure(options.parts or list(PARTS), options, Console(stderr=True))
    except TapewatchError as error:
        sys.exit(f"tests.benchmark: {error}")
    report.show(findings, console)
    if options.json:
        report.write_json(findings, options.json)
    if options.docs:
        report.write_docs(findings)


def measure(parts: list[str], options: argparse.Namespace, progress: Console) -> report.Findings:
    """The parts, one after the other."""
    findings = report.Findings(machine.describe())
    longest = max(rate for _, rate in RATES)
    paced_ticks = latency.PRIMING_TICKS + round(longest * (latency.WARM_UP_SECONDS + options.seconds))
    recorded = tape.record(max(options.ticks, paced_ticks))
    if "stages" in parts:
        progress.print("stages: the pipeline by itself")
        findings.stages = stages.measure(recorded, min(options.ticks, 200_000), options.runs)
    if set(parts) - {"stages"}:
        progress.print("starting Kafka")
        with Stand() as stand:
            _on_kafka(stand, recorded, parts, options, findings, progress)
    return findings


def _on_kafka(
    stand: Stand, recorded: Tape, parts: list[str], options: argparse.Namespace, findings: report.Findings, out: Console
) -> None:
    if "drain" in parts:
        wanted = drain.cases(options.ticks, max(1000, options.ticks // NAIVE_SHARE))
        out.print(f"drain: {options.runs} runs of {', '.join(f'{c.subject}/{c.partitions}' for c in wanted)}")
        findings.drain = drain.measure(stand, recorded, wanted, options.runs)
    if "latency" in parts:
        for subject, rate in RATES:
            out.print(f"latency: {subject} at {rate:,.0f} ticks/s")
            findings.latency.append(latency.measure(stand, recorded, subject, rate, options.seconds))
    if "checkpoints" in parts:
        out.print(
            f"checkpoints: {options.runs} runs of {len(checkpoints.WAYS)} ways with {options.instruments} symbols"
        )
        findings.checkpoints = checkpoints.measure(stand, options.instruments, options.ticks, options.runs)
    if "recovery" in parts:
        for number in options.instruments:
            out.print(f"recovery: {options.runs} starts on the snapshots of {number:,} symbols")
            findings.recovery.append(checkpoints.recover(stand, number, options.runs))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description="Throughput and latency on Kafka.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them by default")
    parser.add_argument("--runs", type=_count, default=5, metavar="N", help="runs of each case (default 5)")
    parser.add_argument("--ticks", type=_count, default=600_000, metavar="N", help="to drain (default 600,000)")
    parser.add_argument("--seconds", type=_count, default=20, metavar="N", help="at each rate (default 20)")
    parser.add_argument(
        "--instruments",
        type=_count,
        nargs="+",
        default=[16, 10_000],
        metavar="N",
        help="of checkpoints and recovery (default 16 10000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's figures")
    parser.add_argument("--docs", action="store_true", help="write docs/performance/ again")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    main()
