"""Shell blocks of the pages that no mark runs, on a real Kafka with a worker and answered ticks; else, why not.

Broker, ports, topics and models are put in place of the pages' own, and what asks is told yes.
"""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream import clients, topics
from stream.broker import KafkaBroker
from stream.children import Child
from stream.config import DEFAULT_MODELS, Settings, Topics, Worker
from tests.benchmark.stand import environment
from tests.bundles import add_kind
from tests.documents import TEXTS, blocks
from tests.ticks import SECOND, START_NS, message

Eventually = Callable[..., None]

RUN = {
    "docs/how-to/halt.md",
    "docs/how-to/kafka.md",
    "docs/how-to/own-model.md",
    "docs/how-to/rejected.md",
    "docs/how-to/scale-out.md",
    "docs/how-to/verify.md",
    "docs/security.md",
}
"""Pages whose shell blocks are run here, but for the lines of NOT_RUN."""
WITHOUT_KAFKA = {"docs/how-to/own-model.md", "docs/security.md"}
NOT_RUN = {
    "make ": "installs, or takes minutes; test_documents.py finds every target",
    "export PATH=": "of a shell that goes on: what is run has this PATH",
    "tapewatch demo --": "half a minute each: test_demo.py runs both in less",
    "tapewatch feed ": "needs an exchange: test_feed.py and test_security.py run it against a fake one",
    "tapewatch download ": "needs an archive: test_download.py runs it against a copy",
    "tapewatch backtest ticks/": "needs a file of that archive: test_backtest.py runs it on others",
    "tapewatch train ": "takes an hour: test_training_cli.py runs it with --quick",
    "tapewatch evaluate ": "takes minutes, of what that training made: test_training_cli.py runs it on little",
    "tapewatch models list --models models-of-ours": "lists what that training made",
    "python docs/examples/own_forecaster.py": "from a checkout: test_examples.py runs it and what follows",
    "cp -r models/wgan": "of that",
    "tapewatch models verify --models models-of-ours": "of that",
    "tapewatch backtest stream/feeds/samples/binance_sample.parquet --models": "of that",
    "tapewatch bench ": "takes minutes, on a machine with nothing else to do: test_benchmark.py runs parts of it",
    "kcat ": "test_examples.py runs it, where it is installed",
    "python -m tests.benchmark.report": "writes into docs/performance: test_bench.py writes elsewhere",
    "tapewatch --config tapewatch.toml doctor": "needs the page's Kafka with TLS: test_doctor.py runs it on others",
    "export TAPEWATCH_CONFIG=": "names the file for that Kafka",
    "tapewatch worker": "on that Kafka; test_security.py runs one with TLS",
}
"""Beginning of a line, or all of it where it is `tapewatch worker` -> why it is not run as it stands."""
REFUSED = {(0, 1234), (1, 77)}
"""Partition and offset: docs/how-to/rejected.md names them."""
TICKS = {0: 2000, 1: 900, 2: 1, 3: 1}
"""Of each partition: docs/how-to/verify.md names so many."""
ANSWERS = {"halt": "HALT\n", "resume": "RESUME\n", "rejected": "y\n"}


def why_not(line: str) -> str | None:
    """Why a line is not run, if it is not."""
    if goes_on(line):
        return NOT_RUN.get(line)
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def goes_on(line: str) -> bool:
    """Whether it is a program that does not end by itself."""
    return line.startswith("tapewatch worker")


def own_topics() -> Topics:
    tag = uuid.uuid4().hex[:8]
    kinds = ("ticks", "predictions", "risk", "actions", "alerts", "rejected", "state", "truth", "audit")
    names: dict[str, Any] = {kind: f"{tag}.{kind}" for kind in kinds}
    return Topics(**names)


def fill(settings: Settings) -> None:
    """Ticks of a symbol a partition, with junk among them where the pages say."""
    producer = clients.producer(settings.cluster)
    for partition, count in TICKS.items():
        for offset in range(count):
            tick = message(symbol=f"S{partition}", exchange_ns=START_NS + offset * SECOND, trade_id=offset + 1)
            value = b"junk" if (partition, offset) in REFUSED else tick
            producer.send(settings.topics.ticks, key=b"S%d" % partition, value=value, partition=partition)
    producer.close()


