"""Halting and resuming the agent's actions: controls to every partition of the ticks, and who did it to `audit`.

Not in a transaction: half a halt is better than none, one that stays open would hold up all readers of the ticks, and
to ask again does no harm. See docs/decisions/0012-kill-switch.md.
"""

import getpass
import itertools
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import click
import msgspec
from confluent_kafka import KafkaError, Producer, TopicPartition

from stream import clients, halts, messages, topics
from stream.config import Cluster, Settings
from stream.errors import TapewatchError
from stream.halts import Halts
from stream.messages import CONTROL_KEY, Audit, Control, ControlName
from stream.tail import control_text, safe
from stream.verify import Topic

SECONDS: Final = 10.0  # the longest that Kafka may take for a record
POLL_SECONDS: Final = 0.1
LONGEST_NAME: Final = 128


class Asked(NamedTuple):
    """A control that was put in every partition of the ticks."""

    control: Control
    offsets: dict[int, int]  # of the control in each partition
    audited_from: dict[int, int]  # where `audit` ended before it, by partition


def made(name: ControlName, reason: str, by: str, symbol: str | None = None) -> Control:
    """A control, valid from now on.

    Raises
    ------
    TapewatchError
        If a worker would refuse it.
    """
    control = Control(name, uuid.uuid4().hex, time.time_ns(), by, reason.strip(), symbol)
    for field, value in (("reason", control.reason), ("name of who asks", by), ("symbol", symbol or "-")):
        if not value.isprintable():
            raise TapewatchError(f"the {field} holds what cannot be printed: {value!r}")
    try:
        messages.decode_control(messages.encode(control))
    except msgspec.ValidationError as error:
        raise TapewatchError(
            f"no {name} without a reason of 1 to 500 characters, and as few of a symbol: {error}"
        ) from None
    return control


