"""`tapewatch verify`: what was published, held against the same ticks computed afresh, byte for byte.

Ticks are computed from the beginning of their partition, for results depend on all that came before; compared is a
range of them. Everything below the committed offset was promised, so the range ends there unless told otherwise.

Each tick is computed with the models that its results name, the first that were published where there are several: a
worker that swaps its models says so in its results. So the folder of models must hold every version that is named.

Where results are conflated, each is compared without its last field `ticks`, and that many ticks of its instrument, up
to its own, count as answered.

Not compared, for ticks alone do not make them: alerts of silence (`stale`), which need a clock, and ticks that were
refused as `internal`, whose alerts tell of a fault. Such a tick is left out of the computation, as it was then.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import numpy as np
from aiokafka.record.memory_records import MemoryRecords
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as LibrdkafkaError
from numpy.typing import NDArray

from stream import clients, inference, messages, signatures, topics
from stream.config import Cluster, Settings
from stream.decoding import Chunk
from stream.errors import BrokerUnreachable, TapewatchError
from stream.inference import Models
from stream.library import Library
from stream.pipeline import Output, Pipeline
from stream.publisher import rejected_record
from stream.spans import Spans, uncounted
from stream.succession import Names

MakePipeline = Callable[[int], Pipeline]
LoadModels = Callable[[Names], Models]
Offsets = Mapping[int, int]
"""Partition -> offset."""

SECONDS: Final = 10.0  # a broker that answers nothing for so long has gone
WAIT_SECONDS: Final = 0.1
MANY: Final = 2000  # records asked for at a time
NOT_COMPARED: Final = ("stale", "internal")
NOTHING: Final = 0  # stands for "no record expected" among the fingerprints
ALL: Final = -1  # instruments
MOST_SHOWN: Final = 1000  # bytes of a record that differs: more than a result has


class Tally(msgspec.Struct):
    """How one topic came out."""

    expected: int = 0  # records that the ticks of the range call for, were none conflated
    found: int = 0  # of them, each alone or in one that stands for it
    missing: int = 0
    different: int = 0  # found with other content, and records that no tick calls for
    duplicated: int = 0  # found again, with the same content, or standing for a tick that was answered
    unordered: int = 0  # found for the first time behind one of a later tick

    @property
    def wrong(self) -> int:
        """What must not be, whatever the delivery."""
        return self.missing + self.different + self.unordered


class Report(msgspec.Struct):
    """What a verification found."""

    delivery: str
    ticks: int  # messages in the range, less the controls
    answered: int  # of them accepted
    topics: dict[str, Tally]  # by role: predictions, risk, actions, alerts, rejected
    internal: int = 0  # ticks refused as internal
    models: list[str] = []  # name@version of all that answered, as the results name them
    first_difference: str = ""
    controls: int = 0  # among the messages of the range; they are no ticks
    conflated: int = 0  # results that say how many ticks they stand for
    group: str = ""
    unchecked: list[int] = []  # partitions that were not asked for
    uncommitted: int = 0  # messages of the other partitions behind what the group has committed, where that is the end

    @property
    def empty(self) -> bool:
        """The range holds no message."""
        return self.ticks + self.controls == 0

    @property
    def ok(self) -> bool:
        """Something was checked, and nothing is wrong, nor duplicated where that was promised."""
        strict = self.delivery == "exactly_once"
        return not self.empty and not any(
            tally.wrong or (strict and tally.duplicated) for tally in self.topics.values()
        )


class Head(msgspec.Struct):
    """Which tick a result answers."""

    partition: int
    offset: int


class NamedHead(msgspec.Struct):
    """Which tick a result answers, what made it, and how many ticks of its instrument it stands for."""

    offset: int
    model: str
    venue: str = ""
    ticks: int = 1


class AlertHead(msgspec.Struct):
    """Which tick an alert belongs to."""

    partition: int
    offset: int
    detail: str = ""


_head: Final = messages.decoder(Head)
_named_head: Final = messages.decoder(NamedHead)
_alert_head: Final = messages.decoder(AlertHead)

# --- What the ticks call for ----------------------------------------------------------------------------------------


class Expected:
    """Fingerprints of the records that the ticks first <= offset < last of a partition call for.

    Of results also those of later ticks, below `reach`: conflated ones may stand for ticks before `last`.
    """

    def __init__(
        self, first: int, last: int, results: Sequence[str], form: messages.Format = "json", reach: int = 0
    ) -> None:
        self._write = messages.ENCODERS[form]
        self.first = first
        self.last = last
        count = max(0, last - first, reach - first)
        self.results = {topic: np.zeros(count, np.uint64) for topic in results}
        self._slot = np.full(count, -1, np.int32)  # instrument of each accepted tick
        self._before: Counter[int] = Counter()  # accepted ticks of each instrument before the range
        self.rejected: NDArray[np.uint64] = np.zeros(max(0, last - first), np.uint64)
        self.alerts: set[bytes] = set()
        self.ticks = 0
        self.controls = 0

    def add(self, chunk: Chunk, output: Output) -> None:
        """Note what a computed chunk calls for."""
        offsets = output.results.offset.tolist()
        inside = output.results.offset >= self.first
        self._slot[output.results.offset[inside] - self.first] = output.results.slot[inside]
        self._before.update(output.results.slot[~inside].tolist())
        at = dict.fromkeys(self.results, 0)
        for batch in output.batches:
            fingerprints = self.results[batch.topic]
            for record in _records(batch.to_bytes()):
                row = offsets[at[batch.topic]] - self.first
                at[batch.topic] += 1
                if row >= 0:
                    fingerprints[row] = fingerprint(record.key, record.value)
        for refusal in output.rejected:
            if self.first <= refusal.offset < self.last:
                record = rejected_record(chunk.partition, *refusal)
                self.rejected[refusal.offset - self.first] = _fingerprint_of_refusal(
                    record.key, record.value, dict(record.headers)
                )
        for alert in output.alerts:
            if self.first <= alert.offset < self.last and alert.detail not in NOT_COMPARED:
                self.alerts.add(self._write(alert))
        controls = sum(self.first <= taken.offset < self.last for taken in output.controls)
        self.controls += controls
        self.ticks += sum(self.first <= offset < self.last for offset in chunk.offsets) - controls

    def spans(self) -> Spans:
        """Which of the ticks a result stands for."""
        instruments = 1 + max(*self._before, int(self._slot.max(initial=-1)), -1)
        return Spans(self._slot, np.array([self._before[slot] for slot in range(instruments)], np.int64))


def _records(batch: bytes) -> Iterator[Any]:
    packed = MemoryRecords(batch).next_batch()
    yield from packed


def fingerprint(*parts: bytes | None) -> int:
    """64 bits of some bytes; never NOTHING."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return int.from_bytes(digest.digest(), "little") or 1


