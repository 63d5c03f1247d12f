"""How a refused message goes to its topic."""

from aiokafka.producer.message_accumulator import BatchBuilder

from stream.publisher import MAX_KEY_BYTES, MAX_RAW_BYTES, Publisher, Record, rejected_record


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
