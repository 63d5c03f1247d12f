"""Something to see: recorded and made markets through the worker's own pipeline and models, to the second one wants."""

import heapq
import itertools
import operator
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from stream import inference
from stream.config import ROOT, Settings
from stream.decoding import Chunk
from stream.feeds import sample, simulator
from stream.feeds.replay import Block, Rounds
from stream.feeds.scenarios import SCENARIOS
from stream.pipeline import Pipeline
from tests.browser.served import Served

CHUNK_TICKS: Final = 1024
SECOND_NS: Final = 1_000_000_000
RECORDED_SECONDS: Final = sample.SPAN_NS // SECOND_NS
MADE: Final = {"ALPHA": ("pump", 540), "BRAVO": ("flash-crash", 605), "CHARLIE": ("volatility-burst", 540)}
"""Symbols of the simulator, what befalls each, and when, in seconds after the first recorded tick."""


class Message(NamedTuple):
    """A record on its way to the topic of ticks."""

    exchange_ns: int
    key: bytes | None
    value: bytes


def eventful() -> Iterator[Message]:
    """The bundled recordings, which are calm, with some malformed messages, and beside them what MADE names."""
    made = [_messages(_made(symbol, *what)) for symbol, what in MADE.items()]
    recorded = _messages(sample.with_faults(Rounds(sample.bundled())))
    return heapq.merge(recorded, *made, key=operator.attrgetter("exchange_ns"))


def _made(symbol: str, scenario: str, second: int) -> Rounds:
    """With half an hour of history, by which alerts judge."""
    start_ns = sample.BEGIN_NS + (second - simulator.BEGIN_SECONDS) * SECOND_NS
    seconds = simulator.BEGIN_SECONDS + max(SCENARIOS[scenario].seconds, RECORDED_SECONDS - second)
    plan = simulator.Plan(scenario, (symbol,), seed=1, seconds=seconds, start_ns=start_ns)
    return Rounds(simulator.simulate(plan).file(symbol))


def _messages(blocks: Iterable[Block]) -> Iterator[Message]:
    for block in blocks:
        yield from map(Message, block.exchange_ns.tolist(), block.keys, block.values)


class Market:
    """Messages that are answered into a board, in their order."""

    def __init__(self, served: Served, messages: Iterator[Message]) -> None:
        settings = Settings()
        models = inference.load(ROOT / settings.worker.models)
        self._served = served
        self._pipelines = [Pipeline(settings, models, partition) for partition in range(served.partitions)]
        self._offsets = [0] * served.partitions
        self._messages = messages
        self._next = next(messages, None)
        served.do(self._open)

    def _open(self) -> None:
        for pipeline in self._pipelines:
            self._served.desk.open(pipeline.partition, pipeline.instruments)

    def play_to(self, seconds: float) -> None:
        """Answer every message up to so many seconds after the first recorded tick."""
        until = sample.BEGIN_NS + int(seconds * SECOND_NS)
        due = self._due(until)
        for chunk in iter(lambda: list(itertools.islice(due, CHUNK_TICKS)), []):
            self._answer(chunk)

    def _due(self, until: int) -> Iterator[Message]:
        while self._next is not None and self._next.exchange_ns <= until:
            yield self._next
            self._next = next(self._messages, None)

    def _answer(self, messages: list[Message]) -> None:
        count = len(self._pipelines)
        for partition in range(count):
            mine = [each for each in messages if zlib.crc32(each.key or b"") % count == partition]
            if mine:
                self._note(partition, mine)

    def _note(self, partition: int, messages: list[Message]) -> None:
        first = self._offsets[partition]
        self._offsets[partition] += len(messages)
        offsets = range(first, self._offsets[partition])
        keys, values = [each.key for each in messages], [each.value for each in messages]
        output = self._pipelines[partition].process(Chunk(partition, offsets, keys, values), 0)
        now_ms = time.time_ns() // 1_000_000
        self._served.do(lambda: self._served.desk.note(partition, output, now_ms))
