"""The main job on a real Kafka, with the shipped models: real ticks in, answers out, equal to the backtest's."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream import backtest, clients, topics, verify
from stream.children import Child
from stream.config import ROOT, Settings
from stream.feeds.files import open_ticks
from stream.messages import (
    ACTIONS,
    ENCODERS,
    HORIZONS,
    QUANTILE_LEVELS,
    Action,
    Format,
    Horizon,
    Prediction,
    Risk,
    decode_action,
    decode_alert,
    decode_any,
    decode_prediction,
    decode_risk,
    encode,
    is_msgpack,
)
from tests.golden.stream import SAMPLE
from tests.integration.conftest import own_worker
from tests.integration.test_worker import Reader

ROWS = 12_000
BAD_ROWS = {100: -1.0, 5_000: 1e300, 11_000: 0.0}

Eventually = Callable[..., None]


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ticks of six instruments with three impossible prices among them."""
    table = pq.read_table(SAMPLE).slice(85_000, ROWS)
    price = table["price"].to_pylist()
    for row, bad in BAD_ROWS.items():
        price[row] = bad
    file = tmp_path_factory.mktemp("ticks") / "ticks.parquet"
    pq.write_table(table.set_column(table.column_names.index("price"), "price", pa.array(price)), file)
    return file


@pytest.fixture(scope="module")
def expected(ticks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backtest of the same ticks."""
    folder = tmp_path_factory.mktemp("backtest")
    backtest.run(ticks, folder, quiet=True)
    return folder


@pytest.fixture
def form() -> Format:
    """How the worker writes."""
    return "json"


@pytest.fixture
def settings(kafka_settings: Settings, form: Format) -> Settings:
    """One partition, so that offsets are the file's row numbers."""
    one = msgspec.structs.replace(kafka_settings.topics, partitions=1)
    settings = own_worker(msgspec.structs.replace(kafka_settings, topics=one, format=form))
    topics.create(settings)
    return settings


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[Callable[[], Child]]:
    """Starts real workers, as a user would."""
    file = tmp_path / "tapewatch.toml"
    file.write_text(_toml(settings))
    started: list[Child] = []

    def start() -> Child:
        command = [sys.executable, "-m", "stream.cli", "--config", str(file), "worker"]
        started.append(Child(command, tmp_path / f"worker{len(started)}.log", directory=ROOT))
        return started[-1]

    yield start
    for child in started:
        child.stop()


def _toml(settings: Settings) -> str:
    tree = msgspec.to_builtins({"topics": settings.topics, "worker": settings.worker})
    lines = [f'broker = "{settings.broker}"', f'format = "{settings.format}"']
    for section, keys in tree.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in keys.items()]
    return "\n".join(lines)


def _messages(file: Path) -> list[tuple[bytes, bytes]]:
    return [
        (batch.instruments[batch.instrument[row]][0].encode(), batch.raw(row))
        for batch in open_ticks(file)
        for row in range(len(batch))
    ]


def _produce(settings: Settings, messages: list[tuple[bytes, bytes]]) -> None:
    producer = clients.producer(settings.cluster, linger_ms=5)
    futures = [producer.send(settings.topics.ticks, key=key, value=value) for key, value in messages]
    producer.close()
    assert futures[-1].get(30).offset == len(messages) - 1


def _prediction(row: dict[str, Any]) -> bytes:
    horizons = [
        Horizon(
            horizon_seconds=seconds,
            expected_return=row[f"expected_return_{seconds}s"],
            volatility=row[f"volatility_{seconds}s"],
            probability_up=row[f"probability_up_{seconds}s"],
            quantiles=[row[f"quantile_{round(100 * level):02d}_{seconds}s"] for level in QUANTILE_LEVELS],
        )
        for seconds in HORIZONS
    ]
    return encode(Prediction(**_common(row), horizons=horizons, model=row["model"]))


def _risk(row: dict[str, Any]) -> bytes:
    return encode(Risk(partition=0, **{name: value for name, value in row.items() if name != "price"}))


def _action(row: dict[str, Any]) -> bytes:
    values = [row[f"action_value_{action}"] for action in ACTIONS]
    rest = {name: row[name] for name in ("action", "target_position", "expected_reward", "gated_by", "model")}
    return encode(Action(**_common(row), action_values=values, **rest))


def _common(row: dict[str, Any]) -> dict[str, Any]:
    return {"partition": 0} | {name: row[name] for name in ("symbol", "venue", "offset", "exchange_ns", "warming")}


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / f"{name}.parquet").to_pylist())


def _values(reader: Reader, topic: str) -> list[bytes]:
    return [message.value() for message in reader.records[topic][0]]


def test_every_tick_is_answered_once_and_equal_to_the_backtest(
    settings: Settings, worker: Callable[[], Child], ticks: Path, expected: Path, eventually: Eventually
) -> None:
    names = settings.topics
    outputs = (names.predictions, names.risk, names.actions)
    reader = Reader(settings, [*outputs, names.alerts, names.rejected], partitions=1)
    child = worker()
    _produce(settings, _messages(ticks))
    rejected = _rows(expected, "rejected")
    eventually(lambda: all(reader.has(name, ROWS - len(rejected)) for name in outputs), 60.0)
    assert child.stop() == 0
    reader.read_to_end()
    for name, make, topic in zip(
        ("predictions", "risk", "actions"), (_prediction, _risk, _action), outputs, strict=True
    ):
        assert _values(reader, topic) == [make(row) for row in _rows(expected, name)], name
    published = [msgspec.to_builtins(decode_alert(value)) for value in _values(reader, names.alerts)]
    assert published == [row | {"partition": 0} for row in _rows(expected, "alerts")]
    refused = [dict(message.headers()) for message in reader.records[names.rejected][0]]
    assert [int(headers["offset"]) for headers in refused] == [row["offset"] for row in rejected]
    assert [headers["reason"].decode() for headers in refused] == [row["reason"] for row in rejected]
    assert {int(headers["offset"]) for headers in refused} >= set(BAD_ROWS)
    reader.close()


@pytest.mark.parametrize("form", ["msgpack"])
def test_in_messagepack_everything_says_the_same(
    settings: Settings, worker: Callable[[], Child], ticks: Path, expected: Path, eventually: Eventually
) -> None:
    """Half of the ticks come in MessagePack, half in JSON; all answers, and the alerts, are MessagePack."""
    names = settings.topics
    outputs = {
        names.predictions: (decode_prediction, _prediction),
        names.risk: (decode_risk, _risk),
        names.actions: (decode_action, _action),
    }
    rejected = _rows(expected, "rejected")
    reader = Reader(settings, [*outputs, names.alerts], partitions=1)
    child = worker()
    pack = ENCODERS["msgpack"]
    _produce(
        settings,
        [(key, value if row % 2 else pack(decode_any(value))) for row, (key, value) in enumerate(_messages(ticks))],
    )
    eventually(lambda: all(reader.has(name, ROWS - len(rejected)) for name in outputs), 60.0)
    assert child.stop() == 0
    reader.read_to_end()
    for (topic, (decode, make)), name in zip(outputs.items(), ("predictions", "risk", "actions"), strict=True):
        values = _values(reader, topic)
        assert all(map(is_msgpack, values))
        assert [encode(decode(value)) for value in values] == [make(row) for row in _rows(expected, name)], name
    published = [msgspec.to_builtins(decode_alert(value)) for value in _values(reader, names.alerts)]
    assert published == [row | {"partition": 0} for row in _rows(expected, "alerts")]
    assert all(map(is_msgpack, _values(reader, names.alerts)))
    assert verify.run(settings, None, None, json=False) == 0
    reader.close()
