"""What a run came to: what was sent against what Kafka holds, and what Kafka holds against what was published."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

import msgspec
from rich.console import Console
from rich.table import Table

from stream.verify import Report
from tests.chaos.crew import Exit
from tests.chaos.plan import Fault, Kind

OUR_ERROR: Final = "tapewatch: "  # how the one line of an error begins; anything else is a traceback or a signal


class Kept(msgspec.Struct):
    """Messages that Kafka acknowledged, against those that it holds."""

    acknowledged: int = 0
    lost: int = 0  # acknowledged, and not there
    changed: int = 0  # there, with other bytes
    foreign: int = 0  # there, and never acknowledged


class Verdict(msgspec.Struct, kw_only=True):
    """All figures of a run."""

    seed: int
    command: str
    machine: dict[str, str]
    workers: int
    rate: float  # messages a second that were to be sent
    seconds: float  # of load
    sent: int
    refused: list[str]  # why Kafka did not take messages, the first few
    kept: Kept
    uncommitted: int  # messages above the committed offsets at the end
    catch_up_seconds: float  # from the end of the load until everything was committed
    faults: list[Fault]
    exits: list[Exit]  # of workers by themselves, or with a status other than 0
    report: Report
    swapped: list[str] = []  # name@version of the models that were swapped in

    @property
    def idle(self) -> list[str]:
        """Of those the ones that answered no tick: on a backlog a swap may wait until the load ends."""
        return [name for name in self.swapped if name not in self.report.models]

    @property
    def problems(self) -> list[str]:
        """What must not be, a line each."""
        return [*_of_the_ticks(self), *_of_the_workers(self.exits), *_of_the_results(self)]

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing wrong, nothing twice where that is promised."""
        return not self.problems


def compare(remembered: Mapping[int, int], held: Mapping[int, int], kept: Kept) -> None:
    """Add one partition of the ticks: offset -> fingerprint, as acknowledged and as it is."""
    kept.acknowledged += len(remembered)
    kept.lost += sum(offset not in held for offset in remembered)
    kept.foreign += sum(offset not in remembered for offset in held)
    kept.changed += sum(held.get(offset, found) != found for offset, found in remembered.items())


def _of_the_ticks(verdict: Verdict) -> Iterator[str]:
    kept = verdict.kept
    if verdict.refused or kept.acknowledged != verdict.sent:
        yield f"{verdict.sent - kept.acknowledged} of {verdict.sent} messages were not taken: {verdict.refused[:1]}"
    for name, count in (("lost", kept.lost), ("changed", kept.changed), ("never acknowledged", kept.foreign)):
        if count:
            yield f"Kafka's own: {count} messages {name}"
    if verdict.uncommitted:
        yield f"{verdict.uncommitted} messages were never committed"
    if verdict.report.ticks != kept.acknowledged:
        yield f"{verdict.report.ticks} messages verified, {kept.acknowledged} acknowledged"


def _of_the_workers(exits: list[Exit]) -> Iterator[str]:
    for each in exits:
        if each.status < 0 or not each.last_line.startswith(OUR_ERROR):
            yield f"worker {each.worker} ended with {each.status} and no clear reason: {each.last_line}"


def _of_the_results(verdict: Verdict) -> Iterator[str]:
    report = verdict.report
    if report.internal:
        yield f"{report.internal} ticks were refused as internal"
    if not report.ok:
        yield f"published is not what the ticks call for: {report.first_difference or 'duplicates'}"


def show(verdict: Verdict, console: Console) -> None:
    """The tables, and the verdict in one line."""
    console.print(_faults(verdict))
    console.print(_results(verdict))
    kept, report = verdict.kept, verdict.report
    console.print(
        f"sent {verdict.sent:,} in {verdict.seconds:.1f} s, acknowledged {kept.acknowledged:,}, answered "
        f"{report.answered:,}, all committed {verdict.catch_up_seconds:.1f} s after the last"
    )
    for each in verdict.exits:
        console.print(f"worker {each.worker} ended with {each.status}: {each.last_line}", markup=False)
    if verdict.idle:
        console.print(f"swapped in, but not in force before the end: {', '.join(verdict.idle)}", markup=False)
    for problem in verdict.problems:
        console.print(f"PROBLEM {problem}", style="red", markup=False)
    console.print(f"{'PASSED' if verdict.ok else 'FAILED'}: seed {verdict.seed}, delivery {report.delivery}")


def _faults(verdict: Verdict) -> Table:
    table = Table("fault", "times", title=f"Faults, seed {verdict.seed}", title_justify="left")
    kinds = [fault.kind for fault in verdict.faults]
    for kind in sorted(get_args(Kind)):
        table.add_row(kind, str(kinds.count(kind)))
    table.add_row("workers ended by themselves", str(len(verdict.exits)))
    return table


def _results(verdict: Verdict) -> Table:
    columns = ("topic", "expected", "lost", "wrong", "duplicate", "out of order")
    table = Table(*columns, title=f"Verdict, {verdict.report.delivery}", title_justify="left")
    for role, tally in verdict.report.topics.items():
        figures = (tally.expected, tally.missing, tally.different, tally.duplicated, tally.unordered)
        table.add_row(role, *(f"{figure:,}" for figure in figures))
    return table


def write_json(verdict: Verdict, file: Path) -> None:
    """Every figure, for programs."""
    tree = msgspec.to_builtins(verdict) | {"problems": verdict.problems, "ok": verdict.ok}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n")
