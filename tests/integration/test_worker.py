"""The worker around a pipeline that echoes: chunks, acknowledgement, commits, stops and rebalances."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream import clients, topics
from stream.broker import KafkaBroker, free_ports
from stream.children import Child
from stream.config import ROOT, Settings, Topics
from tests.integration.conftest import abort_what_is_open, own_worker
from tests.integration.echo import BAD, POISON

LOADING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}
Eventually = Callable[[Callable[[], bool]], None]
Run = Callable[[Settings], "EchoWorker"]


class EchoWorker(Child):
    """A running worker."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        super().__init__(
            [sys.executable, "-m", "tests.integration.echo", msgspec.json.encode(settings).decode()],
            log,
            directory=ROOT,
        )

    def said(self, text: str) -> bool:
        """Whether its log holds `text`."""
        return text in self.log.read_text(encoding="utf-8")

    def signalled(self, number: signal.Signals) -> int:
        """Its exit status after the signal."""
        self._process.send_signal(number)
        return self._process.wait(20)

    def page(self, name: str) -> tuple[int, bytes]:
        """Status and body of one of its pages."""
        url = f"http://{self.settings.worker.host}:{self.settings.worker.port}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def run_worker(tmp_path: Path) -> Iterator[Run]:
    """Starts workers, and ends those that still run after the test."""
    started: list[EchoWorker] = []

    def start(settings: Settings) -> EchoWorker:
        worker = EchoWorker(settings, tmp_path / f"worker{len(started)}.log")
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture
def settings(kafka_settings: Settings) -> Settings:
    """Settings for the real Kafka, whose topics are there."""
    topics.create(kafka_settings)
    return own_worker(kafka_settings)


def produce(settings: Settings, values: Sequence[bytes], partitions: int = 4) -> list[tuple[int, int, bytes]]:
    """Put `values` on the topic of ticks, round robin; partition, offset and value of each."""
    producer = clients.producer(settings.cluster, linger_ms=2, max_request_size=4_194_304)
    sent = [
        producer.send(settings.topics.ticks, key=b"k%d" % (i % 7), value=value, partition=i % partitions)
        for i, value in enumerate(values)
    ]
    metadata = [future.get(30) for future in sent]
    producer.close()
    return [(at.partition, at.offset, value) for at, value in zip(metadata, values, strict=True)]


class Reader:
    """Everything on some topics, in the order of each partition."""

    def __init__(self, settings: Settings, names: Sequence[str], partitions: int = 4) -> None:
        self.records: dict[str, dict[int, list[Any]]] = {name: defaultdict(list) for name in names}
        self._consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "read", "fetch.wait.max.ms": 5})
        self._consumer.assign([TopicPartition(name, partition, 0) for name in names for partition in range(partitions)])

    def read(self, seconds: float = 0.2) -> None:
        for message in self._consumer.consume(5000, seconds):
            error = message.error()
            if error is not None:
                assert error.retriable() or error.code() == KafkaError._ALL_BROKERS_DOWN
                continue
            self.records[message.topic() or ""][message.partition() or 0].append(message)

    def read_to_end(self) -> None:
        """Read until nothing has come for a second."""
        before, now = -1, 0
        while now > before:
            self.read(1.0)
            before, now = now, sum(self.count(name) for name in self.records)

    def count(self, name: str) -> int:
        return sum(len(each) for each in self.records[name].values())

    def has(self, name: str, count: int) -> bool:
        self.read()
        return self.count(name) >= count

    def echoed(self, name: str) -> list[tuple[int, int, bytes]]:
        """Partition, offset and value of the ticks answered on `name`, in the order of the answers."""
        found = []
        for partition, messages in self.records[name].items():
            for message in messages:
                answered, offset, value = message.value().split(b" ", 2)
                assert int(answered) == partition
                found.append((partition, int(offset), value))
        return found

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def reader_of() -> Iterator[Callable[[Settings], Reader]]:
    """Makes readers of all outputs."""
    made: list[Reader] = []

    def make(settings: Settings) -> Reader:
        made.append(Reader(settings, topics.names(settings.topics)[1:]))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def outputs(settings: Settings) -> tuple[str, str, str]:
    return settings.topics.predictions, settings.topics.risk, settings.topics.actions


def committed(settings: Settings) -> list[int]:
    """Committed offset of each partition of the ticks; -1001 where there is none."""
    consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": settings.worker.group})
    partitions = [TopicPartition(settings.topics.ticks, partition) for partition in range(4)]
    try:
        return [each.offset for each in consumer.committed(partitions, 40)]
    except KafkaException as error:
        if error.args[0].code() not in LOADING:
            raise
        return committed(settings)  # a broker that has just come back is still loading its groups
    finally:
        consumer.close()


