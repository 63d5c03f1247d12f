"""`tapewatch rejected` on a real Kafka: a repair, a message that comes back, and none that comes back twice."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import KafkaException

from stream import clients, topics
from stream.broker import EmbeddedBroker
from stream.children import Child
from stream.cli import INTERRUPTED
from stream.config import ROOT, Cluster, Settings
from stream.messages import decode_prediction, encode
from stream.publisher import rejected_record
from stream.rejected import RETRIED_FROM, Refused, Rejects, Returns
from stream.toml import to_toml
from stream.verify import Topic
from tests.integration.conftest import own_worker
from tests.integration.test_recovery import committed
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]


@pytest.fixture
def settings(kafka_settings: Settings) -> Settings:
    """Two partitions, and a worker that takes one instrument in each."""
    two = msgspec.structs.replace(kafka_settings.topics, partitions=2)
    settings = own_worker(msgspec.structs.replace(kafka_settings, topics=two), max_symbols=1)
    topics.create(settings)
    return settings


def run(settings: Settings, folder: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """`tapewatch rejected`."""
    (folder / "settings.toml").write_text(to_toml(settings))
    command = [sys.executable, "-m", "stream.cli", "--config", str(folder / "settings.toml"), "rejected", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, input=answer)


def send(settings: Settings, *values: tuple[bytes, bytes]) -> None:
    """Key and value, to partition 1."""
    producer = clients.producer(settings.cluster)
    for key, value in values:
        producer.send(settings.topics.ticks, key=key, value=value, partition=1).get(20)
    producer.close()


def records(settings: Settings, topic: str, partition: int = 1) -> list[tuple[bytes | None, bytes, dict[str, bytes]]]:
    """All committed records of a partition."""
    reader = Topic(settings.cluster)
    try:
        _, end = reader.range(topic, partition)
        return [
            (record.key(), record.value(), dict(record.headers() or ()))
            for piece in reader.read(topic, partition, end)
            for record in piece
        ]
    finally:
        reader.close()


def by_hand(settings: Settings, log: Path) -> Child:
    return Child([sys.executable, "-m", "tests.integration.by_hand", encode(settings).decode()], log, directory=ROOT)


def test_after_a_repair_what_was_refused_is_put_back_once_and_answered(
    settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    ticks = [message(symbol=name, exchange_ns=START_NS + n * SECOND, trade_id=n) for n, name in enumerate("AB", 1)]
    send(settings, (b"A", ticks[0]), (b"B", ticks[1]), (b"C", b"{junk"))
    with by_hand(settings, tmp_path / "worker.log"):
        eventually(lambda: committed(settings) == 3)
    shown = run(settings, tmp_path, "show")
    assert shown.returncode == 0, shown.stderr
    assert "1:1  too_many_symbols" in shown.stdout
    assert "1:2  json" in shown.stdout
    assert "{junk" in shown.stdout

    repaired = own_worker(settings, max_symbols=10)
    repaired = msgspec.structs.replace(
        repaired, worker=msgspec.structs.replace(repaired.worker, group=settings.worker.group)
    )
    declined = run(repaired, tmp_path, "retry", "--reason", "too_many_symbols", answer="n\n")
    assert "put 1 back" in declined.stdout
    assert "nothing was put back" in declined.stdout
    unanswered = run(repaired, tmp_path, "retry", "--reason", "too_many_symbols", answer="")
    assert (unanswered.returncode, unanswered.stderr.strip()) == (INTERRUPTED, "")
    for told in ("1 put back on", "1 left out: put back before\nnothing was put back"):
        retried = run(repaired, tmp_path, "retry", "--reason", "too_many_symbols", "--yes")
        assert retried.returncode == 0, retried.stderr
        assert told in retried.stdout
    assert run(repaired, tmp_path, "retry", "--offset", "1:1", "--yes").stdout.startswith("1 left out: put back before")
    _, _, _, back = records(repaired, repaired.topics.ticks)
    assert back == (b"B", ticks[1], {RETRIED_FROM: b"1:1"})
    with by_hand(repaired, tmp_path / "repaired.log"):
        eventually(lambda: committed(repaired) >= 4)
        eventually(lambda: len(records(repaired, repaired.topics.predictions)) == 2)
    (_, _, _), (key, value, _) = records(repaired, repaired.topics.predictions)
    assert (key, decode_prediction(value).offset) == (b"B", 3)
    after = run(repaired, tmp_path, "show", "--reason", "too_many_symbols", "--count", "0")
    assert [word for word in after.stdout.split() if word.isdigit()] == ["1", "0"]


def test_of_two_calls_at_once_the_later_one_wins_and_nothing_comes_twice(
    settings: Settings, eventually: Eventually, capfd: pytest.CaptureFixture[str]
) -> None:
    send(settings, (b"A", b"junk"))
    waiting = [Refused((1, 0), "json", "rule", b"A", b"junk", cut=False)]
    first, second = Returns(settings), Returns(settings)
    with pytest.raises(KafkaException) as told:
        first.put_back(waiting)
    assert told.value.args[0].fatal() or told.value.args[0].txn_requires_abort()
    second.put_back(waiting)
    eventually(lambda: len(records(settings, settings.topics.ticks)) == 2)  # Kafka shows it a little later
    assert [headers for _, _, headers in records(settings, settings.topics.ticks)] == [{}, {RETRIED_FROM: b"1:0"}]
    with Rejects(settings) as rejects:
        assert rejects.sort_out(waiting).put_back == 1
    assert "FATAL" not in capfd.readouterr().err


def test_a_place_where_nothing_was_refused_is_told_in_one_line(settings: Settings, tmp_path: Path) -> None:
    done = run(settings, tmp_path, "retry", "--offset", "1:7", "--yes")
    assert done.returncode == 1
    assert done.stderr.startswith("tapewatch: no message was refused at 1:7")
    assert len(done.stderr.splitlines()) == 1
    assert run(settings, tmp_path, "show").stdout == "nothing was refused\n"
    for wrong in (["retry"], ["retry", "--offset", "7"]):
        assert run(settings, tmp_path, *wrong).returncode == 2


def test_the_embedded_broker_shows_and_does_not_put_back(
    embedded_settings: Settings, embedded: EmbeddedBroker, tmp_path: Path
) -> None:
    record = rejected_record(0, 5, b"A", b"\x1b[2Jjunk", "json", "no JSON")
    producer = clients.producer(Cluster(embedded.address))
    producer.send(
        embedded_settings.topics.rejected, key=record.key, value=record.value, headers=list(record.headers), partition=0
    ).get(20)
    producer.close()
    shown = run(embedded_settings, tmp_path, "show")
    assert shown.returncode == 0, shown.stderr
    assert "\\x1b[2Jjunk" in shown.stdout
    done = run(embedded_settings, tmp_path, "retry", "--reason", "json", "--yes")
    assert done.returncode == 1
    assert "is the embedded one" in done.stderr
