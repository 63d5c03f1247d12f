"""Which topics there are on a broker, and making ours."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import click
from confluent_kafka import KafkaException
from confluent_kafka import Producer as LibrdkafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from stream import clients
from stream.config import Cluster, Settings, Topics
from stream.errors import BrokerUnreachable, MissingTopic, TapewatchError

MAX_MESSAGE_BYTES: Final = 2 * 1_048_576  # a MiB of junk, its key, headers and batch: refused by us, not by Kafka
# Only the newest snapshot of an instrument counts, and a start reads the whole topic: clean early, in small segments.
COMPACTED: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1_048_576),
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
}
KEPT: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}  # who did what, for ever
METADATA_SECONDS: Final = 10.0
_ALREADY_EXISTS: Final = 36


class Outcome(NamedTuple):
    """What became of one topic; `difference` says in which settings an existing one is not as asked."""

    name: str
    created: bool
    difference: str = ""


def names(topics: Topics) -> tuple[str, ...]:
    """Every topic Tapewatch reads or writes, input first."""
    return (*streams(topics), topics.state, topics.truth)


def written(topics: Topics) -> tuple[str, ...]:
    """Every topic that a worker writes, state last."""
    return (*streams(topics)[1:], topics.state)


def streams(topics: Topics) -> tuple[str, ...]:
    """The topics that are there for others, input first."""
    results = topics.predictions, topics.risk, topics.actions
    return (topics.ticks, *results, topics.alerts, topics.rejected, topics.audit)


def configuration(topics: Topics, name: str) -> dict[str, str]:
    """Kafka's settings for one of our topics."""
    if name == topics.state:
        return dict(COMPACTED)
    if name == topics.audit:
        return dict(KEPT)
    wanted = {"retention.ms": str(round(topics.retention_hours * 3_600_000))}
    if name in (topics.ticks, topics.rejected):
        wanted["max.message.bytes"] = str(MAX_MESSAGE_BYTES)
    return wanted


def create(settings: Settings) -> list[Outcome]:
    """Make the topics that are not there yet, on Kafka.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    TapewatchError
        If Kafka refuses, with its reason.
    """
    topics = settings.topics
    wanted = {name: _specification(topics, name) for name in names(topics)}
    with clients.admin(settings.cluster) as admin:
        answers = admin.create_topics(wanted, raise_errors=False)["topics"]
        _refuse(answers)
        # Kafka answers before all of it knows of the topics: who asks at once would not find them.
        admin.wait_for_topics(list(wanted))
        return [_outcome(admin, topics, answer) for answer in answers]


def _specification(topics: Topics, name: str) -> dict[str, Any]:
    return {
        "num_partitions": topics.partitions,
        "replication_factor": topics.replication,
        "configs": configuration(topics, name),
    }


def _refuse(answers: Sequence[dict[str, Any]]) -> None:
    for answer in answers:
        if answer["error_code"] not in (0, _ALREADY_EXISTS):
            why = answer["error_message"] or f"Kafka error {answer['error_code']}"
            raise TapewatchError(f"cannot create topic {answer['name']}: {why}")


def _outcome(admin: Any, topics: Topics, answer: dict[str, Any]) -> Outcome:
    if answer["error_code"] == 0:
        return Outcome(answer["name"], created=True)
    return Outcome(answer["name"], created=False, difference=", ".join(_differences(admin, topics, answer["name"])))


def _differences(admin: Any, topics: Topics, name: str) -> Iterator[str]:
    (found,) = admin.describe_topics([name])
    if len(found["partitions"]) != topics.partitions:
        yield f"{len(found['partitions'])} partitions instead of {topics.partitions}"
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    values = admin.describe_configs([resource], config_filter="all")["topic"][name]
    for key, wanted in configuration(topics, name).items():
        if values[key]["value"] != wanted:
            yield f"{key} {values[key]['value']} instead of {wanted}"


def partitions_of(cluster: Cluster, wanted: Sequence[str]) -> dict[str, int]:
    """How many partitions each topic has; on the embedded broker, asking makes a topic.

    Raises
    ------
    BrokerUnreachable
        If no broker answers.
    MissingTopic
        Naming every topic of `wanted` that is not there.
    """
    found = _partitions(cluster, wanted)
    missing = [name for name in wanted if not found.get(name)]
    if missing:
        raise MissingTopic(
            f"no topic {', '.join(missing)} on the broker at {cluster.broker}: run `tapewatch topics create --broker "
            f"{cluster.broker}`" + _or_hidden(cluster)
        )
    return found


def require_topics(settings: Settings) -> dict[str, int]:
    """Partitions of all topics of a worker, that of state only where it is used; raises as `partitions_of` does."""
    wanted = streams(settings.topics) + ((settings.topics.state,) if settings.worker.snapshots else ())
    return partitions_of(settings.cluster, wanted)


def _partitions(cluster: Cluster, wanted: Sequence[str]) -> dict[str, int]:
    embedded = clients.is_embedded(cluster)
    return _embedded_partitions(cluster, wanted) if embedded else _kafka_partitions(cluster, wanted)


def _or_hidden(cluster: Cluster) -> str:
    user = cluster.security.username or cluster.security.certificate_file
    return f"; if it is there, {user} lacks the right to describe it" if user else ""


def _kafka_partitions(cluster: Cluster, wanted: Sequence[str]) -> dict[str, int]:
    # Metadata of all topics: asking for one by name would make it where the broker creates topics by itself.
    with clients.admin(cluster) as admin:
        there = {each["name"]: len(each["partitions"]) for each in admin.describe_topics() if not each["error_code"]}
    return {name: there[name] for name in wanted if name in there}


def _embedded_partitions(cluster: Cluster, wanted: Sequence[str]) -> dict[str, int]:
    asker = LibrdkafkaProducer(clients.librdkafka(cluster))
    try:
        return {name: len(asker.list_topics(name, METADATA_SECONDS).topics[name].partitions) for name in wanted}
    except KafkaException as error:
        raise BrokerUnreachable(clients.unreachable(cluster.broker, str(error))) from None


def run_create(settings: Settings) -> None:
    """`tapewatch topics create`: make them, and say what was there already and differs."""
    if clients.is_embedded(settings.cluster):
        click.echo(
            f"nothing to do: the broker at {settings.broker} is the embedded one, which makes a topic with 4 "
            "partitions when it is first used and cannot be told more"
        )
        return
    for outcome in create(settings):
        state = "created" if outcome.created else "exists"
        click.echo(f"{outcome.name:<16} {state}" + (f", but with {outcome.difference}" if outcome.difference else ""))
