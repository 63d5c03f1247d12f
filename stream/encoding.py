"""Results to Kafka record batches: one compiled kernel writes JSON, or MessagePack, of three topics and its framing.

The schema is written once, in `messages`. At import every result struct is encoded by msgspec with a named hole in
the place of each value and cut at the holes; what remains are the literal pieces between the values, and the kernel
walks (piece, value), (piece, value). A field that this module has no value for stops the import. The bytes are those
that msgspec would write for the same structs, and the batches those that aiokafka's own builder would build from
them (magic 2, no compression).

Measured by `python -m tests.benchmark.encoding` on one core of a 2-core virtual machine with other work on it: all
three results of a tick, header and checksum included, take 1.3 us in chunks of 512, where msgspec and the builder
take 4.4 us from structs that are made already; a chunk of a single tick takes 24 us, 8 us there. A tick is 1.17 kB.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from aiokafka.record.memory_records import MemoryRecords
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from stream import messages
from stream.core import records
from stream.core.records import Columns, Instruments, Layout
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from stream.messages import Format

MAX_BATCH_BYTES: Final = 1_000_000
"""Largest batch made: a broker takes 1,048,588 bytes (`max.message.bytes`) unless told otherwise."""

# --- The schema: literal pieces and the values between them ---------------------------------------------------------

_STRUCTS: Final = (messages.Prediction, messages.Risk, messages.Action)
_COUNTED: Final = "ticks"  # the last field, written only where results are conflated
_INTEGERS: Final = ("offset", "exchange_ns", _COUNTED)
_NUMBERS: Final = (
    *FORECAST_COLUMNS,
    *RISK_COLUMNS,
    "target_position",
    *(f"action_value_{action}" for action in messages.ACTIONS),
    "expected_reward",
)
_NAMES: Final[dict[str, tuple[bool | str | None, ...]]] = {
    "warming": (False, True),
    "level": messages.LEVELS,
    "action": messages.ACTIONS,
    "gated_by": messages.GATES,
}
_PREFIX: Final = ["symbol", "venue"]  # the instrument's part, which every record begins with
_CONSTANT: Final = ("partition", "model")  # the same in a whole batch
_HOLES: Final[dict[Format, re.Pattern[bytes]]] = {
    "json": re.compile(rb'"<([a-z0-9_]+)>"'),
    "msgpack": re.compile(rb"(?:[\xa0-\xbf]|\xd9.)<([a-z0-9_]+)>", re.DOTALL),  # a string's length, and the string
}
_INTEGER_STEP: Final[dict[Format, int]] = {"json": records.INTEGER, "msgpack": records.PACKED_INTEGER}
_NUMBER_STEP: Final[dict[Format, int]] = {"json": records.NUMBER, "msgpack": records.PACKED_NUMBER}


class Pieces(NamedTuple):
    """A message cut at its holes: literals[0], value names[0], literals[1], ..., the last literal."""

    literals: list[bytes]
    names: list[str]


def _hole(name: str) -> Any:
    return f"<{name}>"


def _horizon(seconds: int) -> messages.Horizon:
    filled: dict[str, Any] = {
        "horizon_seconds": seconds,
        "quantiles": [_hole(f"quantile_{round(100 * level):02d}_{seconds}s") for level in messages.QUANTILE_LEVELS],
    }
    fields = messages.Horizon.__struct_fields__
    return messages.Horizon(**{name: filled.get(name, _hole(f"{name}_{seconds}s")) for name in fields})


def _pieces(kind: type[msgspec.Struct], form: Format, *, counted: bool = False) -> Pieces:
    filled: dict[str, Any] = {
        "horizons": [_horizon(seconds) for seconds in messages.HORIZONS],
        "action_values": [_hole(f"action_value_{action}") for action in messages.ACTIONS],
        **({} if counted else {_COUNTED: 1}),  # the default, which is not written
    }
    record = kind(**{name: filled.get(name, _hole(name)) for name in kind.__struct_fields__})
    # As a dict: of a struct that lacks one of 16 fields msgspec writes MessagePack's longer head of a map.
    cut = _HOLES[form].split(messages.ENCODERS[form](msgspec.to_builtins(record)))
    return Pieces(cut[::2], [name.decode() for name in cut[1::2]])


def _check_schema(pieces: list[Pieces], *, counted: bool = False) -> None:
    known = {*_PREFIX, *_CONSTANT, *_INTEGERS, *_NUMBERS, *_NAMES} - (set() if counted else {_COUNTED})
    found = {name for topic in pieces for name in topic.names}
    if found != known:
        raise TypeError(f"messages.py and encoding.py differ in the fields of the results: {sorted(found ^ known)}")
    if any(topic.names[:2] != _PREFIX or topic.literals[1] != pieces[0].literals[1] for topic in pieces):
        raise TypeError(f"every result must begin with the fields {_PREFIX}")


_PIECES: Final = {
    (form, counted): [_pieces(kind, form, counted=counted) for kind in _STRUCTS]
    for form in messages.ENCODERS
    for counted in (False, True)
}
for (_, _counted), _topics in _PIECES.items():
    _check_schema(_topics, counted=_counted)

# --- Layouts: the schema as the kernel walks it ---------------------------------------------------------------------


def _opening(pieces: list[Pieces]) -> bytes:
    """What stands before the symbol in all topics alike; in MessagePack the number of fields comes before it."""
    first = pieces[0].literals[0]
    endings = (first[cut:] for cut in range(len(first)))
    return next(ending for ending in endings if all(topic.literals[0].endswith(ending) for topic in pieces))


class _LayoutWriter:
    """Collects the pieces of a `Layout`."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self.text = bytearray()
        self.steps: list[tuple[int, int, int, int, int, int]] = []
        self.spans: list[tuple[int, int]] = []
        self.max_bytes = records.MAX_FRAME_BYTES

    def add_end(self, literal: bytes) -> None:
        self._add_step(literal, 0, records.END, 0)

    def add_value(self, literal: bytes, name: str) -> None:
        if name in _NAMES:
            self._add_name(literal, name)
        elif name in _INTEGERS:
            self._add_step(literal, records.MAX_VALUE_BYTES, _INTEGER_STEP[self._form], _INTEGERS.index(name))
        else:
            self._add_step(literal, records.MAX_VALUE_BYTES, _NUMBER_STEP[self._form], _NUMBERS.index(name))

    def _add_name(self, literal: bytes, name: str) -> None:
        first = len(self.spans)
        self.spans += [self._add_text(messages.ENCODERS[self._form](value)) for value in _NAMES[name]]
        longest = max(size for _, size in self.spans[first:])
        self._add_step(literal, longest, records.NAME, list(_NAMES).index(name), first, len(_NAMES[name]))

    def _add_step(
        self, literal: bytes, value_bytes: int, kind: int, column: int, first: int = 0, count: int = 0
    ) -> None:
        start, size = self._add_text(literal)
        self.steps.append((start, size, kind, column, first, count))
        self.max_bytes += size + value_bytes

    def _add_text(self, text: bytes) -> tuple[int, int]:
        start = len(self.text)
        self.text += text
        return start, len(self.text) - start