def this_user() -> str:
    """Who runs this process: USER@HOST, as the system says."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"[:LONGEST_NAME]


def send(settings: Settings, control: Control) -> Asked:
    """Put a control in every partition of the ticks, and on `audit` that it was asked for.

    A halt goes to the ticks first; of a resume `audit` must know before.

    Raises
    ------
    BrokerUnreachable, MissingTopic
        If there is nothing to write to.
    TapewatchError
        If Kafka did not take all of it; it names the partitions that it took.
    """
    names = settings.topics
    found = topics.partitions_of(settings.cluster, [names.ticks, names.audit])
    audited_from = _ends(settings.cluster, names.audit, found[names.audit])
    sender = _Sender(settings.cluster)
    asked = Audit("asked", *(getattr(control, field) for field in Control.__struct_fields__))
    told = names.audit, 0, control.control_id.encode(), messages.encode(asked)
    value = messages.encode(control)
    everywhere = [(names.ticks, partition, CONTROL_KEY, value) for partition in range(found[names.ticks])]
    if control.control == "resume":
        sender.put([told])
    offsets = sender.put(everywhere)
    if control.control == "halt":
        sender.put([told])
    return Asked(control, offsets, audited_from)


class _Sender:
    def __init__(self, cluster: Cluster) -> None:
        self._broker = cluster.broker
        self._producer = Producer(
            {
                **clients.librdkafka(cluster),
                "acks": "all",
                "linger.ms": 0,
                "message.timeout.ms": int(1000 * SECONDS),
                "allow.auto.create.topics": False,
            }
        )

    def put(self, records: Iterable[tuple[str, int, bytes, bytes]]) -> dict[int, int]:
        """Offsets by partition, once the broker has all of them."""
        offsets: dict[int, int] = {}
        failed: list[str] = []

        def note(error: KafkaError | None, message: object) -> None:
            topic, partition = message.topic(), message.partition()  # type: ignore[attr-defined]
            if error is None:
                offsets[partition] = message.offset()  # type: ignore[attr-defined]
            else:
                failed.append(f"topic {topic}, partition {partition} ({error.str()})")

        for topic, partition, key, value in records:
            self._producer.produce(topic, value, key, partition, on_delivery=note)
        self._producer.flush(2 * SECONDS)
        if failed:
            done = f"; taken by partition {', '.join(map(str, sorted(offsets)))}" if offsets else ""
            raise TapewatchError(f"the broker at {self._broker} did not take it for {failed[0]}{done}: ask again")
        return offsets


def _ends(cluster: Cluster, topic: str, partitions: int) -> dict[int, int]:
    reader = Topic(cluster)
    try:
        return {partition: reader.range(topic, partition)[1] for partition in range(partitions)}
    finally:
        reader.close()


def taken(settings: Settings, asked: Asked, seconds: float) -> dict[int, Audit]:
    """What the partitions said that took a control within `seconds`, by partition."""
    consumer = clients.consumer(settings.cluster, lambda _: None)
    found: dict[int, Audit] = {}
    end = time.monotonic() + seconds
    try:
        consumer.assign([TopicPartition(settings.topics.audit, *place) for place in asked.audited_from.items()])
        while asked.offsets.keys() - found.keys() and time.monotonic() < end:
            message = consumer.poll(POLL_SECONDS)
            if message is None or message.error() is not None:
                continue
            each = read(message.value())
            if each is not None and each.event == "taken" and each.control_id == asked.control.control_id:
                assert each.partition is not None
                found[each.partition] = each
    finally:
        consumer.close()
    return found


def read(value: bytes | None) -> Audit | None:
    """A record on `audit`; None if it is something else."""
    try:
        found = messages.decode_audit(value or b"")
    except messages.DECODE_ERRORS:
        return None
    return None if found.event == "taken" and None in (found.partition, found.offset) else found


def history(settings: Settings) -> list[Audit]:
    """All that is on `audit`, in the order of asking; of what was published twice, both.

    Raises
    ------
    BrokerUnreachable, MissingTopic
        If there is nothing to read from.
    """
    return [each for _, each in sorted(_dated(settings), key=lambda pair: pair[0])]


def _dated(settings: Settings) -> Iterator[tuple[tuple[int, str, bool, int], Audit]]:
    topics.partitions_of(settings.cluster, [settings.topics.audit])
    reader = Topic(settings.cluster)
    try:
        for partition in reader.partitions(settings.topics.audit):
            _, end = reader.range(settings.topics.audit, partition)
            for records in reader.read(settings.topics.audit, partition, end):
                for record in records:
                    each = read(record.value())
                    if each is not None:
                        place = -1 if each.partition is None else each.partition
                        yield (each.at_ns, each.control_id, each.event == "taken", place), each
    finally:
        reader.close()


def in_force(audits: Iterable[Audit], partitions: Collection[int]) -> Mapping[int, Halts]:
    """The halts of each partition, as `audit` tells.

    Parameters
    ----------
    audits
        Of all partitions; those of a partition are taken in the order of their offsets.
    partitions
        Those of the ticks.
    """
    found: dict[int, Halts] = dict.fromkeys(partitions, halts.NOTHING)
    told = {(each.partition, each.offset): each for each in audits if each.event == "taken"}
    for (partition, offset), each in sorted(told.items(), key=lambda pair: (pair[0][0] or 0, pair[0][1] or 0)):
        if partition in found and offset is not None:
            control = Control(*(getattr(each, field) for field in Control.__struct_fields__))
            found[partition] = halts.after(found[partition], control, offset)
    return found


# --- The commands ---------------------------------------------------------------------------------------------------


def run(
    settings: Settings,
    name: ControlName,
    reason: str,
    symbol: str | None,
    seconds: float,
    confirm: Callable[[str, str], bool],
    tell: Callable[[str], None] = click.echo,
) -> int:
    """`tapewatch halt` and `tapewatch resume`; 1 where nothing was asked for, or not all partitions say they took it.

    Parameters
    ----------
    seconds
        How long the partitions are waited for.
    confirm
        Asked, with what it is about and the word to be typed, before anything is done.
    tell
        Hears what is done.

    Raises
    ------
    TapewatchError
        As `made` and `send`.
    """
    control = made(name, reason, this_user(), symbol)
    found = topics.partitions_of(settings.cluster, [settings.topics.ticks, settings.topics.audit])
    verb = "halts" if name == "halt" else "resumes"
    question = (
        f"this {verb} the agent's actions of {scope_text(symbol)}, in all {found[settings.topics.ticks]} partitions of "
        f"topic {settings.topics.ticks} at {settings.broker}; reason: {control.reason}"
    )
    if not confirm(question, name.upper()):
        tell("nothing was done")
        return 1
    asked = send(settings, control)
    told = taken(settings, asked, seconds)
    for line in outcome(settings, asked, told, seconds):
        tell(line)
    return 0 if told.keys() == asked.offsets.keys() else 1


def outcome(settings: Settings, asked: Asked, told: Mapping[int, Audit], seconds: float) -> Iterator[str]:
    """What became of a control, for people."""
    control = asked.control
    done = "halted" if control.control == "halt" else "resumed"
    if told:
        places = ", ".join(f"{partition} (offset {told[partition].offset})" for partition in sorted(told))
        yield f"{done} {scope_text(control.symbol)}: taken by partition {places}"
        if not any(each.changed for each in told.values()):
            yield f"it was {done} before: nothing changed"
        if control.symbol is not None and not any(each.known for each in told.values()):
            yield f"no partition has had a tick of {safe(control.symbol)} so far: is it spelt right?"
    if left := sorted(asked.offsets.keys() - told.keys()):
        yield (
            f"not yet taken by partition {', '.join(map(str, left))} after {seconds:g} s: it is on topic "
            f"{settings.topics.ticks}, and holds once a worker has got there; is one running? `tapewatch audit` tells"
        )
    if control.control == "halt" and (not settings.worker.snapshots or clients.is_embedded(settings.cluster)):
        yield "no state is kept there (the embedded broker, or worker.snapshots = false): a restart forgets the halt"
    if control.control == "resume":
        still = in_force(history(settings), asked.offsets)
        scopes = {scope for each in still.values() for scope in each} - {control.symbol}
        if scopes:
            named = ", ".join(sorted(safe(scope_text(scope)) for scope in scopes))
            yield f"still halted, each by a halt of its own: {named}"


def scope_text(symbol: str | None) -> str:
    """What a control is about."""
    return "all symbols" if symbol is None else f"symbol {safe(symbol)}"


def run_audit(settings: Settings, as_json: bool, tell: Callable[[str], None] = click.echo) -> None:
    """`tapewatch audit`: each control with who took it, then what is halted now.

    Raises
    ------
    BrokerUnreachable, MissingTopic
        If there is nothing to read from.
    """
    audits = history(settings)
    if as_json:
        for each in audits:
            tell(messages.encode(each).decode())
        return
    partitions = range(topics.partitions_of(settings.cluster, [settings.topics.ticks])[settings.topics.ticks])
    for _, group in itertools.groupby(audits, key=lambda each: each.control_id):
        tell(_told(list(group), partitions))
    tell(_now(in_force(audits, partitions)))


def _told(group: list[Audit], partitions: Collection[int]) -> str:
    first = group[0]
    took = sorted({each.partition for each in group if each.partition is not None})
    asked = "" if first.event == "asked" else "  (not asked for by a command or the board)"
    where = "all partitions" if set(took) >= set(partitions) else f"partitions {', '.join(map(str, took)) or 'none'}"
    return f"{control_text(first)}  taken by {where}{asked}"


def _now(found: Mapping[int, Halts]) -> str:
    where: dict[str | None, list[int]] = {}
    for partition, there in found.items():
        for scope in there:
            where.setdefault(scope, []).append(partition)
    if not where:
        return "nothing is halted"
    lines = [
        f"{scope_text(scope)} in {'all partitions' if len(at) == len(found) else f'partitions {at}'}"
        for scope, at in sorted(where.items(), key=lambda pair: pair[0] or "")
    ]
    return f"halted now: {'; '.join(lines)}"
