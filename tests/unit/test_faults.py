"""An error of our own for one tick: that tick is refused as internal, all others are answered as if it had not come."""

from typing import Any, cast

import numpy as np
import pytest

from stream.config import Features, Settings
from stream.encoding import values
from stream.inference import Inference, Models
from stream.pipeline import Output, Pipeline
from tests.fakes import FakeModels, FragileModels
from tests.ticks import SECOND, START_NS, chunk, message

SETTINGS = Settings(features=Features(warm_ticks=5, warm_seconds=2.0))


def pipeline(models: FakeModels) -> Pipeline:
    return Pipeline(SETTINGS, cast(Models, models), 0)


def ticks(prices: list[float], first: int = 0) -> list[tuple[int, bytes]]:
    return [
        (first + k, message(exchange_ns=START_NS + (first + k) * SECOND, price=price)) for k, price in enumerate(prices)
    ]


def published(output: Output) -> list[tuple[str, bytes]]:
    return sorted((batch.topic, value) for batch in output.batches for value in values(batch))


def process(one: Pipeline, rows: list[tuple[int, bytes]]) -> Output:
    offsets, raw = zip(*rows, strict=True)
    return one.process(chunk(raw)._replace(offsets=offsets), 1)


@pytest.mark.parametrize("at", [0, 1, 6, 10])
def test_the_tick_that_fails_is_refused_and_the_others_answered_as_without_it(at: int) -> None:
    prices = [100.0 + k % 3 for k in range(10)]
    good = ticks(prices)
    bad = (100, message(exchange_ns=START_NS + at * SECOND, price=108.0))
    fragile, steady = pipeline(FragileModels()), pipeline(FakeModels())
    process(fragile, ticks([100.0] * 3, -3)), process(steady, ticks([100.0] * 3, -3))
    output = process(fragile, [*good[:at], bad, *good[at:]])
    expected = process(steady, good)
    assert published(output) == published(expected)
    (refused,) = output.rejected
    assert (refused.offset, refused.reason, refused.raw) == (100, "internal", bad[1])
    assert refused.rule == "ZeroDivisionError: no such luck"
    (error,) = output.errors
    assert isinstance(error, ZeroDivisionError)
    ours = [alert for alert in output.alerts if alert.detail == "internal"]
    assert [alert for alert in output.alerts if alert not in ours] == expected.alerts
    assert [(alert.kind, alert.state, alert.detail, alert.offset) for alert in ours] == [
        ("feed", "opened", "internal", 100),
        ("feed", "closed", "internal", 100),
    ]
    np.testing.assert_array_equal(fragile.state.features[:1], steady.state.features[:1])
    np.testing.assert_array_equal(fragile.state.hidden[:1], steady.state.hidden[:1])


def test_a_fault_that_does_not_come_again_costs_no_tick() -> None:
    class Once(FakeModels):
        failed = False

        def run(self, *arguments: Any) -> Inference:
            if not self.failed:
                self.failed = True
                raise OSError("passing")
            return super().run(*arguments)

    good = ticks([100.0 + k % 3 for k in range(10)])
    output, expected = process(pipeline(Once()), good), process(pipeline(FakeModels()), good)
    assert published(output) == published(expected)
    assert not output.rejected
    np.testing.assert_array_equal(output.results.offset, expected.results.offset)


def test_when_all_fail_all_are_refused_in_order() -> None:
    class Broken(FakeModels):
        def run(self, *arguments: Any) -> Inference:
            raise RuntimeError("gone")

    output = process(pipeline(Broken()), ticks([100.0] * 9))
    assert [refused.offset for refused in output.rejected] == list(range(9))
    assert {refused.reason for refused in output.rejected} == {"internal"}
    assert output.batches == []


def test_a_lack_of_memory_is_not_hidden() -> None:
    class Starved(FakeModels):
        def run(self, *arguments: Any) -> Inference:
            raise MemoryError

    with pytest.raises(MemoryError):
        process(pipeline(Starved()), ticks([100.0] * 9))
