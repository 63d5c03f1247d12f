"""`python -m tests.chaos`: workers and Kafka are struck at random under load, and then nothing may be missing or wrong.

Starts a Kafka of its own from `make kafka`, on 127.0.0.1, and leaves nothing running.
"""

import argparse
import random
import sys
import tempfile
import threading
from pathlib import Path

from rich.console import Console

from stream.errors import TapewatchError
from stream.signals import stop_on_signals
from tests.chaos import plan, verdict
from tests.chaos.stage import Options, run

WIDTH = 120  # of the tables, where the output is no terminal


def main() -> int:
    """Do a run; 0 if nothing was lost, wrong or, exactly once, twice."""
    parser = _parser()
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    command = (
        f"python -m tests.chaos --kills {options.kills} --rate {options.rate:g} --delivery {options.delivery} "
        f"--workers {options.workers} --partitions {options.partitions} --seed {seed}"
        f" --swaps {options.swaps}{' --without-snapshots' * options.without_snapshots}"
    )
    console, progress = Console(), Console(stderr=True)
    console.width = max(console.width, WIDTH)
    progress.print(command, highlight=False)
    faults = plan.with_swaps(plan.make(seed, options.kills, options.workers), seed, options.swaps)
    wanted = Options(
        seed,
        command,
        faults,
        options.rate,
        options.delivery,
        options.workers,
        options.partitions,
        not options.without_snapshots,
    )
    try:
        found = _run(wanted, options.keep, stop_on_signals(), progress)
    except TapewatchError as error:
        print(f"tests.chaos: {error} (seed {seed})", file=sys.stderr)
        return 1
    if found is None:
        return 130
    verdict.show(found, console)
    if options.json is not None:
        verdict.write_json(found, options.json)
    return 0 if found.ok else 1


def _run(wanted: Options, keep: Path | None, stop: threading.Event, progress: Console) -> verdict.Verdict | None:
    def tell(line: str) -> None:
        progress.print(line, markup=False, highlight=False)

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return run(wanted, keep, stop, tell)
    with tempfile.TemporaryDirectory(prefix="tapewatch-chaos-") as folder:
        return run(wanted, Path(folder), stop, tell)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load, and the verdict.")
    parser.add_argument("--kills", type=_count, default=100, metavar="N", help="faults of all kinds (default 100)")
    parser.add_argument("--rate", type=float, default=20_000.0, metavar="R", help="messages a second (default 20,000)")
    parser.add_argument("--delivery", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--seed", type=int, metavar="S", help="repeats the faults of an earlier run")
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="beside one that joins and leaves")
    parser.add_argument("--partitions", type=_count, default=4, metavar="N", help="of each topic (default 4)")
    parser.add_argument("--swaps", type=int, default=3, metavar="N", help="new versions of models (default 3)")
    parser.add_argument("--without-snapshots", action="store_true", help="must fail: the control of the harness itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the workers' output there")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
