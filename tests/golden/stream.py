"""A small recorded stream and what the shipped models made of it. `python -m tests.golden.stream` writes it again.

300 real ticks of seven instruments with some bad messages between them, and the records that the worker publishes for
them. Read the diff after a rewrite: every line of it is something that a user will see.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from stream import inference
from stream.config import DEFAULT_MODELS, Alerts, Features, Settings
from stream.decoding import Chunk
from stream.encoding import values
from stream.feeds.files import open_ticks
from stream.messages import Tick, encode
from stream.pipeline import Pipeline

FOLDER: Final = Path(__file__).parent
SAMPLES: Final = Path(DEFAULT_MODELS).parent / "stream" / "feeds" / "samples"
SAMPLE: Final = SAMPLES / "binance_sample.parquet"
# So little history is needed, and alerts are so eager, that 300 ticks show all of it.
SETTINGS: Final = Settings(
    features=Features(warm_ticks=20, warm_seconds=1.0),
    alerts=Alerts(price_jump=5.0, volatility=2.0, flow=0.8, flow_volume=2.0, hold_seconds=5.0),
)
PARTS: Final = ((SAMPLE, 90_000, 90_100), (SAMPLES / "binance_ltcusdt.parquet", 1_480, 1_680))
"""Files and their rows: six instruments in a second and a half, and a price jump of LTCUSDT in four minutes."""
BAD: Final = (b"not json", b'{"symbol":"BTCUSDT.USDM","exchange_ns":1723161300,"price":1,"size":1}', b"")
SIDES: Final[dict[int, Any]] = {1: "buy", -1: "sell", 0: None}


def record() -> list[tuple[str, str]]:
    """Key and message of each tick, from the bundled samples."""
    ticks = [tick for part in PARTS for tick in _rows(*part)]
    for at, bad in zip((50, 150, 250), BAD, strict=True):
        ticks.insert(at, ("BTCUSDT.USDM", bad.decode()))
    ticks.insert(200, ticks[199])  # sent twice
    return ticks


def _rows(file: Path, first: int, last: int) -> Iterator[tuple[str, str]]:
    for batch in open_ticks(file):
        for row in range(max(0, first - batch.first_row), min(len(batch), last - batch.first_row)):
            symbol, venue = batch.instruments[batch.instrument[row]]
            numbers = int(batch.exchange_ns[row]), float(batch.price[row]), float(batch.size[row])
            tick = Tick(symbol, *numbers, SIDES[int(batch.side[row])], int(batch.trade_id[row]), venue)
            yield symbol, encode(tick).decode()


def replay(ticks: list[tuple[str, str]], chunk_ticks: int) -> dict[str, list[Any]]:
    """What the pipeline publishes for the stream, by topic, decoded."""
    pipeline = Pipeline(SETTINGS, inference.load(Path(DEFAULT_MODELS)), 0)
    out: dict[str, list[Any]] = {name: [] for name in ("predictions", "risk", "actions", "alerts", "rejected")}
    for first in range(0, len(ticks), chunk_ticks):
        part = ticks[first : first + chunk_ticks]
        keys, raw = [key.encode() for key, _ in part], [value.encode() for _, value in part]
        output = pipeline.process(Chunk(0, range(first, first + len(part)), keys, raw), 0)
        for batch in output.batches:
            out[batch.topic] += [msgspec.json.decode(value) for value in values(batch)]
        out["alerts"] += [msgspec.to_builtins(alert) for alert in output.alerts]
        out["rejected"] += [
            {"offset": refused.offset, "reason": refused.reason, "rule": refused.rule} for refused in output.rejected
        ]
    return out


def read(name: str) -> list[Any]:
    """The lines of a golden file."""
    return [msgspec.json.decode(line) for line in (FOLDER / f"{name}.jsonl").read_bytes().splitlines()]


def write() -> None:
    """Record the stream and its outputs."""
    ticks = record()
    for name, rows in {"ticks": ticks, **replay(ticks, 64)}.items():
        (FOLDER / f"{name}.jsonl").write_bytes(b"".join(encode(row) + b"\n" for row in rows))


if __name__ == "__main__":
    write()
