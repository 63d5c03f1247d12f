"""`python -m tests.benchmark.peers.quix`: Quix Streams, as its documentation has it.

A tick at a time through `StreamingDataFrame.apply`, branches for the three topics, and its JSON serializers (orjson).
It teaches batches only as windows of a number of messages, which are kept for each key and give nothing until they are
full: no answer to the last ticks of a symbol, and none within a second for most.
"""

from typing import Any

from quixstreams import Application, message_context

from stream import config
from stream.config import Settings
from tests.benchmark.peers.scoring import Answer, Record, Scorer


def make_app(settings: Settings) -> Any:
    """The application: one streaming dataframe."""
    scorer = Scorer(settings)
    app = Application(
        broker_address=settings.broker,
        consumer_group=settings.worker.group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        loglevel="WARNING",
    )
    names = settings.topics
    ticks = app.topic(names.ticks, key_deserializer="bytes", value_deserializer="json")
    results = [
        app.topic(name, key_serializer="bytes", value_serializer="json")
        for name in (names.predictions, names.risk, names.actions)
    ]

    def score(tick: Record) -> Answer:
        place = message_context()
        return scorer.score(place.partition, [place.offset], [tick])[0]

    answers = app.dataframe(ticks).apply(score)
    for number, topic in enumerate(results):
        answers.apply(lambda answer, number=number: answer[number]).to_topic(topic)
    return app


if __name__ == "__main__":
    make_app(config.load()).run()
