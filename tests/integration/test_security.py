"""TLS, SASL and rights on a real Kafka: who gets in, who does not and what is said, and what a role needs."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from stream import clients, probe, topics
from stream.broker import EmbeddedBroker
from stream.children import Child
from stream.config import ROOT, Cluster, Security, Settings, Topics, Worker
from stream.errors import MissingTopic, NotAdmitted
from tests.certificates import Authority
from tests.exchange import FakeExchange, binance
from tests.integration.secured import PASSWORD, SecuredKafka

Eventually = Callable[..., None]
ROLES = {"producer", "simulator", "worker", "reader", "operator"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, eventually: Eventually) -> Iterator[SecuredKafka]:
    """A Kafka with TLS, SASL and an authorizer; each role has the rights of docs/security.md."""
    broker = SecuredKafka(tmp_path_factory.mktemp("secured"))
    with broker.kafka:
        admin = Cluster(broker.address("SASL"), broker.security("admin"))
        topics.create(Settings(broker=admin.broker, security=admin.security))
        with clients.admin(admin) as client:
            client.create_acls(list(_rights((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))))
        producer = Cluster(broker.address("SASL"), broker.security("producer"))
        eventually(lambda: _sees_ticks(producer))  # Kafka takes rights, and gives them a moment later
        yield broker


def _sees_ticks(cluster: Cluster) -> bool:
    try:
        return bool(topics.partitions_of(cluster, [Topics().ticks]))
    except MissingTopic:
        return False


def _rights(text: str) -> Iterator[ACL]:
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional id": ResourceType.TRANSACTIONAL_ID,
    }
    rows = re.findall(r"^\| (\w+) \| ([a-z ]+) \| `(\S+)` \| ([A-Za-z, ]+) \|$", text, re.MULTILINE)
    assert {role for role, *_ in rows} == ROLES
    for role, kind, name, operations in rows:
        pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
        resource = ResourcePattern(kinds[kind], name.rstrip("*"), pattern)
        for operation in operations.split(", "):
            yield ACL(f"User:{role}", "*", ACLOperation[operation.upper()], ACLPermissionType.ALLOW, resource)


def _settings_file(folder: Path, broker: str, user: str, security: Security) -> Path:
    """A file of settings whose password is in a file beside it."""
    (folder / "password").write_text(PASSWORD + "\n")
    file = folder / f"{user}.toml"
    file.write_text(
        f'broker = "{broker}"\n[security]\nprotocol = "SASL_SSL"\nmechanism = "{security.mechanism}"\n'
        f'username = "{user}"\npassword_file = "{folder / "password"}"\nca_file = "{security.ca_file}"\n'
        "[worker]\nport = 0\n"
    )
    return file


def _tapewatch(*arguments: object, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stream.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False, env=environ)


def test_each_role_does_its_work_with_its_rights_and_no_more(
    secured: SecuredKafka, tmp_path: Path, eventually: Eventually
) -> None:
    files = {
        role: _settings_file(tmp_path, secured.address("SASL"), role, secured.security(role)) for role in sorted(ROLES)
    }
    ticks = tmp_path / "ticks.csv"
    lines = [f"ACME,{1_700_000_000_000_000_000 + i * 1_000_000_000},{100 + i % 3},1" for i in range(300)]
    ticks.write_text("symbol,exchange_ns,price,size\n" + "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "stream.cli", "--config", str(files["worker"]), "worker"]
    with Child(command, tmp_path / "worker.log", directory=ROOT) as worker:
        replayed = _tapewatch("--config", files["producer"], "replay", ticks, "--speed", "max")
        assert replayed.returncode == 0, replayed.stderr
        tail = _tapewatch("--config", files["reader"], "tail", "risk", "--from", "beginning", "--count", 300, "--json")
        assert tail.returncode == 0, tail.stderr
        # A checkpoint is a transaction, which another right allows than results do.
        state = Cluster(secured.address("SASL"), secured.security("worker"))
        eventually(lambda: sum(clients.committed(state, "tapewatch", "ticks", range(4)).values()) == 300)
        halt = _tapewatch("--config", files["operator"], "halt", "--reason", "a test", "--yes", "--wait", 60)
        assert halt.returncode == 0, halt.stdout + halt.stderr
        assert "halted all symbols: taken by partition 0 (offset " in halt.stdout
        audit = _tapewatch("--config", files["reader"], "audit")
        assert "a test  taken by all partitions\nhalted now: all symbols in all partitions\n" in audit.stdout
        (url,) = re.findall(r"metrics=(\S+)", worker.log.read_text())
        with urllib.request.urlopen(url, timeout=30) as page:
            metrics = page.read().decode()
        assert worker.stop() == 0
    answered = [json.loads(line)["value"] for line in tail.stdout.splitlines()]
    assert [risk["symbol"] for risk in answered] == ["ACME"] * 300
    assert "tapewatch_ticks_total" in metrics
    assert PASSWORD not in metrics + worker.log.read_text() + replayed.stdout + replayed.stderr + tail.stderr
    forbidden = _tapewatch("--config", files["reader"], "replay", ticks, "--speed", "max")
    assert forbidden.returncode == 1
    assert "Authorization" in forbidden.stderr
    forbidden = _tapewatch("--config", files["reader"], "resume", "--reason", "a test", "--yes")
    assert forbidden.returncode == 1
    assert "did not take it for topic audit" in forbidden.stderr


def test_a_simulator_may_tell_the_truth_and_a_producer_may_not(secured: SecuredKafka, tmp_path: Path) -> None:
    files = {
        role: _settings_file(tmp_path, secured.address("SASL"), role, secured.security(role))
        for role in ("simulator", "reader", "producer")
    }
    made = ("simulate", "--scenario", "wash-prints", "--seconds", 60, "--at", 30, "--symbol", "MADE", "--speed", "max")
    simulated = _tapewatch("--config", files["simulator"], *made)
    assert simulated.returncode == 0, simulated.stderr
    truth = _tapewatch("--config", files["reader"], "tail", "truth", "--from", "beginning", "--count", 1)
    assert "MADE @simulator" in truth.stdout
    forbidden = _tapewatch("--config", files["producer"], *made)
    assert forbidden.returncode == 1
    assert "truth" in forbidden.stderr


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_worker_and_commands_are_let_in_by_each_mechanism(
    secured: SecuredKafka, tmp_path: Path, mechanism: str
) -> None:
    symbol = f"BY-{mechanism}"
    files = {
        role: _settings_file(tmp_path, secured.address("SASL"), role, secured.security(role, mechanism))
        for role in ("producer", "worker", "reader")
    }
    ticks = tmp_path / "ticks.csv"
    lines = [f"{symbol},{1_700_000_000_000_000_000 + i * 1_000_000_000},{100 + i % 3},1" for i in range(20)]
    ticks.write_text("symbol,exchange_ns,price,size\n" + "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "stream.cli", "--config", str(files["worker"]), "worker"]
    with Child(command, tmp_path / "worker.log", directory=ROOT) as worker:
        replayed = _tapewatch("--config", files["producer"], "replay", ticks, "--speed", "max")
        assert replayed.returncode == 0, replayed.stderr
        tail = _tapewatch(
            *("--config", files["reader"], "tail", "risk", "--symbol", symbol, "--from", "beginning", "--count", 20)
        )
        assert tail.returncode == 0, tail.stderr
        assert worker.stop() == 0
    assert tail.stdout.count(symbol) == 20
    assert PASSWORD not in worker.log.read_text() + replayed.stdout + replayed.stderr + tail.stderr


def test_a_feed_puts_an_exchange_s_trades_on_kafka_by_certificate(secured: SecuredKafka, tmp_path: Path) -> None:
    exchange = FakeExchange([binance("BTCUSDT", number) for number in (1, 2, 2, 3)])
    files = secured.authority.issue("producer", password=b"of the key")
    producer, reader = tmp_path / "producer.toml", secured.security("reader")
    producer.write_text(
        f'broker = "{secured.address("MTLS")}"\n[security]\nprotocol = "SSL"\nca_file = "{secured.authority.file}"\n'
        f'certificate_file = "{files.certificate}"\nkey_file = "{files.key}"\nkey_password = "of the key"\n'
    )
    tail = ["--config", _settings_file(tmp_path, secured.address("SASL"), "reader", reader), "tail", "ticks"]
    tail += ["--symbol", "BTCUSDT", "--from", "beginning", "--count", 3, "--json"]

    async def play() -> "subprocess.CompletedProcess[str]":
        async with exchange.open():
            command = [sys.executable, "-m", "stream.cli", "--config", str(producer), "feed", "binance", "btcusdt"]
            with Child([*command, "--address", exchange.address], tmp_path / "feed.log", directory=ROOT) as feed:
                found = await asyncio.to_thread(_tapewatch, *tail)
                assert await asyncio.to_thread(feed.stop) == 0, feed.last_lines()
                return found

    done = asyncio.run(play())
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["value"]["trade_id"] for line in done.stdout.splitlines()] == [1, 2, 3]
    said = (tmp_path / "feed.log").read_text()
    assert "stopped: sent 3 ticks to ticks" in said
    assert "of the key" not in said


def test_a_worker_without_rights_says_which_topics_it_cannot_see(secured: SecuredKafka, tmp_path: Path) -> None:
    file = _settings_file(tmp_path, secured.address("SASL"), "producer", secured.security("producer"))
    done = _tapewatch("--config", file, "worker")
    assert done.returncode == 1
    assert "predictions" in done.stderr
    assert "producer lacks the right to describe it" in done.stderr


def test_exactly_once_by_certificate(secured: SecuredKafka, tmp_path: Path, eventually: Eventually) -> None:
    files = secured.authority.issue("worker", password=b"of the key")
    security = secured.certified(files, "of the key")
    tag = uuid.uuid4().hex[:8]
    names = Topics(**{name: f"{tag}.{name}" for name in ("ticks", "predictions", "risk", "actions")}, partitions=1)  # type: ignore[arg-type]
    worker = Worker(group="tapewatch", port=0, delivery="exactly_once", commit_interval_seconds=0.1)
    settings = Settings(broker=secured.address("MTLS"), topics=names, worker=worker, security=security)
    admin = Cluster(secured.kafka.address)  # ANONYMOUS may do everything
    topics.create(msgspec.structs.replace(settings, broker=admin.broker, security=Security()))
    anything = ResourcePattern(ResourceType.TOPIC, f"{tag}.", ACLResourcePatternType.PREFIXED)
    identity = ResourcePattern(ResourceType.TRANSACTIONAL_ID, f"tapewatch-{tag}.", ACLResourcePatternType.PREFIXED)
    with clients.admin(admin) as client:
        client.create_acls(
            [ACL("User:worker", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, each) for each in (anything, identity)]
        )
    command = [sys.executable, "-m", "tests.integration.echo", msgspec.json.encode(settings).decode()]
    with Child(command, tmp_path / "worker.log", directory=ROOT) as child:
        producer = clients.producer(settings.cluster)
        for i in range(50):
            producer.send(names.ticks, key=b"k", value=b"%d" % i, partition=0)
        producer.close()
        eventually(lambda: clients.committed(settings.cluster, "tapewatch", names.ticks, [0])[0] == 50)
        assert child.stop() == 0
    assert "of the key" not in child.log.read_text()


WRONG = {
    "password": ("SASL", "refused user worker by SCRAM-SHA-512: the name or the password is wrong"),
    "plain password": ("SASL", "refused user worker by PLAIN: the name or the password is wrong"),
    "unknown user": ("SASL", "refused user nobody"),
    "expired": ("EXPIRED", "has expired: renew it"),
    "other host": ("OTHERHOST", "is for another host"),
    "other authority": ("MTLS", "is signed by nobody whom security.ca_file"),
    "system's authorities": ("MTLS", "is signed by nobody whom the system trusts"),
    "no certificate": ("MTLS", "certificate"),
    "our expired certificate": ("MTLS", "our certificate"),
    "certificate of a stranger": ("MTLS", "our certificate"),
    "no SASL": ("SASL", "wants SASL (SCRAM-SHA"),
    "no TLS": ("SASL", "wants TLS"),
    "no TLS and no SASL": ("CLEAR", "SASL_PLAINTEXT"),
    "TLS where there is none": ("CLEAR", "no TLS at"),
    "SASL where there is none": ("PLAINTEXT", "wants no SASL at this port"),
}


def _wrong(secured: SecuredKafka, way: str) -> Security:
    authority, ca = secured.authority, str(secured.authority.file)
    stranger = Authority(secured.folder, f"Stranger {uuid.uuid4().hex}")
    ways: dict[str, Callable[[], Security]] = {
        "password": lambda: secured.security("worker", password="wrong horse"),
        "plain password": lambda: secured.security("worker", "PLAIN", "wrong horse"),
        "unknown user": lambda: secured.security("nobody"),
        "other authority": lambda: Security("SSL", ca_file=str(stranger.file)),
        "system's authorities": lambda: Security("SSL"),
        "our expired certificate": lambda: secured.certified(authority.issue("worker", expired=True)),
        "certificate of a stranger": lambda: secured.certified(stranger.issue("worker")),
        "no TLS": Security,
        "no TLS and no SASL": Security,
        "SASL where there is none": lambda: Security("SASL_PLAINTEXT", "PLAIN", "worker", PASSWORD),
    }
    return ways.get(way, lambda: Security("SSL", ca_file=ca))()


@pytest.mark.parametrize("way", WRONG)
def test_who_is_not_let_in_is_told_why_in_one_line(secured: SecuredKafka, way: str) -> None:
    listener, said = WRONG[way]
    address = secured.kafka.address if listener == "PLAINTEXT" else secured.address(listener)
    with pytest.raises(NotAdmitted) as refused:
        probe.calls(Cluster(address, _wrong(secured, way)))
    assert said in str(refused.value)
    assert address in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "horse" not in str(refused.value)


@pytest.mark.parametrize("command", ["worker", "tail risk", "rejected show"])
def test_every_command_ends_with_that_line(secured: SecuredKafka, command: str) -> None:
    environ = {
        "TAPEWATCH_SECURITY__PROTOCOL": "SASL_SSL",
        "TAPEWATCH_SECURITY__USERNAME": "worker",
        "TAPEWATCH_SECURITY__PASSWORD": "wrong horse",
        "TAPEWATCH_SECURITY__CA_FILE": str(secured.authority.file),
    }
    done = _tapewatch(*command.split(), "--broker", secured.address("SASL"), environ=environ)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert line.startswith("tapewatch: the broker at 127.0.0.1:")
    assert "the name or the password is wrong" in line
    assert "horse" not in done.stdout + done.stderr


def test_the_embedded_broker_knows_no_security(embedded: EmbeddedBroker) -> None:
    with pytest.raises(NotAdmitted, match="knows no SASL"):
        probe.calls(Cluster(embedded.address, Security("SASL_PLAINTEXT", "PLAIN", "worker", PASSWORD)))
    assert clients.is_embedded(Cluster(embedded.address))
