"""A challenger beside the champion: what it is scored on, how it begins, and what becomes of one that fails."""

import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from stream import inference
from stream.challenger import Challenger, Shadow
from stream.config import DEFAULT_MODELS, Features, Settings
from stream.core.packing import Packing
from stream.inference import Models
from stream.metrics import Metrics
from stream.pipeline import Pipeline
from tests.bundles import shipped
from tests.fakes import FakeModels, forecast_of
from tests.ticks import SECOND, START_NS, chunk, message
from tests.unit.test_metrics import read

SETTINGS = Settings(features=Features(warm_ticks=5, warm_seconds=1.0))
ALL = np.zeros(1, np.int32)  # the first instrument is watched
LOADED = inference.load_bundle(shipped(Path(DEFAULT_MODELS), "gru"))


class FakeChallenger:
    """The champion of `FakeModels`, its volatility times a factor."""

    name = "fake@2"
    hidden_size = 4

    def __init__(self, factor: float = 1.0, error: Exception | None = None) -> None:
        self.factor = factor
        self.error = error
        self.failed = False
        self.asked = 0

    def run(
        self, features: NDArray[np.float32], packed: Packing, hidden: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """See `Challenger.run`."""
        self.asked += len(features)
        if self.error is not None:
            raise self.error
        forecast, shortfall, state = forecast_of(features, packed, hidden)
        return forecast.astype(np.float64) * self.factor, shortfall * np.float32(self.factor), state


def ticks(first: int, last: int) -> list[bytes]:
    """A tick a second whose price moves up and down."""
    return [message(exchange_ns=START_NS + number * SECOND, price=100.0 + number % 7) for number in range(first, last)]


def fed(pipeline: Pipeline, shadow: Shadow, first: int, last: int) -> None:
    output = pipeline.process(chunk(ticks(first, last), first=first), 1)
    shadow.note(output.results, output.features, ALL)


def scored(*challengers: Any, each: int = 400) -> Metrics:
    """The metrics after so many ticks with each of them."""
    there: list[Any] = []
    metrics, shadow = Metrics(), Shadow(SETTINGS, lambda: cast(Challenger, there[-1]))
    pipeline = Pipeline(SETTINGS, cast(Models, FakeModels()), 0)
    for number, challenger in enumerate(challengers):
        there.append(challenger)
        for first in range(number * each, (number + 1) * each, 50):
            fed(pipeline, shadow, first, first + 50)
    shadow.show(metrics)
    shadow.show(metrics)  # told once
    return metrics


def test_the_champion_in_its_own_shadow_does_as_well_as_itself() -> None:
    metrics = scored(FakeChallenger())
    assert read(metrics, "challenger_tests_total") == 5  # 395 s, and each ends with the first tick behind 60 s
    champion, challenger = (read(metrics, "challenger_qlike_total", role=role) for role in ("champion", "challenger"))
    assert champion == challenger
    assert champion is not None
    assert champion > 0


def test_a_worse_one_is_seen_to_be_worse() -> None:
    metrics = scored(FakeChallenger(0.05))
    champion, challenger = (read(metrics, "challenger_qlike_total", role=role) for role in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert challenger > 10 * champion
    exceptions = [read(metrics, "challenger_var_exceptions_total", role=role) for role in ("champion", "challenger")]
    assert exceptions[0] == 0
    assert exceptions[1] is not None
    assert exceptions[1] > 0


def test_another_one_begins_with_nothing() -> None:
    first, second = FakeChallenger(), FakeChallenger()
    metrics = scored(first, second, each=55)
    assert (first.asked, second.asked) == (100, 100)
    assert read(metrics, "challenger_tests_total") == 0  # neither had 60 s


def test_one_that_fails_is_asked_no_more_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = FakeChallenger(error=ZeroDivisionError("no such luck"))
    with caplog.at_level(logging.ERROR, "tapewatch.models"):
        metrics = scored(broken)
    assert broken.failed
    assert broken.asked == 50
    assert [record.message for record in caplog.records] == ["challenger fake@2 is scored no more: no such luck"]
    assert read(metrics, "challenger_tests_total") == 0


def test_the_shipped_forecaster_alone_says_what_it_says_among_the_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is promoted answers as it was scored."""
    models = inference.load(Path(DEFAULT_MODELS))
    alone = Challenger(LOADED)
    assert (alone.name, alone.digest) == (models.names[0], models.digests[0])
    pipeline = Pipeline(SETTINGS, models, 0)
    raw: list[NDArray[np.float32]] = []
    plain = models.run

    def noting(*given: Any) -> inference.Inference:
        answered = plain(*given)
        features, _, packed, hidden = given
        forecast, shortfall, state = alone.run(features, packed, hidden)
        assert np.array_equal(forecast, answered.forecast.astype(np.float64))
        assert np.array_equal(shortfall, answered.shortfall)
        assert np.array_equal(state, answered.hidden)
        raw.append(answered.forecast)
        return answered

    monkeypatch.setattr(models, "run", noting)
    pipeline.process(chunk(ticks(0, 300)), 1)
    assert len(raw) == 1


def test_a_forecast_that_is_not_finite_is_a_failure() -> None:
    shadow_of = Challenger(LOADED)
    pipeline = Pipeline(SETTINGS, cast(Models, FakeModels()), 0)
    shadow = Shadow(SETTINGS, lambda: shadow_of)
    output = pipeline.process(chunk(ticks(0, 10)), 1)
    shadow.note(output.results, np.full_like(output.features, np.nan), ALL)
    assert shadow_of.failed


def test_gauge_names_the_challenger_beside_the_models() -> None:
    metrics = Metrics()
    metrics.models([("forecaster", "gru@1")])
    metrics.challenger("lstm@1")
    assert read(metrics, "model_info", head="challenger", model="lstm@1") == 1
    metrics.models([("forecaster", "gru@2")])
    assert read(metrics, "model_info", head="challenger", model="lstm@1") == 1
    metrics.challenger("lstm@2")
    assert read(metrics, "model_info", head="challenger", model="lstm@1") is None
    metrics.challenger("")
    assert read(metrics, "model_info", head="challenger", model="lstm@2") is None
    assert read(metrics, "model_info", head="forecaster", model="gru@2") == 1
