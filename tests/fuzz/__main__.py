"""`python -m tests.fuzz`: so many inputs, each message answered or refused, none lost, no crash, bounded time each."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.children import Child
from stream.config import ROOT
from stream.signals import stop_on_signals
from tests.benchmark import machine
from tests.fuzz.subject import Counts

LONGEST: Final = 400  # bytes an input: six messages, and room
LOOK_SECONDS: Final = 0.1


def main() -> int:
    """Do a run; 0 if nothing broke."""
    options = _parser().parse_args()
    seed = random.SystemRandom().randrange(1, 2**31) if options.seed is None else options.seed
    stop = stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="tapewatch-fuzz-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.fuzz.target", str(options.inputs), name]
        command += [f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={name}/", "-rss_limit_mb=4096"]
        began = time.monotonic()
        with Child(command, folder / "fuzz.log", directory=ROOT) as child:
            while child.running and not stop.wait(LOOK_SECONDS):
                pass
        if stop.is_set():
            return 130
        found = _report(folder, options.inputs, seed, time.monotonic() - began, child.returncode or 0)
        if not found["ok"] and options.keep is not None:
            shutil.copytree(folder, options.keep, dirs_exist_ok=True)
        last_lines = child.last_lines(15)
    print(_shown(found))
    if not found["ok"]:
        print(last_lines, file=sys.stderr)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return 0 if found["ok"] else 1


def _report(folder: Path, wanted: int, seed: int, seconds: float, status: int) -> dict[str, Any]:
    file = folder / "counts.json"
    counts = msgspec.json.decode(file.read_bytes(), type=Counts) if file.exists() else Counts()
    found: dict[str, Any] = {
        "ok": status == 0 and counts.inputs == wanted,
        "command": f"python -m tests.fuzz --inputs {wanted} --seed {seed}",
        "machine": machine.describe(),
        "seconds": seconds,
        "status": status,
        **msgspec.to_builtins(counts),
    }
    return found


def _shown(found: dict[str, Any]) -> str:
    refused = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found["refused"].items()))
    return (
        f"{found['inputs']:,} inputs, {found['messages']:,} messages in {found['seconds']:,.0f} s: "
        f"{found['answered']:,} answered, {found['controls']:,} controls taken, "
        f"{sum(found['refused'].values()):,} refused ({refused}); the slowest input "
        f"took {found['slowest_seconds'] * 1000:.1f} ms of processor time\n{'PASSED' if found['ok'] else 'FAILED'}: "
        f"{found['command']}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Odd messages, and what becomes of them.")
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N", help="default 1,000,000")
    parser.add_argument("--seed", type=int, metavar="S", help="repeats a run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what broke it there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
