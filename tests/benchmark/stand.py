"""The test stand: a Kafka of its own, topics for each run, and the process that is measured, on a core of its own."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # `admin` has it, but mypy may not take it from there

from stream import clients, topics
from stream.broker import KafkaBroker
from stream.children import Child
from stream.config import ENV_PREFIX, ROOT, Cluster, Settings, Topics, Worker
from stream.errors import TapewatchError
from tests.benchmark.machine import Cores, cores, pinned
from tests.benchmark.tape import Tape

Subject = Literal["worker", "raw loop", "naive", "faust take", "kafka-python", "quix", "bytewax"]
"""What is measured: the worker, the same work without Faust, a plain Faust agent, and the peers."""

COMMANDS: Final[dict[Subject, list[str]]] = {
    "worker": ["-m", "stream.cli", "worker"],
    "raw loop": ["-m", "tests.benchmark.peers.raw_loop"],
    "naive": ["-m", "tests.benchmark.peers.naive"],
    "faust take": ["-m", "tests.benchmark.peers.faust_take"],
    "kafka-python": ["-m", "tests.benchmark.peers.kafka_loop"],
    "quix": ["-m", "tests.benchmark.peers.quix"],
    "bytewax": ["-m", "bytewax.run", "tests.benchmark.peers.bytewax_flow"],
}
PEERS_PYTHON: Final = ROOT / "build" / "peers" / "bin" / "python"  # of `make peers`
APART: Final[frozenset[Subject]] = frozenset({"quix", "bytewax"})  # what runs with that one
PATIENCE_SECONDS: Final = 60.0  # without any progress
LOOK_SECONDS: Final = 0.02
# Nobody kills this one. With the 1.5 s of KAFKA_PROPERTIES a busy machine takes a slow broker for a dead one.
BROKER_PROPERTIES: Final = "broker.session.timeout.ms=18000\nbroker.heartbeat.interval.ms=2000\n"
# A topic that was made just now has no leader that all of Kafka knows; it counts as empty until it has.
_NOT_YET: Final = (  # a topic that was made a moment ago
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class Stand:
    """A running Kafka, and what runs against it. A context manager."""

    def __init__(self) -> None:
        self.cores: Final[Cores] = cores()
        self._broker = KafkaBroker(properties=BROKER_PROPERTIES)
        self._stack = contextlib.ExitStack()
        self._numbers = iter(range(10**6))

    def __enter__(self) -> "Stand":
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tapewatch-bench-")))
        # Everything but the measured process: this one, the broker and the producers.
        self._stack.enter_context(pinned(self.cores.others))
        self._stack.enter_context(self._broker)
        self._admin = AdminClient({"bootstrap.servers": self.broker, "log_level": 0})
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        log = self._broker.log
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:] if log.exists() else []
        lost = error is not None and not self._broker.running
        self._stack.close()
        if lost and isinstance(error, TapewatchError):
            raise TapewatchError(f"Kafka ended by itself ({error}); its last lines: {' | '.join(lines)}") from error

    @property
    def broker(self) -> str:
        """HOST:PORT."""
        return self._broker.address

    def file(self, name: str) -> Path:
        """A path that goes with the stand."""
        return self._folder / name

    def create(self, topic: str, partitions: int) -> None:
        """Make one topic that stays."""
        with clients.admin(Cluster(self.broker)) as admin:
            admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}})
            admin.wait_for_topics([topic])

    @contextlib.contextmanager
    def topics(self, partitions: int, ticks: str | None = None) -> Iterator[Settings]:
        """Settings as they are by default, with empty topics and a group of their own; the topics go at the end.

        `ticks` names a filled topic to read instead of an empty one.
        """
        tag = f"run{next(self._numbers)}"
        own = {
            role: f"{tag}.{role}" for role, name in msgspec.structs.asdict(Topics()).items() if isinstance(name, str)
        }
        names = msgspec.convert(own | {"ticks": ticks or own["ticks"], "partitions": partitions}, Topics)
        settings = Settings(broker=self.broker, topics=names, worker=Worker(group=tag, port=0))
        topics.create(settings)
        try:
            yield settings
        finally:
            with clients.admin(Cluster(self.broker)) as admin:
                admin.delete_topics([name for name in topics.names(settings.topics) if name != ticks])

    @contextlib.contextmanager
    def run(self, subject: Subject, settings: Settings) -> Iterator[Child]:
        """`subject` as a process on its core, until the end of the block."""
        with self.run_all(subject, settings, 1) as children:
            yield children[0]

    @contextlib.contextmanager
    def run_all(self, subject: Subject, settings: Settings, number: int) -> Iterator[list[Child]]:
        """So many processes of one group, each on a core of its own if there are as many."""
        with contextlib.ExitStack() as stack:
            children = []
            for place, own in enumerate(self.cores.measured[:number]):
                log = self.file("subject.log" if place == 0 else f"subject{place}.log")
                with pinned(own):
                    child = Child([python_of(subject), *COMMANDS[subject]], log, environment(settings), directory=ROOT)
                children.append(stack.enter_context(child))
            yield children

    def name(self, stem: str) -> str:
        """A name that no other topic has."""
        return f"{stem}.{next(self._numbers)}"

    def counts(self, settings: Settings) -> dict[str, int]:
        """Records on each of the three result topics so far; raises TapewatchError if Kafka does not say."""
        wanted = [
            TopicPartition(name, partition)
            for name in result_topics(settings)
            for partition in range(settings.topics.partitions)
        ]
        counts = dict.fromkeys(result_topics(settings), 0)
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for at, future in self._admin.list_offsets(dict.fromkeys(wanted, latest)).items():
            try:
                counts[at.topic] += future.result().offset
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET:
                    raise TapewatchError(f"the broker does not tell the end of {at.topic}: {error}") from None
        return counts

    def await_results(
        self, settings: Settings, child: Child, ticks: int, look: Callable[[int], None] = lambda _answered: None
    ) -> dict[str, int]:
        """Wait until each result topic holds an answer to every tick; `look` is told how many do, again and again.

        Returns
        -------
        dict
            Records on each of the three topics.

        Raises
        ------
        TapewatchError
            If the process ends, nothing moves for a minute, or there are more answers than ticks.
        """
        answered, moved, counts = -1, time.monotonic(), {}
        while answered < ticks:
            counts = self.counts(settings)
            now = min(counts.values())
            look(now)
            if now > answered:
                answered, moved = now, time.monotonic()
            if not child.running or time.monotonic() - moved > PATIENCE_SECONDS:
                raise TapewatchError(
                    f"{answered} of {ticks} ticks answered, then nothing; last lines: {child.last_lines(5)}"
                )
            if answered < ticks:
                time.sleep(LOOK_SECONDS)
        if set(counts.values()) != {ticks}:
            raise TapewatchError(f"{ticks} ticks have other numbers of results: {counts}")
        return counts


def python_of(subject: Subject) -> str:
    """The interpreter that has what a subject needs."""
    return str(PEERS_PYTHON) if subject in APART else sys.executable


def missing(subject: Subject) -> str | None:
    """Why a subject cannot run here, if it cannot."""
    return f"{subject} needs `make peers`" if subject in APART and not PEERS_PYTHON.exists() else None


def result_topics(settings: Settings) -> tuple[str, str, str]:
    """Names of the three topics with a record for each tick."""
    return settings.topics.predictions, settings.topics.risk, settings.topics.actions


def environment(settings: Settings) -> dict[str, str]:
    """This process's variables, with those settings alone that are not the default in place of its own TAPEWATCH_*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return kept | dict(_differences(msgspec.to_builtins(settings), msgspec.to_builtins(Settings()), ENV_PREFIX))


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _differences(value, defaults[key], f"{prefix}{key.upper()}__")
        elif value != defaults[key]:
            yield f"{prefix}{key.upper()}", str(value)


