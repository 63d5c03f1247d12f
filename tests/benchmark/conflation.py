"""What conflation saves: `python -m tests.benchmark.conflation [--runs N] [--ticks N]`, on a Kafka of its own.

Drains the same filled topic in turns with a result for each tick and with the newest of an interval, as
`tests.benchmark.drain` does. Ends of topics do not tell what is done here, so progress is what the worker says it has
computed, looked at ten times a second in all cases alike. CPU seconds are the worker's own.
"""

import argparse
import contextlib
import re
import time
import urllib.request
from statistics import median
from typing import Final

import msgspec

from stream.children import Child
from stream.config import Settings
from stream.errors import TapewatchError
from tests.benchmark import own_share
from tests.benchmark.checkpoints import await_committed
from tests.benchmark.drain import WARM_UP_SHARE, Run, Watch
from tests.benchmark.machine import load
from tests.benchmark.stand import PATIENCE_SECONDS, Stand, fill
from tests.benchmark.tape import Tape, made, record

INTERVALS_MS: Final = (0, 100, 1000)
LOOK_SECONDS: Final = 0.1  # a look costs the worker a page of metrics
MANY: Final = 1000  # instruments, drawn evenly
COMPUTED: Final = re.compile(r"^tapewatch_ticks_total ([0-9.e+]+)$", re.MULTILINE)


def measure(stand: Stand, tape: Tape, ticks: int, runs: int) -> dict[int, list[Run]]:
    """Drain one tape with each interval, in turns."""
    name = stand.name("ticks")
    stand.create(name, 1)
    fill(stand.broker, name, tape, 1)
    found: dict[int, list[Run]] = {interval: [] for interval in INTERVALS_MS}
    for _ in range(runs):
        for interval in INTERVALS_MS:
            with stand.topics(1, name) as plain:
                found[interval].append(_drain(stand, _conflating(plain, interval), ticks))
    return found


def _conflating(settings: Settings, interval_ms: int) -> Settings:
    return msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, conflate_ms=interval_ms))


def _drain(stand: Stand, settings: Settings, ticks: int) -> Run:
    before_it = load()
    with stand.run("worker", settings) as child:
        url = _address(child)
        watch, moved, before = Watch([child], int(ticks * WARM_UP_SHARE)), time.monotonic(), -1
        while (done := _computed(url)) < ticks:
            watch.look(done)
            if done > before:
                before, moved = done, time.monotonic()
            if time.monotonic() - moved > PATIENCE_SECONDS:
                raise TapewatchError(f"{done} of {ticks} ticks computed; last lines: {child.last_lines(5)}")
            time.sleep(LOOK_SECONDS)
        watch.look(done)
        await_committed(settings, child, ticks)
        return watch.run(list(stand.counts(settings).values()), before_it)


def _address(child: Child) -> str:
    """Of the worker's metrics, once it answers; earlier workers, whose addresses are in the log too, do not."""
    end = time.monotonic() + PATIENCE_SECONDS
    while child.running and time.monotonic() < end:
        with contextlib.suppress(TapewatchError, OSError):
            url = own_share.address(child)
            _computed(url)
            return url
        time.sleep(LOOK_SECONDS)
    raise TapewatchError(f"the worker does not serve its metrics; last lines: {child.last_lines(5)}")


def _computed(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(float(COMPUTED.findall(answer.read().decode())[0]))


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=300_000)
    options = parser.parse_args()
    print(f"load before: {load():.2f}")
    print("| instruments | conflate_ms | ticks/s by the wall | ticks a CPU second | of it without | results a topic |")
    print("|---|---:|---:|---:|---:|---:|")
    with Stand() as stand:
        for name, tape in (("7, recorded", record(options.ticks)), (f"{MANY:,}, made", made(options.ticks, MANY))):
            found = measure(stand, tape, options.ticks, options.runs)
            for interval, runs in found.items():
                print(_row(name, interval, runs, found[0]))


def _row(name: str, interval: int, runs: list[Run], plain: list[Run]) -> str:
    wall = median(run.ticks_per_second for run in runs)
    cpu = median(run.ticks_per_cpu_second for run in runs)
    ratios = sorted(
        run.ticks_per_cpu_second / other.ticks_per_cpu_second for run, other in zip(runs, plain, strict=True)
    )
    results = median(run.results[1] for run in runs)
    return (
        f"| {name} | {interval} | {wall:,.0f} | {cpu:,.0f} | {median(ratios):.2f} ({ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}) | {results:,.0f} |"
    )


if __name__ == "__main__":
    main()
