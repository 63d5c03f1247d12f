"""`python -m tests.benchmark.peers.faust_take`: a Faust agent that takes batches, as Faust's documentation has it.

`stream.take_events` is `stream.take` with the offsets: up to BATCH ticks, or what has come within WITHIN_SECONDS, are
one call of the models for each partition. Codecs are Faust's, and `topic.send` takes a record at a time.
"""

from collections import defaultdict
from typing import Any, Final

import faust

from stream import config
from stream.config import Settings
from tests.benchmark.peers.scoring import Scorer

BATCH: Final = 512
WITHIN_SECONDS: Final = 0.01


def make_app(settings: Settings) -> faust.App:
    """The Faust app: one agent."""
    app = faust.App(
        settings.worker.group,
        broker=f"kafka://{settings.broker}",
        consumer_auto_offset_reset="earliest",
        value_serializer="json",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    names = settings.topics
    ticks, *results = (
        app.topic(name, key_serializer="raw", value_serializer="json")
        for name in (names.ticks, names.predictions, names.risk, names.actions)
    )
    scorer = Scorer(settings)

    @app.agent(ticks)
    async def score(stream: faust.StreamT[Any]) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_SECONDS):  # type: ignore[attr-defined]
            by_partition = defaultdict(list)
            for event in events:
                by_partition[event.message.partition].append(event)
            for partition, own in by_partition.items():
                answers = scorer.score(partition, [each.message.offset for each in own], [each.value for each in own])
                for event, answer in zip(own, answers, strict=True):
                    for topic, record in zip(results, answer, strict=True):
                        await topic.send(key=event.key, value=record, partition=partition)

    return app


if __name__ == "__main__":
    faust.Worker(make_app(config.load()), loglevel="WARNING").execute_from_commandline()
