"""Ticks from a Parquet or CSV file, a block of rows at a time, as columns.

A file has the columns symbol, exchange_ns, price, size, and perhaps side, trade_id, venue, named and meant as the
fields of `messages.Tick`; others are ignored, and the rows need no order. A row that cannot be a tick does not stop
the reading: it is told with the reason that the worker would give for the same message.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from stream import messages
from stream.errors import BadFile

REQUIRED: Final = ("symbol", "exchange_ns", "price", "size")
OPTIONAL: Final = ("side", "trade_id", "venue")
SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange_ns", pa.int64()),
        ("price", pa.float64()),
        ("size", pa.float64()),
        ("side", pa.string()),
        ("trade_id", pa.int64()),
        ("venue", pa.string()),
    ]
)
"""Of a file of ticks that we write."""

BATCH_ROWS: Final = 65_536
_CSV_BLOCK_BYTES: Final = 4 * 1_048_576  # about 65,000 rows of 60 bytes
_PARQUET_MAGIC: Final = b"PAR1"
_SIDES: Final = {"buy": 1, "sell": -1}
_PRICE: Final = get_args(messages.Price)[1]
_SIZE: Final = get_args(messages.Size)[1]
_NUMBERS: Final[dict[str, Callable[[Any], Any]]] = {"exchange_ns": int, "price": float, "size": float}
_NAME_LENGTH: Final = messages.MAX_SYMBOL_LENGTH

Problems = dict[int, tuple[messages.Reason, str]]
"""Row in its batch -> (reason, rule), of rows that cannot be a tick."""


@dataclass(frozen=True, slots=True)
class TickBatch:
    """Some rows of a file, in their order. Rows in `problems` hold what could be read, and are not to be used."""

    first_row: int  # number in the file of row 0 of this batch
    instruments: list[tuple[str, str]]  # (symbol, venue), first seen first, of the file so far: shared, it grows
    instrument: NDArray[np.int32]  # [n] index into instruments; -1 where symbol or venue is bad
    exchange_ns: NDArray[np.int64]  # [n] ns since the Unix epoch; 0 where absent
    price: NDArray[np.float64]  # [n] quote currency; NaN where absent
    size: NDArray[np.float64]  # [n] base units; NaN where absent
    side: NDArray[np.int8]  # [n] +1 buy, -1 sell, 0 absent
    trade_id: NDArray[np.int64]  # [n] messages.trade_key of the id, 0 where absent
    problems: Problems
    columns: dict[str, Any]  # the file's own columns, for `raw`

    def __len__(self) -> int:
        return len(self.price)

    def raw(self, row: int) -> bytes:
        """Row `row` of this batch as the JSON message it would be; what is no JSON number (NaN) stands as Python's."""
        tick = {name: _cell(column[row], name) for name, column in self.columns.items()}
        kept = {name: value for name, value in tick.items() if value is not None or name in REQUIRED}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


class TickFile:
    """An opened file of ticks: iterate for its batches, as often as needed."""

    def __init__(self, path: Path, rows: int | None, blocks: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.path = path
        self.rows = rows  # of the whole file; None where only reading it tells (CSV)
        self._blocks = blocks

    def __iter__(self) -> Iterator[TickBatch]:
        """The rows in batches of up to BATCH_ROWS or so; raises BadFile where the file turns out damaged or empty."""
        reader = _Columns(self.path)
        try:
            for block in self._blocks():
                if block.num_rows:
                    yield reader.batch(block)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"cannot read {self.path} after row {reader.rows}: {_first_line(error)}") from None
        if not reader.rows:
            raise BadFile(f"{self.path} holds no rows")