def put(settings: Settings, partition: int, count: int) -> None:
    """So many messages on one partition of the ticks, in batches of 100: a fetch holds one whole batch at least."""
    producer = Producer({"bootstrap.servers": settings.broker, "linger.ms": 20, "batch.num.messages": 100})
    for number in range(count):
        producer.produce(settings.topics.ticks, key=b"A", value=b"%d" % number, partition=partition)
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush()


def ends(sent: Sequence[tuple[int, int, bytes]]) -> list[int]:
    return [max(offset for at, offset, _ in sent if at == partition) + 1 for partition in range(4)]


def assert_answered_once(reader: Reader, settings: Settings, sent: Sequence[tuple[int, int, bytes]]) -> None:
    """Each tick once on each topic, in the order of its partition, and nothing else."""
    reader.read_to_end()
    wanted = sorted((partition, offset, value) for partition, offset, value in sent)
    for name in outputs(settings):
        echoed = reader.echoed(name)
        assert sorted(echoed) == wanted
        for partition in range(4):
            offsets = [offset for at, offset, _ in echoed if at == partition]
            assert offsets == sorted(offsets)


def test_every_tick_is_answered_once_and_committed(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(5000)])
    worker, reader = run_worker(settings), reader_of(settings)
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    sent += produce(settings, [b"later %d" % i for i in range(100)])
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    eventually(lambda: committed(settings) == ends(sent))
    assert worker.stop() == 0
    assert_answered_once(reader, settings, sent)


def test_refused_messages_go_to_their_topic_and_do_not_stop_the_others(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    values = [BAD + b"%d" % i if i % 10 == 3 else b"%d" % i for i in range(400)]
    values[13] = BAD + b"x" * 1_048_576
    sent = produce(settings, values)
    worker, reader = run_worker(settings), reader_of(settings)
    bad = {(p, o): value for p, o, value in sent if value.startswith(BAD)}
    eventually(lambda: reader.has(settings.topics.rejected, len(bad)))
    eventually(lambda: all(reader.has(name, len(sent) - len(bad)) for name in outputs(settings)))
    for partition, messages in reader.records[settings.topics.rejected].items():
        for message in messages:
            headers = dict(message.headers())
            assert headers["reason"] == b"json"
            assert headers["rule"] == b"must not be bad"
            assert int(headers["partition"]) == partition
            assert message.value() == bad.pop((partition, int(headers["offset"])))
            assert message.key() is not None
    assert not bad
    assert worker.stop() == 0
    assert_answered_once(reader, settings, [each for each in sent if not each[2].startswith(BAD)])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_mid_stream_loses_nothing_and_repeats_nothing(
    settings: Settings,
    run_worker: Run,
    reader_of: Callable[[Settings], Reader],
    eventually: Eventually,
    number: signal.Signals,
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(20_000)])
    reader = reader_of(settings)
    first = run_worker(
        msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, chunk_ticks=8))
    )
    eventually(lambda: reader.has(settings.topics.actions, 1000))
    assert first.signalled(number) == 0
    assert first.said("stopped group=")
    reader.read_to_end()
    done = reader.count(settings.topics.actions)
    assert 1000 <= done < len(sent)
    assert sum(offset for offset in committed(settings) if offset > 0) == done
    second = run_worker(settings)
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    assert second.stop() == 0
    assert committed(settings) == ends(sent)
    assert_answered_once(reader, settings, sent)


def test_a_backlog_on_one_partition_does_not_starve_the_others(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    """As when a day is replayed of one symbol: what is live elsewhere is answered long before the backlog is over."""
    backlog, name = 40_000, settings.topics.actions
    put(settings, 0, backlog)
    reader = reader_of(settings)
    tight = msgspec.structs.replace(
        settings.worker, chunk_ticks=1, fetch_max_bytes=4096
    )  # ten seconds of work and more
    worker = run_worker(msgspec.structs.replace(settings, worker=tight))
    eventually(lambda: reader.has(name, 100))
    for partition in (1, 2, 3):
        put(settings, partition, 20)
    eventually(lambda: [reader.has(name, 0) and len(reader.records[name][at]) for at in (1, 2, 3)] == [20, 20, 20])
    consumer = Consumer({"bootstrap.servers": settings.broker, "group.id": "look"})
    _, answered = consumer.get_watermark_offsets(TopicPartition(name, 0), 10)
    consumer.close()
    assert answered < backlog
    assert worker.stop() == 0


def test_a_killed_worker_loses_nothing(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(20_000)])
    reader = reader_of(settings)
    slow = msgspec.structs.replace(settings.worker, chunk_ticks=8)
    first = run_worker(msgspec.structs.replace(settings, worker=slow))
    eventually(lambda: reader.has(settings.topics.actions, 1000))
    first.kill()
    abort_what_is_open(settings)
    assert sum(offset for offset in committed(settings) if offset > 0) < len(sent)
    run_worker(settings)
    eventually(lambda: committed(settings) == ends(sent))
    reader.read_to_end()
    for name in outputs(settings):
        assert set(reader.echoed(name)) == set(sent)


