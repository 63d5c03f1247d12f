"""All that was found, as JSON: each part with the machine, the date and the commit it was taken at."""

import math
from pathlib import Path
from typing import Any, Final

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


RATES: Final = ("ticks_per_second", "ticks_per_cpu_second")
PARTS: Final = tuple(name for name in Findings.__struct_fields__ if name != "taken")


def merged(old: Findings, new: Findings) -> Findings:
    """The new parts, and the old ones that were not measured again."""
    again = {part: getattr(new, part) for part in new.taken}
    return msgspec.structs.replace(old, taken=old.taken | new.taken, **again)


def read(file: Path) -> Findings:
    """What `write` wrote; nothing at all where there is no such file. ValueError if it is something else."""
    if not file.exists():
        return Findings()
    return msgspec.convert(_with_nan(msgspec.json.decode(file.read_bytes())), Findings, strict=False)


def _with_nan(value: Any) -> Any:
    """JSON has no NaN: null where a rate stands is one that could not be measured."""
    if isinstance(value, dict):
        return {key: math.nan if one is None and key in RATES else _with_nan(one) for key, one in value.items()}
    return [_with_nan(one) for one in value] if isinstance(value, list) else value


def write(findings: Findings, file: Path) -> None:
    """Every run's figures, for programs; NaN becomes null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n")
