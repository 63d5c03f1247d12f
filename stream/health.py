"""Whether a worker makes progress: judged by its offsets, for a process can be there and stand still."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["starting", "ok", "stalled"]


@dataclass
class Progress:
    """Where one partition stands; offsets are None until they are known."""

    committed: int | None
    position: int | None  # next offset to be read
    lag: int  # offsets from `committed` to the end of the partition
    commit_age: float  # seconds since the oldest record that was read and is not committed; 0 where all are
    moved: float  # time of the last commit that moved, or at which there was nothing left to do
    recomputed: int | None = None  # below this offset answered ticks are computed again; None: no tick is


class Health:
    """Progress of the assigned partitions.

    A partition is stalled if there has been something to do, and nothing was committed, nor computed again after a
    take-over, for `stall_seconds`.
    Times are seconds of any clock that only goes forward.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._partitions: dict[int, Progress] = {}
        self._unknown: set[int] | None = None  # of the first assignment, those not heard of yet; None before it

    def assign(self, partitions: Iterable[int]) -> None:
        """These partitions are the worker's now, maybe none; what was there before and is not among them is not."""
        assigned = set(partitions)
        for partition in self._partitions.keys() - assigned:
            self.forget(partition)
        self._unknown = assigned if self._unknown is None else self._unknown & assigned

    def update(
        self,
        partition: int,
        committed: int | None,
        position: int | None,
        lag: int,
        commit_age: float,
        now: float,
        recomputed: int | None = None,
    ) -> None:
        """Note where `partition` stands at `now`; `recomputed` is up to where it is while ticks are computed again."""
        before = self._partitions.get(partition)
        there = committed, recomputed
        moved = now if before is None or lag == 0 or there != (before.committed, before.recomputed) else before.moved
        self._partitions[partition] = Progress(committed, position, lag, commit_age, moved, recomputed)
        if self._unknown:
            self._unknown.discard(partition)

    def forget(self, partition: int) -> None:
        """The partition is another worker's now."""
        self._partitions.pop(partition, None)

    def status(self, now: float) -> Status:
        """`stalled` if any partition is; `starting` until each of the first assignment is known."""
        if self._unknown is None or self._unknown:
            return "starting"
        stalled = any(now - each.moved > self._stall_seconds for each in self._partitions.values())
        return "stalled" if stalled else "ok"

    def report(self, now: float) -> dict[str, Any]:
        """What /health shows, ready for JSON."""
        return {
            "status": self.status(now),
            "partitions": {
                str(partition): {
                    "lag": each.lag,
                    "committed": each.committed,
                    "position": each.position,
                    "commit_age_seconds": round(each.commit_age, 3),
                    "seconds_since_progress": round(now - each.moved, 3),
                }
                for partition, each in sorted(self._partitions.items())
            },
        }
