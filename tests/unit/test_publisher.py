"""How a refused message goes to its topic, and what the producer does while its coordinator is away."""

import asyncio
from typing import Any

import pytest
from aiokafka.client import CoordinationType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.sender import Sender
from aiokafka.producer.transaction_manager import TransactionManager

from stream.publisher import MAX_KEY_BYTES, MAX_RAW_BYTES, Publisher, Record, rejected_record, tried_again


def test_a_refused_message_keeps_key_and_bytes_and_says_why() -> None:
    record = rejected_record(3, 17, b"BTC", b"\xff\x00", "json", "must be JSON, 0 < length")
    assert record.key == b"BTC"
    assert record.value == b"\xff\x00"
    assert list(record.headers) == [
        ("reason", b"json"),
        ("rule", b"must be JSON, 0 < length"),
        ("partition", b"3"),
        ("offset", b"17"),
    ]


def test_a_message_longer_than_the_topic_takes_is_cut_and_says_so() -> None:
    record = rejected_record(0, 0, None, b"x" * (MAX_RAW_BYTES + 1), "too_large", "rule")
    assert record.value == b"x" * MAX_RAW_BYTES
    assert dict(record.headers)["bytes"] == str(MAX_RAW_BYTES + 1).encode()


def test_a_huge_key_is_left_out() -> None:
    assert rejected_record(0, 0, b"k" * MAX_KEY_BYTES, b"", "key", "rule").key == b"k" * MAX_KEY_BYTES
    assert rejected_record(0, 0, b"k" * (MAX_KEY_BYTES + 1), b"", "key", "rule").key is None


def test_a_record_without_headers_fits_a_batch() -> None:
    batch = BatchBuilder(1_000_000, 0)  # as the producer makes it; its compiled part takes headers as a list alone
    assert Publisher._append(batch, Record(b"BTC", b"{}"), 0)
    assert batch.record_count() == 1


class Lookups:
    """The client of a producer, whose searches for a coordinator end as told: a node, or an error."""

    def __init__(self, *ends: int | Exception) -> None:
        self._ends = list(ends)

    async def coordinator_lookup(self, kind: Any, key: str) -> int:
        end = self._ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    async def force_metadata_update(self) -> bool:
        return True

    async def ready(self, node: int, group: Any) -> bool:
        return True


def coordinator(*ends: int | Exception) -> int:
    """The coordinator that a transactional producer finds."""

    async def find() -> int:
        client: Any = Lookups(*ends)
        client.coordinator_lookup = tried_again(client.coordinator_lookup)
        sender = Sender(
            client,
            acks=-1,
            txn_manager=TransactionManager("t", 1000),
            message_accumulator=None,
            retry_backoff_ms=1,
            request_timeout_ms=1000,
        )
        node: int = await sender._find_coordinator(CoordinationType.TRANSACTION, "t")
        return node

    return asyncio.run(find())


def test_a_connection_that_breaks_while_the_coordinator_is_looked_for_is_waited_for() -> None:
    assert coordinator(KafkaConnectionError("closed"), KafkaConnectionError("closed"), 3) == 3


def test_a_refused_search_for_the_coordinator_is_told() -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        coordinator(GroupAuthorizationFailedError("t"))
