"""Which fault strikes whom, when and for how long: all of it from a seed, so that a run can be had again."""

import random
from typing import Final, Literal, get_args

import msgspec

Kind = Literal["kill", "terminate", "freeze", "broker", "join", "swap"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)[:-1]
"""A kill -9 of a worker; SIGTERM; SIGSTOP beyond its session; a kill -9 of Kafka; one more worker for a while."""

BROKER: Final = -1  # the target of a fault that strikes no worker
MODELS: Final = -2  # of a swap: a new version in the folder of models of all workers, at any time among the faults
SESSION_SECONDS: Final = 10.0  # of a worker in its group: app.SESSION_SECONDS
GAP_SECONDS: Final = (1.0, 7.0)  # from the beginning of a fault to that of the next
SETTLE_SECONDS: Final = 5.0  # after its end nothing strikes the same target: long enough for a worker to join
LENGTHS: Final[dict[Kind, tuple[float, float]]] = {
    "kill": (0.2, 6.0),
    "terminate": (0.2, 6.0),
    "freeze": (SESSION_SECONDS + 1.0, SESSION_SECONDS + 5.0),
    "broker": (0.2, 5.0),
    "join": (6.0, 15.0),
}


class Fault(msgspec.Struct, frozen=True):
    """One fault; `at` and `seconds` by the clock of the run."""

    at: float  # seconds after the start of the load
    kind: Kind
    target: int  # number of the worker, or BROKER
    seconds: float  # until it is undone

    @property
    def end(self) -> float:
        """When it is undone."""
        return self.at + self.seconds


class Event(msgspec.Struct, frozen=True):
    """The beginning of a fault, or its end."""

    at: float
    begins: bool
    fault: Fault


def make(seed: int, count: int, workers: int) -> list[Fault]:
    """`count` faults, in the order of their beginnings.

    Each kind comes once before any comes twice. A target is left alone until its last fault is over and
    SETTLE_SECONDS more have passed; faults of different targets overlap as they will. Workers are numbered from 0;
    the one that joins and leaves is number `workers`.

    Raises
    ------
    ValueError
        If there is less than one fault or worker.
    """
    if count < 1 or workers < 1:
        raise ValueError(f"need at least one fault and one worker: {count=}, {workers=}")
    chance = random.Random(seed)
    free = dict.fromkeys(range(BROKER, workers + 1), 0.0)
    faults: list[Fault] = []
    now = 0.0
    for number in range(count):
        if number % len(KINDS) == 0:
            kinds = chance.sample(KINDS, len(KINDS))
        kind = kinds[number % len(KINDS)]
        targets = _targets(kind, workers)
        now = max(now + chance.uniform(*GAP_SECONDS), min(free[target] for target in targets))
        target = chance.choice([target for target in targets if free[target] <= now])
        faults.append(Fault(round(now, 3), kind, target, round(chance.uniform(*LENGTHS[kind]), 3)))
        free[target] = faults[-1].end + SETTLE_SECONDS
    return faults


def with_swaps(faults: list[Fault], seed: int, count: int) -> list[Fault]:
    """The faults, and `count` swaps of models anywhere among them; the faults stay as they are."""
    chance = random.Random(f"swaps {seed}")
    first, last = faults[0].at, max(fault.end for fault in faults)
    swaps = [Fault(round(chance.uniform(first, last), 3), "swap", MODELS, 0.0) for _ in range(count)]
    return sorted([*faults, *swaps], key=lambda fault: fault.at)


def _targets(kind: Kind, workers: int) -> list[int]:
    if kind == "broker":
        return [BROKER]
    return [workers] if kind == "join" else list(range(workers))


def timeline(faults: list[Fault]) -> list[Event]:
    """Beginnings and ends, in order."""
    events = [Event(fault.at, True, fault) for fault in faults] + [Event(fault.end, False, fault) for fault in faults]
    return sorted(events, key=lambda event: event.at)