def open_ticks(path: str | Path) -> TickFile:
    """Open a Parquet or CSV file (also .csv.gz) of ticks.

    Raises
    ------
    BadFile
        If the file is missing, cannot be read, is of another kind, is empty, or lacks a column or holds a wrong type
        in it (naming the column and those that are there).
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise BadFile(f"{path} is empty: ticks are read from Parquet or CSV files")
    try:
        return _open_parquet(path) if head.startswith(_PARQUET_MAGIC) else _open_csv(path, head)
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"cannot read {path}: {_first_line(error)}") from None


def _open_parquet(path: Path) -> TickFile:
    with pyarrow.parquet.ParquetFile(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
    if not rows:
        raise BadFile(f"{path} holds no rows")
    names = _check_columns(path, schema)

    def blocks() -> Iterator[pa.RecordBatch]:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=names)

    return TickFile(path, rows, blocks)


def _open_csv(path: Path, head: bytes) -> TickFile:
    if path.suffix == ".parquet" or (b"\0" in head and path.suffix != ".gz"):
        raise BadFile(f"{path} is neither Parquet nor CSV")
    _check_separator(path)
    with pyarrow.csv.open_csv(path) as reader:
        found = reader.schema.names
    names = _check_columns(path, pa.schema([(name, pa.string()) for name in found]))
    # Everything is read as text: one bad number must not stop the file.
    convert = pyarrow.csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        check_utf8=False,
    )
    read = pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)

    def blocks() -> Iterator[pa.RecordBatch]:
        with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
            yield from reader

    return TickFile(path, None, blocks)


def _check_separator(path: Path) -> None:
    with pa.input_stream(str(path)) as stream:  # unpacks what is packed
        first = stream.read(4096).partition(b"\n")[0]
    for other in (b";", b"\t", b"|"):
        if other in first and b"," not in first:
            raise BadFile(f"{path} separates its columns by {other.decode()!r}: they must be separated by commas")


def _check_columns(path: Path, schema: pa.Schema) -> list[str]:
    for name in REQUIRED:
        if name not in schema.names:
            raise BadFile(f"{path} has no column {name}; it needs {', '.join(REQUIRED)} and has {_list(schema.names)}")
    names = [name for name in REQUIRED + OPTIONAL if name in schema.names]
    for name in names:
        kind = schema.field(name).type
        wanted, allowed = _KINDS[name]
        if not (_is_text(kind) or pa.types.is_null(kind) or allowed(kind)):
            raise BadFile(f"{path}: column {name} holds {kind}; it must hold {wanted}")
    return names


def _list(names: list[str]) -> str:
    return ", ".join(ascii(name)[1:-1] for name in names[:20]) + (", ..." if len(names) > 20 else "")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind))


_KINDS: Final[dict[str, tuple[str, Callable[[pa.DataType], bool]]]] = {
    "symbol": ("text", lambda kind: False),
    # A double has 53 bits, a time in ns needs 61: what was lost cannot be brought back.
    "exchange_ns": ("integers, ns since 1970, or timestamps", _is_time),
    "price": ("numbers", _is_number),
    "size": ("numbers", _is_number),
    "side": ("buy, sell or null", lambda kind: False),
    "trade_id": ("integers or text", _is_number),  # pandas makes doubles of integers with nulls among them
    "venue": ("text", lambda kind: False),
}


class _Columns:
    """Turns blocks of one file into batches, and keeps the list of its instruments."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._instruments: list[tuple[str, str]] = []
        self._index: dict[tuple[str, str], int] = {}

    def batch(self, block: pa.RecordBatch) -> TickBatch:
        columns = {name: _plain(block.column(name)) for name in block.schema.names}
        problems: Problems = {}
        batch = TickBatch(
            self.rows,
            self._instruments,
            self._instrument_of(columns, problems),
            _times(columns["exchange_ns"], problems),
            _floats(columns["price"], "price", _PRICE, problems),
            _floats(columns["size"], "size", _SIZE, problems),
            _sides(columns, block.num_rows, problems),
            self._trade_ids(columns, block.num_rows, problems),
            problems,
            columns,
        )
        self.rows += block.num_rows
        return batch

    def _instrument_of(self, columns: dict[str, Any], problems: Problems) -> NDArray[np.int32]:
        symbol, symbols = _codes(columns["symbol"])
        pair, venues = symbol.astype(np.int64), [""]
        if "venue" in columns:
            venue, known = _codes(columns["venue"])
            venues = [known_venue if known_venue is not None else "" for known_venue in known]
            pair = pair * len(venues) + venue
        pairs, first, where = np.unique(pair, return_index=True, return_inverse=True)
        table = np.empty(len(pairs), np.int32)
        for each in np.argsort(first):
            named, at = divmod(int(pairs[each]), len(venues))
            table[each], problem = self._instrument(symbols[named], venues[at])
            if problem:
                for row in np.flatnonzero(where == each):
                    problems.setdefault(int(row), problem)
        return table[where]

    def _instrument(self, symbol: str | None, venue: str) -> tuple[int, tuple[messages.Reason, str] | None]:
        if symbol is None:
            return -1, ("schema", "symbol is missing")
        for field, name in (("symbol", symbol), ("venue", venue)):
            if not _is_name(name) and (name or field == "symbol"):
                return -1, ("symbol", f"{field} {name[:80]!a} must be 1 to {_NAME_LENGTH} printable characters")
        known = self._index.get((symbol, venue))
        if known is None:
            known = self._index[symbol, venue] = len(self._instruments)
            self._instruments.append((symbol, venue))
        return known, None

    def _trade_ids(self, columns: dict[str, Any], rows: int, problems: Problems) -> NDArray[np.int64]:
        column = columns.get("trade_id")
        if column is None or pa.types.is_null(column.type):
            return np.zeros(rows, np.int64)
        if _is_text(column.type):
            return _text_ids(column, problems)
        try:
            return _to_numpy(pc.fill_null(pc.cast(column, pa.int64()), 0), np.int64)
        except pa.ArrowInvalid as error:
            raise BadFile(f"{self._path}: column trade_id holds no 64-bit integers: {_first_line(error)}") from None


