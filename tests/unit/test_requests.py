"""That a produce request goes out with the bytes that aiokafka would send, small or large, and nothing else changes."""

import asyncio
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest

from stream import requests
from stream.requests import JOINED_BYTES, send, without_copies

VERSIONS = {ProduceRequest.API_KEY: (0, 7), MetadataRequest.API_KEY: (0, 5)}
SMALL, LARGE = b"batch" * 20, memoryview(bytes(range(256)) * (JOINED_BYTES // 128))


class Writer:
    """Keeps what is written, as a transport whose socket takes everything."""

    def __init__(self, error: OSError | None = None) -> None:
        self.written: list[Any] = []
        self._error = error

    def write(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            raise self._error
        self.written.append(data)

    def close(self) -> None:
        pass


def produce(*topics: tuple[str, list[tuple[int, Any]]], transactional_id: str | None = None) -> ProduceRequest:
    return ProduceRequest(transactional_id, -1, 30_000, list(topics))


async def connected(writer: Writer | None, versions: dict[int, tuple[int, int]] = VERSIONS) -> AIOKafkaConnection:
    connection = AIOKafkaConnection("localhost", 9092, client_id="group-results")
    connection._writer, connection._versions = writer, versions
    return connection


def written(request: Any, sender: Any, versions: dict[int, tuple[int, int]] = VERSIONS) -> list[Any]:
    """What `sender` writes for `request` on a new connection; its answer is awaited by nobody."""

    async def write() -> list[Any]:
        writer = Writer()
        connection = await connected(writer, versions)
        sender(connection, request).close()
        assert [type(entry[2]) for entry in connection._requests] == [asyncio.Future]
        return writer.written

    return asyncio.run(write())


@pytest.mark.parametrize(
    "request_",
    [
        produce(("predictions", [(0, SMALL)])),
        produce(("predictions", [(0, LARGE)]), ("risk", [(0, LARGE), (3, SMALL)]), transactional_id="group.ticks.0"),
        produce(("actions", [(0, SMALL), (1, LARGE), (2, SMALL)]), ("risk", [(5, bytearray(SMALL))])),
        produce(),
        MetadataRequest(["ticks"]),
    ],
)
@pytest.mark.parametrize("version", [3, 7])
def test_the_bytes_are_aiokafkas_own(request_: Any, version: int) -> None:
    versions = VERSIONS | {ProduceRequest.API_KEY: (version, version)}
    expected = b"".join(written(request_, AIOKafkaConnection.send, versions))
    assert b"".join(written(request_, send, versions)) == expected


def test_a_broker_of_2016_is_sent_what_aiokafka_sends() -> None:
    versions = VERSIONS | {ProduceRequest.API_KEY: (0, 2)}
    request = produce(("risk", [(0, LARGE)]))
    assert written(request, send, versions) == written(request, AIOKafkaConnection.send, versions)


def test_a_large_batch_is_written_from_where_it_lies_and_a_small_request_in_one_piece() -> None:
    large = written(produce(("risk", [(0, SMALL), (1, LARGE)])), send)
    assert [getattr(piece, "obj", None) is LARGE.obj for piece in large if len(piece) > JOINED_BYTES] == [True]
    assert len(written(produce(("risk", [(0, SMALL), (1, SMALL)])), send)) == 1


def test_the_answer_reaches_who_sent() -> None:
    async def play() -> Any:
        connection = await connected(Writer())
        answer = asyncio.ensure_future(send(connection, produce(("risk", [(0, SMALL)]))))
        await asyncio.sleep(0)
        number, sent, future = connection._requests[0]
        assert number == connection._correlation_id
        assert sent.RESPONSE_TYPE.API_VERSION == 7
        future.set_result("acknowledged")
        return await answer

    assert asyncio.run(play()) == "acknowledged"


@pytest.mark.parametrize("writer", [None, Writer(BrokenPipeError("gone"))])
def test_a_connection_that_is_not_open_says_so(writer: Writer | None) -> None:
    async def play() -> None:
        await send(await connected(writer), produce(("risk", [(0, LARGE)])))

    with pytest.raises(KafkaConnectionError):
        asyncio.run(play())


def test_each_connection_of_a_client_is_changed_once_and_a_missing_one_is_none() -> None:
    async def play() -> None:
        connection = await connected(Writer())
        found = iter([connection, connection, None])

        async def get_connection(_node: int, *, group: int) -> AIOKafkaConnection | None:
            assert group == 1
            return next(found)

        lean: Any = without_copies(get_connection)
        assert await lean(0, group=1) is connection
        changed: Any = connection.send
        assert changed.__func__ is requests.send
        assert await lean(0, group=1) is connection
        assert connection.send is changed
        assert await lean(0, group=1) is None

    asyncio.run(play())
