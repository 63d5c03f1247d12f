"""What sending a produce request costs: `python -m tests.benchmark.requests`. No Kafka.

Requests of three batches, as the worker sends for each chunk, are written to a socket that a thread empties, by
aiokafka's own `send` and by ours, in turns; CPU time of the sending thread alone, so that what else the machine does
hardly counts.
"""

import asyncio
import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.produce import ProduceRequest

from stream.requests import send

BATCH_BYTES: Final = (300, 6_000, 200_000, 330_000)  # chunks of 1, 16 and 512 ticks, and the largest batches
TURNS: Final = 200
MICROSECONDS: Final = 1e6


def main() -> None:
    """Print a line for each size."""
    asyncio.run(_measure())


async def _measure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_empty, args=(server,), daemon=True).start()
        _, writer = await asyncio.open_connection(*server.getsockname())
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until the socket has taken everything
        connection = AIOKafkaConnection("127.0.0.1", server.getsockname()[1], client_id="bench")
        connection._writer, connection._versions = writer, {ProduceRequest.API_KEY: (0, 7)}
        print(f"{'bytes':>9} {'aiokafka us':>12} {'ours us':>8}  ours / aiokafka: median and quartiles")
        for size in BATCH_BYTES:
            pairs = [await _pair(connection, size, turn % 2 == 0) for turn in range(TURNS)]
            low, middle, high = statistics.quantiles((ours / theirs for theirs, ours in pairs), n=4)
            theirs, ours = (statistics.median(column) * MICROSECONDS for column in zip(*pairs, strict=True))
            print(f"{3 * size:>9,} {theirs:>12.0f} {ours:>8.0f}  {middle:.2f} ({low:.2f} to {high:.2f})")
        connection._writer = None
        writer.close()


def _empty(server: socket.socket) -> None:
    with server.accept()[0] as taken:
        buffer = bytearray(1 << 20)
        while taken.recv_into(buffer):
            pass


async def _pair(connection: AIOKafkaConnection, size: int, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        ours = await _time(connection, send, size)
        return await _time(connection, AIOKafkaConnection.send, size), ours
    return await _time(connection, AIOKafkaConnection.send, size), await _time(connection, send, size)


async def _time(connection: AIOKafkaConnection, sender: Callable[..., Any], size: int) -> float:
    topics = [(name, [(0, np.full(size, 65, np.uint8).data)]) for name in ("predictions", "risk", "actions")]
    request = ProduceRequest(None, -1, 30_000, topics)
    start = time.thread_time()
    sender(connection, request).close()  # the answer that never comes
    await connection._writer.drain()
    taken = time.thread_time() - start
    connection._requests.clear()
    return taken


if __name__ == "__main__":
    main()
