"""Both brokers come up, answer, and go when their owner goes; topics are made and found."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import TopicPartition

from stream import clients, topics
from stream.broker import Broker, EmbeddedBroker, KafkaBroker, java_command
from stream.config import ROOT, Cluster, Settings, Topics
from stream.errors import BrokerUnreachable, MissingTopic, TapewatchError


def answers(address: str) -> bool:
    try:
        clients.is_embedded(Cluster(address), seconds=1)
    except BrokerUnreachable:
        return False
    return True


def roundtrip(broker: Broker, topic: str) -> bytes:
    producer = clients.producer(Cluster(broker.address))
    sent = producer.send(topic, key=b"BTCUSDT", value=b"hello").get(20)
    producer.close()
    consumer = clients.consumer(Cluster(broker.address), print)
    consumer.assign([TopicPartition(topic, sent.partition, sent.offset)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    value = message.value()
    assert isinstance(value, bytes)
    return value


def test_embedded_broker_carries_a_message(embedded: EmbeddedBroker) -> None:
    assert clients.is_embedded(Cluster(embedded.address))
    assert roundtrip(embedded, "ticks") == b"hello"


def test_embedded_broker_listens_on_loopback_only(embedded: EmbeddedBroker) -> None:
    host, _, port = embedded.address.rpartition(":")
    assert host == "127.0.0.1"
    # Any address of 127.0.0.0/8 is this machine: one that is not 127.0.0.1 shows whether it is bound to all.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(port)), timeout=2)


def test_embedded_broker_is_gone_after_stop() -> None:
    with EmbeddedBroker() as broker:
        address = broker.address
        assert answers(address)
    assert not answers(address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_embedded_broker_ends_on_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "stream.broker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"127.0.0.1:")
        process.send_signal(number)
        assert process.wait(20) == 0


def test_embedded_broker_ends_when_its_parent_is_killed(tmp_path: Path, eventually: Callable[..., None]) -> None:
    owner = (
        "import sys, time; from stream.broker import EmbeddedBroker; b = EmbeddedBroker(); b.start();"
        "print(b.address, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert answers(address)
        process.kill()
    eventually(lambda: not answers(address))


def test_kafka_keeps_its_messages_and_address_over_a_kill() -> None:
    with KafkaBroker() as broker:
        settings = Settings(broker=broker.address)
        topics.create(settings)
        assert roundtrip(broker, "ticks") == b"hello"
        address, folder = broker.address, broker.log.parent
        broker.kill()
        assert not answers(address)
        broker.start()
        assert broker.address == address
        assert topics.require_topics(settings)["ticks"] == 4
    assert not answers(address)
    assert not folder.exists()


def test_kafka_ends_when_its_parent_is_killed(eventually: Callable[..., None]) -> None:
    owner = (
        "import sys, time; from stream.broker import KafkaBroker; b = KafkaBroker(); b.start();"
        "print(b.address, b.log.parent, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        address, folder = process.stdout.readline().split()
        process.kill()
    eventually(lambda: not answers(address))
    subprocess.run(["rm", "-r", folder], check=True)


def test_without_jars_the_message_says_make_kafka(tmp_path: Path) -> None:
    with pytest.raises(TapewatchError, match="run `make kafka`"):
        KafkaBroker(tmp_path).start()


def test_without_java_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(TapewatchError, match="Java 17"):
        java_command(tmp_path)


def test_topics_are_created_once_and_differences_are_told(kafka_settings: Settings, own_topics: Topics) -> None:
    created = topics.create(kafka_settings)
    assert [outcome.name for outcome in created] == list(topics.names(own_topics))
    assert all(outcome.created for outcome in created)
    assert topics.create(kafka_settings) == [topics.Outcome(name, created=False) for name in topics.names(own_topics)]
    required = (*topics.streams(own_topics), own_topics.state)
    assert topics.require_topics(kafka_settings) == dict.fromkeys(required, 4)


def test_a_topic_with_other_settings_is_told(kafka_settings: Settings, own_topics: Topics) -> None:
    topics.create(kafka_settings)
    other = msgspec.structs.replace(own_topics, partitions=8, retention_hours=1.0)
    outcomes = topics.create(msgspec.structs.replace(kafka_settings, topics=other))
    *streams, audit, state, truth = (outcome.difference for outcome in outcomes)
    assert {*streams, truth} == {"4 partitions instead of 8, retention.ms 86400000 instead of 3600000"}
    assert state == audit == "4 partitions instead of 8"  # snapshots have no retention, and an audit is for ever


def test_a_mebibyte_fits_on_ticks(kafka_settings: Settings, own_topics: Topics) -> None:
    topics.create(kafka_settings)
    producer = clients.producer(kafka_settings.cluster, max_request_size=topics.MAX_MESSAGE_BYTES)
    assert producer.send(own_topics.ticks, value=b"\xff" * 1_048_576).get(20).offset == 0
    producer.close()


def test_more_replicas_than_brokers_are_refused_with_kafkas_reason(
    kafka_settings: Settings, own_topics: Topics
) -> None:
    settings = msgspec.structs.replace(kafka_settings, topics=msgspec.structs.replace(own_topics, replication=3))
    with pytest.raises(TapewatchError, match=r"cannot create topic .*replication factor of 3"):
        topics.create(settings)


def test_missing_topics_are_named_with_what_to_do(kafka_settings: Settings, own_topics: Topics) -> None:
    with pytest.raises(MissingTopic, match=rf"{own_topics.ticks}.*tapewatch topics create") as caught:
        topics.require_topics(kafka_settings)
    assert own_topics.alerts in str(caught.value)


def test_on_the_embedded_broker_topics_appear_with_four_partitions(embedded_settings: Settings) -> None:
    assert set(topics.require_topics(embedded_settings).values()) == {4}


def test_creating_topics_on_the_embedded_broker_says_why_there_is_nothing_to_do(
    embedded_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.run_create(embedded_settings)
    assert "nothing to do" in capsys.readouterr().out


def test_an_unreachable_broker_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BrokerUnreachable, match=rf"127\.0\.0\.1:{port} .*--broker HOST:PORT"):
        topics.partitions_of(Cluster(f"127.0.0.1:{port}"), ["ticks"])


def test_something_that_is_no_broker_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable):  # accepts, but never answers
            clients.is_embedded(Cluster(address), seconds=0.2)
