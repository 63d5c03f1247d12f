"""`tapewatch download`: daily files of trades from an exchange's public archive, checked, as Parquet that we read.

Binance's archive holds a zip a symbol and day, with a CSV of its trades in it and the SHA-256 of the zip beside it. A
download that was cut off goes on where it ended, in the same run or the next.
"""

import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from stream import __version__
from stream.errors import BadFile, TapewatchError
from stream.feeds.files import SCHEMA
from stream.feeds.venues import MICROSECONDS_FROM

ADDRESS: Final = "https://data.binance.vision"
ATTEMPTS: Final = 5
FIRST_WAIT_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 30.0
PIECE_BYTES: Final = 1 << 18
_CSV_BLOCK_BYTES: Final = 1 << 22
_SYMBOL: Final = re.compile(r"[A-Z0-9_]{2,40}")
_CHECKSUM: Final = re.compile(r"([0-9a-f]{64})\s+\*?(\S+)\s*")
# Spot files have no header, those of futures do; what a quote_qty is there is a base_qty in COIN-M's.
_COLUMNS: Final = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")
_TYPES: Final = {
    "id": pa.int64(),
    "price": pa.float64(),
    "qty": pa.float64(),
    "time": pa.int64(),
    "is_buyer_maker": pa.bool_(),
}


class Market(NamedTuple):
    """A part of the archive."""

    folder: str
    venue: str  # the tick's


MARKETS: Final = {
    "spot": Market("spot", "binance"),
    "usdm": Market("futures/um", "binance-usdm"),
    "coinm": Market("futures/cm", "binance-coinm"),  # sizes are contracts
}


class NotThere(TapewatchError):
    """The archive has no such file."""


class Wanted(NamedTuple):
    """The trades of a symbol on a day."""

    market: str
    symbol: str
    day: date

    @property
    def zip_name(self) -> str:
        """Its name in the archive."""
        return f"{self.symbol}-trades-{self.day}.zip"

    def url(self, address: str) -> str:
        """Where it lies."""
        return f"{address.rstrip('/')}/data/{MARKETS[self.market].folder}/daily/trades/{self.symbol}/{self.zip_name}"

    def parquet(self, out: Path) -> Path:
        """What it becomes."""
        return out / f"{MARKETS[self.market].venue}-{self.symbol}-{self.day}.parquet"


Progressed = Callable[[int, int], None]
"""Told of bytes that are here, and of bytes in all."""


