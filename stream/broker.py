"""Brokers to run beside Tapewatch: the one inside librdkafka, and Apache Kafka itself, both on 127.0.0.1 only.

`EmbeddedBroker` needs nothing but Python. It is librdkafka's mock cluster: one process, memory only, about 5 MB
kept a partition, 4 partitions a topic, topics that appear on first use, no CreateTopics, no compaction, no
security. `KafkaBroker` is the real thing, from `make kafka` or $KAFKA_HOME, in a directory that goes when it stops.

Both are context managers with `address`, `start`, `stop` and `kill`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import click
from confluent_kafka import Producer

from stream import clients
from stream.children import Child
from stream.config import ROOT, Cluster
from stream.errors import BrokerUnreachable, TapewatchError
from stream.signals import stop_on_signals

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 60.0
LIMITS: Final = (
    "one process, memory only: everything is gone when it stops",
    "keeps about 5 MB a partition: older messages are dropped, so stay close behind",
    "4 partitions a topic; topics appear on first use and cannot be created or configured",
    "answers a waiting fetch only when the consumer's fetch_max_wait_ms is over: set that to 5",
    "no compaction, no security, listens on 127.0.0.1 only, on a port of its own choice",
)
"""What the embedded broker cannot do, for people."""

# A single node that starts fast, and is back fast after a kill: the two session settings bring the restart after
# kill -9 from 12.4 s to 3.3 s. A message of a MiB fits, with room for its key, its headers and the batch around it.
KAFKA_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
message.max.bytes=2097152
"""


class Broker(Protocol):
    """What the two brokers have in common."""

    @property
    def address(self) -> str:
        """HOST:PORT."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it in order."""

    def kill(self) -> None:
        """Stop it with SIGKILL."""


class _Running:
    """Start and stop by `with`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


class EmbeddedBroker(_Running):
    """librdkafka's broker, in a process of its own that ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """HOST:PORT; empty before the start. A new start has a new port and no messages."""
        return self._address

    def start(self) -> None:
        """Start it; raises TapewatchError if it does not come up."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stream.broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._address = self._process.stdout.readline().strip()
        if not self._address:
            self.stop()
            raise TapewatchError("the embedded broker did not start; its message stands above")

    def stop(self) -> None:
        """Stop it; its messages are gone."""
        if self._process is not None:
            self._process.terminate()
            self._end(self._process)

    def kill(self) -> None:
        """Stop it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._end(self._process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


class KafkaBroker(_Running):
    """Apache Kafka, one KRaft node in a directory of its own, on free ports."""

    def __init__(
        self,
        home: Path | None = None,
        properties: str = "",
        formatting: Sequence[str] = (),
        ports: tuple[int, int] | None = None,
        cluster: str | None = None,
    ) -> None:
        """A node that is not started yet.

        Parameters
        ----------
        home
            Holds libs/*.jar; if None, $KAFKA_HOME, else what `make kafka` has fetched.
        properties
            Added to KAFKA_PROPERTIES, of which a later line wins; may name {port} and {controller_port}.
        formatting
            More arguments of Kafka's `storage format`, such as users.
        ports
            For clients, and for controllers; if None, free ones.
        cluster
            Id of the cluster that it is a node of; if None, it is one by itself.
        """
        self._home = home or kafka_home()
        self._properties = KAFKA_PROPERTIES + properties
        self._formatting = formatting
        self._ports = ports
        self._cluster = cluster
        self._directory: Path | None = None
        self._child: Child | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """HOST:PORT; it stays the same when the broker is killed and started again."""
        return f"{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """The file that holds its output, while its directory is there."""
        return self._folder / "broker.log"

    @property
    def _folder(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="tapewatch-kafka-"))
        return self._directory

    def start(self) -> None:
        """Start it, with the data it had if it was killed, and wait until it answers.

        Raises
        ------
        TapewatchError
            If Java or Kafka's jars are missing, or if it ends while starting (its last lines are named).
        """
        java = java_command(self._home)
        properties = self._folder / "kafka.properties"
        if not properties.exists():
            self._format(java, properties)
        self._child = Child(
            [*java, "-Xms256m", "-Xmx1g", "kafka.Kafka", str(properties)], self.log, directory=self._folder
        )
        self._wait(self._child)

    def stop(self) -> None:
        """Stop it and remove its directory."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """SIGKILL; `start` brings it back with its data, at the same address."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def halt(self) -> None:
        """SIGTERM: its partitions go to other nodes, if there are any; `start` brings it back with its data."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        """Of its process, while there is one."""
        assert self._child is not None, "it does not run"
        return self._child.pid

    def _format(self, java: list[str], properties: Path) -> None:
        self._port, controller_port = self._ports or free_ports(2)
        text = self._properties.format(port=self._port, controller_port=controller_port, data=self._folder / "data")
        cluster = self._cluster or new_cluster()
        draft = properties.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(draft), *self._formatting],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TapewatchError(f"cannot format Kafka's directory: {done.stderr.strip().splitlines()[-1:]}")
        draft.rename(properties)

    def _wait(self, child: Child) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if not child.running:
                break
            with contextlib.suppress(BrokerUnreachable):
                clients.is_embedded(Cluster(self.address))
                return
            time.sleep(0.05)
        lines = child.last_lines(3)
        self.kill()
        raise TapewatchError(f"Kafka did not start; its last lines: {lines}")


def new_cluster() -> str:
    """An id for a cluster."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x")


def kafka_home() -> Path:
    """Where Kafka's jars lie: $KAFKA_HOME, else build/kafka of this tree."""
    return Path(os.environ.get("KAFKA_HOME") or ROOT / "build" / "kafka")


def java_command(home: Path) -> list[str]:
    """The start of a command line that runs a class of Kafka's.

    Raises
    ------
    TapewatchError
        If Java or the jars are missing, with what to do.
    """
    java = shutil.which("java", path=os.environ.get("PATH"))
    if java is None:
        raise TapewatchError("Kafka needs Java 17 or newer, and there is no `java` on the PATH: install a JRE")
    if not any((home / "libs").glob("kafka_2.13-*.jar")):
        raise TapewatchError(f"no Kafka in {home}: run `make kafka`, or set KAFKA_HOME to an installation")
    return [java, "-cp", f"{home / 'libs'}/*"]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def serve(stop: threading.Event) -> str:
    """Run the mock cluster in this process until `stop`; gives its address at once.

    librdkafka binds it to the loopback interface, on a port of its own choice: neither can be set.
    """
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
    (broker,) = cluster.list_topics(timeout=10).brokers.values()

    def hold() -> None:
        stop.wait()
        cluster.purge()

    # The cluster lives as long as the producer that made it.
    threading.Thread(target=hold).start()
    return f"{broker.host}:{broker.port}"


def run() -> None:
    """`tapewatch broker`: the embedded one in this process, until SIGINT or SIGTERM."""
    stop = stop_on_signals()
    address = serve(stop)
    click.echo(f"embedded broker at {address}, until Ctrl-C. Its limits:")
    for limit in LIMITS:
        click.echo(f"  - {limit}")
    stop.wait()


def run_kafka() -> None:
    """`tapewatch broker --kafka`: Apache Kafka with an empty log, until SIGINT or SIGTERM."""
    stop = stop_on_signals()
    with KafkaBroker() as kafka:
        click.echo(f"Kafka at {kafka.address}, until Ctrl-C; then its topics are gone")
        stop.wait()


def main() -> None:
    """Serve, say the address in one line, and end when stdin closes: with the parent, however that ended."""
    stop = stop_on_signals()
    print(serve(stop), flush=True)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    stop.wait()


if __name__ == "__main__":
    main()