def test_a_broker_that_dies_and_comes_back_costs_nothing(
    kafka: KafkaBroker,
    settings: Settings,
    run_worker: Run,
    reader_of: Callable[[Settings], Reader],
    eventually: Eventually,
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(1000)])
    worker, reader = run_worker(settings), reader_of(settings)
    eventually(lambda: reader.has(settings.topics.actions, len(sent)))
    kafka.kill()
    kafka.start()
    sent += produce(settings, [b"after %d" % i for i in range(1000)])
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    eventually(lambda: committed(settings) == ends(sent))
    assert worker.stop() == 0
    assert len(worker.log.read_text().splitlines()) < 100
    assert_answered_once(reader, settings, sent)


def test_health_turns_bad_while_the_broker_is_away_though_nothing_was_left_to_do(
    kafka: KafkaBroker, settings: Settings, run_worker: Run, eventually: Eventually
) -> None:
    impatient = msgspec.structs.replace(settings.worker, stall_seconds=2.0)
    worker = run_worker(msgspec.structs.replace(settings, worker=impatient))

    def knows_its_partitions() -> bool:
        try:
            status, body = worker.page("health")
        except urllib.error.URLError:  # the pages are not served yet
            return False
        return status == 200 and len(json.loads(body)["partitions"]) == 4

    eventually(knows_its_partitions)
    kafka.kill()
    eventually(lambda: worker.page("health")[0] == 503)
    eventually(lambda: worker.said(f"no broker at {settings.broker}: waiting"))
    kafka.start()
    eventually(lambda: worker.page("health")[0] == 200)
    eventually(lambda: worker.said(f"broker at {settings.broker} is back after"))
    assert worker.stop() == 0
    assert worker.log.read_text().count("no broker at") == 1


def test_two_workers_share_and_hand_over(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(2000)])
    reader = reader_of(settings)
    first = run_worker(settings)
    eventually(lambda: reader.has(settings.topics.actions, len(sent)))
    other = msgspec.structs.replace(settings.worker, port=free_ports(1)[0])
    second = run_worker(msgspec.structs.replace(settings, worker=other))
    eventually(lambda: second.said("assigned"))
    sent += produce(settings, [b"shared %d" % i for i in range(2000)])
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    assert first.stop() == 0
    sent += produce(settings, [b"alone %d" % i for i in range(2000)])
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    eventually(lambda: committed(settings) == ends(sent))
    assert second.stop() == 0
    assert_answered_once(reader, settings, sent)


def test_markers_and_aborted_ticks_leave_no_lag(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    async def transactions() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.broker, transactional_id=settings.worker.group)
        async with producer:
            await producer.begin_transaction()
            await producer.send_and_wait(settings.topics.ticks, b"never", partition=0)
            await producer.abort_transaction()
            await producer.begin_transaction()
            await producer.send_and_wait(settings.topics.ticks, b"kept", partition=0)
            await producer.commit_transaction()

    asyncio.run(transactions())
    run_worker(settings)
    reader = reader_of(settings)
    eventually(lambda: committed(settings)[0] == 4)  # two records and two markers
    reader.read_to_end()
    assert [value for _, _, value in reader.echoed(settings.topics.actions)] == [b"kept"]


