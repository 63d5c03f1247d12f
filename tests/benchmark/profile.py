"""Where a worker's time goes, as a flame graph: `make profile`, which writes docs/performance/flame.svg.

A worker drains a filled topic on the bench's stand; once a tenth is answered py-spy looks at its stacks for some
seconds, native frames included. Prints the load before, and the share of time below each of the widest frames.
To py-spy a thread of asyncio's executor that waits for work (`_worker`) is busy: its pillar is no time of the worker.
"""

import argparse
import re
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Final

from stream.config import ROOT
from stream.errors import TapewatchError
from tests.benchmark.drain import WARM_UP_SHARE
from tests.benchmark.machine import load
from tests.benchmark.report import FOLDER
from tests.benchmark.stand import LOOK_SECONDS, PATIENCE_SECONDS, Stand, fill
from tests.benchmark.tape import record

PICTURE: Final = FOLDER / "flame.svg"
LOOKS_A_SECOND: Final = 250
SHOWN: Final = 40
FRAME: Final = re.compile(r"<title>(.+?) \([0-9,]+ samples?, ([0-9.]+)%\)</title>")


def take(picture: Path, ticks: int, seconds: int) -> None:
    """Record one drain.

    Raises
    ------
    TapewatchError
        If the worker ends, or py-spy may not look at it.
    """
    with Stand() as stand:
        stand.create("ticks", 1)
        fill(stand.broker, "ticks", record(ticks), 1)
        with stand.topics(1, "ticks") as settings, stand.run("worker", settings) as child:
            end = time.monotonic() + PATIENCE_SECONDS
            while min(stand.counts(settings).values()) < ticks * WARM_UP_SHARE:
                if not child.running or time.monotonic() > end:
                    raise TapewatchError(f"the worker answers nothing; last lines: {child.last_lines(5)}")
                time.sleep(LOOK_SECONDS)
            _look_at(child.pid, picture, seconds)
            if min(stand.counts(settings).values()) >= ticks:
                raise TapewatchError(f"all {ticks} ticks were answered before the end: take more, or fewer seconds")


def _look_at(pid: int, picture: Path, seconds: int) -> None:
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--native", "--function", "--pid", str(pid)]
    options = ["--rate", str(LOOKS_A_SECOND), "--duration", str(seconds), "--output", str(picture)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TapewatchError(f"py-spy cannot look at the worker: {done.stderr.strip()}")
    picture.write_text(without_paths(picture.read_text(encoding="utf-8")), encoding="utf-8")


def without_paths(svg: str) -> str:
    """A flame graph without the folders of this machine, which its heading holds."""
    return svg.replace(f"{sys.prefix}/", "").replace(f"{ROOT}/", "")


def shares(svg: str) -> dict[str, float]:
    """Per cent of the samples below each frame, the widest first; of a frame at several places the sum."""
    found: dict[str, float] = {}
    for name, share in FRAME.findall(svg):
        found[unescape(name)] = found.get(unescape(name), 0.0) + float(share)
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def main() -> None:
    """Record, and tell what stands out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    print(f"load before: {load():.2f}")
    take(options.out, options.ticks, options.seconds)
    for name, share in list(shares(options.out.read_text(encoding="utf-8")).items())[:SHOWN]:
        print(f"{share:6.1f} %  {name}")


if __name__ == "__main__":
    try:
        main()
    except TapewatchError as error:
        sys.exit(f"profile: {error}")
