"""What takes three brokers: leaders that move, a coordinator that is away, one broker that is slow."""

import contextlib
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient

from stream import clients
from stream.app import DURING_COMMIT
from stream.broker import KafkaBroker, free_ports, new_cluster
from stream.children import Child
from stream.config import Settings, Topics, Worker
from tests.integration.test_broker_faults import answered, ended, health, prepared
from tests.integration.test_recovery import Feed, Start, committed

pytestmark = pytest.mark.timeout(420)
Eventually = Callable[..., None]
NODES = (1, 2, 3)
PATIENCE = 120.0  # three Javas on two cores that others use too
PADDED_BYTES = 8192  # of a tick, so that a few thousand of them do not fit into what a worker may hold
ANSWERS_BYTES = 4096  # more than its prediction, risk and action have
REST_BYTES = 12 * 2**20
AWAY_SECONDS = 30.0  # what a coordinator that is restarted on a slow machine, or moved by hand, may take


# Kafka's own topics have one replica here, so a coordinator can be away while all partitions have leaders.
NODE = """\
node.id={number}
controller.quorum.voters={voters}
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
"""


class Cluster:
    """Three brokers."""

    def __init__(self) -> None:
        ports = free_ports(2 * len(NODES))
        pairs, cluster = list(zip(ports[::2], ports[1::2], strict=True)), new_cluster()
        voters = ",".join(f"{number}@127.0.0.1:{pair[1]}" for number, pair in zip(NODES, pairs, strict=True))
        self.nodes = {
            number: KafkaBroker(properties=NODE.format(number=number, voters=voters), ports=pair, cluster=cluster)
            for number, pair in zip(NODES, pairs, strict=True)
        }

    def each(self, do: Callable[[KafkaBroker], None]) -> None:
        """Do it to all of them at once."""
        with ThreadPoolExecutor(len(NODES)) as pool:
            list(pool.map(do, self.nodes.values()))

    @property
    def address(self) -> str:
        """Of all of them."""
        return ",".join(node.address for node in self.nodes.values())

    def coordinator(self, group: str) -> int:
        """Number of the node that has the offsets of a group."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        found = admin.describe_consumer_groups([group])[group].result(30)
        return int(found.coordinator.id)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three brokers for the tests of this module."""
    made = Cluster()
    with contextlib.ExitStack() as stack:
        stack.callback(made.each, KafkaBroker.stop)
        made.each(KafkaBroker.start)
        yield made


@pytest.fixture
def cluster_settings(cluster: Cluster, own_topics: Topics) -> Settings:
    """Topics of one's own with three replicas."""
    return Settings(cluster.address, topics=msgspec.structs.replace(own_topics, replication=3))


@pytest.mark.parametrize("delivery", ["exactly_once", pytest.param("at_least_once", marks=pytest.mark.faults)])
def test_a_coordinator_that_is_away_for_half_a_minute_is_waited_for(
    cluster: Cluster, cluster_settings: Settings, start: Start, eventually: Eventually, delivery: Any
) -> None:
    settings = prepared(cluster_settings, delivery, stall_seconds=3.0)
    feed = Feed(settings)
    feed.send(500)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    away = cluster.nodes[cluster.coordinator(settings.worker.group)]
    gone = time.monotonic()
    away.kill()
    feed.send(100)
    eventually(lambda: health(worker)[0] == 503, AWAY_SECONDS)

    def over() -> bool:
        feed.send(10)
        assert worker.running, worker.last_lines()
        assert health(worker)[0] == 503  # it says so all the while, and its pages do not hang
        return time.monotonic() - gone > AWAY_SECONDS

    eventually(over, PATIENCE)
    away.start()
    eventually(lambda: committed(settings) == feed.sent or not worker.running, PATIENCE)
    if not worker.running:  # only where coming back took so long that Kafka has aborted what was open
        assert "transaction was open too long" in ended(worker)
        assert time.monotonic() - gone > 3 * AWAY_SECONDS
        eventually(lambda: committed(settings) >= 500, PATIENCE)
        answered(settings, committed(settings))  # what it has acknowledged it has done
        worker = start(settings)
        eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    eventually(lambda: health(worker)[0] == 200, PATIENCE)
    feed.send(100)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    assert worker.stop() == 0
    answered(settings, feed.sent)


@pytest.mark.faults
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_leaders_and_coordinators_that_go_and_come_lose_nothing(
    cluster: Cluster, cluster_settings: Settings, start: Start, eventually: Eventually, delivery: Any
) -> None:
    settings = prepared(cluster_settings, delivery, stall_seconds=3.0)
    feed = Feed(settings)
    feed.send(500)
    worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    away = cluster.nodes[cluster.coordinator(settings.worker.group)]
    away.kill()
    feed.send(500)  # its partitions have other leaders now; only offsets cannot be committed
    eventually(lambda: health(worker)[0] == 503, PATIENCE)
    away.start()
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    eventually(lambda: health(worker)[0] == 200, PATIENCE)
    for node in cluster.nodes.values():
        node.halt()
        feed.send(100)
        node.start()
    if not worker.running:  # with exactly_once, where a coordinator was away for longer than a transaction may be open
        assert "transaction was open too long" in worker.last_lines(1)
        worker = start(settings)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    assert worker.stop() == 0
    answered(settings, feed.sent)


