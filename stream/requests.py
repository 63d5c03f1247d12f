"""Produce requests that are written as they lie: aiokafka 0.14 copies the batches of a request seven times.

It joins them into a partition's entry, these into a topic's, these into the list, the fields, the request, and puts the
header and then the length before it; what the socket does not take at once is cut off once more. Here small pieces
are joined, and a large batch goes from the memory that it was encoded into straight to the socket.
"""

import struct
from collections.abc import Awaitable, Callable, Iterator
from types import MethodType
from typing import Any, Final, cast

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import Int16, Int32, String
from aiokafka.util import wait_for

JOINED_BYTES: Final = 65_536
"""A request up to this size is joined: a copy of it costs less than a further call of the system."""
FIRST_VERSION: Final = 3  # of the requests that are laid out as `pieces` lays them out; brokers have it since 2017
_LENGTH: Final = struct.Struct(">i")
_STRING: Final = String("utf-8")

Piece = bytes | bytearray | memoryview
GetConnection = Callable[..., Awaitable[AIOKafkaConnection | None]]


def without_copies(get_connection: GetConnection) -> GetConnection:
    """aiokafka's `AIOKafkaClient._get_conn`, whose connections send as `send` of this module does."""

    async def lean(*args: Any, **options: Any) -> AIOKafkaConnection | None:
        connection = await get_connection(*args, **options)
        if connection is not None and "send" not in vars(connection):
            connection.send = MethodType(send, connection)
        return connection

    return lean


def send(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Awaitable[Any]:
    """As `AIOKafkaConnection.send`, which does it for every other request than a produce request.

    Raises
    ------
    KafkaConnectionError
        If the connection is not open.
    """
    if expect_response and isinstance(request, ProduceRequest) and connection._writer is not None:
        laid_out = request.prepare(connection._versions)
        if laid_out.API_VERSION >= FIRST_VERSION:
            return _send(connection, laid_out)
    return cast(Awaitable[Any], AIOKafkaConnection.send(connection, request, expect_response))


def _send(connection: AIOKafkaConnection, request: RequestStruct) -> Awaitable[Any]:
    number = connection._next_correlation_id()
    header = request.build_request_header(correlation_id=number, client_id=connection._client_id)
    try:
        _write(connection._writer, [header.encode(), *pieces(request)])
    except OSError as error:
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"connection to {connection._host}:{connection._port} broken: {error}") from error
    answered = connection._loop.create_future()
    connection._requests.append((number, request, answered))
    return cast(Awaitable[Any], wait_for(answered, connection._request_timeout))


def _write(writer: Any, message: list[Piece]) -> None:
    size = sum(map(len, message))
    message.insert(0, _LENGTH.pack(size))
    if size <= JOINED_BYTES:
        writer.write(b"".join(message))
        return
    small: list[Piece] = []
    for piece in message:
        if len(piece) <= JOINED_BYTES:
            small.append(piece)
            continue
        writer.write(b"".join(small))
        writer.write(memoryview(piece))  # of a view the transport cuts off what is sent without a copy
        small = []
    writer.write(b"".join(small))


def pieces(request: RequestStruct) -> Iterator[Piece]:
    """The body of a produce request of version 3 to 7: its batches as they are, and what stands between them."""
    between = _STRING.encode(request.transactional_id) + Int16.encode(request.required_acks)
    between += Int32.encode(request.timeout) + Int32.encode(len(request.topics))
    for topic, partitions in request.topics:
        between += _STRING.encode(topic) + Int32.encode(len(partitions))
        for partition, batch in partitions:
            yield between + Int32.encode(partition) + Int32.encode(len(batch))
            yield batch
            between = b""
    yield between
