"""`tapewatch doctor`: looks at all that a worker needs, and says of each thing whether it is well and what to do.

It changes nothing: no topic is made and nothing is published.
"""

import platform
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import onnxruntime
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # `admin` has it, but mypy may not take it from there
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from rich.console import Console
from rich.text import Text

from stream import catalogue, clients, probe, signatures, topics
from stream.config import ROOT, Settings, Topics
from stream.errors import BrokerUnreachable, ConfigError, ModelMismatch, NotAdmitted, TapewatchError
from stream.inference import in_front

Level = Literal["ok", "warn", "fail"]
STYLES: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
PYTHON: Final = (3, 11)
LIBRARIES: Final = ("onnxruntime", "aiokafka", "faust-streaming", "confluent-kafka", "kafka-python", "numba")
SECONDS: Final = 10.0
SLOW_SECONDS: Final = 0.25  # more than this for a handshake on the way to a broker is felt in the latency of results
SKEW_SECONDS: Final = 1.0  # ahead of our clock by more is no delay on the way
RETRY_SECONDS: Final = 0.1
_NO_LEADER_YET: Final = (
    LibrdkafkaError.LEADER_NOT_AVAILABLE,
    LibrdkafkaError.NOT_LEADER_FOR_PARTITION,
    LibrdkafkaError.UNKNOWN_TOPIC_OR_PART,
)
FREE_BYTES: Final = 1_073_741_824
SAFE_REPLICAS: Final = 3  # with so many, a broker can be away and acknowledged records still lie twice


class Finding(msgspec.Struct, frozen=True):
    """What was found of one thing."""

    name: str
    level: Level
    found: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, one finding after the other; what needs a broker only where one answers."""
    for check in (_versions, _models, _disk, _port):
        yield from check(settings)
    broker = list(_broker(settings))
    yield from broker
    if any(finding.level == "fail" for finding in broker):
        return
    if clients.is_embedded(settings.cluster):
        yield Finding("topics", "ok", "the embedded broker makes them on first use, with 4 partitions")
        return
    try:
        yield from _topics(settings)
        yield from _clock(settings)
    except (KafkaError, KafkaException, TapewatchError) as error:
        yield Finding("topics", "fail", f"cannot ask the broker: {error}", "see docs/security.md for the rights needed")


def _versions(_settings: Settings) -> Iterator[Finding]:
    here = ".".join(map(str, sys.version_info[:3]))
    found = f"Python {here} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] == PYTHON:
        yield Finding("python", "ok", found)
    else:
        yield Finding("python", "fail", found, f"Tapewatch needs Python {PYTHON[0]}.{PYTHON[1]}: run `make setup`")
    names = ("tapewatch", *LIBRARIES)
    yield Finding("libraries", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def _models(settings: Settings) -> Iterator[Finding]:
    folder = Path(settings.worker.models)
    try:
        trust = signatures.trust(settings.models)
        checked = catalogue.verify(folder, trust)
    except (ConfigError, ModelMismatch) as error:
        yield Finding("models", "fail", str(error), "see worker.models and models.public_key")
        return
    for one in checked:
        name = f"model {one.name}"
        made_with = one.card.libraries.get("onnxruntime") if one.card is not None else None
        if one.problem:
            yield Finding(name, "fail", one.problem, "restore or sign the bundle, or train it again: `make models`")
        elif made_with not in (None, onnxruntime.__version__):
            yield Finding(
                name,
                "warn",
                f"runs; checked with ONNX Runtime {made_with}, here is {onnxruntime.__version__}",
                "last digits may differ from another worker's: give all workers the same version",
            )
        else:
            yield Finding(name, "ok", f"hash, features and shapes fit; runs in ONNX Runtime {onnxruntime.__version__}")
    families = {one.card.family for one in checked if one.card is not None and not one.problem}
    if missing := {"forecaster", "critic", "policy"} - families:
        yield Finding("models", "fail", f"no {', '.join(sorted(missing))} in {folder}", "a worker needs all three")
        return
    try:
        in_front(folder, "forecaster", [one.card for one in checked if one.card is not None])
    except ModelMismatch as error:
        yield Finding("roles", "fail", str(error), "`tapewatch models promote NAME` says which forecaster answers")


def _disk(_settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(ROOT).free
    found = f"{free / FREE_BYTES:.1f} GiB free at {ROOT}"
    if free < FREE_BYTES:
        yield Finding("disk", "warn", found, "a worker writes nothing but its log and its compiled kernels: make room")
    else:
        yield Finding("disk", "ok", found)


def _port(settings: Settings) -> Iterator[Finding]:
    host, port = settings.worker.host, settings.worker.port
    if port == 0:
        yield Finding("port", "ok", "worker.port = 0 takes a free one")
        return
    try:
        with socket.create_server((host, port)):
            yield Finding("port", "ok", f"{host}:{port} is free for /metrics and /health")
    except OSError as error:
        if (health := _health(host, port)) is not None:
            level: Level = "ok" if health == 200 else "warn"
            advice = "" if health == 200 else f"see http://{host}:{port}/health"
            yield Finding("port", level, f"a worker is at {host}:{port}, and its /health answers {health}", advice)
        else:
            yield Finding("port", "fail", f"{host}:{port}: {error.strerror}", "set worker.port to another, or to 0")


def _health(host: str, port: int) -> int | None:
    """Status of a worker's /health; None if what is there is no worker."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/health", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code if error.code == 503 else None
    except (OSError, ValueError):
        return None


