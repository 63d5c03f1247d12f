"""When a lane gets other models: decided once, told to Kafka first, and never for a tick that is answered already."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stream import succession
from stream.challenger import Shadow
from stream.config import Settings
from stream.encoding import values
from stream.inference import Models
from stream.lanes import Lane
from stream.library import Library
from stream.messages import decode_prediction
from stream.metrics import Metrics
from stream.pipeline import Pipeline
from stream.sealed import Stored
from stream.succession import Names, Reign, Succession
from stream.swaps import Swaps, settle
from stream.telemetry import Scores
from tests.fakes import FakeModels
from tests.ticks import SECOND, START_NS, chunk, message

SETTINGS = Settings()


def version(number: int) -> Models:
    made = FakeModels()
    made.names = (f"fake@{number}", "fake@1", "fake@1")
    made.digests = (f"d{number}", "", "")
    return cast(Models, made)


ONE, TWO, THREE = version(1), version(2), version(3)


class Shelf:
    """A library without a folder."""

    def __init__(self, *there: Models) -> None:
        self._there = there
        self.newest = there[-1]
        self.refused: dict[Path, str] = {}

    def look(self) -> None:
        """Nothing new."""

    def find(self, names: Names, digests: Names) -> Models | None:
        """One that is there."""
        return next((each for each in self._there if (each.names, each.digests) == (names, digests)), None)


def swaps(*there: Models) -> Swaps:
    return Swaps(SETTINGS, cast(Library, Shelf(*there)), Metrics())


def lane(next_offset: int | None = None) -> Lane:
    return Lane(Pipeline(SETTINGS, ONE, 0), Scores(0), next_offset, 4, Shadow(SETTINGS))


def stored(*reigns: Reign) -> Stored:
    return Stored(b"", succession.write(Succession(reigns)), 1)


def reign(first: int, models: Models) -> Reign:
    return Reign(first, models.names, models.digests)


def fed(one: Lane, first: int, last: int) -> list[str]:
    """Answer the ticks first <= offset < last in one chunk; the forecaster in each answer's place."""
    ticks = [message(exchange_ns=START_NS + offset * SECOND) for offset in range(first, last)]
    output = one.pipeline.process(chunk(ticks, first=first), 1)
    one.next_offset = last
    predictions = [value for batch in output.batches if batch.topic == "predictions" for value in values(batch)]
    assert len(predictions) == last - first
    return [decode_prediction(value).model for value in predictions]


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(what)


def begun(shelf: Swaps, next_offset: int = 100) -> Lane:
    """A lane that has been going on with the first version, and has it on record."""
    one = lane(next_offset)
    run(shelf.open(one, stored(reign(0, ONE)), 0))
    one.note_checkpoint(next_offset)
    return one


def test_a_partition_without_a_record_must_tell_kafka_of_the_newest_models_first() -> None:
    shelf, one = swaps(ONE, TWO), lane()
    run(shelf.open(one, None, 0))
    assert one.succession == Succession((reign(0, TWO),))
    (record,) = shelf.record(one)
    assert record.key == succession.key("tapewatch")
    assert fed(one, 0, 1) == ["fake@2"]
    settle(one, committed=True)
    assert shelf.record(one) == []
    assert one.lost is None


def test_who_goes_on_has_the_models_in_force_and_those_to_come_at_their_tick() -> None:
    shelf, one = swaps(ONE, TWO, THREE), lane(100)
    run(shelf.open(one, stored(reign(0, ONE), reign(104, TWO)), 0))
    assert shelf.record(one) == []
    assert fed(one, 100, 106) == ["fake@1"] * 4 + ["fake@2"] * 2


def test_what_may_have_been_answered_before_a_crash_is_answered_by_the_same_models_again() -> None:
    shelf, one = swaps(ONE, TWO, THREE), lane(100)
    run(shelf.open(one, stored(reign(0, ONE), reign(104, TWO)), 0))
    one.answered_until = 108
    one.note_checkpoint(100)
    shelf.announce(one)
    assert fed(one, 100, 106) == ["fake@1"] * 4 + ["fake@2"] * 2
    one.note_checkpoint(106)
    shelf.announce(one)
    assert one.succession == Succession((reign(0, ONE), reign(104, TWO), reign(114, THREE)))
    settle(one, committed=True)
    assert fed(one, 106, 116) == ["fake@2"] * 8 + ["fake@3"] * 2


def test_a_swap_comes_though_every_worker_is_killed_before_it_has_caught_up() -> None:
    record, shelf = stored(reign(0, ONE)), swaps(ONE, TWO)
    for begin, end in ((100, 1000), (110, 2000), (120, 3000)):
        one = lane(begin)
        run(shelf.open(one, record, 0))
        one.answered_until = end
        one.note_checkpoint(begin)
        shelf.announce(one)
        assert one.succession is not None
        record = stored(*one.succession.reigns)
        settle(one, committed=True)
    assert one.succession == Succession((reign(0, ONE), reign(1000, TWO)))
    assert fed(one, 120, 1005) == ["fake@1"] * 880 + ["fake@2"] * 5


def test_new_models_begin_ahead_by_the_ticks_of_a_second() -> None:
    shelf = swaps(ONE, TWO)
    one = begun(shelf)
    fed(one, 100, 130)
    one.note_checkpoint(130)
    fed(one, 130, 135)  # while the checkpoint waited
    shelf.announce(one)
    assert one.succession == Succession((reign(0, ONE), reign(165, TWO)))
    assert len(shelf.record(one)) == 1
    assert fed(one, 135, 170) == ["fake@1"] * 30 + ["fake@2"] * 5


