import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from numpy.typing import NDArray

from stream import encoding, messages
from stream.core.results import FORECAST_COLUMNS, Results
from stream.encoding import PackedBatch, ResultEncoder, values
from stream.messages import ACTIONS, GATES, LEVELS, Format
from tests.results import Instrument, draw_results, structs

MODELS = ("gru@3", "critic@2", "dqn@1")
INSTRUMENTS = [
    ("BTCUSDT", "binance-usdm"),
    ("ETHUSDT", ""),
    ("日経225", "大阪"),
    ('A"B\\C', 'x"y'),
    ("🚀" * 64, "é" * 64),
]
every_format = pytest.mark.parametrize("form", list(messages.ENCODERS))
DECODERS: list[Any] = [messages.decode_prediction, messages.decode_risk, messages.decode_action]
PARTITION = 3
TIMESTAMP_MS = 1_723_161_257_700


def encoder_of(instruments: list[Instrument], **options: Any) -> ResultEncoder:
    encoder = ResultEncoder(MODELS, **options)
    for slot, instrument in enumerate(instruments):
        encoder.add(slot, *instrument)
    return encoder


def encode(results: Results, instruments: list[Instrument] = INSTRUMENTS) -> list[PackedBatch]:
    return encoder_of(instruments).encode(results, PARTITION, TIMESTAMP_MS)


def expected_structs(results: Results, instruments: list[Instrument] = INSTRUMENTS) -> list[list[Any]]:
    return structs(results, instruments, PARTITION, MODELS)


def with_numbers(numbers: list[float]) -> Results:
    """A result for every number, which stands in each place where any number may stand."""
    column: NDArray[np.float64] = np.array(numbers)
    drawn = draw_results(len(numbers), 1)
    return drawn._replace(
        forecast=np.repeat(column[:, np.newaxis], len(FORECAST_COLUMNS), axis=1), expected_reward=column
    )


def read(batch: PackedBatch) -> list[Any]:
    packed = MemoryRecords(bytes(batch._build())).next_batch()
    assert packed.validate_crc()
    return list(packed)


def built_by_aiokafka(topic: list[Any], *, transactional: bool) -> bytes:
    builder = BatchBuilder(10**7, 0, is_transactional=transactional)
    for record in topic:
        builder.append(timestamp=TIMESTAMP_MS, key=record.symbol.encode(), value=messages.encode(record))
    return bytes(builder._build())


@every_format
def test_values_are_the_bytes_of_msgspec(form: Format) -> None:
    results = draw_results(700, len(INSTRUMENTS))
    batches = encoder_of(INSTRUMENTS, form=form).encode(results, PARTITION, TIMESTAMP_MS)
    assert [values(batch) for batch in batches] == [
        [messages.ENCODERS[form](msgspec.to_builtins(record)) for record in topic]
        for topic in expected_structs(results)
    ]


def test_a_field_that_encoding_has_no_value_for_stops_the_import() -> None:
    class Wider(messages.Risk, frozen=True):
        spread: float = 0.0

    pieces = [encoding._pieces(kind, "json") for kind in (messages.Prediction, Wider, messages.Action)]
    with pytest.raises(TypeError, match=r"differ in the fields of the results: \['spread'\]"):
        encoding._check_schema(pieces)


def test_a_field_that_is_gone_stops_the_import() -> None:
    with pytest.raises(TypeError, match=r"'action'.*'gated_by'"):
        encoding._check_schema([encoding._pieces(kind, "json") for kind in (messages.Prediction, messages.Risk)])


def test_results_that_begin_otherwise_stop_the_import() -> None:
    first, *others = (encoding._pieces(kind, "json") for kind in (messages.Prediction, messages.Risk, messages.Action))
    turned = first._replace(names=["venue", "symbol", *first.names[2:]])
    with pytest.raises(TypeError, match="must begin"):
        encoding._check_schema([turned, *others])