def _plain(column: Any) -> Any:
    """A column without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _to_numpy(column: Any, kind: type[np.generic]) -> NDArray[Any]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=kind)


def _nulls(column: Any) -> list[int]:
    if not column.null_count:
        return []
    return [int(row) for row in np.flatnonzero(_to_numpy(column.is_null(), np.bool_))]


def _codes(column: Any) -> tuple[NDArray[np.int32], list[str | None]]:
    """Each row's index into the distinct texts, null being one of them; bytes that are no UTF-8 become U+DCxx."""
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int32), [None]
    encoded = pc.dictionary_encode(column.cast(pa.large_binary()), null_encoding="encode")
    texts = [_text(value) for value in encoded.dictionary.to_pylist()]
    return _to_numpy(encoded.indices, np.int32), texts


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= _NAME_LENGTH and text.isprintable()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")  # a surrogate is not printable


def _times(column: Any, problems: Problems) -> NDArray[np.int64]:
    for row in _nulls(column):
        problems.setdefault(row, ("schema", "exchange_ns is missing"))
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns")).cast(pa.int64())
    if _is_text(column.type):
        column = _parse(column, pa.int64(), "exchange_ns", "an integer", int, problems)
    values = _to_numpy(pc.fill_null(column.cast(pa.int64(), safe=False), 0), np.int64)
    for bad in np.flatnonzero((values < messages.MIN_EXCHANGE_NS) | (values > messages.MAX_EXCHANGE_NS)):
        problems.setdefault(int(bad), ("range", messages.exchange_ns_rule(int(values[bad]))))
    return values


def _floats(column: Any, name: str, bounds: msgspec.Meta, problems: Problems) -> NDArray[np.float64]:
    for row in _nulls(column):
        problems.setdefault(row, ("schema", f"{name} is missing"))
    if _is_text(column.type):
        column = _parse(column, pa.float64(), name, "a number", float, problems)
    values = _to_numpy(column.cast(pa.float64(), safe=False), np.float64)
    for bad in np.flatnonzero(~((values >= bounds.ge) & (values <= bounds.le))):
        rule = f"{name} {values[bad]:.6g} is not a number from {bounds.ge:g} to {bounds.le:g}"
        problems.setdefault(int(bad), ("range", rule))
    return values


def _parse(
    column: Any, kind: pa.DataType, name: str, wanted: str, number: Callable[[str], Any], problems: Problems
) -> Any:
    """Text as numbers: all at once, and if one is none, one by one."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        pass
    values: list[Any] = []
    for row, value in enumerate(column.cast(pa.large_binary()).to_pylist()):
        text = _text(value)
        try:
            values.append(None if text is None else pa.scalar(number(text), kind).as_py())
        except (ValueError, OverflowError):
            problems.setdefault(row, ("schema", f"{name} {(text or '')[:40]!a} is not {wanted}"))
            values.append(None)
    return pa.array(values, kind)


def _sides(columns: dict[str, Any], rows: int, problems: Problems) -> NDArray[np.int8]:
    if "side" not in columns:
        return np.zeros(rows, np.int8)
    codes, texts = _codes(columns["side"])
    for code, text in enumerate(texts):
        if text is not None and text not in _SIDES:
            for row in np.flatnonzero(codes == code):
                problems.setdefault(int(row), ("schema", f"side {text[:40]!a} is not buy or sell"))
    return np.array([_SIDES.get(text or "", 0) for text in texts], np.int8)[codes]


def _text_ids(column: Any, problems: Problems) -> NDArray[np.int64]:
    """`messages.trade_key` of each text; decimal ones, which nearly all are, at once."""
    data = column.cast(pa.large_binary())
    decimal = pc.fill_null(pc.match_substring_regex(data, "^[0-9]{1,18}$"), False)
    numbers = pc.if_else(decimal, data, pa.scalar(b"0", pa.large_binary())).cast(pa.large_string())
    keys = _to_numpy(numbers.cast(pa.int64()), np.int64).copy()
    for row in np.flatnonzero(_to_numpy(pc.and_(pc.invert(decimal), data.is_valid()), np.bool_)):
        text = _text(data[row].as_py()) or ""
        if _is_name(text):
            keys[row] = messages.trade_key(text)
        else:
            rule = f"trade_id {text[:80]!a} must be 1 to {_NAME_LENGTH} printable characters"
            problems.setdefault(int(row), ("schema", rule))
    return keys


def _cell(value: Any, name: str) -> Any:
    """A cell as the message would hold it; text that should be a number and is one becomes it."""
    if not value.is_valid:
        return None
    if pa.types.is_timestamp(value.type):
        return value.cast(pa.timestamp("ns")).value
    if not _is_text(value.type):
        found = value.as_py()
        return found if isinstance(found, int | float) else float(found)
    text = _text(value.as_buffer().to_pybytes())
    try:
        return _NUMBERS[name](text) if name in _NUMBERS else text
    except ValueError:
        return text


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