def test_longer_between_checkpoints_the_swap_is_still_a_second_ahead() -> None:
    slow = msgspec.structs.replace(
        SETTINGS, worker=msgspec.structs.replace(SETTINGS.worker, commit_interval_seconds=60)
    )
    shelf = Swaps(slow, cast(Library, Shelf(ONE, TWO)), Metrics())
    one = begun(shelf, 0)
    one.next_offset = 6000
    one.note_checkpoint(6000)
    due = shelf.due(one)
    assert due is not None
    assert due.first == 6100


def test_no_tick_of_a_reign_is_taken_before_it_is_committed() -> None:
    shelf = swaps(ONE, TWO)
    one = begun(shelf)
    one.pace = 10

    async def taken() -> None:
        shelf.announce(one)
        await asyncio.wait_for(one.settled(110), 1)  # ticks below 110 belong to the reign before
        waiting = asyncio.create_task(one.settled(111))
        await asyncio.sleep(0)
        assert not waiting.done()
        settle(one, committed=True)
        await asyncio.wait_for(waiting, 1)

    run(taken())
    assert one.lost is None


def test_a_lane_is_given_up_where_it_is_not_known_what_kafka_has() -> None:
    shelf = swaps(ONE, TWO)
    one = begun(shelf)

    async def taken() -> None:
        shelf.announce(one)
        waiting = asyncio.create_task(one.settled(101))
        await asyncio.sleep(0)
        settle(one, committed=False)
        await asyncio.wait_for(waiting, 1)

    run(taken())
    assert one.lost is not None


def test_a_checkpoint_without_a_change_that_fails_gives_nothing_up() -> None:
    one = begun(swaps(ONE))
    settle(one, committed=False)
    assert one.lost is None


def test_a_swap_that_is_far_ahead_is_moved_when_the_stream_has_become_slow() -> None:
    shelf = swaps(ONE, TWO)
    one = begun(shelf)
    one.pace = 300_000
    shelf.announce(one)
    settle(one, committed=True)
    fed(one, 100, 103)
    one.note_checkpoint(103)
    shelf.announce(one)
    assert one.succession == Succession((reign(0, ONE), reign(106, TWO)))
    assert one.unsettled is not None
    assert one.unsettled.first == 106
    assert fed(one, 103, 108) == ["fake@1"] * 3 + ["fake@2"] * 2
    assert shelf.due(one) is None


def test_a_swap_that_has_not_begun_can_be_taken_back() -> None:
    there = Shelf(ONE, TWO)
    shelf = Swaps(SETTINGS, cast(Library, there), Metrics())
    one = begun(shelf)
    one.pace = 10
    shelf.announce(one)
    settle(one, committed=True)
    shelf._newest = ONE
    one.pace = 50
    shelf.announce(one)
    assert one.succession == Succession((reign(0, ONE),))
    assert one.unsettled is not None
    assert one.unsettled.first == 110  # Kafka still has the reign that began there
    assert fed(one, 100, 120) == ["fake@1"] * 20


def test_models_in_force_that_are_gone_are_followed_by_the_newest_and_kafka_is_told_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf, one = swaps(TWO), lane(100)
    run(shelf.open(one, stored(reign(0, ONE)), 0))
    assert one.succession == Succession((reign(0, ONE), reign(100, TWO)))
    assert len(shelf.record(one)) == 1
    assert fed(one, 100, 102) == ["fake@2"] * 2
    assert "models=fake@1,fake@1,fake@1: fake@2,fake@1,fake@1 are in force from offset 100 on" in caplog.text


def test_a_swap_that_is_told_and_whose_models_are_gone_begins_with_the_newest() -> None:
    shelf, one = swaps(ONE, THREE), lane(100)
    run(shelf.open(one, stored(reign(0, ONE), reign(104, TWO)), 0))
    assert one.succession == Succession((reign(0, ONE), reign(104, THREE)))
    assert fed(one, 100, 106) == ["fake@1"] * 4 + ["fake@3"] * 2


def test_where_nothing_is_kept_the_next_chunk_has_the_new_models() -> None:
    shelf, one = swaps(ONE, TWO), lane(100)
    shelf.change_at_once(one, 100)
    assert fed(one, 100, 102) == ["fake@2"] * 2


def test_swaps_and_the_models_that_answer_are_counted() -> None:
    metrics = Metrics()
    shelf = Swaps(SETTINGS, cast(Library, Shelf(ONE, TWO)), metrics)
    first, second = lane(100), lane(100)
    shelf.show(0, first)
    shelf.show(1, second)
    shelf.change_at_once(first, 100)
    fed(first, 100, 101)
    shelf.show(0, first)
    text = metrics.exposition()[0].decode()
    assert 'tapewatch_model_swaps_total{head="forecaster"} 1.0' in text
    assert 'tapewatch_model_swaps_total{head="critic"} 0.0' in text
    assert 'tapewatch_model_info{head="forecaster",model="fake@1"} 1.0' in text
    assert 'tapewatch_model_info{head="forecaster",model="fake@2"} 1.0' in text
    shelf.keep([0])
    assert 'model="fake@1"} 1.0' not in "".join(
        line for line in metrics.exposition()[0].decode().splitlines() if "forecaster" in line
    )
