"""What a worker tells of the controls that its partitions take, and of the halts in force."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from stream import halts, messages
from stream.halts import Taken
from stream.lanes import Lane
from stream.metrics import Metrics
from stream.publisher import Record

MILLISECOND: Final = 1_000_000
NONE, SOME_SYMBOLS, ALL = range(3)
"""Values of the metric tapewatch_actions_halted."""
log = logging.getLogger("tapewatch.switch")


class InForce(msgspec.Struct, frozen=True):
    """A halt as this worker's partitions have it."""

    symbol: str | None  # None: all
    since_ms: int  # the clock of who asked
    by: str
    reason: str
    partitions: Sequence[int]


class Switch:
    """Follows the halts of the lanes."""

    def __init__(self, lanes: Mapping[int, Lane], metrics: Metrics) -> None:
        self._lanes = lanes
        self._metrics = metrics

    def note(self, partition: int, controls: Iterable[Taken]) -> None:
        """Tell of the controls of a chunk."""
        for offset, control, changed, _ in controls:
            log.warning(
                "%s partition=%s offset=%s scope=%s changed=%s by=%r reason=%r id=%s",
                "halted" if control.control == "halt" else "resumed",
                partition,
                offset,
                "all" if control.symbol is None else repr(control.symbol),
                changed,
                control.by,
                control.reason,
                control.control_id,
            )
            self._metrics.control(control.control)

    def show(self) -> None:
        """Bring the gauge up to date."""
        scopes = {scope for lane in self._lanes.values() for scope in lane.pipeline.halts}
        self._metrics.halted(ALL if None in scopes else SOME_SYMBOLS if scopes else NONE)

    def in_force(self) -> list[InForce]:
        """All halts of the worker's partitions, those of all symbols first, then the oldest."""
        found: dict[tuple[str | None, str], tuple[halts.Halt, list[int]]] = {}
        for partition, lane in sorted(self._lanes.items()):
            for scope, halt in lane.pipeline.halts.items():
                found.setdefault((scope, halt.control_id), (halt, []))[1].append(partition)
        told = [
            InForce(halt.symbol, halt.at_ns // MILLISECOND, halt.by, halt.reason, partitions)
            for halt, partitions in found.values()
        ]
        return sorted(told, key=lambda each: (each.symbol is not None, each.since_ms))


def records(partition: int, controls: Iterable[Taken]) -> list[Record]:
    """What the topic `audit` is told of the controls that a partition has taken."""
    return [
        Record(taken.control.control_id.encode(), messages.encode(halts.audit(taken, partition))) for taken in controls
    ]