def test_values_decode_to_the_columns() -> None:
    results = draw_results(50, len(INSTRUMENTS))
    decoded = [
        [decode(value) for value in values(batch)] for decode, batch in zip(DECODERS, encode(results), strict=True)
    ]
    assert decoded == expected_structs(results)


@pytest.mark.parametrize("transactional", [False, True])
def test_a_batch_is_that_of_aiokafkas_own_builder(transactional: bool) -> None:
    results = draw_results(700, len(INSTRUMENTS))
    batches = encoder_of(INSTRUMENTS, transactional=transactional).encode(results, PARTITION, TIMESTAMP_MS)
    assert [bytes(batch._build()) for batch in batches] == [
        built_by_aiokafka(topic, transactional=transactional) for topic in expected_structs(results)
    ]


def test_batches_name_their_topic_and_partition() -> None:
    encoder = encoder_of(INSTRUMENTS, topics=("a.predictions", "a.risk", "a.actions"))
    batches = encoder.encode(draw_results(2, 2), PARTITION, TIMESTAMP_MS)
    assert [(batch.topic, batch.partition) for batch in batches] == [
        ("a.predictions", 3),
        ("a.risk", 3),
        ("a.actions", 3),
    ]


def test_records_carry_key_offset_and_time_of_publishing() -> None:
    results = draw_results(130, len(INSTRUMENTS))
    for batch in encode(results):
        records = read(batch)
        assert [record.key for record in records] == [INSTRUMENTS[slot][0].encode() for slot in results.slot]
        assert [record.offset for record in records] == list(range(130))
        assert {record.timestamp for record in records} == {TIMESTAMP_MS}
        assert {len(record.headers) for record in records} == {0}


@pytest.mark.parametrize(
    "number",
    [
        *(0.0, 1.0, -1.0, 0.1, -0.5, 10.0, 99999.9, 100000.0, 123456.0, -999999.0),
        *(1e6, 1234560.0, 1.5e7, 1e15, -9.99999e15, 1e16, 1.23456e16, -9.99999e26, 1e21, 1e22),
        *(0.01, 0.001, 1e-4, 0.000123456, 1e-5, -1.23456e-5, 9.99999e-6, 1e-6, 1e-7, -1.2e-10, 1e-12),
        *(1.2, 1.23, 1.234, 1.2345, 1.23456, 12.3456, 123.456, 1234.56, 12345.6, 1002.0, 100.001),
    ],
)
def test_a_number_in_the_form_of_msgspec(number: float) -> None:
    results = with_numbers([number])
    assert [values(batch) for batch in encode(results)] == [
        [messages.encode(record) for record in topic] for topic in expected_structs(results)
    ]


@pytest.mark.parametrize(("number", "text"), [(-0.0, b"0.0"), (9e-13, b"0.0"), (1.23456789, b"1.23457")])
def test_a_number_that_was_not_rounded_is_written_rounded(number: float, text: bytes) -> None:
    action = values(encode(with_numbers([number]))[2])[0]
    assert b'"expected_reward":' + text + b"," in action


@every_format
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e27])
def test_a_number_that_six_digits_cannot_say_is_refused(number: float, form: Format) -> None:
    with pytest.raises(ValueError, match="finite"):
        encoder_of(INSTRUMENTS, form=form).encode(with_numbers([0.5, number]), PARTITION, TIMESTAMP_MS)


@pytest.mark.parametrize("integer", [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])
def test_offsets_of_every_length_in_messagepack(integer: int) -> None:
    column = np.array([integer])
    results = draw_results(1, 1)._replace(offset=column, exchange_ns=column)
    batches = encoder_of(INSTRUMENTS, form="msgpack").encode(results, PARTITION, TIMESTAMP_MS)
    for batch, topic in zip(batches, expected_structs(results), strict=True):
        assert values(batch) == [messages.ENCODERS["msgpack"](msgspec.to_builtins(topic[0]))]


