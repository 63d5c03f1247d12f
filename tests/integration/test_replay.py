"""Replay and tail against brokers: what is in the file is on the topic, and what goes wrong is told."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from stream import topics
from stream.broker import EmbeddedBroker, KafkaBroker
from stream.config import ROOT, Cluster
from stream.feeds.files import open_ticks
from stream.feeds.sample import SIX

NS = 1_723_161_257_000_000_000


def tapewatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def ticks_file(tmp_path: Path, rows: int) -> Path:
    file = tmp_path / "ticks.csv"
    lines = [f"{'ABC'[row % 3]},{NS + row},{100 + row},1.5" for row in range(rows)]
    file.write_text("\n".join(["symbol,exchange_ns,price,size", *lines]) + "\n")
    return file


def test_what_is_in_the_file_is_on_the_topic_in_order(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    done = tapewatch("replay", str(ticks_file(tmp_path, 500)), "--speed", "max", "--broker", embedded.address)
    assert done.returncode == 0, done.stderr
    assert "sent 500 ticks to ticks" in done.stdout
    at = ["--broker", embedded.address, "--from", "beginning"]
    every = tapewatch("tail", "ticks", *at, "--json", "--count", "500")
    records = [json.loads(line) for line in every.stdout.splitlines()]
    assert sorted(record["value"]["price"] for record in records) == [100.0 + row for row in range(500)]
    assert all(record["key"] == record["value"]["symbol"] for record in records)
    for symbol in "ABC":
        prices = [record["value"]["price"] for record in records if record["key"] == symbol]
        assert prices == sorted(prices)
    one = tapewatch("tail", "ticks", *at, "--symbol", "B", "--count", "10")
    assert [line.split()[2] for line in one.stdout.splitlines()] == ["B"] * 10


def test_a_stop_flushes_and_says_how_far_it_came(embedded: EmbeddedBroker) -> None:
    command = [sys.executable, "-m", "stream.cli", "replay", str(SIX), "--rate", "200", "--loop"]
    command += ["--broker", embedded.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        tapewatch("tail", "ticks", "--broker", embedded.address, "--from", "beginning", "--count", "20")
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None
        said = running.stdout.read()
    assert running.returncode == 0
    assert said.startswith("stopped: sent ")


def test_without_its_topic_nothing_is_sent(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[topics]\nticks = "nobody-made-this"\n')
    file = str(ticks_file(tmp_path, 3))
    done = tapewatch("--config", str(settings), "replay", file, "--broker", kafka.address)
    assert done.returncode == 1
    assert "no topic nobody-made-this" in done.stderr
    assert "tapewatch topics create" in done.stderr


def test_messages_that_were_not_delivered_are_counted(embedded: EmbeddedBroker) -> None:
    # In a process of its own: kafka-python leaves sockets open that were refused, which pytest would report.
    program = (
        "import sys; from stream.config import Cluster; from stream.feeds.replay import KafkaSink\n"
        "sink = KafkaSink(Cluster(sys.argv[1]), 'ticks', delivery_timeout_ms=1500, request_timeout_ms=500)\n"
        "sink.send_then(b'A', b'1', lambda place: print('delivered', flush=True))\n"
        "sys.stdin.readline()\n"
        "for _ in range(10): sink.send(b'A', b'2')\n"
        "sink.close(); print(sink.failed, sink.first_error != '')"
    )
    topics.partitions_of(Cluster(embedded.address), ["ticks"])
    command = [sys.executable, "-W", "ignore", "-c", program, embedded.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "delivered\n"
        embedded.kill()
        said, _ = running.communicate("go on\n")
    assert said == "10 True\n"


def test_tail_says_when_its_broker_goes(embedded: EmbeddedBroker) -> None:
    command = [sys.executable, "-m", "stream.cli", "tail", "risk", "--broker", embedded.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        embedded.kill()  # whether it has connected by now or not, the answer is the same
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 1
    assert said.startswith("tapewatch: no Kafka broker answers at")


def test_tail_of_a_symbol_that_does_not_come_says_so_and_waits_on(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    at = ["--broker", embedded.address]
    file = str(ticks_file(tmp_path, 30))
    assert tapewatch("replay", file, "--speed", "max", *at).returncode == 0
    command = [sys.executable, "-m", "stream.cli", "tail", "ticks", *at, "--symbol", "c", "--from", "beginning"]
    with subprocess.Popen(
        [*command, "--count", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        said = running.stderr.readline()
        (tmp_path / "ticks.csv").write_text(f"symbol,exchange_ns,price,size\nc,{NS},7,1\n")
        assert tapewatch("replay", file, "--speed", "max", *at).returncode == 0
        shown = running.stdout.read()
        rest = running.stderr.read()
    assert said == "no record of c has come on ticks in 5 s; there are records of C, A, B; waiting on\n"
    assert (running.returncode, rest) == (0, "")
    assert shown.split()[2:4] == ["c", "7"]


def test_the_sample_is_sent_whole(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[topics]\nticks = "whole-sample"\n')
    assert tapewatch("--config", str(settings), "topics", "create", "--broker", kafka.address).returncode == 0
    done = tapewatch("--config", str(settings), "replay", str(SIX), "--speed", "max", "--broker", kafka.address)
    assert done.returncode == 0, done.stderr
    assert f"sent {open_ticks(SIX).rows:,} ticks" in done.stdout
