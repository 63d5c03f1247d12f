"""`tapewatch demo`: a broker, a worker and recorded trades at once, with a live board and every tick accounted for."""

import contextlib
import os
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicPartition
from rich.console import Console
from rich.live import Live

from stream import board, clients, messages, programme, topics
from stream.accounting import RESULTS, Accounts, Latency, Tally
from stream.board import Instrument, View
from stream.broker import EmbeddedBroker, KafkaBroker, free_ports
from stream.children import Child
from stream.config import ENV_PREFIX, ROOT, Security, Settings, Topics
from stream.errors import TapewatchError
from stream.feeds import simulator
from stream.feeds.replay import EventClock, KafkaSink, play
from stream.programme import Programme, Verdict
from stream.signals import stop_on_signals
from stream.tail import record_of

_OWN: Final[dict[str, type[EmbeddedBroker | KafkaBroker]]] = {
    "embedded": EmbeddedBroker,
    "kafka": KafkaBroker,
}
TOPIC_NAMES: Final = ("ticks", "predictions", "risk", "actions", "alerts", "rejected", "state", "truth", "audit")
OWN_BROKERS: Final = tuple(_OWN)
REFRESH_SECONDS: Final = 0.25
LINE_SECONDS: Final = 5.0
READY_SECONDS: Final = 180.0  # seven or so, but for a first start that compiles the kernels on a busy machine
LEADER_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 15.0  # without any answer at the end before the rest is called missing
SWITCH_SECONDS: Final = 0.001  # between the turns of threads: the default, 5 ms, would be seen in the latency


class Summary(msgspec.Struct, frozen=True):
    """What the demo came to; `missing` and `duplicates` are 0 when every tick was answered exactly once."""

    seconds: float
    ticks_sent: int
    ticks_rejected: int
    predictions: int
    risk: int
    actions: int
    missing: int
    duplicates: int
    latency_ms: dict[str, float]  # p50, p99: from sending a tick to its last result being here
    alerts_opened: int
    models: dict[str, str]  # name@version of each head


class _Place(msgspec.Struct):
    """All that is needed of a result to account for it."""

    partition: int
    offset: int


_place = messages.decoder(_Place)


class Newest:
    """The newest record of each symbol on each topic, undecoded, and what must not be missed: alerts and rejects."""

    def __init__(self) -> None:
        self.values: dict[str, dict[bytes, bytes]] = {kind: {} for kind in ("ticks", *RESULTS)}
        self.alerts: list[bytes] = []
        self.rejects: Counter[str] = Counter()
        self.results = 0

    def take_alerts(self) -> list[messages.Alert]:
        """Changes of alerts since the last call."""
        taken, self.alerts = self.alerts, []
        return [messages.decode_alert(value) for value in taken]


class Results(threading.Thread):
    """Reads every result topic and keeps the accounts."""

    def __init__(self, settings: Settings, accounts: Accounts, newest: Newest) -> None:
        """Take up position at the end of every topic, so that nothing from now on is missed."""
        super().__init__(daemon=True, name="results")
        names = settings.topics
        kinds = (*RESULTS, "alerts", "rejected")
        self._kinds = {getattr(names, kind): kind for kind in kinds}
        self._accounts = accounts
        self._newest = newest
        self._done = threading.Event()
        self.failure: Exception | None = None
        self._asker = clients.consumer(settings.cluster, lambda error: None)
        partitions = topics.partitions_of(settings.cluster, list(self._kinds))
        places = [(name, partition) for name, count in partitions.items() for partition in range(count)]
        self._next = {place: _watermark(self._asker, *place) for place in places}
        self._consumer = clients.consumer(settings.cluster, lambda error: None)
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._next.items()])

    def run(self) -> None:
        """Until closed."""
        try:
            while not self._done.is_set():
                message = self._consumer.poll(0.1)
                if message is not None and message.error() is None:
                    self._take(message, time.perf_counter())
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread raises it
            self.failure = error

    def close(self) -> None:
        """Stop reading."""
        self._done.set()
        if self.is_alive():
            self.join()
        self._consumer.close()
        self._asker.close()

    def behind(self) -> int:
        """Records on the topics that were not read yet.

        Asked through another consumer: one that another thread polls may never answer.
        """
        return sum(_watermark(self._asker, *place) - offset for place, offset in list(self._next.items()))

    def _take(self, message: Any, at: float) -> None:
        self._next[message.topic(), message.partition()] = message.offset() + 1
        kind = self._kinds[message.topic()]
        if kind == "alerts":
            self._newest.alerts.append(message.value())
        elif kind == "rejected":
            self._reject(message, at)
        else:
            place = _place(message.value())
            self._accounts.answered(RESULTS.index(kind), place.partition, place.offset, at)
            self._newest.values[kind][message.key()] = message.value()
            self._newest.results += 1

    def _reject(self, message: Any, at: float) -> None:
        headers = record_of(message).headers
        self._accounts.rejected(int(headers["partition"]), int(headers["offset"]), at)
        self._newest.rejects[headers["reason"]] += 1