def fetch(
    wanted: Wanted,
    out: Path,
    address: str = ADDRESS,
    progressed: Progressed = lambda here, all_: None,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Download a day, check it, and write it as Parquet into the folder `out`; gives the number of trades.

    Raises
    ------
    NotThere
        If the archive has no such day.
    BadFile
        If the file is not what its checksum says, or holds no trades as we know them.
    TapewatchError
        If the archive cannot be reached after ATTEMPTS, or the folder not be written.
    """
    url, part = wanted.url(address), out / f"{wanted.zip_name}.{wanted.market}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        digest = _checksum(_patiently(lambda: _get(url + ".CHECKSUM"), url, wait), wanted)
        _patiently(lambda: _continue(url, part, progressed), url, wait)
        if _sha256(part) != digest:
            part.unlink()
            raise BadFile(f"{url} is not what its checksum says; it was deleted, so try again")
        rows = convert(part, wanted, wanted.parquet(out))
        part.unlink()
        return rows
    except OSError as error:
        raise TapewatchError(f"cannot write to {out}: {error.strerror or error}") from None


class _Interrupted(Exception):
    """What was wrong may be over when one tries again."""


def _patiently(attempt: Callable[[], Any], url: str, wait: Callable[[float], None]) -> Any:
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except _Interrupted as error:
            why = str(error)
        if number + 1 < ATTEMPTS:
            wait(FIRST_WAIT_SECONDS * 2**number)
    raise TapewatchError(f"cannot download {url} ({why}), tried {ATTEMPTS} times; what is here is kept: run it again")


@contextlib.contextmanager
def _open(url: str, first_byte: int = 0, method: str = "GET") -> Iterator[Any]:
    """The answer from a byte on; raises NotThere, or _Interrupted for what may be over soon."""
    headers = {"User-Agent": f"tapewatch/{__version__}"}
    if first_byte:
        headers["Range"] = f"bytes={first_byte}-"
    try:
        request = urllib.request.Request(url, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise NotThere(f"the archive has no {url}; a day's file is there from the next day on") from None
        raise _Interrupted(f"HTTP {error.code}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interrupted(str(getattr(error, "reason", "") or error) or type(error).__name__) from None
    except ValueError as error:
        raise TapewatchError(f"cannot download {url}: {error}") from None


def _get(url: str) -> bytes:
    with _open(url) as answer:
        content: bytes = answer.read(4096)
    return content


def _continue(url: str, part: Path, progressed: Progressed) -> None:
    """Download what `part` does not hold yet."""
    here = part.stat().st_size if part.exists() else 0
    total = _length(url)
    if here > total:
        here = 0
    if here == total:
        return
    with _open(url, here) as answer:
        if answer.status != 206:  # it does not know of ranges
            here = 0
        with part.open("r+b" if here else "wb") as file:
            file.seek(here)
            while piece := answer.read(PIECE_BYTES):
                file.write(piece)
                here += len(piece)
                progressed(here, total)
    if here != total:
        raise _Interrupted(f"the connection ended after {here:,} of {total:,} bytes")


def _length(url: str) -> int:
    with _open(url, method="HEAD") as answer:
        return int(answer.headers["Content-Length"] or 0)


def _checksum(text: bytes, wanted: Wanted) -> str:
    found = _CHECKSUM.fullmatch(text.decode("ascii", "replace"))
    if found is None or found[2] != wanted.zip_name:
        raise BadFile(f"the checksum of {wanted.zip_name} is none: {text[:80]!a}")
    return found[1]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def convert(archive: Path, wanted: Wanted, out: Path) -> int:
    """Write the trades of a zip as Parquet; gives how many.

    Raises
    ------
    BadFile
        If the zip holds no CSV of trades.
    """
    part = out.with_name(out.name + ".part")
    rows = 0
    try:
        with _trades(archive) as blocks, pq.ParquetWriter(part, SCHEMA) as writer:
            for block in blocks:
                writer.write_batch(_ticks(block, wanted))
                rows += block.num_rows
    except (zipfile.BadZipFile, pa.ArrowException) as error:
        part.unlink(missing_ok=True)
        raise BadFile(f"{wanted.zip_name} holds no trades: {str(error).splitlines()[0]}") from None
    os.replace(part, out)
    return rows


@contextlib.contextmanager
def _trades(archive: Path) -> Iterator[Iterator[pa.RecordBatch]]:
    """The rows of the only CSV in a zip."""
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        if len(names) != 1:
            raise zipfile.BadZipFile(f"{len(names)} files in it instead of one")
        with opened.open(names[0]) as first:
            head = first.readline(1000).decode("ascii", "replace").strip().split(",")
        named = head[0] == "id"
        if len(head) not in (6, 7) or not (named or head[0].isdecimal()):
            raise zipfile.BadZipFile(f"its first line is {','.join(head)[:80]!a}")
        with opened.open(names[0]) as stream:
            yield pyarrow.csv.open_csv(
                stream,
                pyarrow.csv.ReadOptions(
                    column_names=list(_COLUMNS[: len(head)]), skip_rows=int(named), block_size=_CSV_BLOCK_BYTES
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=_TYPES,
                    include_columns=list(_TYPES),
                    true_values=["True", "true"],
                    false_values=["False", "false"],
                    null_values=[],
                ),
            )


def _ticks(block: pa.RecordBatch, wanted: Wanted) -> pa.RecordBatch:
    time_ = block.column("time")
    # Spot files count microseconds since 2025-01-01.
    scale = pc.if_else(pc.greater(time_, MICROSECONDS_FROM), 1_000, 1_000_000)
    # The maker bought, so the taker sold.
    side = pc.if_else(block.column("is_buyer_maker"), "sell", "buy")
    columns = [
        pa.array([wanted.symbol] * block.num_rows),
        pc.multiply(time_, scale),
        block.column("price"),
        block.column("qty"),
        side,
        block.column("id"),
        pa.array([MARKETS[wanted.market].venue] * block.num_rows),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def run(symbol: str, first: date, last: date, market: str, out: Path, address: str = ADDRESS) -> None:
    """`tapewatch download`: each day from `first` to `last`; days that are here already are left as they are.

    Raises
    ------
    TapewatchError
        As `fetch` does; a day that the archive does not have does not keep the others from being fetched.
    """
    symbol = symbol.upper()
    if not _SYMBOL.fullmatch(symbol):
        raise TapewatchError(f"symbol {symbol[:80]!a} is none of Binance's: BTCUSDT, or BTCUSD_PERP for coinm")
    if last < first:
        raise TapewatchError(f"--to {last} lies before {first}")
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    absent = [str(error) for day in days if (error := _day(Wanted(market, symbol, day), out, address))]
    if absent:
        raise NotThere(f"{len(absent)} of {len(days)} days are not there: {absent[0]}")


def _day(wanted: Wanted, out: Path, address: str) -> NotThere | None:
    target = wanted.parquet(out)
    if target.exists():
        click.echo(f"{target} is there already")
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(wanted.zip_name, total=None)
            rows = fetch(wanted, out, address, lambda here, total: bar.update(task, completed=here, total=total))
    except NotThere as error:
        return error
    click.echo(f"{target}: {rows:,} trades")
    return None