def _layout(pieces: Pieces, head: bytes, constants: dict[str, int | str], form: Format) -> Layout:
    """Lay out the pieces around the instrument's part, with the batch's constants written into them."""
    writer = _LayoutWriter(form)
    behind = len(_PREFIX)
    literal = pieces.literals[behind]
    for name, following in zip(pieces.names[behind:], pieces.literals[behind + 1 :], strict=True):
        if name in constants:
            literal += messages.ENCODERS[form](constants[name]) + following
        else:
            writer.add_value(literal, name)
            literal = following
    writer.add_end(literal)
    return Layout(
        np.frombuffer(head, np.uint8),
        np.frombuffer(bytes(writer.text), np.uint8),
        np.array(writer.steps, np.int64),
        np.array(writer.spans, np.int64),
        writer.max_bytes + len(head),
    )


# --- Batches --------------------------------------------------------------------------------------------------------

# Kafka's record batch, magic 2: base offset, length, leader epoch, magic, checksum | attributes, last offset delta,
# first and last timestamp, producer id, epoch and sequence, records. The checksum covers what follows it.
_HEADER: Final = struct.Struct(">qiibI" + "hiqqqhii")
_LENGTH_COVERS: Final = struct.calcsize(">qi")
_CHECKSUM_AT: Final = struct.calcsize(">qiib")
_CHECKSUM_COVERS: Final = struct.calcsize(">qiibI")
_CHECKSUM: Final = struct.Struct(">I")
_TRANSACTIONAL: Final = 0x10