class Feed:
    """Puts ticks on a topic with librdkafka: of the producers there are, the one that leaves the broker most time."""

    def __init__(self, broker: str, topic: str, **options: Any) -> None:
        self._topic = topic
        self._failed: list[str] = []
        self._producer = Producer(
            {"bootstrap.servers": broker, "enable.idempotence": True, "log_level": 0, **options},
        )

    def send(self, partition: int, key: bytes, value: bytes) -> None:
        """Hand over one tick; waits while the producer's queue is full."""
        while True:
            try:
                self._producer.produce(self._topic, value, key, partition, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def poll(self) -> None:
        """Let the producer tell what it delivered."""
        self._producer.poll(0)

    def close(self) -> None:
        """Wait until all ticks are stored; raises TapewatchError if one is not."""
        left = self._producer.flush(PATIENCE_SECONDS)
        if left or self._failed:
            raise TapewatchError(f"{left + len(self._failed)} ticks were not stored: {self._failed[:1]}")

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))


def fill(broker: str, topic: str, tape: Tape, partitions: int, ticks: slice = slice(None)) -> None:
    """Put a part of the tape on a topic, as fast as it goes, in batches of 64 KiB or less."""
    feed = Feed(broker, topic, **{"batch.size": 65_536, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    partition = tape.partition(partitions)[ticks].tolist()
    for number, key, value in zip(partition, tape.keys[ticks], tape.values[ticks], strict=True):
        feed.send(number, key, value)
        feed.poll()
    feed.close()
