"""Daily files from a copy of the archive on loopback: checked, gone on with, and read back as ticks."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from stream.cli import commands
from stream.errors import BadFile, TapewatchError
from stream.feeds import archive
from stream.feeds.archive import NotThere, Wanted
from stream.feeds.files import open_ticks

DAY = date(2025, 1, 31)
SPOT = Wanted("spot", "BTCUSDT", DAY)
SPOT_ROWS = """\
4468,102100.01000000,0.00536000,547.26,1738281600010866,True,True
4469,102100.02000000,0.10000000,10210.00,1738281600020000,False,True
"""
USDM_ROWS = """\
id,price,qty,quote_qty,time,is_buyer_maker
99,102100.1,0.5,51050.05,1738281600010,true
100,102100.2,0.25,25525.05,1738281600020,false
"""


def zipped(text: str, name: str = "trades.csv") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, text)
    return content.getvalue()


class Copy:
    """A copy of the archive: what lies in it, how often it cuts an answer off, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # bytes after which the next answers to GET end
        self.ranges = True
        self.status = 0  # of all answers, if not 0
        self.asked: list[tuple[str, str]] = []  # path, Range
        self.address = ""

    def put(self, wanted: Wanted, content: bytes, checksum: str | None = None) -> None:
        path = wanted.url("")
        digest = hashlib.sha256(content).hexdigest()
        self.files[path] = content
        self.files[path + ".CHECKSUM"] = (checksum or f"{digest}  {wanted.zip_name}\n").encode()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        asked = request.headers.get("Range", "")
        content = self.files.get(request.path)
        if content is None or self.status:
            request.send_response(self.status or 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(content) - first))
        request.end_headers()
        if not body:
            return
        self.asked.append((request.path, asked))
        cut = self.cuts.pop(0) if self.cuts and request.path.endswith(".zip") else len(content)
        request.wfile.write(content[first : first + cut])
        request.close_connection = True


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    monkeypatch.setenv("no_proxy", "*")
    found = Copy()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self, body=True)

        def do_HEAD(self) -> None:
            found.answer(self, body=False)

        def log_message(self, format: str, *args: Any) -> None:
            """Not on the screen."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def no_wait(seconds: float) -> None:
    """Time does not matter here."""


def fetched(copy: Copy, wanted: Wanted, out: Path) -> int:
    return archive.fetch(wanted, out, copy.address, wait=no_wait)


def test_a_spot_day_becomes_ticks_in_microseconds(copy: Copy, tmp_path: Path) -> None:
    copy.put(SPOT, zipped(SPOT_ROWS))
    assert fetched(copy, SPOT, tmp_path) == 2
    (batch,) = open_ticks(tmp_path / "binance-BTCUSDT-2025-01-31.parquet")
    assert batch.problems == {}
    assert batch.instruments == [("BTCUSDT", "binance")]
    assert batch.exchange_ns.tolist() == [1738281600010866000, 1738281600020000000]
    assert batch.price.tolist() == [102100.01, 102100.02]
    assert batch.size.tolist() == [0.00536, 0.1]
    assert batch.side.tolist() == [-1, 1]
    assert batch.trade_id.tolist() == [4468, 4469]
    assert [file.name for file in tmp_path.iterdir()] == ["binance-BTCUSDT-2025-01-31.parquet"]


@pytest.mark.parametrize(("market", "symbol"), [("usdm", "BTCUSDT"), ("coinm", "BTCUSD_PERP")])
def test_a_day_of_futures_has_a_header_and_milliseconds(copy: Copy, tmp_path: Path, market: str, symbol: str) -> None:
    wanted = Wanted(market, symbol, DAY)
    copy.put(wanted, zipped(USDM_ROWS))
    assert fetched(copy, wanted, tmp_path) == 2
    (row, _) = pq.read_table(wanted.parquet(tmp_path)).to_pylist()
    assert row == {
        "symbol": symbol,
        "exchange_ns": 1738281600010000000,
        "price": 102100.1,
        "size": 0.5,
        "side": "sell",
        "trade_id": 99,
        "venue": f"binance-{market}",
    }


def large() -> bytes:
    """A zip of a few hundred kB."""
    rng = np.random.default_rng(3)
    rows = [
        f"{number},{100 + rng.random():.8f},1.0,1.0,{1738281600000000 + number},True,True" for number in range(20_000)
    ]
    return zipped("\n".join(rows) + "\n")


def test_a_download_that_is_cut_off_goes_on_where_it_ended(copy: Copy, tmp_path: Path) -> None:
    content = large()
    copy.put(SPOT, content)
    copy.cuts = [50_000, 30_000]
    told: list[tuple[int, int]] = []
    rows = archive.fetch(SPOT, tmp_path, copy.address, lambda here, total: told.append((here, total)), no_wait)
    assert rows == 20_000
    asked = [each for path, each in copy.asked if path.endswith(".zip")]
    assert asked == ["", "bytes=50000-", "bytes=80000-"]
    assert told[-1] == (len(content), len(content))


def test_the_next_run_goes_on_with_what_an_earlier_one_left(copy: Copy, tmp_path: Path) -> None:
    content = large()
    copy.put(SPOT, content)
    copy.cuts = [10_000] + [0] * (archive.ATTEMPTS - 1)
    with pytest.raises(TapewatchError, match=r"ended after 10,000 of .* bytes\), tried 5 times; what is here is kept"):
        fetched(copy, SPOT, tmp_path)
    copy.asked.clear()
    assert fetched(copy, SPOT, tmp_path) == 20_000
    assert copy.asked[-1][1] == "bytes=10000-"


def test_a_server_that_knows_no_ranges_is_asked_for_all_of_it(copy: Copy, tmp_path: Path) -> None:
    copy.put(SPOT, large())
    copy.cuts, copy.ranges = [10_000], False
    assert fetched(copy, SPOT, tmp_path) == 20_000


def test_a_file_that_is_not_what_its_checksum_says_is_deleted(copy: Copy, tmp_path: Path) -> None:
    copy.put(SPOT, zipped(SPOT_ROWS), f"{'0' * 64}  {SPOT.zip_name}")
    with pytest.raises(BadFile, match="is not what its checksum says"):
        fetched(copy, SPOT, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("checksum", ["<html>", f"{'0' * 64}  ETHUSDT-trades-2025-01-31.zip", "\xff"])
def test_a_checksum_that_is_none_is_told(copy: Copy, tmp_path: Path, checksum: str) -> None:
    copy.put(SPOT, zipped(SPOT_ROWS), checksum)
    with pytest.raises(BadFile, match=r"the checksum of BTCUSDT-trades-2025-01-31\.zip is none"):
        fetched(copy, SPOT, tmp_path)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"no zip at all", "File is not a zip file"),
        (zipped("a,b,c\n1,2,3\n"), "its first line is 'a,b,c'"),
        (zipped(SPOT_ROWS + "4470,much,1.0,1.0,1738281600030000,True,True\n"), "CSV conversion error"),
        (zipped(""), "its first line is ''"),
    ],
)
def test_a_zip_without_trades_is_one_line(copy: Copy, tmp_path: Path, content: bytes, rule: str) -> None:
    copy.put(SPOT, content)
    with pytest.raises(BadFile, match=r"BTCUSDT-trades-2025-01-31\.zip holds no trades") as raised:
        fetched(copy, SPOT, tmp_path)
    assert rule in str(raised.value)
    assert not SPOT.parquet(tmp_path).exists()


def test_a_server_in_trouble_is_tried_again_with_longer_and_longer_waits(copy: Copy, tmp_path: Path) -> None:
    copy.status = 503
    waits: list[float] = []
    with pytest.raises(TapewatchError, match=r"HTTP 503\), tried 5 times"):
        archive.fetch(SPOT, tmp_path, copy.address, wait=waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_day_that_is_not_there_is_named_and_the_others_are_fetched(copy: Copy, tmp_path: Path) -> None:
    copy.put(SPOT, zipped(SPOT_ROWS))
    options = ["--to", "2025-02-01", "--out", str(tmp_path), "--address", copy.address]
    shown = CliRunner().invoke(commands, ["download", "binance", "btcusdt", "2025-01-31", *options])
    assert isinstance(shown.exception, NotThere)
    assert "1 of 2 days are not there: the archive has no" in str(shown.exception)
    assert "BTCUSDT-trades-2025-02-01.zip" in str(shown.exception)
    assert "binance-BTCUSDT-2025-01-31.parquet: 2 trades" in shown.output
    again = CliRunner().invoke(commands, ["download", "binance", "BTCUSDT", "2025-01-31", *options[2:]])
    assert again.exit_code == 0
    assert "is there already" in again.output


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["../etc", "2025-01-31"], "symbol '../ETC' is none of Binance's"),
        (["BTCUSDT", "2025-01-31", "--to", "2025-01-30"], "--to 2025-01-30 lies before 2025-01-31"),
        (["BTCUSDT", "2025-01-31", "--address", "nowhere"], "cannot download nowhere/data/spot"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], rule: str) -> None:
    shown = CliRunner().invoke(commands, ["download", "binance", *arguments, "--out", str(tmp_path)])
    assert isinstance(shown.exception, TapewatchError)
    assert rule in str(shown.exception)


def test_a_day_that_is_none_is_a_mistake_of_usage() -> None:
    shown = CliRunner().invoke(commands, ["download", "binance", "BTCUSDT", "yesterday"])
    assert shown.exit_code == 2
    assert "'yesterday' is not a day such as 2025-01-31" in shown.output


def test_a_folder_that_cannot_be_written_is_one_line(copy: Copy, tmp_path: Path) -> None:
    copy.put(SPOT, zipped(SPOT_ROWS))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TapewatchError, match=r"cannot write to .*file: "):
        fetched(copy, SPOT, tmp_path / "file")
