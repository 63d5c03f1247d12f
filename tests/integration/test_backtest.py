"""`tapewatch backtest` on real ticks: same bytes however it is cut, a row for every accepted tick, clear refusals."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream import backtest
from stream.config import DEFAULT_MODELS
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS
from stream.errors import BadFile, ModelMismatch
from tests.golden.stream import SAMPLE

ROWS = 12_000


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ticks, with four rows spoilt."""
    table = pq.read_table(SAMPLE).slice(80_000, ROWS)
    price = table["price"].to_pylist()
    price[10], price[20], price[30] = float("nan"), -1.0, None
    time = table["exchange_ns"].to_pylist()
    time[40] //= 10**9
    table = table.set_column(table.column_names.index("price"), "price", pa.array(price, pa.float64()))
    table = table.set_column(table.column_names.index("exchange_ns"), "exchange_ns", pa.array(time, pa.int64()))
    file = tmp_path_factory.mktemp("ticks") / "ticks.parquet"
    pq.write_table(table, file)
    return file


@pytest.fixture(scope="module")
def out(ticks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    summary = backtest.run(ticks, folder, quiet=True)
    assert summary.ticks == ROWS
    assert summary.accepted + summary.rejected == ROWS
    return folder


@pytest.mark.parametrize("chunk_ticks", [37, 512, 8192])
def test_size_of_the_chunks_changes_no_byte(ticks: Path, out: Path, chunk_ticks: int, tmp_path: Path) -> None:
    backtest.run(ticks, tmp_path, chunk_ticks=chunk_ticks, quiet=True)
    for file in out.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_row_groups_do_not_depend_on_the_chunks(ticks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest, "ROWS_A_GROUP", 5000)
    for chunk_ticks in (300, 1000):
        backtest.run(ticks, tmp_path / str(chunk_ticks), chunk_ticks=chunk_ticks, quiet=True)
    one, other = (pq.ParquetFile(tmp_path / size / "risk.parquet") for size in ("300", "1000"))
    assert one.metadata.num_row_groups == other.metadata.num_row_groups == 3
    assert one.read().equals(other.read())
    assert (tmp_path / "300" / "risk.parquet").read_bytes() == (tmp_path / "1000" / "risk.parquet").read_bytes()


def test_every_accepted_tick_has_a_row_in_three_files(out: Path) -> None:
    rejected = set(pq.read_table(out / "rejected.parquet")["offset"].to_pylist())
    expected = [row for row in range(ROWS) if row not in rejected]
    for name in ("predictions", "risk", "actions"):
        assert pq.read_table(out / f"{name}.parquet")["offset"].to_pylist() == expected


def test_columns_are_the_messages_fields_flattened(out: Path) -> None:
    tick = ["symbol", "venue", "offset", "exchange_ns", "price", "warming"]
    assert pq.read_schema(out / "predictions.parquet").names == [*tick, *FORECAST_COLUMNS, "model"]
    assert pq.read_schema(out / "risk.parquet").names == [*tick, *RISK_COLUMNS, "level", "model"]
    row = pq.read_table(out / "actions.parquet").slice(0, 1).to_pylist()[0]
    assert row["action"] == "flat"
    assert row["symbol"] == "BTCUSDT.USDM" or row["symbol"].endswith((".SPOT", ".USDM", ".CM"))


def test_spoilt_rows_come_back_with_reason_and_raw(out: Path) -> None:
    rows = {row["offset"]: row for row in pq.read_table(out / "rejected.parquet").to_pylist()}
    assert rows[20]["reason"] == "range"
    assert b'"price":-1.0' in rows[20]["raw"]
    assert "seconds" in rows[40]["rule"]
    assert {10, 20, 30, 40} <= set(rows)


def test_numbers_have_six_significant_digits(out: Path) -> None:
    for column in pq.read_table(out / "risk.parquet", columns=["var_99", "score"]).columns:
        assert all(float(f"{value:.6g}") == value for value in column.to_pylist()[::50])


def test_missing_file_column_and_models_are_said_in_one_line(ticks: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"nowhere\.parquet"):
        backtest.run(tmp_path / "nowhere.parquet", tmp_path, quiet=True)
    pq.write_table(pq.read_table(ticks).drop_columns(["size"]), tmp_path / "no_size.parquet")
    with pytest.raises(BadFile, match="size"):
        backtest.run(tmp_path / "no_size.parquet", tmp_path, quiet=True)
    with pytest.raises(ModelMismatch, match="no-models"):
        backtest.run(ticks, tmp_path, tmp_path / "no-models", quiet=True)


def test_earlier_results_are_replaced_and_other_files_left_alone(ticks: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(ticks).slice(0, 300), tmp_path / "few.parquet")
    (tmp_path / "notes.md").write_text("mine")
    assert not backtest.run(tmp_path / "few.parquet", tmp_path, quiet=True).replaced
    assert backtest.run(tmp_path / "few.parquet", tmp_path, quiet=True).replaced
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert pq.read_metadata(tmp_path / "few.parquet").num_rows == 300


@pytest.mark.parametrize("theirs", [b"not Parquet at all", None], ids=["another kind", "other columns"])
def test_files_that_no_backtest_wrote_are_not_overwritten(ticks: Path, tmp_path: Path, theirs: bytes | None) -> None:
    file = tmp_path / "risk.parquet"
    file.write_bytes(ticks.read_bytes() if theirs is None else theirs)
    before = file.read_bytes()
    with pytest.raises(BadFile, match=r"risk\.parquet holds no risk of a backtest and would be lost: .*--out"):
        backtest.run(ticks, tmp_path, tmp_path / "no-models", quiet=True)  # said before the models are looked for
    assert [each.name for each in tmp_path.iterdir()] == ["risk.parquet"]
    assert file.read_bytes() == before


def test_a_pipe_gets_no_line_of_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with backtest._progress(quiet=False) as progress:
        progress.advance(progress.add_task("ticks", total=1))
    assert capsys.readouterr().err == ""


def test_folder_that_cannot_be_written_is_named(ticks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadFile, match="file"):
        backtest.run(ticks, tmp_path / "file", Path(DEFAULT_MODELS), quiet=True)