def _broker(settings: Settings) -> Iterator[Finding]:
    security = settings.security
    began = time.monotonic()
    try:
        known = probe.calls(settings.cluster)
    except NotAdmitted as error:
        yield Finding("broker", "fail", str(error), "docs/security.md tells what each setting does")
        return
    except BrokerUnreachable as error:
        yield Finding("broker", "fail", str(error), "start it, or set `broker`")
        return
    except TapewatchError as error:  # a certificate or password file
        yield Finding("broker", "fail", str(error), "set it right in the section [security]")
        return
    seconds = time.monotonic() - began
    embedded = clients.is_embedded(settings.cluster)
    kind = "the embedded broker, for trying things out only" if embedded else _version(settings)
    found = f"{settings.broker} is {kind}; it knows {len(known)} calls, and answered in {seconds * 1000:.0f} ms"
    slow = seconds > SLOW_SECONDS
    yield Finding("broker", "warn" if slow else "ok", found, "that is far away or busy" if slow else "")
    local = all(address.startswith(("127.", "localhost:")) for address in settings.broker.split(","))
    if security.tls:
        yield Finding("security", "ok", f"{security.protocol}, the broker's certificate is checked")
    elif local:
        yield Finding("security", "ok", f"{security.protocol}, on this machine only")
    else:
        yield Finding(
            "security", "warn", f"{security.protocol}: nothing is encrypted", "set security.protocol: docs/security.md"
        )


def _version(settings: Settings) -> str:
    with clients.admin(settings.cluster) as admin:
        (broker, *_) = admin.describe_cluster()["brokers"]
        version = admin.get_broker_version_data(broker["broker_id"]).broker_version
        return f"Kafka {'.'.join(map(str, version))} or newer"


def _topics(settings: Settings) -> Iterator[Finding]:
    names = [*topics.streams(settings.topics), *([settings.topics.state] if settings.worker.snapshots else [])]
    with clients.admin(settings.cluster) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        there = {each["name"]: each for each in admin.describe_topics() if each["name"] in names}
        there = {name: each for name, each in there.items() if not each["error_code"]}
        ticks = there.get(settings.topics.ticks)
        least = len(ticks["partitions"]) if ticks else 0
        for name in names:
            if name not in there:
                yield Finding(
                    f"topic {name}", "fail", "is not there, or we may not see it", "run `tapewatch topics create`"
                )
                continue
            resource = ConfigResource(ConfigResourceType.TOPIC, name)
            values = admin.describe_configs([resource], config_filter="all")["topic"][name]
            known = {key: each["value"] for key, each in values.items()}
            yield judge(settings.topics, name, there[name]["partitions"], known, least, brokers)


