"""Ticks of a topic as training data: those of a range of time, whole, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from stream import clients
from stream.broker import EmbeddedBroker
from stream.config import Cluster, Settings
from stream.errors import TapewatchError
from stream.feeds import topic
from stream.feeds.files import open_ticks
from stream.messages import Tick, encode
from training.cli import train

NS = 1_723_161_257_000_000_000
MILLISECOND = 1_000_000


@pytest.fixture
def cluster(embedded: EmbeddedBroker) -> Cluster:
    """A broker with 300 ticks of three symbols, one a millisecond, and two messages that are no ticks."""
    cluster = Settings(broker=embedded.address).cluster
    producer = clients.producer(cluster)
    for row in range(300):
        tick = Tick("ABC"[row % 3], NS + row * MILLISECOND, 100.0 + row, 1.5, "sell" if row % 2 else None, row + 1)
        producer.send("ticks", key=tick.symbol.encode(), value=encode(tick))
    producer.send("ticks", key=b"A", value=b"junk")
    producer.send("ticks", key=b"A", value=b"")
    producer.flush()
    producer.close()
    return cluster


def test_ticks_of_a_range_are_those_that_were_sent(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "kept" / "ticks.parquet"
    saved = topic.save(cluster, "ticks", NS + 50 * MILLISECOND, NS + 250 * MILLISECOND, file)
    assert saved == (200, 100, 2)
    (batch,) = open_ticks(file)
    order = np.argsort(batch.exchange_ns)
    assert not batch.problems
    assert batch.exchange_ns[order].tolist() == [NS + row * MILLISECOND for row in range(50, 250)]
    assert batch.price[order].tolist() == [100.0 + row for row in range(50, 250)]
    assert batch.side[order].tolist() == [-1 if row % 2 else 0 for row in range(50, 250)]
    assert [batch.instruments[slot][0] for slot in batch.instrument[order]] == [
        "ABC"[row % 3] for row in range(50, 250)
    ]
    assert len(set(batch.trade_id.tolist())) == 200


def test_range_without_ticks_and_missing_topic_are_told(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match="no tick in that range of time: 300 lie outside it, 2 messages"):
        topic.save(cluster, "ticks", 0, NS, tmp_path / "none.parquet")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TapewatchError, match="nobody-made-this does not exist"):
        topic.save(cluster, "nobody-made-this", 0, NS, tmp_path / "none.parquet")


def test_training_takes_the_topic_and_says_what_is_lacking(cluster: Cluster, tmp_path: Path) -> None:
    command = ["forecaster", "--from-kafka", "ticks", "--broker", cluster.broker, "--out", str(tmp_path), "--quick"]
    done = CliRunner().invoke(
        train, [*command, "--since", "2024-08-08T23:54:17.1", "--until", "2024-08-09T02:54:17+02:00"]
    )
    assert isinstance(done.exception, TapewatchError)
    assert "ticks.parquet: 0 ticks to train on" in str(done.exception)
    assert sum(len(batch) for batch in open_ticks(tmp_path / "ticks.parquet")) == 200