# --- The models that answered ---------------------------------------------------------------------------------------


class Named:
    """Which model the results of one head name, for the ticks below an offset."""

    def __init__(self, last: int) -> None:
        self._code = np.zeros(max(0, last), np.int16)  # 0: none
        self._names = [""]

    def add(self, offset: int, name: str) -> None:
        """A published result. Of several for one tick the first one counts."""
        if 0 <= offset < len(self._code) and not self._code[offset]:
            if name not in self._names:
                self._names.append(name)
            self._code[offset] = self._names.index(name)

    @property
    def names(self) -> list[str]:
        """All of them."""
        return self._names[1:]

    def changes(self) -> list[tuple[int, str]]:
        """Offset of the first tick that names a model, and of each that names another than the one before."""
        named = np.flatnonzero(self._code)
        new = np.flatnonzero(np.diff(self._code[named], prepend=0))
        return [(offset, self._names[self._code[offset]]) for offset in named[new].tolist()]


def runs(forecaster: Named, critic: Named, policy: Named) -> list[tuple[int, Names]]:
    """Offset of the first tick and names of each run of ticks with the same models, in order.

    A tick that lacks a result has the name of the one before; none where some head is never named.
    """
    changes = [head.changes() for head in (forecaster, critic, policy)]
    if not all(changes):
        return []
    first, second, third = (of[0][1] for of in changes)
    now, begun = [first, second, third], {0: (first, second, third)}
    for offset, head, name in sorted(
        (offset, head, name) for head, of in enumerate(changes) for offset, name in of[1:]
    ):
        now[head] = name
        begun[offset] = now[0], now[1], now[2]
    return sorted(begun.items())


# --- What was published ---------------------------------------------------------------------------------------------


