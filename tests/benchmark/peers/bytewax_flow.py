"""`python -m bytewax.run tests.benchmark.peers.bytewax_flow`: a dataflow of Bytewax, as its documentation has it.

`flat_map_batch` takes what the source has given at once, up to its `batch_size`, as one call of the models for each
partition; one Kafka sink writes to all three topics.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow

from stream import config
from stream.config import Settings
from tests.benchmark.peers.scoring import Scorer


def make_flow(settings: Settings) -> Any:
    """The dataflow, from ticks to results."""
    scorer = Scorer(settings)
    results = settings.topics.predictions, settings.topics.risk, settings.topics.actions

    def score(batch: list[Any]) -> Iterator[Any]:
        by_partition = defaultdict(list)
        for message in batch:
            by_partition[message.partition].append(message)
        for partition, own in by_partition.items():
            answers = scorer.score(
                partition, [message.offset for message in own], [json.loads(message.value) for message in own]
            )
            for message, answer in zip(own, answers, strict=True):
                for topic, record in zip(results, answer, strict=True):
                    yield KafkaSinkMessage(message.key, json.dumps(record).encode(), topic, partition=partition)

    flow = Dataflow("tapewatch")
    ticks = kafka.input("ticks", flow, brokers=[settings.broker], topics=[settings.topics.ticks])
    op.output("results", op.flat_map_batch("score", ticks.oks, score), KafkaSink([settings.broker], None))
    return flow


flow = make_flow(config.load())
