"""Whether our topics are still there, and still the ones they were: a topic can be deleted, and made again empty.

Kafka gives each topic an id when it is made. aiokafka knows topics by their names only, and would go on at its old
offset in a new topic, or try for ever to publish to one that is gone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream import clients
from stream.config import Settings
from stream.errors import MissingTopic, TapewatchError, WorkerFailed
from stream.topics import names

LOOK_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 2.5
PATIENCE_SECONDS: Final = 6.0  # in which a deleted topic may be made again
log = logging.getLogger("tapewatch.worker")


class Presence:
    """Asks Kafka for the ids of our topics, now and then.

    Parameters
    ----------
    fail
        Stops the worker.
    state_is_new
        Hears that the topic of snapshots was made again, and is empty.
    """

    def __init__(
        self,
        settings: Settings,
        fail: Callable[[TapewatchError], None],
        state_is_new: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = settings.topics
        self._cluster = settings.cluster
        self._fail = fail
        self._state_is_new = state_is_new
        self._now = now
        self._admin: AdminClient | None = None
        self._ids: dict[str, str] = {}
        self._missing: dict[str, float] = {}  # since when

    async def ticks_id(self) -> str | None:
        """The id of the topic of ticks as it is now; None if Kafka does not tell."""
        found = await self._ask(names(self._topics))
        self.note(found)
        return found.get(self._topics.ticks)

    async def look(self) -> None:
        """Compare what is there with what was there; a broker that does not answer tells nothing."""
        self.note(await self._ask(names(self._topics)))

    def note(self, found: Mapping[str, str | None]) -> None:
        """Judge the ids of some topics; None where a topic is not there."""
        for name, identity in found.items():
            if identity is None:
                self._note_missing(name)
                continue
            self._missing.pop(name, None)
            if self._ids.setdefault(name, identity) != identity:
                self._ids[name] = identity
                self._note_new(name)

    def _note_missing(self, name: str) -> None:
        since = self._missing.setdefault(name, self._now())
        if self._now() - since >= PATIENCE_SECONDS:
            self._fail(
                MissingTopic(
                    f"topic {name} is not there any more, since {PATIENCE_SECONDS:g} s: nothing was committed that was "
                    f"not done; make it again (`tapewatch topics create --broker {self._cluster.broker}`) and start "
                    "the worker"
                )
            )

    def _note_new(self, name: str) -> None:
        if name == self._topics.ticks:
            self._fail(
                WorkerFailed(
                    f"topic {name} was deleted and made again: its offsets begin anew; start the worker again, and it "
                    "begins with the first tick of the new topic, its state cold"
                )
            )
        elif name == self._topics.state:
            log.warning("topic made again topic=%s: all snapshots are written to it again", name)
            self._state_is_new()
        else:
            log.warning("topic made again topic=%s: what was published on it is gone", name)

    async def _ask(self, wanted: Sequence[str]) -> dict[str, str | None]:
        if self._admin is None:
            self._admin = AdminClient(clients.librdkafka(self._cluster))
        asked = self._admin.describe_topics(TopicCollection(list(wanted)), request_timeout=ANSWER_SECONDS)
        found: dict[str, str | None] = {}
        for name, future in asked.items():
            try:
                found[name] = str((await asyncio.wrap_future(future)).topic_id)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    found[name] = None
        return found
