"""All that was found, as JSON: each part with the machine, the date and the commit it was taken at."""

from pathlib import Path
from typing import Final

import msgspec

from tests.benchmark.backtest import Backtested
from tests.benchmark.burst import Burst
from tests.benchmark.checkpoints import Kept, Recovered
from tests.benchmark.drain import Drained
from tests.benchmark.latency import Rated
from tests.benchmark.stages import Staged
from tests.benchmark.start import Started
from tests.benchmark.symbols import Symbols


class Findings(msgspec.Struct):
    """A field for each part; None where it was not measured."""

    taken: dict[str, dict[str, str]] = {}
    """Part -> machine, date, commit, command."""
    drain: list[Drained] | None = None
    peers: list[Drained] | None = None
    latency: list[Rated] | None = None
    burst: list[Burst] | None = None
    symbols: Symbols | None = None
    skew: list[Drained] | None = None
    workers: list[Drained] | None = None
    start: Started | None = None
    backtest: Backtested | None = None
    stages: list[Staged] | None = None
    checkpoints: list[Kept] | None = None
    recovery: list[Recovered] | None = None


PARTS: Final = tuple(name for name in Findings.__struct_fields__ if name != "taken")


def merged(old: Findings, new: Findings) -> Findings:
    """The new parts, and the old ones that were not measured again."""
    again = {part: getattr(new, part) for part in new.taken}
    return msgspec.structs.replace(old, taken=old.taken | new.taken, **again)


def read(file: Path) -> Findings:
    """What `write` wrote; nothing at all where there is no such file. ValueError if it is something else."""
    return msgspec.json.decode(file.read_bytes(), type=Findings, strict=False) if file.exists() else Findings()


def write(findings: Findings, file: Path) -> None:
    """Every run's figures, for programs; NaN becomes null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n")
