"""`python -m tests.benchmark.peers.kafka_loop`: a loop over kafka-python, as its documentation has it.

`poll` gives what has come by partition, which is one call of the models each; `send` takes a record at a time and
batches them by itself. Serializers are those of the examples.
"""

import json

from kafka import KafkaConsumer, KafkaProducer

from stream import config
from stream.config import Settings
from tests.benchmark.peers.scoring import Scorer


def main(settings: Settings) -> None:
    """Answer every tick from the beginning of the topic on."""
    scorer = Scorer(settings)
    results = settings.topics.predictions, settings.topics.risk, settings.topics.actions
    consumer = KafkaConsumer(
        settings.topics.ticks,
        bootstrap_servers=settings.broker,
        group_id=settings.worker.group,
        auto_offset_reset="earliest",
        value_deserializer=lambda value: json.loads(value.decode("utf-8")),
    )
    producer = KafkaProducer(
        bootstrap_servers=settings.broker,
        value_serializer=lambda value: json.dumps(value).encode("utf-8"),
    )
    while True:
        for place, messages in consumer.poll(timeout_ms=1000).items():
            offsets, ticks = [message.offset for message in messages], [message.value for message in messages]
            for message, answer in zip(messages, scorer.score(place.partition, offsets, ticks), strict=True):
                for topic, record in zip(results, answer, strict=True):
                    producer.send(topic, key=message.key, value=record, partition=place.partition)


if __name__ == "__main__":
    main(config.load())
