"""A producer that keeps a schedule: `python -m tests.benchmark.paced`, started by the latency and burst benchmarks.

Every millisecond it hands over the ticks that have become due, and notes for each when: by CLOCK_MONOTONIC, which
all processes of a machine share. That they come late, because something else had the core, is noted too, and
shown beside the latencies; the clock of a tick begins when it is handed over.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import TapewatchError
from tests.benchmark import schedule, tape
from tests.benchmark.stand import Feed

STEP_NS: Final = 1_000_000
OPTIONS: Final = {"linger.ms": 0, "socket.nagle.disable": True, "queue.buffering.max.messages": 200_000}


def main() -> None:
    """Send the ticks of the tape from `first` on, and write when each was sent and how late that was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("broker")
    parser.add_argument("topic")
    parser.add_argument("partitions", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("out", type=Path, help=".npy file: int64[2, ticks], sent and late, ns")
    parser.add_argument("phases", type=schedule.read, nargs="+", metavar="RATE:SECONDS", help="ticks a second")
    options = parser.parse_args()
    due = schedule.due_ns(options.phases)
    recorded = tape.record(options.first + len(due))
    feed = Feed(options.broker, options.topic, **OPTIONS)
    try:
        sent = play(recorded, recorded.partition(options.partitions).tolist(), feed, due, options.first)
        feed.close()
    except TapewatchError as error:
        sys.exit(str(error))
    np.save(options.out, sent)


def play(
    recorded: tape.Tape, partition: list[int], feed: Feed, due: NDArray[np.int64], first: int
) -> NDArray[np.int64]:
    """Hand over the tape's ticks from `first` on; int64[2, n], CLOCK_MONOTONIC of each and its lateness, ns."""
    sent = np.zeros((2, len(due)), np.int64)
    start, done = time.perf_counter_ns(), 0
    while done < len(due):
        # The next millisecond, and the ticks that are due by its end.
        end = (math.floor((time.perf_counter_ns() - start) / STEP_NS) + 1) * STEP_NS
        ready = int(np.searchsorted(due, end, side="right"))
        while (left := start + end - time.perf_counter_ns()) > 0:
            time.sleep(left * 1e-9)
        if ready == done:
            continue
        now = time.perf_counter_ns()
        sent[0, done:ready] = now
        sent[1, done:ready] = now - (start + due[done:ready])
        for index in range(first + done, first + ready):
            feed.send(partition[index], recorded.keys[index], recorded.values[index])
        feed.poll()
        done = ready
    return sent


if __name__ == "__main__":
    main()