def _watermark(consumer: Any, topic: str, partition: int) -> int:
    """The end of a partition; a topic just made may have no leader yet."""
    end = time.monotonic() + LEADER_SECONDS
    while True:
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=LEADER_SECONDS)[1])
        except KafkaException as error:
            if time.monotonic() > end:
                raise TapewatchError(f"cannot read from topic {topic}: {error.args[0].str()}") from None
            time.sleep(0.05)


class Feed(threading.Thread):
    """Sends what is on the programme until it ends or is told to stop."""

    def __init__(self, settings: Settings, programme: Programme, accounts: Accounts, newest: Newest) -> None:
        """Connect; raises BrokerUnreachable."""
        super().__init__(daemon=True, name="feed")
        self._programme = programme
        self._sink = KafkaSink(settings.cluster, settings.topics.ticks)
        self._accounts = accounts
        self._newest = newest.values["ticks"]
        self._stop_event = threading.Event()
        self.exchange_ns = 0
        self.sent = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Until stopped; what was sent is delivered when it ends."""
        _, blocks, pace, _ = self._programme
        try:
            for progress in play(blocks, pace, self, EventClock(self._stop_event)):
                self.exchange_ns, self.sent = progress.exchange_ns, progress.sent
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread raises it
            self.failure = error
        finally:
            self._sink.close()
        if self._sink.failed:
            self.failure = TapewatchError(f"{self._sink.failed} ticks were not delivered: {self._sink.first_error}")

    def stop(self) -> None:
        """Send no more, and wait until all that was sent is delivered."""
        self._stop_event.set()
        if self.ident is None:  # never started
            self._sink.close()
        else:
            self.join()

    def send(self, key: bytes | None, value: bytes) -> None:
        """One message to Kafka; its place goes into the accounts when it is known."""
        self._newest[key or b""] = value
        self._sink.send_then(key, value, partial(self._delivered, time.perf_counter()))

    def _delivered(self, at: float, place: Any) -> None:
        self._accounts.sent(place.partition, place.offset, at)


class Watch:
    """Keeps the view up to date with what comes in."""

    def __init__(
        self, seconds: float, title: str, feed: Feed, accounts: Accounts, newest: Newest, verdict: Verdict
    ) -> None:
        self.view = View(title, seconds)
        self._verdict = verdict
        self._feed = feed
        self._accounts = accounts
        self._newest = newest
        self._start = self._last = time.perf_counter()
        self._counts = (0, 0)

    def update(self) -> list[messages.Alert]:
        """Bring the view up to date; gives the alerts that have changed."""
        view, newest = self.view, self._newest
        view.elapsed = time.perf_counter() - self._start
        view.exchange_ns = self._feed.exchange_ns
        self._update_rates()
        for key, value in list(newest.values["ticks"].items()):
            self._update_price(key, value)
        for symbol, instrument in view.instruments.items():
            self._update_results(symbol.encode(), instrument)
        changed = newest.take_alerts()
        for alert in changed:
            view.note(alert)
            self._verdict.note(alert)
        view.rejects = Counter(newest.rejects)
        view.open = self._accounts.open
        view.latency = self._accounts.recent_latency()
        return changed

    def _update_rates(self) -> None:
        now, counts = time.perf_counter(), (self._feed.sent, self._newest.results)
        seconds = now - self._last
        if seconds >= 1.0:
            self.view.ticks_a_second, self.view.results_a_second = (
                (new - old) / seconds for new, old in zip(counts, self._counts, strict=True)
            )
            self._last, self._counts = now, counts

    def _update_price(self, key: bytes, value: bytes) -> None:
        try:
            tick = messages.decode_tick(value)
        except messages.DECODE_ERRORS:
            return  # one of those that are bad on purpose
        if key == tick.symbol.encode():
            instrument = self.view.instruments.setdefault(tick.symbol, Instrument(tick.symbol, tick.price))
            instrument.price, instrument.exchange_ns = tick.price, tick.exchange_ns
            instrument.prices.append(tick.price)

    def _update_results(self, key: bytes, instrument: Instrument) -> None:
        values = self._newest.values
        if key in values["predictions"]:
            instrument.prediction = messages.decode_prediction(values["predictions"][key])
            self.view.models["forecaster"] = instrument.prediction.model
        if key in values["risk"]:
            instrument.risk = messages.decode_risk(values["risk"][key])
            self.view.models["critic"] = instrument.risk.model
        if key in values["actions"]:
            instrument.action = messages.decode_action(values["actions"][key])
            self.view.models["policy"] = instrument.action.model


def run(
    settings: Settings,
    seconds: float = 60.0,
    broker: str = "embedded",
    rate: float | None = None,
    summary: Path | None = None,
    picture: Path | None = None,
    config: Path | None = None,
    worker: Callable[[Settings, int], list[str]] | None = None,
    scenario: str | None = None,
) -> int:
    """Run the demo; gives 0 if every tick was answered exactly once and the scenario's alert opened, else 1.

    Parameters
    ----------
    settings
        Settings; their broker is used if `broker` names neither of OWN_BROKERS.
    seconds
        How long ticks are sent.
    broker
        "embedded", "kafka" or the address of one that runs.
    rate
        Ticks a second; if None, the recorded time, programme.SPEED times as fast.
    summary
        Where to write the summary as JSON.
    picture
        Where to write the last board as SVG.
    config
        The file of settings, for the worker.
    worker
        Gives the command that starts a worker with these settings at this port; the real one if None.
    scenario
        One of the simulator, instead of the recorded trades.

    Raises
    ------
    TapewatchError
        If the broker or the worker cannot be had, or ends before its time.
    """
    shown = programme.recorded(rate) if scenario is None else programme.scenario(scenario, seconds)
    stop = stop_on_signals()
    console = Console(highlight=False)
    command = worker or partial(worker_command, config)
    with contextlib.ExitStack() as stack:
        settings = _with_broker(stack, settings, broker, console)
        stack.enter_context(_prompt_threads())
        if shown.truth:
            simulator.tell(settings, shown.truth)
            console.print(simulator.in_words(shown.truth), style="dim", soft_wrap=True)
        show = Show(stack, settings, seconds, shown, command, console)
        show.start(stop)
        show.watch(stop)
        if picture is not None:
            _write(picture, board.picture(show.view).encode())
        found = show.finish()
    console.print(in_words(found))
    if scenario is not None:
        console.print(show.verdict.in_words())
    if summary is not None:
        _write(summary, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    return 0 if _complete(found) and show.verdict.complete else 1


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise TapewatchError(f"cannot write {file}: {error.strerror}") from None


def _demo_topics(names: Topics) -> Topics:
    """Topics of the demo's own on somebody's Kafka: recorded trades and malformed messages are nothing for theirs."""
    own = {name: f"demo.{getattr(names, name)}" for name in TOPIC_NAMES}
    return msgspec.structs.replace(names, **own)


def _with_broker(stack: contextlib.ExitStack, settings: Settings, broker: str, console: Console) -> Settings:
    """Settings whose broker runs and has our topics."""
    if broker in OWN_BROKERS:
        console.print(f"starting {'the embedded broker' if broker == 'embedded' else 'Kafka'} ...", style="dim")
        own = _OWN[broker]()
        stack.enter_context(own)
        settings = msgspec.structs.replace(settings, broker=own.address, security=Security())
    else:
        settings = msgspec.structs.replace(settings, topics=_demo_topics(settings.topics))
    if clients.is_embedded(settings.cluster):
        topics.require_topics(settings)  # asking makes them
    else:
        topics.create(settings)
    console.print(f"broker at {settings.broker}", style="dim")
    return settings


@contextlib.contextmanager
def _prompt_threads() -> Iterator[None]:
    """The feed, the reader and the board share this process: let them change turns quickly."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def worker_command(config: Path | None, settings: Settings, port: int) -> list[str]:
    """The command line of a worker of our own, in a group of its own."""
    options = ["--config", str(config.resolve())] if config is not None else []
    return [
        *(sys.executable, "-m", "stream.cli", *options, "worker"),
        *("--broker", settings.broker, "--group", settings.worker.group, "--models", settings.worker.models),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


class Show:
    """A worker, the feed and the reader of results, from start to end."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        settings: Settings,
        seconds: float,
        shown: Programme,
        command: Callable[[Settings, int], list[str]],
        console: Console,
    ) -> None:
        """Connect everything; `stack` ends what is started."""
        group = f"tapewatch-demo-{uuid.uuid4().hex[:8]}"
        worker = msgspec.structs.replace(settings.worker, group=group)
        self._settings = msgspec.structs.replace(settings, worker=worker)
        self._seconds = seconds
        self._console = console
        self._command = command
        self._accounts = Accounts()
        self._newest = Newest()
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapewatch-demo-")))
        _begin_at_the_end(self._settings)
        self._results = Results(self._settings, self._accounts, self._newest)
        stack.callback(self._results.close)
        self._feed = Feed(self._settings, shown, self._accounts, self._newest)
        stack.callback(self._feed.stop)
        self._title = shown.title
        self.verdict = Verdict(shown.truth)
        # On a busy machine the feed may be behind its time: what was injected is shown all the same.
        self._until_ns = max((each.end_ns for each in shown.truth), default=0)
        self._stack = stack

    def start(self, stop: threading.Event) -> None:
        """Start the worker, wait until it is ready, and send the first ticks."""
        began = time.monotonic()
        self._console.print("starting the worker ...", style="dim")
        (port,) = free_ports(1)
        environ = _environ(self._settings)
        self._worker = Child(self._command(self._settings, port), self._folder / "worker.log", environ)
        self._stack.enter_context(self._worker)
        while not stop.is_set() and not _ready(port):
            self._check()
            if time.monotonic() - began > READY_SECONDS:
                raise TapewatchError(f"the worker was not ready within {READY_SECONDS:g} s: {self._last_words()}")
            stop.wait(0.1)
        address = f"http://127.0.0.1:{port}/"
        self._console.print(f"worker ready after {time.monotonic() - began:.1f} s", style="dim")
        self._console.print(f"the board in the browser, for as long as this runs: {address}", soft_wrap=True)
        self._results.start()
        self._feed.start()
        self._watch = Watch(self._seconds, self._title, self._feed, self._accounts, self._newest, self.verdict)
        self._watch.view.address = address

    @property
    def view(self) -> View:
        """What the board shows."""
        return self._watch.view

    def watch(self, stop: threading.Event) -> None:
        """Show the board until the time is over or a signal comes."""
        follow = self._follow_board if self._console.is_terminal else self._follow_lines
        follow(stop)
        self.verdict.cut_short = stop.is_set()

    def finish(self) -> Summary:
        """Stop the feed, wait for the last answers, stop the worker, and add up."""
        self._console.print("stopping: waiting for the last answers ...", style="dim")
        self._feed.stop()
        seconds = self._watch.view.elapsed
        self._wait_for_answers()
        status = self._worker.stop()
        self._wait_for_readers()
        self._check_threads()
        self._watch.update()
        if status:
            raise TapewatchError(f"the worker stopped with status {status}: {self._last_words()}")
        return summarise(self._accounts.tally(), self._accounts.latency(), self._watch.view, seconds)

    def _follow_board(self, stop: threading.Event) -> None:
        console, view = self._console, self._watch.view
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while self._on(stop):
                self._watch.update()
                live.update(board.render(view, console.width, console.height), refresh=True)
                stop.wait(REFRESH_SECONDS)
        console.print(board.render(view, console.width, 4 + len(view.instruments) + 3 + min(10, len(view.alerts))))

    def _follow_lines(self, stop: threading.Event) -> None:
        shown = time.monotonic()
        while self._on(stop):
            for alert in self._watch.update():
                if alert.state == "opened":
                    self._console.print(board.alert_line(alert, 160), soft_wrap=True)
            if time.monotonic() - shown >= LINE_SECONDS:
                shown = time.monotonic()
                self._console.print(board.plain(self._watch.view), soft_wrap=True)
            stop.wait(REFRESH_SECONDS)

    def _on(self, stop: threading.Event) -> bool:
        self._check()
        return not stop.is_set() and (
            self._watch.view.elapsed < self._seconds or self._feed.exchange_ns < self._until_ns
        )

    def _check(self) -> None:
        """Raise what has gone wrong beside this thread."""
        if not self._worker.running:
            raise TapewatchError(f"the worker ended with status {self._worker.returncode}: {self._last_words()}")
        self._check_threads()

    def _check_threads(self) -> None:
        for thread in (self._feed, self._results):
            if thread.failure is not None:
                raise thread.failure

    def _last_words(self) -> str:
        """Its last lines on the screen, and the very last for the error."""
        lines = self._worker.last_lines()
        self._console.print(lines, style="dim", markup=False)
        return lines.splitlines()[-1] if lines else "it wrote nothing"

    def _wait_for_answers(self) -> None:
        """Until every tick has its answer, or for PATIENCE_SECONDS nothing has come."""
        counted, since = -1, time.monotonic()
        while self._accounts.open and self._worker.running and time.monotonic() - since < PATIENCE_SECONDS:
            if self._newest.results != counted:
                counted, since = self._newest.results, time.monotonic()
            time.sleep(0.02)

    def _wait_for_readers(self) -> None:
        """Until all that the worker has left on the topics is read: a duplicate may be among it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self._results.behind() and time.monotonic() < end:
            time.sleep(0.02)


def _environ(settings: Settings) -> dict[str, str]:
    """Ours, and with it the worker finds this very code, the demo's topics, and how its broker is spoken to."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {f"{ENV_PREFIX}TOPICS__{name.upper()}": getattr(settings.topics, name) for name in TOPIC_NAMES}
    access = {
        f"{ENV_PREFIX}SECURITY__{key.upper()}": value
        for key, value in msgspec.structs.asdict(settings.security).items()
    }
    every = {f"{ENV_PREFIX}WORKER__CONFLATE_MS": "0"}  # the demo counts the answers to each tick
    return os.environ | own | access | every | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:  # it is there and says that it is not ready
        error.close()
        return False
    except OSError:
        return False


def _begin_at_the_end(settings: Settings) -> None:
    """Let the worker's group begin at the end of the ticks: on a broker in use, older ones are not ours."""
    name = settings.topics.ticks
    group = clients.consumer(settings.cluster, lambda error: None, group=settings.worker.group)
    try:
        count = topics.partitions_of(settings.cluster, [name])[name]
        ends = [TopicPartition(name, partition, _watermark(group, name, partition)) for partition in range(count)]
        group.commit(offsets=ends, asynchronous=False)
    finally:
        group.close()


def summarise(tally: Tally, latency: Latency, view: View, seconds: float) -> Summary:
    """All that was counted."""
    return Summary(
        seconds=round(seconds, 3),
        ticks_sent=tally.ticks_sent,
        ticks_rejected=tally.ticks_rejected,
        predictions=tally.predictions,
        risk=tally.risk,
        actions=tally.actions,
        missing=tally.missing,
        duplicates=tally.duplicates,
        latency_ms={"p50": latency.p50, "p99": latency.p99},
        alerts_opened=view.alerts_opened,
        models=dict(view.models),
    )


def _complete(found: Summary) -> bool:
    accepted = found.ticks_sent - found.ticks_rejected
    answered = found.predictions == found.risk == found.actions == accepted > 0
    return answered and not found.missing and not found.duplicates


def in_words(found: Summary) -> str:
    """The summary for people."""
    verdict = "every tick answered exactly once" if _complete(found) else "NOT every tick was answered exactly once"
    models = ", ".join(f"{head} {name}" for head, name in found.models.items())
    return (
        f"{verdict}\n"
        f"  ticks_sent {found.ticks_sent:,} in {found.seconds:.1f} s, ticks_rejected {found.ticks_rejected:,}\n"
        f"  predictions {found.predictions:,}, risk {found.risk:,}, actions {found.actions:,}; "
        f"missing {found.missing:,}, duplicates {found.duplicates:,}\n"
        f"  latency_ms p50 {found.latency_ms['p50']:.1f}, p99 {found.latency_ms['p99']:.1f} "
        "(from sending a tick to its last result)\n"
        f"  alerts_opened {found.alerts_opened:,}\n"
        f"  models {models}"
    )
