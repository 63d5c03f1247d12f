"""What checkpoints cost, and how fast state is back: `python -m tests.benchmark.checkpoints [--runs N] [--ticks N]`.

Drains the same filled topic in turns without snapshots, with them every second, and exactly once every 100 ms, as
`tests.benchmark.drain` does; then starts a worker on the state that the last one left, and reads how long it took.
The ticks are made: `instruments` symbols, each tick of one drawn evenly, so that with many of them a checkpoint writes
nearly all.
"""

import argparse
import re
import statistics
import time
from typing import Final, NamedTuple

import msgspec
import numpy as np
from rich.console import Console

from stream.config import Settings
from stream.messages import Tick, encode
from tests.benchmark.drain import WARM_UP_SHARE, Run, _Watch
from tests.benchmark.stand import LOOK_SECONDS, Stand, fill
from tests.benchmark.tape import Tape

START_NS: Final = 1_700_000_000_000_000_000
RECOVERED: Final = re.compile(r"recovered partitions=\S+ instruments=(\d+) seconds=([0-9.]+)")


class Way(NamedTuple):
    """How a worker keeps its state."""

    name: str
    snapshots: bool
    delivery: str
    commit_interval_seconds: float


WAYS: Final = (
    Way("no snapshots", False, "at_least_once", 1.0),
    Way("at_least_once, 1 s", True, "at_least_once", 1.0),
    Way("exactly_once, 100 ms", True, "exactly_once", 0.1),
)


def record(ticks: int, instruments: int, seed: int = 0) -> Tape:
    """Ticks of `instruments` symbols, 0.1 ms apart."""
    random = np.random.default_rng(seed)
    chosen = np.concatenate([np.arange(instruments), random.integers(0, instruments, ticks - instruments)])
    names = [f"S{number}" for number in range(instruments)]
    prices = np.round(100.0 + 0.01 * random.integers(-50, 50, ticks), 2).tolist()
    values = [
        encode(Tick(names[at], START_NS + number * 100_000, price, 1.0, trade_id=number + 1))
        for number, (at, price) in enumerate(zip(chosen.tolist(), prices, strict=True))
    ]
    return Tape([names[at].encode() for at in chosen.tolist()], values, chosen)


def suited(settings: Settings, way: Way) -> Settings:
    """The settings with a way of keeping state."""
    options = {name: value for name, value in way._asdict().items() if name != "name"}
    return msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, **options))


def drain(stand: Stand, settings: Settings, ticks: int) -> Run:
    """One run, from a tenth of the ticks to all of them."""
    with stand.run("worker", settings) as child:
        watch = _Watch(child, int(ticks * WARM_UP_SHARE))
        # Ends of topics: the markers of transactions count too, at exactly_once one for each checkpoint.
        while (answered := min((counts := stand.counts(settings)).values())) < ticks:
            assert child.running, child.last_lines()
            watch.look(answered)
            time.sleep(LOOK_SECONDS)
        watch.look(answered)
        return watch.run(list(counts.values()))


def recover(stand: Stand, settings: Settings) -> tuple[int, float]:
    """Instruments and seconds of a start on the state that is there."""
    log = stand.file("subject.log")
    log.unlink()
    with stand.run("worker", settings) as child:
        while not (found := RECOVERED.search(log.read_text())):
            assert child.running, child.last_lines()
            time.sleep(0.02)
    return int(found[1]), float(found[2])


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=400_000)
    parser.add_argument("--instruments", type=int, nargs="+", default=[16, 10_000])
    options = parser.parse_args()
    console = Console(width=120)
    with Stand() as stand:
        for instruments in options.instruments:
            ticks = f"ticks.{instruments}"
            stand.create(ticks, 1)
            fill(stand.broker, ticks, record(options.ticks, instruments), 1, slice(options.ticks))
            _measure(stand, ticks, options.ticks, options.runs, instruments, console)


def _measure(stand: Stand, topic: str, ticks: int, runs: int, instruments: int, console: Console) -> None:
    found: dict[Way, list[Run]] = {way: [] for way in WAYS}
    recoveries: list[tuple[int, float]] = []
    for _ in range(runs):
        for way in WAYS:
            with stand.topics(1, topic) as plain:
                settings = suited(plain, way)
                found[way].append(drain(stand, settings, ticks))
                if way.snapshots:
                    recoveries.append(recover(stand, settings))
    for way, taken in found.items():
        shown = ", ".join(f"{run.ticks_per_second:,.0f} ({run.ticks_per_cpu_second:,.0f})" for run in taken)
        pairs = list(zip(taken, found[WAYS[0]], strict=True))
        ratio = statistics.median(run.ticks_per_second / plain.ticks_per_second for run, plain in pairs)
        cpu = statistics.median(run.ticks_per_cpu_second / plain.ticks_per_cpu_second for run, plain in pairs)
        console.print(
            f"{instruments:>6} instruments  {way.name:<21} {shown} ticks/s (per CPU s); ratio {ratio:.3f} ({cpu:.3f})"
        )
    for count, seconds in recoveries:
        console.print(f"{instruments:>6} instruments  recovered {count} in {seconds:.3f} s")


if __name__ == "__main__":
    main()