class Comparison:
    """Holds the records of one topic and partition against their fingerprints, in their order.

    That is the order of the ticks; among conflated results it holds for each instrument, for after a crash they may be
    cut elsewhere. Of ticks behind the first `count` a record counts only for what it stands for before them.
    """

    def __init__(
        self,
        expected: NDArray[np.uint64],
        first: int,
        tally: Tally,
        spans: Spans | None = None,
        count: int | None = None,
    ) -> None:
        self._expected = expected
        self._count = len(expected) if count is None else count
        self._first = first
        self._tally = tally
        self._spans = spans
        self._seen = np.zeros(len(expected), np.bool_)
        self._last: dict[int, int] = {}  # row of the latest tick that was answered, by instrument; ALL: of all
        self.differing: tuple[int, bytes] | None = None  # offset of the tick, what was published

    def add(self, offset: int, found: int, value: bytes, ticks: int | None = None) -> None:
        """A record for the tick at `offset`, with the fingerprint `found`; below 0 where it answers no tick.

        `ticks` says how many it stands for, where it is conflated.
        """
        row = offset - self._first
        if offset >= 0 and not 0 <= row < len(self._expected):
            return
        fresh, stands_for = self._answered(row, ticks) if offset >= 0 and self._expected[row] == found else (0, 0)
        if row >= self._count and not stands_for:
            return
        if not stands_for:
            self._tally.different += 1
            self.differing = self.differing or (offset, value)
            if offset >= 0:
                self._seen[row] = True
            return
        self._tally.found += fresh
        self._tally.duplicated += fresh < stands_for
        if fresh:
            self._note_order(ALL if ticks is None or self._spans is None else self._spans.instrument(row), row)

    def _answered(self, row: int, ticks: int | None) -> tuple[int, int]:
        """Of how many ticks a record is the first answer, and how many it stands for; 0 if it cannot."""
        if ticks is None:
            fresh, self._seen[row] = not self._seen[row], True
            return (int(fresh), 1) if row < self._count else (0, 0)
        rows = np.empty(0, np.int64) if self._spans is None else self._spans.rows(row, ticks)
        rows = rows[rows < self._count]
        seen = int(np.count_nonzero(self._seen[rows]))
        self._seen[rows] = True
        return len(rows) - seen, len(rows)

    def _note_order(self, among: int, row: int) -> None:
        last = self._last.get(among, -1)
        self._tally.unordered += row < last
        self._last[among] = max(last, row)

    def end(self) -> int | None:
        """Count what is missing; gives the first tick whose record is."""
        wanted = self._expected[: self._count] != NOTHING
        missing = np.flatnonzero(wanted & ~self._seen[: self._count])
        self._tally.expected += int(wanted.sum())
        self._tally.missing += len(missing)
        return int(missing[0]) + self._first if len(missing) else None


class Topic:
    """Reads partitions of the broker from their beginning to an end."""

    def __init__(self, cluster: Cluster) -> None:
        self._consumer = Consumer(
            {
                **clients.librdkafka(cluster),
                "group.id": clients.LOOKERS,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
            }
        )

    def range(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset there is, and the one behind the last."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), SECONDS)
        return low, high

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic."""
        return sorted(self._consumer.list_topics(topic, SECONDS).topics[topic].partitions)

    def read(self, topic: str, partition: int, end: int, start: int = OFFSET_BEGINNING) -> Iterator[list[Any]]:
        """All committed records from `start` on and below `end`, in pieces."""
        if end <= max(0, start):
            return
        self._consumer.assign([TopicPartition(topic, partition, start)])
        quiet = 0.0
        while True:
            got = self._consumer.consume(MANY, WAIT_SECONDS)  # waits for so long where it does not get as many
            quiet = 0.0 if got else quiet + WAIT_SECONDS
            if quiet >= SECONDS:
                raise TapewatchError(f"nothing came from topic {topic}, partition {partition} for {SECONDS:g} s")
            errors = [error for each in got if (error := each.error()) is not None]
            fatal = [error for error in errors if error.code() != LibrdkafkaError._PARTITION_EOF]
            if fatal:
                raise TapewatchError(f"cannot read topic {topic}, partition {partition}: {fatal[0].str()}")
            records: list[Any] = [each for each in got if each.error() is None]
            yield [record for record in records if record.offset() < end]
            if errors or (records and records[-1].offset() >= end - 1):
                return

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


# --- The verification -----------------------------------------------------------------------------------------------


class Verification:
    """Of some partitions, one after the other."""

    def __init__(
        self, settings: Settings, make_pipeline: MakePipeline, load: LoadModels, tell: Callable[[str], None]
    ) -> None:
        names = settings.topics
        self._settings = settings
        self._make_pipeline = make_pipeline
        self._load = load
        self._tell = tell
        self._topics = Topic(settings.cluster)
        self._results = {"predictions": names.predictions, "risk": names.risk, "actions": names.actions}
        tallies = {role: Tally() for role in (*self._results, "alerts", "rejected")}
        self.report = Report(settings.worker.delivery, 0, 0, tallies, group=settings.worker.group)

    def partitions(self) -> list[int]:
        """Partitions of the ticks."""
        return self._topics.partitions(self._settings.topics.ticks)

    def partition(self, partition: int, first: int, last: int) -> None:
        """Verify the ticks `first` to `last`, not included, of a partition.

        Raises
        ------
        TapewatchError
            If the partition's oldest ticks are gone, or it cannot be read.
        """
        begin, end = self._topics.range(self._settings.topics.ticks, partition)
        if begin > 0 and first < last:
            raise TapewatchError(
                f"topic {self._settings.topics.ticks}, partition {partition} begins at offset {begin}: the ticks "
                "before it are gone, and all results depend on them; verify while the topic still holds them"
            )
        refused = self._internal(partition)
        expected = self._compute(partition, first, min(last, end), refused)
        self.report.ticks += expected.ticks + sum(first <= offset < last for offset in refused)
        self.report.controls += expected.controls
        self.report.internal += sum(first <= offset < last for offset in refused)
        spans = expected.spans()
        for role, topic in self._results.items():
            wanted = expected.results[topic], first, self._answer, spans, len(expected.rejected)
            self._compare(role, topic, partition, *wanted)
        self._compare("rejected", self._settings.topics.rejected, partition, expected.rejected, first, _refusal)
        self._compare_alerts(partition, expected)
        self.report.answered = self.report.topics["predictions"].expected

    def note_uncommitted(self, partition: int, committed: int) -> None:
        """Count what the group has not committed of a partition."""
        self.report.uncommitted += max(0, self._topics.range(self._settings.topics.ticks, partition)[1] - committed)

    def close(self) -> None:
        """Disconnect."""
        self._topics.close()

    def _internal(self, partition: int) -> frozenset[int]:
        topic = self._settings.topics.rejected
        return frozenset(
            int(headers["offset"])
            for record in self._records(topic, partition)
            if (headers := _headers(record))["reason"] == b"internal"
        )

    def _records(self, topic: str, partition: int) -> Iterator[Any]:
        _, end = self._topics.range(topic, partition)
        for records in self._topics.read(topic, partition, end):
            yield from records

    def _compute(self, partition: int, first: int, last: int, refused: frozenset[int]) -> Expected:
        reach = self._reach(partition, last) if self._settings.worker.conflate_ms else last
        expected = Expected(first, last, list(self._results.values()), self._settings.format, reach)
        for chunk, output in self._outputs(partition, max(last, reach), refused):
            expected.add(chunk, output)
            self._tell(f"partition {partition}: computed up to offset {chunk.offsets[-1] + 1} of {last}")
        return expected

    def _outputs(self, partition: int, last: int, refused: frozenset[int]) -> Iterator[tuple[Chunk, Output]]:
        pipeline, size = self._make_pipeline(partition), self._settings.worker.chunk_ticks
        pipeline.succeed(0, [(first, self._load(names)) for first, names in self._named(partition, last)])
        for records in self._topics.read(self._settings.topics.ticks, partition, last):
            kept = [record for record in records if record.offset() not in refused]
            for at in range(0, len(kept), size):
                part = kept[at : at + size]
                chunk = Chunk(partition, [r.offset() for r in part], [r.key() for r in part], [r.value() for r in part])
                yield chunk, pipeline.process(chunk, 0)

    def _reach(self, partition: int, last: int) -> int:
        """Behind the first result from `last` on of each instrument that stands for earlier ticks as well."""
        firsts: dict[tuple[str, bytes | None, str], int] = {}
        for topic in self._results.values():
            for record in self._records(topic, partition):
                with contextlib.suppress(msgspec.MsgspecError):  # the comparison tells of it
                    answer = _named_head(record.value() or b"")
                    if answer.offset >= last and answer.ticks > 1:
                        who = topic, record.key(), answer.venue
                        firsts[who] = min(answer.offset, firsts.get(who, answer.offset))
        return max([last, *(offset + 1 for offset in firsts.values())])

    def _named(self, partition: int, last: int) -> list[tuple[int, Names]]:
        """The models that the results of ticks below `last` name, and the first tick of each run of them."""
        named = [Named(last), Named(last), Named(last)]
        for topic, head in zip(self._results.values(), named, strict=True):
            for record in self._records(topic, partition):
                with contextlib.suppress(msgspec.MsgspecError):  # the comparison tells of it
                    answer = _named_head(record.value() or b"")
                    head.add(answer.offset, answer.model)
        self.report.models = sorted({*self.report.models, *(name for head in named for name in head.names)})
        return runs(*named)

    def _compare(
        self,
        role: str,
        topic: str,
        partition: int,
        expected: NDArray[np.uint64],
        first: int,
        look: Callable[[Any], tuple[int, int, int | None] | None],
        spans: Spans | None = None,
        count: int | None = None,
    ) -> None:
        comparison = Comparison(expected, first, self.report.topics[role], spans, count)
        for record in self._records(topic, partition):
            looked = look(record)
            if looked is not None:
                offset, found, ticks = looked
                comparison.add(offset, found, record.value() or b"", ticks)
        missing = comparison.end()
        if comparison.differing is not None:
            offset, value = comparison.differing
            self._note(
                f"{topic}, partition {partition}, tick {offset}: published {_text(value)}", topic, partition, offset
            )
        elif missing is not None:
            self._note(
                f"{topic}, partition {partition}, tick {missing}: nothing was published", topic, partition, missing
            )

    def _answer(self, record: Any) -> tuple[int, int, int | None]:
        value, ticks = uncounted(record.value() or b"")
        self.report.conflated += ticks is not None
        try:
            return _head(value).offset, fingerprint(record.key(), value), ticks
        except msgspec.MsgspecError:
            return -1, NOTHING, None

    def _compare_alerts(self, partition: int, expected: Expected) -> None:
        tally, topic = self.report.topics["alerts"], self._settings.topics.alerts
        left, found, last = set(expected.alerts), set[bytes](), -1
        for record in self._records(topic, partition):
            value = record.value() or b""
            head = _alert_head(value)
            if head.detail in NOT_COMPARED or not expected.first <= head.offset < expected.last:
                continue
            if value in found:
                tally.duplicated += 1
            elif value in left:
                tally.found += 1
                tally.unordered += head.offset < last
                last = max(last, head.offset)
                found.add(value)
            else:
                tally.different += 1
                self._note(f"{topic}, partition {partition}: no tick calls for {_text(value)}")
        tally.expected += len(left)
        tally.missing += len(left - found)
        for value in sorted(left - found)[:1]:
            self._note(f"{topic}, partition {partition}: not published: {_text(value)}")

    def _note(self, what: str, topic: str = "", partition: int = 0, offset: int = -1) -> None:
        """Keep the first difference, with what was computed for that tick."""
        if self.report.first_difference:
            return
        self.report.first_difference = what
        if offset >= 0:
            self.report.first_difference += f"\n  computed {self._computed(topic, partition, offset)}"

    def _computed(self, topic: str, partition: int, offset: int) -> str:
        for _, output in self._outputs(partition, offset + 1, self._internal(partition)):
            for refusal in output.rejected:
                if refusal.offset == offset:
                    return f"a refusal: {refusal.reason}: {refusal.rule}"
            for batch in output.batches:
                for record in _records(batch.to_bytes()):
                    if batch.topic == topic and _head(record.value).offset == offset:
                        return _text(record.value)
        return "nothing"


def _refusal(record: Any) -> tuple[int, int, None] | None:
    headers = _headers(record)
    if headers["reason"] == b"internal":
        return None
    return int(headers["offset"]), _fingerprint_of_refusal(record.key(), record.value(), headers), None


def _fingerprint_of_refusal(key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> int:
    return fingerprint(key, value or b"", headers["reason"], headers["rule"], headers["partition"])


def _headers(record: Any) -> dict[str, bytes]:
    return dict(record.headers() or ())


def _text(value: bytes) -> str:
    more = f"... ({len(value):,} bytes)" if len(value) > MOST_SHOWN else ""
    return value[:MOST_SHOWN].decode("utf-8", errors="backslashreplace") + more


def verify(
    settings: Settings,
    make_pipeline: MakePipeline,
    load: LoadModels,
    start: Offsets | None = None,
    stop: Offsets | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Compute the ticks of a range afresh and compare everything that was published for them.

    Parameters
    ----------
    settings
        As the workers have them, rules and topics alike.
    make_pipeline
        Makes the pipeline of a partition.
    load
        Gives the models that results name.
    start
        First tick to compare; None: all partitions from their beginning, else those named only.
    stop
        The tick behind the last one; a partition not named ends at the group's committed offset.
    tell
        Hears of the progress.

    Raises
    ------
    TapewatchError
        If a topic cannot be read, or its oldest ticks are gone.
    """
    topics.partitions_of(settings.cluster, topics.streams(settings.topics))
    verification = Verification(settings, make_pipeline, cache(load), tell)
    try:
        partitions = verification.partitions()
        _check_partitions({**(start or {}), **(stop or {})}, partitions, settings.topics.ticks)
        committed = clients.committed(settings.cluster, settings.worker.group, settings.topics.ticks, partitions)
        wanted = partitions if start is None else sorted(start)
        verification.report.unchecked = sorted(set(partitions) - set(wanted))
        for partition in wanted:
            first = (start or {}).get(partition, 0)
            last = (stop or {}).get(partition, committed[partition])
            verification.partition(partition, first, max(first, last))
            if partition not in (stop or {}):
                verification.note_uncommitted(partition, committed[partition])
    except KafkaException as error:
        raise BrokerUnreachable(clients.unreachable(settings.broker, str(error))) from None
    finally:
        verification.close()
    return verification.report


def _check_partitions(named: Offsets, there: Sequence[int], topic: str) -> None:
    unknown = sorted(set(named) - set(there))
    if unknown:
        raise TapewatchError(f"topic {topic} has no partition {unknown[0]}: it has {len(there)}, from 0 on")


def parse(text: str) -> dict[int, int] | None:
    """`0:1000,1:500` as offsets by partition; `beginning` as None.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if text == "beginning":
        return None
    pairs = (part.split(":") for part in text.split(","))
    offsets = {int(partition): int(offset) for partition, offset in pairs}
    if min(*offsets, *offsets.values()) < 0:
        raise ValueError("a partition or offset is below 0")
    return offsets


def show(report: Report) -> str:
    """The report for a reader."""
    lines = [f"{report.ticks:,} ticks, {report.answered:,} answered, delivery {report.delivery}"]
    lines += [
        f"  {role:<12} expected {tally.expected:,}  missing {tally.missing:,}  different {tally.different:,}  "
        f"duplicated {tally.duplicated:,}  out of order {tally.unordered:,}"
        for role, tally in report.topics.items()
    ]
    if report.models:
        lines.append(f"  answered by {', '.join(report.models)}")
    if report.controls:
        lines.append(f"  {report.controls:,} controls that halted or resumed the agent's actions were followed")
    if report.conflated:
        lines.append(f"  {report.conflated:,} results are conflated: each stands for the ticks that it says")
    if report.internal:
        lines.append(f"  {report.internal:,} ticks were refused as internal and left out")
    if report.uncommitted:
        lines.append(f"  {report.uncommitted:,} messages more are not committed by {report.group}, and not checked")
    if report.first_difference:
        lines.append(f"first difference: {report.first_difference}")
    return "\n".join([*lines, _outcome(report)])


def _outcome(report: Report) -> str:
    if report.empty and not report.first_difference:
        return f"NOTHING TO VERIFY: no message in the range that group {report.group} has committed"
    if not report.ok:
        return "NOT VERIFIED"
    left = ", ".join(map(str, report.unchecked))
    return f"verified, but partitions {left} were not asked for" if left else "verified"


def run(settings: Settings, start: Offsets | None, stop: Offsets | None, json: bool) -> int:
    """`tapewatch verify`; the exit status is 1 if anything is wrong, or there is nothing to verify.

    Raises
    ------
    TapewatchError
        As `verify` does, and if a model that results name is not in the folder of models.
    """
    report = verify(settings, *with_models(settings), start, stop, _progress())
    if json:
        click.echo(messages.encode(msgspec.to_builtins(report) | {"ok": report.ok}).decode())
    else:
        click.echo(show(report))
    return 0 if report.ok else 1


def with_models(settings: Settings) -> tuple[MakePipeline, LoadModels]:
    """What `verify` needs of the models in the folder that the settings name.

    Raises
    ------
    ModelMismatch
        If there are none that fit.
    """
    folder, trust = Path(settings.worker.models), signatures.trust(settings.models)
    newest = Library(folder, trust).newest
    load = partial(inference.load_named, folder, trust=trust)
    every = msgspec.structs.replace(settings, worker=msgspec.structs.replace(settings.worker, conflate_ms=0))
    return lambda partition: Pipeline(every, newest, partition), load


def _progress() -> Callable[[str], None]:
    """A line on the terminal that changes; nothing where there is none."""
    error = click.get_text_stream("stderr")
    return (lambda line: click.echo(f"\r{line}\x1b[K", err=True, nl=False)) if error.isatty() else lambda line: None
