"""What viewers of the board cost the worker: `python -m tests.benchmark.viewers [--viewers 20] [--seconds 10]`.

The worker's own CPU time for a second of the board, without Kafka: the books of four partitions with the symbols of a
busy desk are filled, so many viewers read the news over real connections, half of them following a symbol, and the
process's CPU seconds are taken without and with them. The viewers run in a process of their own. The share of one
core is the share of the throughput that they cost, for a worker that is busy keeps one core busy. Also: what keeping
the last minutes costs a tick.
"""

import argparse
import asyncio
import sys
import time
from typing import Final

import numpy as np

from stream.config import Settings, Web, Worker
from stream.core import history
from stream.decoding import Instruments
from stream.health import Health
from stream.metrics import Metrics
from stream.pipeline import Output
from stream.web.desk import Desk
from stream.web.pages import Pages
from tests.unit.test_history import answers

PARTITIONS: Final = 4
SYMBOLS: Final = 64  # in each partition: all rings are taken, and the table is full
SECONDS_KEPT: Final = 600

READERS: Final = """
import asyncio, sys
async def read(host, port, path):
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    writer.write(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    while await reader.read(1 << 18):
        pass
async def main(host, port, count):
    paths = ["/live" if i % 2 else f"/live?symbol=S{i}&venue=" for i in range(count)]
    await asyncio.gather(*(read(host, port, path) for path in paths))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def filled() -> Desk:
    """A desk with full books."""
    desk = Desk(PARTITIONS * SYMBOLS)
    for partition in range(PARTITIONS):
        instruments = Instruments(SYMBOLS)
        for number in range(SYMBOLS):
            instruments.add(f"S{number}" if partition == 0 else f"P{partition}S{number}", "")
        desk.open(partition, instruments)
        for second in range(SECONDS_KEPT):
            desk.note(partition, _chunk(second), 0)
    return desk


def _chunk(second: int) -> Output:
    prices = [100.0 + (second * 7 + number) % 13 for number in range(SYMBOLS)]
    return Output([], [], [], answers([float(second)] * SYMBOLS, prices, range(SYMBOLS)), 0, {})


def nanoseconds_a_tick(chunk_ticks: int, runs: int = 200) -> float:
    """Of keeping the last minutes, in chunks of so many ticks."""
    newest, rings = np.zeros(SYMBOLS, history.NEWEST), history.new_rings(SYMBOLS)
    rows = np.arange(SYMBOLS, dtype=np.int32)
    chunk = answers(
        [number / 512 for number in range(chunk_ticks)], slots=[number % SYMBOLS for number in range(chunk_ticks)]
    )
    history.note(newest, rings, rows, chunk, 0)
    began = time.process_time()
    for _ in range(runs):
        history.note(newest, rings, rows, chunk, 0)
    return (time.process_time() - began) / runs / chunk_ticks * 1e9


async def core_share(viewers: int, seconds: float) -> float:
    """CPU seconds a second of this process with so many viewers."""
    desk = filled()
    settings = Settings(worker=Worker(port=0), web=Web(viewers=max(viewers, 1)))
    pages = Pages(settings, Metrics(), Health(30.0), desk, lambda: PARTITIONS)
    host, port = (await pages.start()).removeprefix("http://").split(":")
    readers = await asyncio.create_subprocess_exec(sys.executable, "-c", READERS, host, port, str(viewers))
    try:
        while pages.live.viewers < viewers:
            await pages.live.tick()
        await pages.live.tick()
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() - began < seconds:
            await pages.live.tick()
        return (time.process_time() - used) / (time.monotonic() - began)
    finally:
        if readers.returncode is None:
            readers.terminate()
        await readers.wait()
        await pages.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What viewers of the board cost the worker.")
    parser.add_argument("--viewers", type=int, default=20, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S")
    options = parser.parse_args()
    for chunk_ticks in (1, 32, 512):
        print(f"keeping the last minutes, chunks of {chunk_ticks:>3}: {nanoseconds_a_tick(chunk_ticks):8.0f} ns a tick")
    for viewers in (0, options.viewers):
        share = asyncio.run(core_share(viewers, options.seconds))
        print(f"{viewers:>3} viewers of {PARTITIONS * SYMBOLS} symbols: {share:7.2%} of a core")


if __name__ == "__main__":
    main()