class Shell:
    """Somebody who types what a page says, in a folder of its own."""

    def __init__(self, settings: Settings, folder: Path, children: ExitStack, eventually: Eventually) -> None:
        self._settings = settings
        self._folder = folder
        self._children = children
        self._eventually = eventually
        self._logs = 0

    def type_in(self, line: str) -> None:
        """Run a line as it stands, but for broker and port; a worker goes on."""
        ours = line.replace("127.0.0.1:9092", self._settings.broker)
        ours = ours.replace("--port 6066", "--port 0").replace("--port 6067", "--port 0")
        if goes_on(line):
            self.start_worker(ours)
        else:
            self._run(ours, line)

    def start_worker(self, line: str) -> None:
        """Return once it is ready."""
        log = self._folder / f"worker{self._logs}.log"
        self._logs += 1
        child = self._children.enter_context(Child(line.split(), log, self._environ(self._settings), self._folder))
        self._eventually(lambda: "ready" in log.read_text(encoding="utf-8") or not child.running)
        assert child.running, child.last_lines(5)

    def _run(self, ours: str, line: str) -> None:
        settings = self._settings
        if "topics create" in line:  # the others are there
            settings = msgspec.structs.replace(settings, topics=own_topics())
        done = subprocess.run(
            ["bash", "-c", ours],
            cwd=self._folder,
            env=self._environ(settings),
            input=ANSWERS.get(line.split()[1], ""),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        assert done.stdout.strip(), f"{line} prints nothing"

    @staticmethod
    def _environ(settings: Settings) -> dict[str, str]:
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return environment(settings) | {"PATH": tools, "TAPEWATCH_TOPICS__REPLICATION": "1"}


@pytest.fixture(scope="module")
def answered(
    kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory, eventually: Eventually
) -> Iterator[Settings]:
    """Settings with topics of one's own, whose ticks a worker has answered, and which it goes on with."""
    names = own_topics()
    settings = Settings(broker=kafka.address, topics=names, worker=Worker(group=names.ticks, port=0))
    topics.create(settings)
    fill(settings)
    with ExitStack() as children:
        shell = Shell(settings, tmp_path_factory.mktemp("howto"), children, eventually)
        shell.start_worker("tapewatch worker")
        eventually(lambda: clients.committed(settings.cluster, names.ticks, names.ticks, range(4)) == TICKS)
        yield settings


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", sorted(RUN))
def test_what_a_page_says_works_as_written(
    page: str, request: pytest.FixtureRequest, tmp_path: Path, eventually: Eventually
) -> None:
    settings: Settings = Settings() if page in WITHOUT_KAFKA else request.getfixturevalue("answered")
    models = Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))
    if page == "docs/how-to/own-model.md":
        add_kind(models, "lstm")  # which somebody has trained
    worker = msgspec.structs.replace(settings.worker, models=str(models))
    for block in blocks(page, "toml"):
        (tmp_path / "tapewatch.toml").write_text(block.text, encoding="utf-8")
    lines = [line for line in unmarked(page) if why_not(line) is None]
    assert lines
    with ExitStack() as children:
        shell = Shell(msgspec.structs.replace(settings, worker=worker), tmp_path, children, eventually)
        for line in lines:
            shell.type_in(line)


def unmarked(page: str) -> list[str]:
    """Lines of shell that tests/integration/test_documents.py leaves alone."""
    return [line for block in blocks(page, "sh") if not block.mark for line in block.lines]


def test_every_line_of_shell_is_run_or_has_a_reason_why_not() -> None:
    left = [(page, line) for page in TEXTS if page not in RUN for line in unmarked(page) if why_not(line) is None]
    assert left == []


def test_no_reason_is_left_of_a_line_that_is_gone() -> None:
    lines = [line for page in TEXTS for line in unmarked(page)]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []
