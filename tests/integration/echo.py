"""A worker whose pipeline answers each message with itself: the path of the chunks without the models.

`python -m tests.integration.echo SETTINGS`, settings as JSON.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder

from stream import app, topics
from stream.config import Settings
from stream.core.conflation import Chosen
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from stream.decoding import Chunk, Instruments, Rejected
from stream.encoding import PackedBatch
from stream.errors import TapewatchError
from stream.halts import Halts
from stream.inference import Models
from stream.messages import Alert
from stream.metrics import Metrics
from stream.pipeline import Output, Restored
from stream.sealed import Stored
from stream.snapshots import Captured

BAD = b"bad"
POISON = b"poison"


class EchoBatch(BatchBuilder):
    """aiokafka's own batch, with its topic."""

    def __init__(self, topic: str, transactional: bool) -> None:
        super().__init__(16_000_000, 0, is_transactional=transactional)
        self.topic = topic


class EchoPipeline:
    """Answers `partition offset value` on each result topic; refuses BAD, breaks on POISON."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self.instruments = Instruments(1)
        self.instruments.add("echo", "")  # all answers are of this one
        self._partition = partition
        self._transactional = settings.worker.delivery == "exactly_once"
        self._topics = topics.names(settings.topics)[1:4]

    def process(self, chunk: Chunk, timestamp_ms: int) -> Output:
        """Answer a chunk."""
        if POISON in chunk.values:
            raise RuntimeError("poisoned")
        kept = [row for row, value in enumerate(chunk.values) if value is not None and not value.startswith(BAD)]
        batches = [self._echo(topic, chunk, kept, timestamp_ms) for topic in self._topics] if kept else []
        return Output(batches, [], list(_refused(chunk)), _results(chunk, kept), 0, {})

    def encode_newest(self, chosen: Iterable[Chosen], timestamp_ms: int) -> list[PackedBatch]:
        """Nothing is conflated here."""
        raise NotImplementedError

    @property
    def halts(self) -> Halts:
        """There are no actions here."""
        return {}

    def recapture(self) -> None:
        """There is no state here."""

    def capture(self, next_offset: int) -> Captured:
        """There is no state here."""
        return Captured([], {"hidden": np.zeros((0, 0)), "forecaster": np.zeros(0, np.uint64)}, next_offset)

    @property
    def models(self) -> tuple[str, str, str]:
        """There are no models here."""
        return "", "", ""

    def succeed(self, next_offset: int, successors: Iterable[tuple[int, Models]]) -> None:
        """There are no models here."""
        raise NotImplementedError

    def restore(self, stored: Sequence[Stored], topic: str) -> Restored:
        """There is no state here."""
        assert not stored
        return Restored(0, 0, 0)

    def stale(self, now_ms: int) -> list[Alert]:
        """Nothing falls silent here."""
        return []

    def _echo(self, topic: str, chunk: Chunk, rows: list[int], timestamp_ms: int) -> Any:
        batch = EchoBatch(topic, self._transactional)
        for row in rows:
            answer = b"%d %d %s" % (self._partition, chunk.offsets[row], chunk.values[row])
            batch.append(timestamp=timestamp_ms, key=chunk.keys[row], value=answer)
        batch.close()
        return batch


def _refused(chunk: Chunk) -> Iterator[Rejected]:
    for offset, key, value in zip(chunk.offsets, chunk.keys, chunk.values, strict=True):
        if value is None or value.startswith(BAD):
            yield Rejected(offset, key, value or b"", "json", "must not be bad")


def _results(chunk: Chunk, rows: list[int]) -> Results:
    count = len(rows)
    return Results(
        slot=np.zeros(count, np.int32),
        offset=np.array([chunk.offsets[row] for row in rows], np.int64),
        exchange_ns=np.zeros(count, np.int64),
        price=np.ones(count),
        warming=np.zeros(count, np.bool_),
        forecast=np.zeros((count, len(FORECAST_COLUMNS))),
        risk=np.zeros((count, len(RISK_COLUMNS))),
        level=np.zeros(count, np.int8),
        action=np.ones(count, np.int8),
        target_position=np.zeros(count),
        action_values=np.zeros((count, 3)),
        expected_reward=np.zeros(count),
        gate=np.zeros(count, np.int8),
    )


def main() -> int:
    """Run until a signal; one line on an error, as the command line does."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("tapewatch").setLevel(logging.INFO)
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    try:
        app.work(settings, lambda partition: EchoPipeline(settings, partition), Metrics())
    except TapewatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
