"""A producer that keeps a rate: `python -m tests.benchmark.paced`, started by the latency benchmark.

Every millisecond it hands over the ticks that have become due, and notes for each when: by CLOCK_MONOTONIC, which
all processes of a machine share. That a burst comes late, because something else had the core, is noted too, and
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
from tests.benchmark import tape
from tests.benchmark.stand import Feed

BURST_SECONDS: Final = 0.001
OPTIONS: Final = {"linger.ms": 0, "socket.nagle.disable": True, "queue.buffering.max.messages": 200_000}


def main() -> None:
    """Send the ticks `first` to `ticks` of the tape, and write when each was sent and how late that was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("broker")
    parser.add_argument("topic")
    parser.add_argument("partitions", type=int)
    parser.add_argument("rate", type=float, help="ticks a second")
    parser.add_argument("first", type=int)
    parser.add_argument("ticks", type=int)
    parser.add_argument("out", type=Path, help=".npy file: int64[2, ticks - first], sent and late, ns")
    options = parser.parse_args()
    recorded = tape.record(options.ticks)
    feed = Feed(options.broker, options.topic, **OPTIONS)
    try:
        sent = play(recorded, recorded.partition(options.partitions).tolist(), feed, options.rate, options.first)
        feed.close()
    except TapewatchError as error:
        sys.exit(str(error))
    np.save(options.out, sent)


def play(recorded: tape.Tape, partition: list[int], feed: Feed, rate: float, first: int) -> NDArray[np.int64]:
    """Hand over the tape's ticks from `first` on; int64[2, n], CLOCK_MONOTONIC of each and its lateness, ns."""
    count = len(recorded.values) - first
    sent = np.zeros((2, count), np.int64)
    start, done = time.perf_counter(), 0
    while done < count:
        # The burst that is due next, and the ticks that are due by then.
        burst = math.floor((time.perf_counter() - start) / BURST_SECONDS) + 1
        ready = min(count, round(burst * BURST_SECONDS * rate))
        while (left := start + burst * BURST_SECONDS - time.perf_counter()) > 0:
            time.sleep(left)
        if ready == done:
            continue
        now = time.perf_counter_ns()
        due = np.arange(done + 1, ready + 1) / rate * 1e9 + start * 1e9
        sent[0, done:ready] = now
        sent[1, done:ready] = now - due
        for index in range(first + done, first + ready):
            feed.send(partition[index], recorded.keys[index], recorded.values[index])
        feed.poll()
        done = ready
    return sent


if __name__ == "__main__":
    main()
