"""What conflation holds back, when it lets go of it, and which ticks a result then stands for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from stream import messages
from stream.conflation import Conflation
from stream.core.conflation import Chosen, Names, Newest, next_moment
from stream.core.results import Results
from stream.decoding import Chunk
from stream.encoding import PackedBatch, ResultEncoder, values
from stream.errors import PublishFailed, WorkerFailed
from stream.ledger import Span
from stream.messages import ENCODERS, Format
from stream.metrics import Metrics
from stream.pipeline import Output
from stream.spans import Spans, uncounted
from stream.transport import Delivery
from tests.results import draw_results
from tests.unit.test_metrics import read

ONE: Names = ("f@1", "c@1", "p@1")
TWO: Names = ("f@2", "c@1", "p@1")
INTERVAL_MS = 20


def answers(first: int, *slots: int) -> Results:
    """Results of ticks of these instruments, from an offset on."""
    drawn = draw_results(len(slots), 1, seed=first)
    return drawn._replace(slot=np.array(slots, np.int32), offset=np.arange(first, first + len(slots)))


def taken(newest: Newest) -> list[tuple[str, list[int], list[int]]]:
    """Forecaster, offsets and ticks of what is taken."""
    return [(each.models[0], each.results.offset.tolist(), each.ticks.tolist()) for each in newest.take()]


def begun() -> Newest:
    """Behind its first result."""
    newest = Newest()
    newest.add(ONE, answers(0, 0))
    assert taken(newest) == [("f@1", [0], [1])]
    return newest


# --- What is chosen -------------------------------------------------------------------------------------------------


def test_the_newest_of_each_instrument_stands_for_all_its_ticks() -> None:
    newest = begun()
    newest.add(ONE, answers(1, 0, 1, 0))
    newest.add(ONE, answers(4, 2, 0))
    assert taken(newest) == [("f@1", [2, 4, 5], [1, 1, 3])]
    assert taken(newest) == []
    newest.add(ONE, answers(6, 1))
    assert taken(newest) == [("f@1", [6], [1])]


def test_a_chosen_row_is_the_result_as_it_was() -> None:
    newest, results = begun(), answers(1, 3, 200, 3)
    newest.add(ONE, results)
    (chosen,) = newest.take()
    for name, whole in results._asdict().items():
        column = getattr(chosen.results, name)
        assert column.dtype == whole.dtype
        assert column.tolist() == whole[1:].tolist()


def test_what_was_taken_does_not_change_any_more() -> None:
    newest = begun()
    newest.add(ONE, answers(1, 0))
    (chosen,) = newest.take()
    newest.add(ONE, answers(2, 0))
    assert chosen.results.offset.tolist() == [1]


def test_the_first_result_of_other_models_is_published_too() -> None:
    newest = begun()
    newest.add(ONE, answers(1, 0, 1))
    newest.add(TWO, answers(3, 1, 1, 0))
    newest.add(TWO, answers(6, 1))
    # Instrument 1 had two ticks up to the first of the second models, and two behind it.
    assert taken(newest) == [("f@2", [3, 5, 6], [2, 2, 2])]


def test_results_of_models_that_have_gone_are_published_with_their_names() -> None:
    newest = begun()
    newest.add(ONE, answers(1, 0, 1))
    newest.add(TWO, answers(3, 2))
    assert taken(newest) == [("f@1", [1, 2], [1, 1]), ("f@2", [3], [1])]
    newest.add(TWO, answers(4, 0, 0))
    assert taken(newest) == [("f@2", [5], [2])]


def test_nothing_comes_of_nothing() -> None:
    newest = Newest()
    newest.add(ONE, answers(0))
    assert newest.take() == []


def test_moments_lie_on_a_grid_of_the_clock_and_none_is_used_twice() -> None:
    assert next_moment(1_000, 250) == 1_250
    assert next_moment(1_249, 250) == 1_250
    assert next_moment(1_249, 250, last_ms=1_250) == 1_500  # the timer was a little early
    assert next_moment(1_250, 250, last_ms=1_250) == 1_500
    assert next_moment(100, 250, last_ms=1_250) == 250  # the clock was set back


# --- When it is published -------------------------------------------------------------------------------------------


class Broker:
    """Takes batches, and acknowledges them when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[bytes]]] = []
        self.futures: list[asyncio.Future[None]] = []
        self.failure: Exception | None = None

    async def send(self, topic: str, partition: int, batch: Any) -> "asyncio.Future[Any]":
        if self.failure is not None:
            raise self.failure
        self.sent.append((topic, values(batch)))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def acknowledge(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(None)

    def risks(self) -> list[tuple[int, int]]:
        """Offset and ticks of each risk."""
        found = [messages.decode_risk(value) for topic, batch in self.sent if topic == "risk" for value in batch]
        return [(risk.offset, risk.ticks) for risk in found]


class Encoder:
    """As the pipeline's."""

    def __init__(self) -> None:
        self.timestamps: list[int] = []
        self._encoder = ResultEncoder(ONE)
        for slot in range(3):
            self._encoder.add(slot, f"S{slot}", "")

    def encode_newest(self, chosen: Iterable[Chosen], timestamp_ms: int) -> list[PackedBatch]:
        self.timestamps.append(timestamp_ms)
        return [
            batch
            for models, results, ticks in chosen
            for batch in self._encoder.encode(results, 0, timestamp_ms, ticks)
        ]


class Fixture:
    """A conflation, and what it talks to."""

    def __init__(self) -> None:
        self.broker, self.encoder, self.metrics, self.ours, self.now = Broker(), Encoder(), Metrics(), True, 1_000_007
        self.conflation = Conflation(
            INTERVAL_MS,
            0,
            self.encoder,
            lambda: self.broker,
            lambda _: self.ours,
            self.metrics,
            clock=lambda: self.now,
        )

    def hold(self, first: int, *slots: int) -> "asyncio.Future[None] | None":
        results = answers(first, *slots)
        offsets = results.offset.tolist()
        delivery = Delivery(Chunk(0, offsets, [], []), [0] * len(offsets), Span(first, first + len(slots)), 0.0)
        return self.conflation.hold(delivery, Output([], [], [], results, 0, {}, answered=[(ONE, results)]))

    def passed(self) -> bool:
        """Whether the moment of what is held is over."""
        held = self.conflation._held
        return held is not None and held.timer.when() < asyncio.get_running_loop().time()


def run(scenario: Callable[[Fixture], Awaitable[None]]) -> None:
    async def begin() -> None:
        async with asyncio.timeout(10):
            await scenario(Fixture())

    asyncio.run(begin())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - no event tells of what a test waits for
        await asyncio.sleep(0.001)


def test_chunks_of_an_interval_are_done_when_their_moment_is_acknowledged() -> None:
    async def scenario(its: Fixture) -> None:
        first, second = its.hold(0, 0, 1), its.hold(2, 0)
        assert first is not None
        assert first is second
        assert its.broker.sent == []
        await until(lambda: its.broker.sent)
        assert its.broker.risks() == [(0, 1), (1, 1), (2, 1)]  # the very first result comes alone
        assert its.encoder.timestamps == [1_000_020]
        assert not first.done()
        its.broker.acknowledge()
        await first
        assert read(its.metrics, "results_total", topic="risk") == 3
        assert read(its.metrics, "receive_to_publish_seconds_count") == 3

    run(scenario)


def test_a_slow_broker_makes_for_fewer_moments() -> None:
    async def scenario(its: Fixture) -> None:
        first = its.hold(0, 0)
        await until(lambda: its.broker.sent)
        for offset in range(1, 6):
            held = its.hold(offset, 0)
            its.now += INTERVAL_MS
            await until(lambda: its.passed())
        assert first is not None
        assert held is not None
        assert its.broker.risks() == [(0, 1)]
        its.broker.acknowledge()
        await first
        await until(lambda: len(its.broker.risks()) == 2)
        its.broker.acknowledge()
        await held
        assert its.broker.risks() == [(0, 1), (5, 5)]

    run(scenario)


def test_a_checkpoint_waits_for_the_moment_and_leaves_nothing_held() -> None:
    async def scenario(its: Fixture) -> None:
        await its.conflation.come()  # nothing is held, so there is nothing to wait for
        its.hold(0, 0)
        came = asyncio.create_task(its.conflation.come())
        await until(lambda: came.done())
        assert its.broker.risks() == [(0, 1)]
        assert its.conflation._held is None
        its.broker.acknowledge()

    run(scenario)


def test_a_checkpoint_that_comes_while_a_moment_is_on_its_way_waits_for_it_and_takes_what_came_after() -> None:
    async def scenario(its: Fixture) -> None:
        its.hold(0, 0)
        await until(lambda: its.broker.sent)
        last = its.hold(1, 1)
        came = asyncio.create_task(its.conflation.come())
        its.broker.acknowledge()
        await came
        assert its.broker.risks() == [(0, 1), (1, 1)]
        its.broker.acknowledge()
        assert last is not None
        await last

    run(scenario)


def test_a_checkpoint_that_is_given_up_leaves_the_moment_to_come() -> None:
    async def scenario(its: Fixture) -> None:
        held = its.hold(0, 0)
        came = asyncio.create_task(its.conflation.come())
        await asyncio.sleep(0)
        came.cancel()
        await asyncio.wait([came])
        await until(lambda: its.broker.sent)
        its.broker.acknowledge()
        assert held is not None
        await held

    run(scenario)


@pytest.mark.parametrize(
    ("failure", "told"), [(PublishFailed("no"), PublishFailed), (ZeroDivisionError("odd"), WorkerFailed)]
)
def test_what_cannot_be_sent_is_told_to_the_chunks(failure: Exception, told: type[Exception]) -> None:
    async def scenario(its: Fixture) -> None:
        its.broker.failure = failure
        held = its.hold(0, 0)
        assert held is not None
        with pytest.raises(told):
            await held

    run(scenario)


def test_of_a_partition_that_has_gone_nothing_is_published() -> None:
    async def scenario(its: Fixture) -> None:
        its.ours = False
        held = its.hold(0, 0)
        assert held is not None
        await asyncio.wait([held])
        assert held.cancelled()
        assert its.broker.sent == []

    run(scenario)


def test_a_chunk_without_results_waits_for_nothing() -> None:
    async def scenario(its: Fixture) -> None:
        assert its.hold(0) is None

    run(scenario)


# --- Which ticks a result stands for --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("ticks", [2, 9, 10, 127, 128, 255, 256, 65_536, 2**40])
def test_what_is_left_of_a_conflated_result_is_the_plain_one(form: Format, ticks: int) -> None:
    encoder = ResultEncoder(ONE, form=form)
    encoder.add(0, 'a,"ticks":5}\\', "\xa5ticks")
    results = answers(7, 0)
    plain = encoder.encode(results, 0, 1)
    counted = encoder.encode(results, 0, 1, np.array([ticks]))
    for one, other in zip(plain, counted, strict=True):
        (before,), (after,) = values(one), values(other)
        assert uncounted(after) == (before, ticks)
        assert uncounted(before) == (before, None)
        decode = {"predictions": messages.decode_prediction, "risk": messages.decode_risk}.get(
            one.topic, messages.decode_action
        )
        record = cast(Callable[[bytes], messages.Risk], decode)(after)
        assert record.ticks == ticks
        assert ENCODERS[form](msgspec.to_builtins(record)) == after


def test_every_result_says_how_many_ticks_it_stands_for_where_they_are_conflated() -> None:
    encoder = ResultEncoder(ONE)
    encoder.add(0, "A", "")
    for batch in encoder.encode(answers(7, 0), 0, 1, np.array([1])):
        assert values(batch)[0].endswith(b',"ticks":1}')


@pytest.mark.parametrize(
    "value", [b"", b"{}", b'{"ticks":3}', b'{"a":1,"ticks":0}', b'{"a":1,"ticks":-1}', b'{"a":1,"ticks":2.5}', b"\x81"]
)
def test_what_ends_otherwise_is_left_as_it_is(value: bytes) -> None:
    assert uncounted(value) == (value, None)


def test_a_result_stands_for_the_last_ticks_of_its_instrument() -> None:
    spans = Spans(np.array([0, 1, -1, 0, 0, 1], np.int32), np.array([2, 0]))
    assert spans.rows(4, 2).tolist() == [3, 4]
    assert spans.rows(4, 3).tolist() == [0, 3, 4]
    assert spans.rows(5, 1).tolist() == [5]
    assert spans.rows(4, 5).tolist() == [0, 3, 4]  # two of them lie before the range


def test_a_result_cannot_stand_for_more_ticks_than_there_were() -> None:
    spans = Spans(np.array([0, 1, -1, 0, 0, 1], np.int32), np.array([2, 0]))
    assert spans.rows(4, 6).tolist() == []
    assert spans.rows(5, 3).tolist() == []
    assert spans.rows(2, 1).tolist() == []
