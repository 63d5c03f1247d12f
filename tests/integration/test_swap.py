"""A new version of a model while the worker runs, and a kill around the swap: a real Kafka, the models that ship."""

import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from stream import catalogue, roles
from stream.children import Child
from stream.config import DEFAULT_MODELS, Settings
from stream.messages import decode_prediction
from stream.verify import verify, with_models
from tests.benchmark.stand import environment
from tests.bundles import DQN, GRU, NEXT, NEXT_GRU, NEXT_WGAN, WGAN, add_kind, add_version
from tests.integration.conftest import StartModule, another_port
from tests.integration.test_recovery import Feed, committed, read, said

Eventually = Callable[..., None]
Start = Callable[[], Child]


@pytest.fixture
def settings(small_chunks: Settings, tmp_path: Path) -> Settings:
    """A folder of models of one's own, that is looked at every 200 ms."""
    models = shutil.copytree(DEFAULT_MODELS, tmp_path / "models")
    worker = msgspec.structs.replace(small_chunks.worker, models=str(models), models_poll_seconds=0.2)
    return msgspec.structs.replace(small_chunks, worker=worker)


@pytest.fixture
def start(settings: Settings, start_module: StartModule) -> Start:
    """Starts workers, each with a port of its own."""
    return lambda: start_module("stream.cli", "worker", environ=environment(another_port(settings)))


def page(worker: Child) -> str:
    """What Prometheus would scrape."""
    address = worker.log.read_text(encoding="utf-8").split("metrics=")[1].split()[0]
    with urllib.request.urlopen(address, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def forecasters(settings: Settings) -> dict[int, dict[int, str]]:
    """Partition -> offset -> the forecaster that answered."""
    found: dict[int, dict[int, str]] = {0: {}, 1: {}}
    for result in map(decode_prediction, read(settings, settings.topics.predictions)):
        before = found[result.partition].setdefault(result.offset, result.model)
        assert before == result.model, f"tick {result.partition}:{result.offset} was answered by two models"
    return found


@pytest.mark.timeout(240)
def test_a_swap_and_a_kill_around_it_leave_every_tick_answered_by_the_version_it_names(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed, models = Feed(settings), Path(settings.worker.models)

    def fed_until(child: Child, text: str) -> None:
        def there() -> bool:
            feed.send(12)
            return said(child, text)

        eventually(there, 60.0)

    feed.send(400)
    first = start()
    eventually(lambda: committed(settings) == feed.sent, 60.0)
    assert f'tapewatch_model_info{{head="forecaster",model="{GRU}"}} 1.0' in page(first)
    add_version(models, "gru", NEXT)
    fed_until(first, "swapped models")
    first.kill()  # the results of the new version are out, its checkpoint need not be
    feed.send(400)
    # Waits in the folder for the worker that goes on with those in force.
    add_version(models, "wgan", NEXT_WGAN.partition("@")[2])
    second = start()
    fed_until(second, f"to={NEXT_GRU},{NEXT_WGAN},{DQN}")
    broken = add_version(models, "gru", str(int(NEXT) + 1))
    (broken / "model.onnx").write_bytes(b"half")
    eventually(lambda: "tapewatch_models_refused 1.0" in page(second), 60.0)
    feed.send(200)
    eventually(lambda: committed(settings) == feed.sent, 60.0)
    text = page(second)
    assert f'tapewatch_model_info{{head="forecaster",model="{NEXT_GRU}"}} 1.0' in text
    assert 'tapewatch_model_swaps_total{head="critic"} ' in text
    assert second.stop() == 0
    assert f"{broken}/model.onnx has sha256" in second.log.read_text(encoding="utf-8")

    for answered in forecasters(settings).values():
        names = [model for _, model in sorted(answered.items())]
        swap = names.index(NEXT_GRU)
        assert swap >= 150  # some of the first 200 are refused
        assert names == [GRU] * swap + [NEXT_GRU] * (len(names) - swap)
    report = verify(settings, *with_models(settings))
    assert report.ok, report
    assert report.ticks == feed.sent
    if settings.worker.delivery == "exactly_once":
        assert {tally.duplicated for tally in report.topics.values()} == {0}
    # A version that does not give the bytes of the results that name it is found.
    add_version(models, "gru", NEXT, 1.01)
    report = verify(settings, *with_models(settings))
    assert report.topics["predictions"].different > 0
    assert f'"model":"{NEXT_GRU}"' in report.first_difference


def number(page_: str, metric: str) -> float:
    """The value of a metric on a page; its labels are part of the name."""
    return float(next(line for line in page_.splitlines() if line.startswith(f"{metric} ")).split()[1])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("delivery", ["at_least_once"])
def test_a_challenger_is_scored_and_not_published_until_it_is_promoted(
    settings: Settings, start: Start, eventually: Eventually
) -> None:
    feed, models = Feed(settings), Path(settings.worker.models)
    lstm = f"lstm@{add_kind(models, 'lstm').name}"
    catalogue.challenge(models, lstm)
    worker = start()

    def tested() -> bool:
        feed.send(300)
        return number(page(worker), "tapewatch_challenger_tests_total") > 0

    eventually(lambda: said(worker, "ready"), 60.0)
    eventually(tested, 60.0)
    text = page(worker)
    assert f'tapewatch_model_info{{head="challenger",model="{lstm}"}} 1.0' in text
    # The same graph, though without the history: a loss like the champion's.
    for role in ("champion", "challenger"):
        assert number(text, f'tapewatch_challenger_qlike_total{{role="{role}"}}') > 0
    eventually(lambda: committed(settings) == feed.sent, 60.0)
    assert {name for answered in forecasters(settings).values() for name in answered.values()} == {GRU}

    def promoted() -> bool:
        feed.send(12)
        return said(worker, f"to={lstm},{WGAN},{DQN}")

    catalogue.promote(models, None)
    assert roles.read(models) == roles.Roles(lstm)
    eventually(promoted, 60.0)
    feed.send(100)
    eventually(lambda: committed(settings) == feed.sent, 60.0)
    eventually(lambda: 'head="challenger"' not in page(worker), 60.0)
    assert worker.stop() == 0
    report = verify(settings, *with_models(settings))
    assert report.ok, report
    assert report.models == [DQN, GRU, lstm, WGAN]
