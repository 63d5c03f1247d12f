"""`tapewatch rejected`: what was refused and why, and putting it back on the topic of ticks after a repair, once.

A message that is put back carries the header `retried_from`, PARTITION:OFFSET of the refused one, and goes to the same
partition, so behind it: whether it was put back can be read from there, for as long as the refused one is there too.
All of a call goes in one transaction, of a transactional id that names the topic of ticks. Who begins fences those who
began before, and only then reads what was put back, so that not even two calls at once put a message back twice.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import click
from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream import clients, topics
from stream.config import Settings
from stream.errors import BrokerUnreachable, TapewatchError
from stream.tail import safe, safe_bytes
from stream.verify import Topic

RETRIED_FROM: Final = "retried_from"
"""Header of a message that was put back: PARTITION:OFFSET of the refused one."""

SECONDS: Final = 30.0  # the longest that Kafka may take for a step of a transaction
# librdkafka writes a line of its own on stderr when it is fenced, whatever its log_level; our error tells of it.
_SILENT: Final = logging.Logger("librdkafka")  # apart from all others
_SILENT.addHandler(logging.NullHandler())

Place = tuple[int, int]
"""Partition and offset of a message on the topic of ticks."""


class Refused(NamedTuple):
    """A message on the topic of rejects."""

    place: Place
    reason: str
    rule: str
    key: bytes | None
    raw: bytes
    cut: bool  # longer than the topic of rejects takes, so its end is missing


class Sorted(NamedTuple):
    """Refused messages by whether they can be put back."""

    waiting: list[Refused]
    put_back: int  # before
    cut: int
    too_old: int  # the ticks behind them are gone, and with them whether they were put back


def refused_of(key: bytes | None, value: bytes | None, headers: Mapping[str, bytes | None]) -> Refused | None:
    """A record on the topic of rejects as a worker writes it; None if it is something else."""
    texts = {name: (text or b"").decode("utf-8", "backslashreplace") for name, text in headers.items()}
    place = place_of(f"{texts.get('partition')}:{texts.get('offset')}")
    if place is None or "reason" not in texts:
        return None
    return Refused(place, texts["reason"], texts.get("rule", ""), key, value or b"", "bytes" in texts)


def place_of(text: str) -> Place | None:
    """PARTITION:OFFSET; None if it is not that."""
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal() and text.isascii()):
        return None
    return int(partition), int(offset)


def sort_out(refused: Iterable[Refused], put_back: set[Place], oldest: Mapping[int, int]) -> Sorted:
    """Which of the messages can be put back, in the order of their offsets, each once.

    Parameters
    ----------
    refused
        As they stand on the topic of rejects, where a message may stand again.
    put_back
        Those that were put back already.
    oldest
        Partition -> first offset that the topic of ticks still holds.
    """
    found = {each.place: each for each in refused}
    left = [found[place] for place in sorted(found) if place not in put_back]
    too_old = [each for each in left if each.place[1] < oldest.get(each.place[0], 0)]
    cut = [each for each in left if each.cut and each not in too_old]
    waiting = [each for each in left if each not in too_old and not each.cut]
    return Sorted(waiting, len(found) - len(left), len(cut), len(too_old))


class Rejects:
    """The topic of rejects, and what of it was put back. A context manager."""

    def __init__(self, settings: Settings) -> None:
        """Connect; raises BrokerUnreachable or MissingTopic."""
        topics.partitions_of(settings.cluster, [settings.topics.ticks, settings.topics.rejected])
        self._names = settings.topics
        self._reader = Topic(settings.cluster)

    def __enter__(self) -> "Rejects":
        return self

    def __exit__(self, *_reason: object) -> None:
        self._reader.close()

    def read(self) -> Iterator[Refused]:
        """All of them, partition by partition."""
        for partition in self._reader.partitions(self._names.rejected):
            _, end = self._reader.range(self._names.rejected, partition)
            for record in self._records(self._names.rejected, partition, 0, end):
                refused = refused_of(record.key(), record.value(), dict(record.headers() or ()))
                if refused is not None:
                    yield refused

    def sort_out(self, chosen: Iterable[Refused]) -> Sorted:
        """See `sort_out`; reads the ticks from the first chosen one of each partition on."""
        kept = list(chosen)
        first: dict[int, int] = {}
        for each in kept:
            partition, offset = each.place
            first[partition] = min(offset, first.get(partition, offset))
        oldest, put_back = {}, set[Place]()
        for partition, offset in first.items():
            oldest[partition], end = self._reader.range(self._names.ticks, partition)
            put_back |= self._put_back(partition, max(offset, oldest[partition]), end)
        return sort_out(kept, put_back, oldest)

    def _put_back(self, partition: int, start: int, end: int) -> set[Place]:
        records = self._records(self._names.ticks, partition, start, end)
        headers = (dict(record.headers() or ()).get(RETRIED_FROM) for record in records)
        places = (place_of(text.decode("utf-8", "replace")) for text in headers if text is not None)
        return {place for place in places if place is not None}

    def _records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Any]:
        for records in self._reader.read(topic, partition, end, start):
            yield from records


class Returns:
    """Puts messages back, all of a call in one transaction."""

    def __init__(self, settings: Settings) -> None:
        """Fence every call that began before."""
        self._topic = settings.topics.ticks
        self._producer = Producer(
            {
                **clients.librdkafka(settings.cluster),
                "transactional.id": f"tapewatch-rejected-{self._topic}",
                "message.max.bytes": topics.MAX_MESSAGE_BYTES,
            },
            logger=_SILENT,
        )
        self._producer.init_transactions(SECONDS)

    def put_back(self, waiting: Iterable[Refused]) -> None:
        """Bytes and key as they were, into the partition where they were.

        Raises
        ------
        KafkaException
            If Kafka refuses, or another call has begun meanwhile; nothing is put back then.
        """
        self._producer.begin_transaction()
        try:
            for each in waiting:
                self._produce(each)
            self._producer.commit_transaction(SECONDS)
        except KafkaException:
            # Nobody reads past a transaction that is left open; of a fenced producer it is aborted already.
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(SECONDS)
            raise

    def _produce(self, refused: Refused) -> None:
        partition, offset = refused.place
        while True:
            try:
                return self._producer.produce(
                    self._topic, refused.raw, refused.key, partition, headers=[(RETRIED_FROM, f"{partition}:{offset}")]
                )
            except BufferError:
                self._producer.poll(0.1)


def show(settings: Settings, reason: str | None, count: int, console: Console) -> None:
    """`tapewatch rejected show`: how many of each reason, and the newest `count` of each.

    Raises
    ------
    BrokerUnreachable, MissingTopic
        If there is nothing to read from.
    """
    with _Told(settings), Rejects(settings) as rejects:
        found = {each.place: each for each in rejects.read() if reason in (None, each.reason)}
        waiting = {each.place for each in rejects.sort_out(found.values()).waiting}
    if not found:
        console.print("nothing was refused" + (f" as {safe(reason)}" if reason else ""), markup=False)
        return
    refused = Counter(each.reason for each in found.values())
    left = Counter(found[place].reason for place in waiting)
    table = Table("reason", "refused", "can be put back")
    for name, number in refused.most_common():
        table.add_row(safe(name), f"{number:,}", f"{left[name]:,}")
    console.print(table)
    for name, _ in refused.most_common():
        places = sorted(place for place, each in found.items() if each.reason == name)
        for place in places[max(0, len(places) - count) :]:
            console.print(_line(found[place]))


def _line(refused: Refused) -> Text:
    place = "{}:{}".format(*refused.place)
    return Text.assemble(
        (f"{place:>12}  ", "dim"),
        (f"{safe(refused.reason):<10}", "bold red"),
        f" {safe(refused.rule)}  ",
        (safe_bytes(refused.raw), "dim"),
    )


def retry(
    settings: Settings,
    reason: str | None,
    places: set[Place],
    confirm: Callable[[str], bool],
    tell: Callable[[str], None] = click.echo,
) -> int:
    """`tapewatch rejected retry`: put back what was refused for a reason, or at some places; gives how many.

    Parameters
    ----------
    reason, places
        All that were refused as `reason`, and those at `places`.
    confirm
        Asked before anything is put back.
    tell
        Hears what is done and what cannot be.

    Raises
    ------
    TapewatchError
        If a place holds no refused message, the broker is the embedded one, or Kafka refuses.
    """
    if clients.is_embedded(settings.cluster):
        raise TapewatchError(
            f"the broker at {settings.broker} is the embedded one, and putting back needs Kafka's transactions"
        )
    with _Told(settings), Rejects(settings) as rejects:
        returns = Returns(settings)
        chosen = [each for each in rejects.read() if each.reason == reason or each.place in places]
        for partition, offset in sorted(places - {each.place for each in chosen}):
            raise TapewatchError(
                f"no message was refused at {partition}:{offset}: `tapewatch rejected show` lists them"
            )
        found = rejects.sort_out(chosen)
        for number, why in (
            (found.put_back, "put back before"),
            (found.cut, "cut when they were refused, so their end is missing"),
            (found.too_old, "older than all ticks that are left, so whether they were put back cannot be told"),
        ):
            if number:
                tell(f"{number:,} left out: {why}")
        if not found.waiting or not confirm(f"put {len(found.waiting):,} back on {settings.topics.ticks}?"):
            tell("nothing was put back")
            return 0
        returns.put_back(found.waiting)
        tell(f"{len(found.waiting):,} put back on {settings.topics.ticks}")
        return len(found.waiting)


class _Told:
    """Turns what librdkafka raises into one of our errors."""

    def __init__(self, settings: Settings) -> None:
        self._broker = settings.broker

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if not isinstance(error, KafkaException):
            return
        why = error.args[0]
        if why.fatal() or why.txn_requires_abort():
            raise TapewatchError(
                f"nothing was put back: another `tapewatch rejected retry` has begun, or Kafka refused ({why.str()})"
            ) from None
        raise BrokerUnreachable(clients.unreachable(self._broker, why.str())) from None
