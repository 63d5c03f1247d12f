"""`python -m tests.soak`: a worker on a real Kafka at a steady rate for hours, and whether anything of it grows.

Starts a Kafka of its own from `make kafka`, on 127.0.0.1, and leaves nothing running.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Literal

from stream.broker import KafkaBroker
from stream.config import Settings, Worker
from stream.errors import TapewatchError
from stream.signals import stop_on_signals
from tests.soak import stage, verdict


def main() -> int:
    """Do a run; 0 if nothing is missing and nothing grew."""
    options = _parser().parse_args()
    command = (
        f"python -m tests.soak --hours {options.hours:g} --rate {options.rate:g} --instruments {options.instruments} "
        f"--delivery {options.delivery}"
    )
    stop = stop_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="tapewatch-soak-") as folder, KafkaBroker() as broker:
            found = stage.run(
                _wanted(options, command), _settings(broker.address, options.delivery), Path(folder), stop
            )
    except TapewatchError as error:
        print(f"tests.soak: {error}", file=sys.stderr)
        return 1
    print(verdict.show(found))
    if options.json is not None:
        verdict.write_json(found, options.json)
    return 1 if found.problems else 0


def _wanted(options: argparse.Namespace, command: str) -> stage.Options:
    return stage.Options(command, options.hours * 3600, options.rate, options.instruments)


def _settings(broker: str, delivery: Literal["at_least_once", "exactly_once"]) -> Settings:
    seconds = 0.1 if delivery == "exactly_once" else 1.0
    return Settings(broker, worker=Worker(group="soak", port=0, delivery=delivery, commit_interval_seconds=seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A steady load, and what grows.")
    parser.add_argument("--hours", type=float, default=1.0, metavar="H", help="of load (default 1)")
    parser.add_argument("--rate", type=float, default=5000.0, metavar="R", help="ticks a second (default 5,000)")
    parser.add_argument("--instruments", type=int, default=1000, metavar="N", help="default 1,000")
    parser.add_argument("--delivery", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    return parser


if __name__ == "__main__":
    sys.exit(main())
