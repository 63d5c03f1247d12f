"""Files of ticks: what is read from them, what is refused row by row, and what is refused as a whole."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from stream.errors import BadFile
from stream.feeds import files
from stream.feeds.files import TickBatch, open_ticks
from stream.messages import decode_tick, trade_key

SAMPLES = Path(files.__file__).parent / "samples"
NS = 1_723_161_257_000_000_000


def table(**columns: Any) -> pa.Table:
    rows = max(len(column) for column in columns.values())
    plain: dict[str, Any] = {
        "symbol": ["BTCUSDT"] * rows,
        "exchange_ns": list(range(NS, NS + rows)),
        "price": [100.5] * rows,
        "size": [0.25] * rows,
    }
    return pa.table(plain | columns)


def written(tmp_path: Path, content: pa.Table, kind: str = "parquet") -> Path:
    path = tmp_path / f"ticks.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(content, path)
    else:
        pyarrow.csv.write_csv(content, path)
    return path


def only_batch(path: Path) -> TickBatch:
    (batch,) = open_ticks(path)
    return batch


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_every_column_is_read_from_both_kinds_of_file(tmp_path: Path, kind: str) -> None:
    content = table(
        price=[100.5, 0.000_012, 1e11],
        side=["buy", None, "sell"],
        trade_id=["12", None, "a-7"],
        venue=["one", None, "two"],
    )
    batch = only_batch(written(tmp_path, content, kind))
    assert batch.instruments == [("BTCUSDT", "one"), ("BTCUSDT", ""), ("BTCUSDT", "two")]
    assert batch.instrument.tolist() == [0, 1, 2]
    assert batch.exchange_ns.tolist() == [NS, NS + 1, NS + 2]
    assert batch.price.tolist() == [100.5, 0.000_012, 1e11]
    assert batch.size.tolist() == [0.25] * 3
    assert batch.side.tolist() == [1, 0, -1]
    assert batch.trade_id.tolist() == [12, 0, trade_key("a-7")]
    assert batch.problems == {}


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    batch = only_batch(written(tmp_path, table(price=[1.0, 2.0])))
    assert batch.instruments == [("BTCUSDT", "")]
    assert batch.side.tolist() == batch.trade_id.tolist() == [0, 0]


def test_optional_columns_of_nulls_only_are_absent(tmp_path: Path) -> None:
    nulls = pa.nulls(2)
    batch = only_batch(written(tmp_path, table(side=nulls, trade_id=nulls, venue=nulls)))
    assert batch.side.tolist() == batch.trade_id.tolist() == [0, 0]
    assert batch.instruments == [("BTCUSDT", "")]


def test_rows_are_numbered_and_instruments_kept_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 3)
    path = written(tmp_path, table(symbol=list("ABABCAC")))
    file = open_ticks(path)
    assert file.rows == 7
    batches = list(file)
    assert [batch.first_row for batch in batches] == [0, 3, 6]
    assert np.concatenate([batch.instrument for batch in batches]).tolist() == [0, 1, 0, 1, 2, 0, 2]
    assert batches[-1].instruments == [("A", ""), ("B", ""), ("C", "")]
    assert [len(batch) for batch in file] == [3, 3, 1]  # a second reading is the same


def test_integers_timestamps_and_dictionaries_are_taken(tmp_path: Path) -> None:
    content = table(
        symbol=pa.array(["A", "B"]).dictionary_encode(),
        exchange_ns=pa.array([NS // 1000, NS // 1000 + 1], pa.timestamp("us", "UTC")),
        price=pa.array([7, 8], pa.int32()),
        trade_id=pa.array([5.0, None]),
    )
    batch = only_batch(written(tmp_path, content))
    assert batch.exchange_ns.tolist() == [NS, NS + 1000]
    assert batch.price.tolist() == [7.0, 8.0]
    assert batch.trade_id.tolist() == [5, 0]
    assert json.loads(batch.raw(0)) == {
        "symbol": "A",
        "exchange_ns": NS,
        "price": 7,
        "size": 0.25,
        "trade_id": 5.0,
    }


@pytest.mark.parametrize(
    ("column", "value", "reason", "rule"),
    [
        ("price", None, "schema", "price is missing"),
        ("price", float("nan"), "range", "price nan is not a number from 1e-12 to 1e+12"),
        ("price", float("inf"), "range", "price inf"),
        ("price", 0.0, "range", "price 0 "),
        ("price", -1.5, "range", "price -1.5 "),
        ("price", 1e308, "range", "price 1e+308 "),
        ("size", 0.0, "range", "size 0 is not a number from 1e-12 to 1e+15"),
        ("size", None, "schema", "size is missing"),
        ("exchange_ns", None, "schema", "exchange_ns is missing"),
        ("exchange_ns", NS // 10**9, "range", "exchange_ns 1723161257 looks like seconds"),
        ("exchange_ns", NS // 10**6, "range", "looks like milliseconds"),
        ("exchange_ns", NS // 10**3, "range", "looks like microseconds"),
        ("exchange_ns", -1, "range", "exchange_ns -1 "),
        ("symbol", None, "schema", "symbol is missing"),
        ("symbol", "", "symbol", "symbol '' must be 1 to 64 printable characters"),
        ("symbol", "S" * 65, "symbol", "must be 1 to 64 printable"),
        ("symbol", "BTC\x1b[2J", "symbol", r"symbol 'BTC\x1b[2J' must"),
        ("venue", "a\nb", "symbol", r"venue 'a\nb' must"),
        ("side", "BUY", "schema", "side 'BUY' is not buy or sell"),
        ("trade_id", "", "schema", "trade_id '' must"),
    ],
)
def test_a_row_that_is_no_tick_is_told_and_its_neighbours_stay(
    tmp_path: Path, column: str, value: object, reason: str, rule: str
) -> None:
    good = {"symbol": "BTCUSDT", "exchange_ns": NS, "price": 5.0, "size": 2.0, "side": "buy", "trade_id": "9"}
    good["venue"] = "x"
    content = pa.Table.from_pylist([good, good | {column: value}, good])
    batch = only_batch(written(tmp_path, content))
    assert set(batch.problems) == {1}
    assert batch.problems[1][0] == reason
    assert rule in batch.problems[1][1]
    assert batch.price[[0, 2]].tolist() == [5.0, 5.0]
    assert decode_tick(batch.raw(2)).price == 5.0
    assert batch.raw(1) != batch.raw(0)


def test_text_in_a_csv_that_is_no_number_is_told_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"symbol,exchange_ns,price,size\nA,{NS},1.5,1\nA,{NS},cheap,1\nA,soon,1.5,2\nA,{NS}, 2.5,1\n")
    batch = only_batch(path)
    assert batch.problems == {
        1: ("schema", "price 'cheap' is not a number"),
        2: ("schema", "exchange_ns 'soon' is not an integer"),
    }
    assert batch.price[[0, 3]].tolist() == [1.5, 2.5]
    assert batch.raw(1) == b'{"symbol":"A","exchange_ns":%d,"price":"cheap","size":1.0}' % NS


def test_a_symbol_that_is_no_utf8_is_told_and_its_bytes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_bytes(b"symbol,exchange_ns,price,size\n\xff\xfe,%d,1.5,1\nA,%d,2.5,1\n" % (NS, NS))
    batch = only_batch(path)
    assert batch.problems == {0: ("symbol", r"symbol '\udcff\udcfe' must be 1 to 64 printable characters")}
    assert b'"symbol":"\xff\xfe"' in batch.raw(0)
    assert batch.instruments == [("A", "")]


def test_the_samples_have_no_problems_and_read_as_their_own_messages() -> None:
    rows = 0
    for batch in open_ticks(SAMPLES / "binance_ltcusdt.parquet"):
        rows += len(batch)
        assert not batch.problems
        tick = decode_tick(batch.raw(0))
        assert (tick.symbol, tick.venue) == batch.instruments[batch.instrument[0]]
        assert (tick.price, tick.size, tick.exchange_ns) == (batch.price[0], batch.size[0], batch.exchange_ns[0])
        assert trade_key(tick.trade_id) == batch.trade_id[0]
    assert rows == 149_766


def test_csv_and_parquet_of_the_same_ticks_are_the_same(tmp_path: Path) -> None:
    sample = SAMPLES / "binance_sample.parquet"
    columns = ["symbol", "exchange_ns", "price", "size", "side", "trade_id", "venue"]
    content = pyarrow.parquet.read_table(sample, columns=columns).slice(0, 20_000)
    first = only_batch(written(tmp_path, content))
    for second in open_ticks(written(tmp_path, content, "csv")):
        rows = slice(second.first_row, second.first_row + len(second))
        for name in ("instrument", "exchange_ns", "price", "size", "side", "trade_id"):
            np.testing.assert_array_equal(getattr(second, name), getattr(first, name)[rows])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"absent\.parquet: No such file"):
        open_ticks(tmp_path / "absent.parquet")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="Is a directory"):
        open_ticks(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.touch()
    with pytest.raises(BadFile, match="is empty"):
        open_ticks(path)


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="holds no rows"):
        open_ticks(written(tmp_path, table(price=[1.0]).slice(0, 0)))


def test_csv_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "header.csv"
    path.write_text("symbol,exchange_ns,price,size\n")
    with pytest.raises(BadFile, match="holds no rows"):
        list(open_ticks(path))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_missing_column_is_named_with_those_found(tmp_path: Path, kind: str) -> None:
    content = table(price=[1.0]).drop_columns("size").append_column("qty", [[1.0]])
    with pytest.raises(BadFile, match=r"has no column size; it needs .* and has symbol, exchange_ns, price, qty"):
        open_ticks(written(tmp_path, content, kind))


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("exchange_ns", [1.7e18], r"column exchange_ns holds double; it must hold integers"),
        ("price", [True], r"column price holds bool; it must hold numbers"),
        ("symbol", [600519], r"column symbol holds int64; it must hold text"),
        ("side", [1], r"column side holds int64; it must hold buy, sell or null"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(tmp_path: Path, column: str, values: list[object], wanted: str) -> None:
    with pytest.raises(BadFile, match=wanted):
        open_ticks(written(tmp_path, table(**{column: values})))


def test_trade_ids_beyond_64_bits_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, table(trade_id=pa.array([2**64 - 1], pa.uint64())))
    with pytest.raises(BadFile, match="column trade_id holds no 64-bit integers"):
        list(open_ticks(path))


def test_a_truncated_parquet_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, table(price=[1.0] * 1000))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadFile, match=r"cannot read .*ticks\.parquet") as caught:
        open_ticks(path)
    assert "\n" not in str(caught.value)


def test_a_picture_is_neither_parquet_nor_csv(tmp_path: Path) -> None:
    path = tmp_path / "board.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(BadFile, match="neither Parquet nor CSV"):
        open_ticks(path)


def test_a_ragged_csv_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"symbol,exchange_ns,price,size\nA,{NS},1.5,1\nA,{NS},1.5\n")
    with pytest.raises(BadFile, match="Expected 4 columns, got 3"):
        list(open_ticks(path))


@pytest.mark.parametrize(("separator", "name"), [(";", "ticks.csv"), ("\t", "ticks.csv"), (";", "ticks.csv.gz")])
def test_a_csv_of_another_separator_is_told_that_commas_are_wanted(tmp_path: Path, separator: str, name: str) -> None:
    """With decimal commas, as spreadsheets write them where people count so."""
    text = f"symbol;exchange_ns;price;size\nA;{NS};1,5;1\n".replace(";", separator).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(BadFile, match=re.escape(f"columns by {separator!r}: they must be separated by commas")):
        open_ticks(path)