def apart(settings: Settings) -> None:
    """Make the topics of ticks and predictions: the ticks on one broker, and on node 2 what has to be taken."""
    names = settings.topics
    with clients.admin(settings.cluster) as admin:
        for name, node in ((names.ticks, 1), (names.predictions, 2)):
            admin.create_topics({name: {"assignments": {0: [node], 1: [node]}}})
            admin.wait_for_topics([name])


def resident(worker: Child) -> float:
    """Bytes of a worker's memory that are in RAM, as it says itself."""
    (page,) = re.findall(r"metrics=(\S+)", worker.log.read_text())
    with urllib.request.urlopen(page, timeout=5) as answer:
        (found,) = re.findall(r"^tapewatch_resident_memory_bytes (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found)


def most_read(worker: Worker) -> int:
    """Messages of a partition that may be read and not answered.

    They are the chunks on their way, those in the queue behind, the one in hand, and one fetch.
    """
    on_their_way = worker.chunks_in_flight * (DURING_COMMIT if worker.delivery == "exactly_once" else 1)
    chunks = on_their_way + worker.chunks_in_flight + 1
    return chunks * worker.chunk_ticks + worker.fetch_max_bytes // PADDED_BYTES


def most_held(settings: Settings) -> int:
    """Bytes by which a worker may grow while nothing of what it answers is taken.

    The messages that may be read with their answers, and one more fetch that lies with the client, twice, for it may be
    there as it came and as what was made of it; and what a process takes anyhow: the allocator's arenas, the clients'
    metadata while leaders move, the threads of the pages. All of it together was 1.2 to 2 MiB here.
    """
    worker = settings.worker
    of_a_partition = most_read(worker) * (PADDED_BYTES + ANSWERS_BYTES) + worker.fetch_max_bytes
    return 2 * settings.topics.partitions * of_a_partition + REST_BYTES


def held_up(
    slow: KafkaBroker, settings: Settings, start: Start, eventually: Eventually, ticks: int, hold_seconds: float
) -> None:
    """Let a broker take nothing while so many ticks come: the worker must pause, and then answer all of them."""
    worker = start(settings)
    feed = Feed(settings, PADDED_BYTES)
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    before, begins = resident(worker), feed.sent // 2
    os.kill(slow.pid, signal.SIGSTOP)
    try:
        feed.send(ticks)
        eventually(lambda: health(worker)[0] == 503, PATIENCE)
        read = positions(worker)
        assert begins < min(read)
        assert max(read) <= begins + most_read(settings.worker) < feed.sent // 4
        until = time.monotonic() + hold_seconds

        def over() -> bool:
            assert positions(worker) == read
            assert {each["committed"] for each in health(worker)[1]["partitions"].values()} == {begins}
            assert resident(worker) - before < most_held(settings) < ticks * PADDED_BYTES // 2
            return time.monotonic() > until

        eventually(over, PATIENCE)
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    eventually(lambda: committed(settings) == feed.sent, PATIENCE)
    assert worker.stop() == 0
    answered(settings, feed.sent)


def positions(worker: Child) -> list[int]:
    """Where the reading of each partition stands."""
    return [each["position"] for each in health(worker)[1]["partitions"].values()]


@pytest.mark.parametrize("delivery", ["exactly_once", pytest.param("at_least_once", marks=pytest.mark.faults)])
def test_a_full_producer_buffer_pauses_the_reading_and_loses_nothing(
    cluster: Cluster, cluster_settings: Settings, start: Start, eventually: Eventually, delivery: Any
) -> None:
    apart(cluster_settings)
    settings = prepared(cluster_settings, delivery, stall_seconds=2.0, fetch_max_bytes=65_536, chunks_in_flight=1)
    held_up(cluster.nodes[2], settings, start, eventually, ticks=6_000, hold_seconds=3.0)


@pytest.mark.faults
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_slow_broker_holds_the_reading_up_and_the_memory_stays_bounded(
    cluster: Cluster, cluster_settings: Settings, start: Start, eventually: Eventually, delivery: Any
) -> None:
    apart(cluster_settings)
    settings = prepared(cluster_settings, delivery, stall_seconds=2.0, fetch_max_bytes=65_536)
    held_up(cluster.nodes[2], settings, start, eventually, ticks=20_000, hold_seconds=15.0)