@pytest.mark.parametrize("integer", [0, 9, 10, 999_999, 1_000_000, 10**12 - 1, 10**12, 10**18, 2**63 - 1])
def test_offsets_and_times_of_every_length(integer: int) -> None:
    column = np.array([integer])
    results = draw_results(1, 1)._replace(offset=column, exchange_ns=column)
    for batch, topic in zip(encode(results), expected_structs(results), strict=True):
        assert values(batch) == [messages.encode(topic[0])]


def test_every_name() -> None:
    rows = list(itertools.product((False, True), range(len(LEVELS)), range(len(ACTIONS)), range(len(GATES))))
    warming, level, action, gate = (np.array(column) for column in zip(*rows, strict=True))
    results = draw_results(len(rows), 1)._replace(
        warming=warming, level=level.astype(np.int8), action=action.astype(np.int8), gate=gate.astype(np.int8)
    )
    _, risk, acted = encode(results)
    found = [
        (messages.decode_risk(a).level, messages.decode_action(b).action, messages.decode_action(b).gated_by)
        for a, b in zip(values(risk), values(acted), strict=True)
    ]
    assert found == [(LEVELS[level], ACTIONS[action], GATES[gate]) for _, level, action, gate in rows]
    assert [messages.decode_action(value).warming for value in values(acted)] == list(warming)


@pytest.mark.parametrize(("column", "count"), [("level", len(LEVELS)), ("action", len(ACTIONS)), ("gate", len(GATES))])
@pytest.mark.parametrize("past", [False, True])
def test_a_code_without_a_name_is_refused(column: str, count: int, past: bool) -> None:
    wrong: dict[str, Any] = {column: np.array([count if past else -1], np.int8)}
    results = draw_results(1, 1)._replace(**wrong)
    with pytest.raises(IndexError, match="outside its table"):
        encode(results)


@pytest.mark.parametrize("slot", [-1, 5, 63, 64, 10**6])
def test_an_instrument_that_was_not_added_is_refused(slot: int) -> None:
    results = draw_results(1, 1)._replace(slot=np.array([slot], np.int32))
    with pytest.raises(IndexError, match="never added"):
        encode(results)


def test_instruments_added_between_chunks_leave_the_earlier_as_they_were() -> None:
    instruments = [(f"S{number}", f"venue {number % 7}") for number in range(3000)]
    encoder = encoder_of(instruments[:10])
    results = draw_results(20, 10)
    before = encoder.encode(results, PARTITION, TIMESTAMP_MS)
    for slot, instrument in enumerate(instruments[10:], start=10):
        encoder.add(slot, *instrument)
    after = encoder.encode(results, PARTITION, TIMESTAMP_MS)
    assert [batch.to_bytes() for batch in after] == [batch.to_bytes() for batch in before]
    late = draw_results(20, 10)._replace(slot=np.arange(2980, 3000, dtype=np.int32))
    risk = encoder.encode(late, PARTITION, TIMESTAMP_MS)[1]
    assert values(risk) == [messages.encode(record) for record in expected_structs(late, instruments)[1]]


def test_a_slot_added_again_is_the_new_instruments() -> None:
    encoder = encoder_of([("OLD", "here")])
    encoder.add(0, "NEW", "there")
    for batch in encoder.encode(draw_results(1, 1), PARTITION, TIMESTAMP_MS):
        record = read(batch)[0]
        assert record.key == b"NEW"
        assert record.value.startswith(b'{"symbol":"NEW","venue":"there","partition":3,')


def test_models_may_change_between_chunks() -> None:
    encoder = encoder_of(INSTRUMENTS)
    results = draw_results(1, 1)
    encoder.encode(results, PARTITION, TIMESTAMP_MS)
    encoder.set_models(("mlp@1", 'cri"tic@9', "ppo@2"))
    batches = encoder.encode(results, PARTITION, TIMESTAMP_MS)
    names = [decode(values(batch)[0]).model for decode, batch in zip(DECODERS, batches, strict=True)]
    assert names == ["mlp@1", 'cri"tic@9', "ppo@2"]


