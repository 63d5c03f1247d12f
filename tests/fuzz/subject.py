"""The pipeline under test, and what must hold of it whatever it is given."""

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from stream import inference
from stream.config import Settings
from stream.decoding import Chunk
from stream.encoding import values
from stream.errors import TapewatchError
from stream.messages import decode_action, decode_prediction, decode_risk
from stream.pipeline import Output, Pipeline
from tests.fuzz.inputs import Message

RENEWED: Final = 20_000  # inputs, then a pipeline without state: what breaks it can be played again from there
CPU_SECONDS: Final = 0.5  # most processor time that one input may take
DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "predictions": decode_prediction,
    "risk": decode_risk,
    "actions": decode_action,
}


class Broken(TapewatchError):
    """The pipeline did what it must not do; the inputs since it was new are kept."""

    def __init__(self, why: str, inputs: list[list[Message]]) -> None:
        super().__init__(why)
        self.inputs = inputs


class Counts(msgspec.Struct):
    """What became of the inputs so far."""

    inputs: int = 0
    messages: int = 0
    answered: int = 0
    refused: dict[str, int] = {}  # by reason
    controls: int = 0  # taken
    slowest_seconds: float = 0.0  # of processor time


class Subject:
    """One partition's pipeline with the bundled models, renewed now and then."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.models = inference.load(Path(self.settings.worker.models))
        self._renew()
        self.counts = Counts()

    def _renew(self) -> None:
        self._pipeline = Pipeline(self.settings, self.models, 0)
        self._inputs: list[list[Message]] = []
        self._next = 0

    def feed(self, messages: list[Message]) -> None:
        """Process one input, and see that each message is answered or refused; raises Broken where not."""
        if len(self._inputs) == RENEWED:
            self._renew()
        self._inputs.append(messages)
        offsets = range(self._next, self._next + len(messages))
        self._next += len(messages)
        chunk = Chunk(0, list(offsets), [each.key for each in messages], [each.value for each in messages])
        before = time.thread_time()
        try:
            output = self._pipeline.process(chunk, 0)
        except Exception as error:
            raise Broken(f"the pipeline raised {error!r}", self._inputs) from error
        seconds = time.thread_time() - before
        self._count(messages, output, seconds)
        why = _wrong(output, offsets, seconds)
        if why:
            raise Broken(why, self._inputs)

    def _count(self, messages: list[Message], output: Output, seconds: float) -> None:
        counts = self.counts
        counts.inputs += 1
        counts.messages += len(messages)
        counts.answered += len(output.results.offset)
        counts.controls += len(output.controls)
        for reason, count in Counter(refusal.reason for refusal in output.rejected).items():
            counts.refused[reason] = counts.refused.get(reason, 0) + count
        counts.slowest_seconds = max(counts.slowest_seconds, seconds)


def _wrong(output: Output, offsets: range, seconds: float) -> str:
    """Why an output is wrong; empty if it is not."""
    if output.errors:
        return f"an error of ours: {output.errors[0]!r}"
    answered = output.results.offset.tolist()
    refused = [refusal.offset for refusal in output.rejected]
    taken = [control.offset for control in output.controls]
    if sorted(answered + refused + taken) != list(offsets):
        return f"of {list(offsets)} answered {answered}, refused {refused} and taken as controls {taken}"
    for batch in output.batches:
        found = [DECODERS[batch.topic](value) for value in values(batch)]
        if [each.offset for each in found] != answered:
            return f"topic {batch.topic} answers {[each.offset for each in found]} instead of {answered}"
    if answered and {batch.topic for batch in output.batches} != set(DECODERS):
        return f"answers on {[batch.topic for batch in output.batches]} only"
    if not (np.isfinite(output.results.risk).all() and np.isfinite(output.results.forecast).all()):
        return "a result is not a finite number"
    if not math.isfinite(seconds) or seconds > CPU_SECONDS:
        return f"{seconds:.3f} s of processor time for {len(offsets)} messages"
    return ""