def test_a_chunk_that_cannot_be_computed_stops_the_worker_uncommitted(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    before = produce(settings, [b"%d" % i for i in range(40)])
    worker, reader = run_worker(settings), reader_of(settings)
    eventually(lambda: reader.has(settings.topics.actions, len(before)))
    poisoned = produce(settings, [POISON], partitions=1)
    eventually(lambda: not worker.running)
    assert worker.returncode == 1
    assert worker.last_lines(1) == (
        "error: cannot compute partition 0, offsets 10 to 10: RuntimeError('poisoned'); not committed, nothing is lost"
    )
    assert committed(settings) == ends(before)
    assert poisoned[0][1] == committed(settings)[0]


def test_results_that_the_broker_refuses_stop_the_worker_uncommitted(
    kafka_settings: Settings, run_worker: Run, eventually: Eventually
) -> None:
    narrow = {"num_partitions": 4, "replication_factor": 1, "configs": {"max.message.bytes": "1000"}}
    with clients.admin(kafka_settings.cluster) as admin:
        admin.create_topics({kafka_settings.topics.predictions: narrow})
    topics.create(kafka_settings)
    settings = own_worker(kafka_settings)
    produce(settings, [b"x" * 2000], partitions=1)
    worker = run_worker(settings)
    eventually(lambda: not worker.running)
    assert worker.returncode == 1
    assert "the broker did not take the results of partition 0, offsets 0 to 0" in worker.last_lines(1)
    assert "MessageSizeTooLarge" in worker.last_lines(1)
    assert committed(settings)[0] <= 0


def test_pages_show_metrics_and_health(
    settings: Settings, run_worker: Run, reader_of: Callable[[Settings], Reader], eventually: Eventually
) -> None:
    sent = produce(settings, [b"%d" % i for i in range(1000)])
    worker, reader = run_worker(settings), reader_of(settings)
    eventually(lambda: reader.has(settings.topics.actions, len(sent)))

    def caught_up() -> bool:
        status, body = worker.page("health")
        partitions = json.loads(body)["partitions"]
        return status == 200 and len(partitions) == 4 and all(each["lag"] == 0 for each in partitions.values())

    eventually(caught_up)
    health = json.loads(worker.page("health")[1])
    assert health["status"] == "ok"
    assert [health["partitions"][str(p)]["committed"] for p in range(4)] == ends(sent)
    status, body = worker.page("metrics")
    assert status == 200
    lines = body.decode().splitlines()
    assert "tapewatch_ticks_total 1000.0" in lines
    assert 'tapewatch_results_total{topic="predictions"} 1000.0' in lines
    assert 'tapewatch_lag_ticks{partition="3"} 0.0' in lines
    assert 'tapewatch_receive_to_publish_seconds_bucket{le="+Inf"} 1000.0' in lines
    assert "tapewatch_commit_age_seconds 0.0" in lines


def test_a_worker_with_nothing_to_do_is_healthy(settings: Settings, run_worker: Run, eventually: Eventually) -> None:
    worker = run_worker(settings)
    eventually(lambda: worker.said("ready"))

    def idle() -> bool:
        status, body = worker.page("health")
        partitions = json.loads(body)["partitions"].values()
        return status == 200 and [each["lag"] for each in partitions] == [0, 0, 0, 0]

    eventually(idle)


def test_no_folder_is_left_in_the_working_directory(
    settings: Settings, run_worker: Run, eventually: Eventually
) -> None:
    before = set(ROOT.iterdir())
    worker = run_worker(settings)
    eventually(lambda: worker.said("ready"))
    assert worker.stop() == 0
    assert {path.name for path in set(ROOT.iterdir()) - before if path.name.endswith("-data")} == set()


def failed(settings: Settings) -> str:
    """The one line of a worker that does not come up."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.echo", msgspec.json.encode(settings).decode()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def test_an_unreachable_broker_is_named() -> None:
    (port,) = free_ports(1)
    line = failed(own_worker(Settings(broker=f"127.0.0.1:{port}")))
    assert line.startswith(f"error: no Kafka broker answers at 127.0.0.1:{port}")
    assert "tapewatch broker" in line


def test_missing_topics_are_named(kafka_settings: Settings) -> None:
    line = failed(own_worker(kafka_settings))
    assert kafka_settings.topics.ticks in line
    assert "tapewatch topics create" in line


def test_results_need_as_many_partitions_as_ticks(kafka_settings: Settings, own_topics: Topics) -> None:
    topics.create(kafka_settings)
    fewer = msgspec.structs.replace(own_topics, predictions=f"{own_topics.predictions}.narrow", partitions=2)
    narrow = msgspec.structs.replace(kafka_settings, topics=fewer)
    topics.create(narrow)
    line = failed(own_worker(narrow))
    assert f"topic {fewer.predictions} has 2 partitions, {own_topics.ticks} has 4" in line


def test_a_taken_port_is_named(settings: Settings, run_worker: Run, eventually: Eventually) -> None:
    worker = run_worker(settings)
    eventually(lambda: worker.said("serving"))
    line = failed(settings)
    assert line.startswith(f"error: setting worker.port = {settings.worker.port}: cannot listen on 127.0.0.1:")


def test_the_embedded_broker_will_do(
    embedded_settings: Settings,
    run_worker: Run,
    reader_of: Callable[[Settings], Reader],
    eventually: Eventually,
) -> None:
    settings = own_worker(embedded_settings)
    worker = run_worker(settings)
    eventually(lambda: worker.said("ready"))
    sent = produce(settings, [b"%d" % i for i in range(2000)])
    reader = reader_of(settings)
    eventually(lambda: all(reader.has(name, len(sent)) for name in outputs(settings)))
    eventually(lambda: committed(settings) == ends(sent))
    assert worker.stop() == 0
    assert_answered_once(reader, settings, sent)