def judge(
    names: Topics, name: str, partitions: list[Any], values: dict[str, str | None], least: int, brokers: int
) -> Finding:
    """One topic: the gravest of what is wrong with it.

    Parameters
    ----------
    partitions
        As Kafka describes them, with `replica_nodes` and `isr_nodes`.
    values
        Its settings.
    least
        Partitions of the topic of ticks: results go into the partition of their tick.
    brokers
        How many there are.
    """
    replicas = min(len(each["replica_nodes"]) for each in partitions)
    in_sync = min(len(each["isr_nodes"]) for each in partitions)
    insync_needed = int(values.get("min.insync.replicas") or 1)
    title = f"topic {name}"
    wanted = topics.configuration(names, name)
    different = [
        f"{key} {values.get(key)} instead of {value}" for key, value in wanted.items() if values.get(key) != value
    ]
    alter = "kafka-configs.sh --alter --entity-type topics --entity-name " + name
    if len(partitions) < least:
        found = f"{len(partitions)} partitions, fewer than the {least} of {names.ticks}"
        return Finding(title, "fail", found, f"kafka-topics.sh --alter --topic {name} --partitions {least}")
    if name == names.state and "compact" not in str(values.get("cleanup.policy")):
        found = f"cleanup.policy is {values.get('cleanup.policy')}: state will be lost when it is old"
        return Finding(title, "fail", found, f"{alter} --add-config cleanup.policy=compact")
    if in_sync < insync_needed:
        found = f"{in_sync} replicas in sync, and min.insync.replicas is {insync_needed}: nothing can be published"
        return Finding(title, "fail", found, "bring the missing brokers back")
    if in_sync < replicas:
        return Finding(title, "warn", f"{in_sync} of {replicas} replicas in sync", "bring the missing brokers back")
    if different:
        advice = f"{alter} --add-config " + ",".join(f"{key}={value}" for key, value in wanted.items())
        return Finding(title, "warn", ", ".join(different), advice)
    if replicas < min(brokers, SAFE_REPLICAS):
        found = f"{replicas} replicas on {brokers} brokers: what one broker loses is lost"
        return Finding(title, "warn", found, "set topics.replication = 3 before topics are made")
    if replicas >= SAFE_REPLICAS and insync_needed < SAFE_REPLICAS - 1:
        found = f"{replicas} replicas, but min.insync.replicas is {insync_needed}: an acknowledged record may lie once"
        return Finding(title, "warn", found, f"{alter} --add-config min.insync.replicas=2")
    hours = int(values.get("retention.ms") or 0) / 3_600_000
    kept = "compacted" if name == names.state else f"kept {hours:g} h" if hours >= 0 else "kept for ever"
    return Finding(title, "ok", f"{len(partitions)} partitions, {replicas} replicas, {kept}")


def _clock(settings: Settings) -> Iterator[Finding]:
    """Nothing published is younger than now, unless a clock is wrong: ours, a producer's, or the broker's."""
    names = [settings.topics.ticks, settings.topics.predictions]
    newest = {name: at for name, at in ((name, _newest_ms(settings, name)) for name in names) if at is not None}
    if not newest:
        yield Finding("clock", "ok", "nothing is published yet that our clock could be held against")
        return
    name, at_ms = max(newest.items(), key=lambda item: item[1])
    ahead = at_ms / 1000 - time.time()
    if ahead > SKEW_SECONDS:
        found = f"the newest record on {name} is {ahead:,.1f} s ahead of our clock"
        yield Finding("clock", "fail", found, "set this machine's clock, the brokers' and the producers' by NTP")
    else:
        yield Finding("clock", "ok", f"the newest record on {name} is {-ahead:,.1f} s old")


def _newest_ms(settings: Settings, topic: str) -> int | None:
    """The largest timestamp on a topic; None if it holds no records. A topic just made may have no leader yet."""
    admin = AdminClient(clients.librdkafka(settings.cluster))
    newest: Any = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    end = time.monotonic() + SECONDS
    while True:
        try:
            partitions = list(admin.list_topics(topic, SECONDS).topics[topic].partitions)
            asked = {TopicPartition(topic, partition): newest for partition in partitions}
            answers = [future.result() for future in admin.list_offsets(asked, request_timeout=SECONDS).values()]
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > end:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return max((answer.timestamp for answer in answers if answer.offset >= 0), default=None)


def run(settings: Settings, as_json: bool, console: Console) -> int:
    """`tapewatch doctor`: prints what is found as it is found; gives 1 if anything fails, else 0."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            console.print(_line(finding))
    worst: Level = max((each.level for each in findings), key=list(STYLES).index)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({"level": worst, "findings": findings}), indent=2).decode())
    return 1 if worst == "fail" else 0


def _line(finding: Finding) -> Text:
    text = Text.assemble((f"{finding.level:<5}", STYLES[finding.level]), f"{finding.name}: {finding.found}")
    return text.append(f"\n     -> {finding.advice}", "bold") if finding.advice else text