def test_each_partition_is_named_in_its_results() -> None:
    encoder = encoder_of(INSTRUMENTS)
    results = draw_results(1, 1)
    for partition in (0, 12, 9_999, 0):
        batches = encoder.encode(results, partition, TIMESTAMP_MS)
        assert [batch.partition for batch in batches] == [partition] * 3
        assert messages.decode_risk(values(batches[1])[0]).partition == partition


def test_no_results_make_no_batches() -> None:
    assert encode(draw_results(0, 1)) == []


@pytest.mark.parametrize("rows", [1, 2, 64, 65, 8192])
def test_a_chunk_of_any_size_is_cut_into_batches_that_a_broker_takes(rows: int) -> None:
    results = draw_results(rows, len(INSTRUMENTS))
    batches = encode(results)
    assert all(len(batch._build()) == batch.size() <= 1_048_588 for batch in batches)
    for name, topic in zip(("predictions", "risk", "actions"), expected_structs(results), strict=True):
        written = [value for batch in batches if batch.topic == name for value in values(batch)]
        assert written == [messages.encode(record) for record in topic]


def test_cut_batches_each_count_from_zero() -> None:
    batches = encoder_of(INSTRUMENTS, max_batch_bytes=20_000).encode(draw_results(100, 5), PARTITION, TIMESTAMP_MS)
    assert len(batches) > 3
    for batch in batches:
        records = read(batch)
        assert [record.offset for record in records] == list(range(batch.record_count()))
        assert batch.size() <= 20_000
    assert sum(batch.record_count() for batch in batches) == 300


def test_a_batch_too_small_for_a_record_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch_bytes=8000"):
        ResultEncoder(MODELS, max_batch_bytes=8000)


def test_a_name_too_long_for_a_record_is_refused() -> None:
    encoder = encoder_of(INSTRUMENTS)
    encoder.set_models(("m" * 8000, "critic@2", "dqn@1"))
    with pytest.raises(ValueError, match="8191 bytes"):
        encoder.encode(draw_results(1, 1), PARTITION, TIMESTAMP_MS)


def test_strided_and_read_only_columns_are_read_right() -> None:
    results = draw_results(40, len(INSTRUMENTS))
    columns: list[Any] = [column[::2] for column in results]
    halved = Results(*columns)
    for column in halved:
        column.flags.writeable = False
    assert [values(batch) for batch in encode(halved)] == [values(batch)[::2] for batch in encode(results)]


def test_batches_own_their_memory() -> None:
    encoder = encoder_of(INSTRUMENTS)
    first = encoder.encode(draw_results(100, 5, seed=1), PARTITION, TIMESTAMP_MS)
    before = [batch.to_bytes() for batch in first]
    encoder.encode(draw_results(100, 5, seed=2), PARTITION, TIMESTAMP_MS)
    assert [batch.to_bytes() for batch in first] == before


def test_a_batch_tells_its_producer_and_sends_the_same_bytes_again() -> None:
    batch = encode(draw_results(3, 1))[0]
    batch._set_producer_state(4711, 2, 1000)
    sent = bytes(batch._build())
    packed = MemoryRecords(sent).next_batch()
    assert packed.validate_crc()
    assert (packed.producer_id, packed.producer_epoch, packed.base_sequence) == (4711, 2, 1000)
    assert bytes(batch._build()) == sent
    with pytest.raises(RuntimeError, match="cannot change its producer"):
        batch._set_producer_state(4711, 3, 0)


def test_reading_a_batch_does_not_fix_its_bytes() -> None:
    batch = encode(draw_results(3, 1))[0]
    assert len(values(batch)) == 3
    batch._set_producer_state(4711, 2, 1000)
    assert MemoryRecords(bytes(batch._build())).next_batch().producer_id == 4711


def test_a_batch_is_closed_from_the_start() -> None:
    batch = encode(draw_results(3, 1))[0]
    batch.close()
    assert batch.closed()
    batch.append(timestamp=None, key=b"k", value=b"v")
    assert batch.record_count() == 3