class PackedBatch:
    """A finished record batch that aiokafka takes in the place of its own: `send_batch(batch, topic, partition=p)`.

    It has the methods that the accumulator and the sender of aiokafka 0.14 call on a BatchBuilder, and owns its
    memory, so any number may be in flight. The bytes are fixed when the sender first asks for them, so a retry sends
    the same.

    Attributes
    ----------
    topic : str
    partition : int
    """

    __slots__ = ("_buffer", "_producer", "_records", "_sealed", "_timestamp_ms", "_transactional", "partition", "topic")

    def __init__(
        self, topic: str, partition: int, buffer: memoryview, records: int, timestamp_ms: int, transactional: bool
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._buffer = buffer
        self._records = records
        self._timestamp_ms = timestamp_ms
        self._transactional = transactional
        self._producer = (-1, -1, 0)  # as aiokafka marks a producer that is not idempotent
        self._sealed = False

    def size(self) -> int:
        """Bytes of the batch, header included."""
        return len(self._buffer)

    def record_count(self) -> int:
        """Records in the batch."""
        return self._records

    def close(self) -> None:
        """Do nothing: the batch is closed from the start."""

    def closed(self) -> bool:
        """True: nothing can be added."""
        return True

    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Any = ()) -> None:
        """Refuse a record that `AIOKafkaProducer.send` would add, as a full BatchBuilder does."""

    def to_bytes(self) -> bytes:
        """A copy of the batch as it would be sent now."""
        copy = bytearray(self._buffer)
        self._write_header(memoryview(copy))
        return bytes(copy)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        if self._sealed:
            raise RuntimeError("a batch that was sent cannot change its producer")
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        if not self._sealed:
            self._write_header(self._buffer)
            self._sealed = True
        return self._buffer

    def _write_header(self, buffer: memoryview) -> None:
        attributes = _TRANSACTIONAL if self._transactional else 0
        _HEADER.pack_into(
            buffer,
            0,
            0,
            len(buffer) - _LENGTH_COVERS,
            -1,
            2,
            0,
            attributes,
            self._records - 1,
            self._timestamp_ms,
            self._timestamp_ms,
            *self._producer,
            self._records,
        )
        _CHECKSUM.pack_into(buffer, _CHECKSUM_AT, crc32c(bytes(buffer[_CHECKSUM_COVERS:])))


def values(batch: PackedBatch) -> list[bytes]:
    """The values of a batch's records, read back by aiokafka: for tests, and to compare runs byte for byte."""
    packed = MemoryRecords(batch.to_bytes()).next_batch()
    return [record.value for record in packed]


# --- The encoder ----------------------------------------------------------------------------------------------------


