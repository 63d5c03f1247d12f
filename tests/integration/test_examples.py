"""The programs of docs/examples, each run as a reader would, on a real Kafka."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stream import clients, messages, topics
from stream.children import Child
from stream.config import ROOT, Settings
from stream.messages import Alert, Contribution, Risk
from tests.documents import blocks

EXAMPLES = ROOT / "docs" / "examples"


def _risk(offset: int, symbol: str, score: float) -> Risk:
    return Risk(
        symbol, "", 0, offset, 1_700_000_000_000_000_000 + offset, False, 0.5, 0.01, 0.02, 1.0, 0.0, 0.0, score,
        "normal", "wgan@1",
    )  # fmt: skip


@pytest.fixture
def filled(kafka_settings: Settings) -> Settings:
    """Topics with four risks, of which one came twice, and an alert that opened and closed."""
    topics.create(kafka_settings)
    producer = clients.producer(kafka_settings.cluster)
    names = kafka_settings.topics
    for risk in (
        _risk(0, "A", 10.0),
        _risk(1, "B", 20.0),
        _risk(2, "A", 30.0),
        _risk(2, "A", 30.0),
        _risk(3, "A", 40.0),
    ):
        producer.send(names.risk, key=risk.symbol.encode(), value=messages.encode(risk), partition=0)
    for state in ("opened", "closed"):
        alert = Alert(
            "A-1", "A", "", "pump", "critical", state, 0, 2, 1_700_000_000_000_000_000, 0.031, 0.01,
            [Contribution("volume", 9.0, 0.02)],
        )  # fmt: skip
        producer.send(names.alerts, key=b"A", value=messages.encode(alert), partition=0)
    producer.close()
    return kafka_settings


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("kafka_python_alerts", ["alerts"], "A pump critical 0.031"),
        ("aiokafka_risk", ["A", "risk"], "A score 40.0 normal VaR 0.01000"),
    ],
)
def test_a_follower_prints_what_comes(
    filled: Settings, tmp_path: Path, eventually: Callable[..., None], name: str, arguments: list[str], last: str
) -> None:
    *rest, role = arguments
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), filled.broker, *rest, getattr(filled.topics, role)]
    with Child(command, tmp_path / "out.log") as child:
        eventually(lambda: last in child.log.read_text())
    lines = child.log.read_text().splitlines()
    assert lines.count(last) == 1
    assert sum(line.startswith("A score 30.0") for line in lines) == (1 if role == "risk" else 0)
    assert not any(line.startswith("B ") for line in lines)


def test_a_topic_becomes_a_table(filled: Settings, tmp_path: Path) -> None:
    file = tmp_path / "risk.parquet"
    command = [sys.executable, str(EXAMPLES / "topic_to_dataframe.py"), filled.broker, filled.topics.risk, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "score" in done.stdout
    table = pq.read_table(file).to_pydict()
    assert table["score"] == [10.0, 20.0, 30.0, 40.0]
    assert table["symbol"] == ["A", "B", "A", "A"]
    assert str(table["time"][0]) == "2023-11-14 22:13:20+00:00"


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed: make kcat")
def test_kcat_prints_what_comes(kafka_settings: Settings, tmp_path: Path, eventually: Callable[..., None]) -> None:
    topics.create(kafka_settings)
    (block,) = blocks("docs/examples/README.md", "sh")
    (line,) = block.lines
    words = shlex.split(line.replace("127.0.0.1:9092", kafka_settings.broker))
    words[words.index("risk")] = kafka_settings.topics.risk
    producer, risk = clients.producer(kafka_settings.cluster), messages.encode(_risk(0, "A", 10.0))

    def printed() -> bool:
        producer.send(kafka_settings.topics.risk, key=b"A", value=risk, partition=0)
        return f"A {risk.decode()}\n" in child.log.read_text()

    with Child(words, tmp_path / "out.log") as child:
        eventually(printed)
    producer.close()


def test_a_model_of_ones_own_runs_beside_those_that_ship(tmp_path: Path) -> None:
    (block,) = [each for each in blocks("docs/how-to/own-model.md", "sh") if "own_forecaster.py" in each.text]
    for line in block.lines:
        words = shlex.split(line.replace("models-of-ours", str(tmp_path / "models")), comments=True)
        own = {"python": [sys.executable], "tapewatch": [sys.executable, "-m", "stream.cli"]}
        command = [*own.get(words[0], words[:1]), *words[1:]]
        if "--out" in command:
            command[-1] = str(tmp_path / "out")
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
    answered = pq.read_table(tmp_path / "out" / "predictions.parquet", columns=["model", "volatility_10s"])
    assert answered["model"].unique().to_pylist() == ["ewma@1"]
    assert pc.all(pc.greater(answered["volatility_10s"], 0)).as_py()
