"""A Prometheus of our own over a worker that is fed by a replay, all on the loopback interface."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import yaml

from stream import roles, topics
from stream.broker import HOST, EmbeddedBroker, free_ports
from stream.children import Child
from stream.config import DEFAULT_MODELS, ROOT, Settings, Worker
from stream.demo import worker_command
from stream.errors import TapewatchError
from stream.feeds import sample
from stream.feeds.live import served
from stream.feeds.replay import EventClock, KafkaSink, Recorded, Rounds, play
from stream.inference import read_card
from stream.metrics import FeedMetrics

RULES: Final = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
CONFIG: Final = ROOT / "prometheus" / "prometheus.yml"
MISSING: Final = "Prometheus is not installed (Debian, Ubuntu: apt install prometheus)"
READY_SECONDS: Final = 60.0


class Series(NamedTuple):
    """Labels (without the name) and (time, value) of one series of an answer."""

    labels: Mapping[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """A running server."""

    def __init__(self, folder: Path, targets: Mapping[str, str], interval_seconds: int = 1) -> None:
        """Start it with our rules, a target for each of our jobs and a faster turn.

        Raises TapewatchError if it is not installed.
        """
        program = shutil.which("prometheus")
        if program is None:
            raise TapewatchError(MISSING)
        (port,) = free_ports(1)
        self.url = f"http://{HOST}:{port}"
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(targets, interval_seconds)), encoding="utf-8")
        self.child = Child(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{port}",
                "--log.level=warn",
            ],
            folder / "prometheus.log",
            directory=folder,
        )

    def ready(self) -> bool:
        """Whether it answers; raises TapewatchError if it has ended."""
        if not self.child.running:
            raise TapewatchError(f"Prometheus ended; its last lines: {self.child.last_lines(3)}")
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def now(self, expr: str, at: float | None = None) -> list[Series]:
        """The answer to an instant query; raises TapewatchError with Prometheus' own words if it refuses."""
        options = {} if at is None else {"time": at}
        return [
            Series(_labels(each), [(each["value"][0], float(each["value"][1]))])
            for each in self._vector("query", query=expr, **options)
        ]

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """The answer to a range query; raises as `now` does."""
        found = self._vector("query_range", query=expr, start=start, end=end, step=step)
        return [Series(_labels(each), [(at, float(value)) for at, value in each["values"]]) for each in found]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _vector(self, page: str, **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(page, **options)["result"]
        return found

    def _ask(self, page: str, **options: Any) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{page}?{urllib.parse.urlencode(options)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            with error:
                raise TapewatchError(f"{options.get('query', page)}: {json.load(error)['error']}") from None


def _labels(found: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in found["metric"].items() if name != "__name__"}


def _config(targets: Mapping[str, str], interval_seconds: int) -> dict[str, Any]:
    """Our own prometheus.yml with other targets and a faster turn."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{interval_seconds}s")
    config["rule_files"] = [str(path) for path in RULES]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return config


class Stand:
    """Broker, worker, feed and Prometheus. Nothing of it is left after `with`.

    The worker has the models that ship, and a copy of the forecaster as challenger, so that all panels have answers.
    """

    def __init__(self, speed: float) -> None:
        """`speed` is how many times as fast as recorded the ticks come."""
        self._speed = speed
        self._stack = contextlib.ExitStack()
        self._stop = threading.Event()
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        """Start broker and Prometheus; there is no worker yet."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapewatch-dashboards-")))
            self._port, feed_port = free_ports(2)
            targets = {"tapewatch": f"{HOST}:{self._port}", "tapewatch_feed": f"{HOST}:{feed_port}"}
            self.prometheus = Prometheus(self._folder, targets)
            stack.enter_context(self.prometheus.child)
            # No exchange is there to be fed from: what a feed shows before its first trade is all that panels need.
            stack.enter_context(served(FeedMetrics("nobody", ["BTCUSDT", "ETHUSDT"]), HOST, feed_port))
            wait(self.prometheus.ready)
            broker = stack.enter_context(EmbeddedBroker())
            models = _with_challenger(self._folder / "models")
            self._settings = Settings(
                broker=broker.address, worker=Worker(group=f"check-{uuid.uuid4().hex[:8]}", models=str(models))
            )
            topics.require_topics(self._settings)  # asking makes them
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start the worker, and the feed once that is ready."""
        child = Child(worker_command(None, self._settings, self._port), self._folder / "worker.log", directory=ROOT)
        self.worker = self._stack.enter_context(child)
        wait(self._working)
        feed = threading.Thread(target=self._feed, name="feed", daemon=True)
        feed.start()
        self._stack.callback(feed.join)
        self._stack.callback(self._stop.set)

    def check(self) -> None:
        """Raise TapewatchError if feed or worker has ended."""
        if self._failure is not None:
            raise TapewatchError(f"the feed ended: {self._failure!r}")
        if not self.worker.running:
            raise TapewatchError(f"the worker ended; its last lines: {self.worker.last_lines(3)}")

    def _working(self) -> bool:
        self.check()
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._port}/health", timeout=5) as answer:
                return bool(msgspec.json.decode(answer.read())["status"] == "ok")
        except (urllib.error.URLError, ConnectionError):
            return False

    def _feed(self) -> None:
        try:
            for _ in self._sending():
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, `check` raises it
            self._failure = error

    def _sending(self) -> Iterator[object]:
        sink = KafkaSink(self._settings.cluster, self._settings.topics.ticks)
        blocks = sample.with_faults(Rounds(sample.bundled(), loop=True))
        with contextlib.closing(sink):
            yield from play(blocks, Recorded(self._speed), sink, EventClock(self._stop))


def _with_challenger(models: Path) -> Path:
    """The models that ship, copied to `models`, where the forecaster by another name challenges itself."""
    shutil.copytree(DEFAULT_MODELS, models)
    shutil.copytree(models / "gru", models / "copy")
    (card,) = (models / "copy").glob("*/card.json")
    card.write_bytes(msgspec.json.encode(msgspec.structs.replace(read_card(card), name="copy")))
    roles.write(models, roles.Roles(challenger="copy"))
    return models


def wait(condition: Any, seconds: float = READY_SECONDS) -> None:
    """Until it holds; raises TapewatchError if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TapewatchError(f"not ready within {seconds:g} s: {condition}")
        time.sleep(0.1)