class ResultEncoder:
    """Writes the results of a chunk as record batches of the topics predictions, risk and actions.

    For one thread at a time.

    Parameters
    ----------
    models : tuple of str
        name@version of forecaster, critic and policy.
    topics : tuple of str
        Names of the three topics.
    transactional : bool
        Whether the batches belong to a transaction.
    max_batch_bytes : int
        Largest batch made; a chunk whose results take more is cut into several batches.
    form : Format
        How the values are written.
    """

    def __init__(
        self,
        models: tuple[str, str, str],
        topics: tuple[str, str, str] = ("predictions", "risk", "actions"),
        *,
        transactional: bool = False,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        form: Format = "json",
    ) -> None:
        if max_batch_bytes < records.HEADER_BYTES + records.MAX_RECORD_BYTES:
            raise ValueError(f"a batch must have room for one record of 8191 bytes: {max_batch_bytes=}")
        self._topics = topics
        self._form = form
        self._opening = _opening(_PIECES[form, False])  # with `ticks` it is the same
        self._transactional = transactional
        self._max_batch_bytes = max_batch_bytes
        self._text = np.empty(4096, np.uint8)
        self._used = 0
        self._bounds = np.zeros((64, 3), np.int64)
        self._max_instrument_bytes = 0
        self._models = models
        self._layouts: dict[tuple[int, bool], list[Layout]] = {}  # by partition, and whether `ticks` is written

    def set_models(self, models: tuple[str, str, str]) -> None:
        """Name other models in the results encoded from now on."""
        if models != self._models:
            self._models = models
            self._layouts = {}

    def add(self, slot: int, symbol: str, venue: str) -> None:
        """Make an instrument known, before its first result. A slot added again belongs to the new instrument."""
        key, encode = symbol.encode(), messages.ENCODERS[self._form]
        beginning = self._opening + encode(symbol) + _PIECES[self._form, False][0].literals[1] + encode(venue)
        start, self._used = self._used, self._used + len(key) + len(beginning)
        self._grow(self._used, slot + 1)
        self._text[start : self._used] = np.frombuffer(key + beginning, np.uint8)
        self._bounds[slot] = start, len(key), len(beginning)
        self._max_instrument_bytes = max(self._max_instrument_bytes, len(key) + len(beginning))

    def encode(
        self, results: Results, partition: int, timestamp_ms: int, ticks: NDArray[np.int64] | None = None
    ) -> list[PackedBatch]:
        """Encode the results of one chunk.

        Parameters
        ----------
        results : Results
            Of ticks of one partition, numbers rounded by `digits.round_significant`.
        partition : int
            Of the ticks; the results go to the same one.
        timestamp_ms : int
            Time of publishing, ms since the Unix epoch; the timestamp of every record.
        ticks : int64[n], optional
            How many ticks each result stands for; None: one, and no record says so.

        Returns
        -------
        list of PackedBatch
            First predictions, then risk, then actions, each in the order of the ticks: one batch a topic, more where
            one would pass `max_batch_bytes`, none without results.

        Raises
        ------
        IndexError
            If an instrument was not added, or a code has no name.
        ValueError
            If a number is not finite, or `digits.LARGEST` and more, or a name so long that a record passes 8191 bytes.
        """
        if not len(results.slot):
            return []
        way = partition, ticks is not None
        if way not in self._layouts:
            self._layouts[way] = self._make_layouts(*way)
        columns = _columns(results, ticks)
        return [
            PackedBatch(topic, partition, buffer, count, timestamp_ms, self._transactional)
            for topic, layout in zip(self._topics, self._layouts[way], strict=True)
            for buffer, count in self._write(columns, layout)
        ]

    def _make_layouts(self, partition: int, counted: bool) -> list[Layout]:
        return [
            _layout(
                pieces,
                pieces.literals[0].removesuffix(self._opening),
                {"partition": partition, "model": model},
                self._form,
            )
            for pieces, model in zip(_PIECES[self._form, counted], self._models, strict=True)
        ]

    def _write(self, columns: Columns, layout: Layout) -> Iterator[tuple[memoryview, int]]:
        instruments = Instruments(self._text, self._bounds, self._max_instrument_bytes)
        max_record = self._max_instrument_bytes + layout.max_bytes
        if max_record > records.MAX_RECORD_BYTES:
            raise ValueError(f"a record may have {records.MAX_RECORD_BYTES} bytes; model, symbol or venue is too long")
        rows = len(columns.slots)
        row = 0
        while row < rows:
            limit = min(self._max_batch_bytes, records.HEADER_BYTES + (rows - row) * max_record)
            out = np.empty(limit + records.SLACK_BYTES, np.uint8)
            first = row
            row, end = records.write_records(out, limit, first, instruments, columns, layout)
            yield out.data[:end], row - first

    def _grow(self, text_bytes: int, slots: int) -> None:
        """Make room, doubling, so that many instruments cost no more each than few."""
        if text_bytes > len(self._text):
            self._text = np.resize(self._text, max(text_bytes, 2 * len(self._text)))
        if slots > len(self._bounds):
            bounds = np.zeros((max(slots, 2 * len(self._bounds)), 3), np.int64)
            bounds[: len(self._bounds)] = self._bounds
            self._bounds = bounds


def _columns(results: Results, ticks: NDArray[np.int64] | None) -> Columns:
    """The columns of `results` side by side, in the order of `_INTEGERS`, `_NUMBERS` and `_NAMES`."""
    rows = len(results.slot)
    numbers = (
        results.forecast,
        results.risk,
        results.target_position[:, np.newaxis],
        results.action_values,
        results.expected_reward[:, np.newaxis],
    )
    codes = (results.warming.view(np.int8), results.level, results.action, results.gate)
    integers = (results.offset, results.exchange_ns) if ticks is None else (results.offset, results.exchange_ns, ticks)
    return Columns(
        results.slot.astype(np.int64),
        np.concatenate(integers).reshape(-1, rows),
        np.concatenate(numbers, axis=1),
        np.concatenate(codes).reshape(-1, rows),
    )
