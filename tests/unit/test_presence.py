"""Topics that go, and come again: what the worker is told."""

from typing import Any

import pytest

from stream import topics
from stream.config import Settings
from stream.errors import MissingTopic, TapewatchError, WorkerFailed
from stream.presence import PATIENCE_SECONDS, Presence

NAMES = topics.names(Settings().topics)


class Told:
    """A presence with a clock to advance, and what it told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.failures: list[TapewatchError] = []
        self.new_states = 0
        self.presence = Presence(Settings(), self.failures.append, self._state_is_new, lambda: self.now)
        self.see()

    def _state_is_new(self) -> None:
        self.new_states += 1

    def see(self, **changed: Any) -> None:
        """All topics as they were, but for some."""
        self.presence.note({name: f"id of {name}" for name in NAMES} | changed)


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_that_is_gone_for_a_while_stops_the_worker(name: str) -> None:
    told = Told()
    told.see(**{name: None})
    told.now += PATIENCE_SECONDS - 1
    told.see(**{name: None})
    assert not told.failures
    told.now += 1
    told.see(**{name: None})
    assert isinstance(told.failures[0], MissingTopic)
    assert f"topic {name} is not there any more" in str(told.failures[0])


def test_a_topic_that_comes_back_as_it_was_is_no_news() -> None:
    told = Told()
    for _ in range(5):
        told.see(risk=None)
        told.now += PATIENCE_SECONDS / 2
        told.see()
        told.now += PATIENCE_SECONDS / 2
    assert (told.failures, told.new_states) == ([], 0)


def test_a_new_topic_of_ticks_stops_the_worker() -> None:
    told = Told()
    told.see(ticks="another")
    assert isinstance(told.failures[0], WorkerFailed)
    assert "topic ticks was deleted and made again" in str(told.failures[0])


def test_a_new_topic_of_state_is_told_once_and_a_new_topic_of_results_stops_nothing() -> None:
    told = Told()
    for _ in range(2):
        told.see(state="another", risk="another")
    assert (told.failures, told.new_states) == ([], 1)


def test_a_broker_that_does_not_answer_tells_nothing() -> None:
    told = Told()
    told.presence.note({})
    told.now += 10 * PATIENCE_SECONDS
    told.presence.note({})
    told.see()
    assert told.failures == []
