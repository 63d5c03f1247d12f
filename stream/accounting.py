"""Every tick accounted for: what was sent, what was answered on each topic, and how long that took."""

import threading
from array import array
from collections import deque
from typing import Final, NamedTuple

import numpy as np

RESULTS: Final = ("predictions", "risk", "actions")
_ALL: Final = 0b111
_REJECTED: Final = 0b1000
_RECENT: Final = 2000


class Tally(NamedTuple):
    """Sums over the messages that were sent and acknowledged."""

    ticks_sent: int  # the bad ones too
    ticks_rejected: int
    predictions: int
    risk: int
    actions: int
    missing: int  # results that should be there and are not
    duplicates: int  # results that are there twice, or of a message that was rejected

    @property
    def complete(self) -> bool:
        """Whether each message was answered exactly once, on each topic or by a rejection."""
        accepted = self.ticks_sent - self.ticks_rejected
        return self.predictions == self.risk == self.actions == accepted and not self.missing and not self.duplicates


class Latency(NamedTuple):
    """Milliseconds from the call that sends a tick to its last result being here."""

    p50: float
    p99: float


NO_LATENCY: Final = Latency(0.0, 0.0)
"""Where nothing was measured."""


class Accounts:
    """A ledger of messages by the partition and offset that they got.

    Results may come before the broker's acknowledgement of their tick does. May be used from several threads; results
    of other people's ticks are passed over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[int, float] = {}
        self._answers: dict[int, int] = {}
        self._complete: dict[int, float] = {}
        self._repeated: list[int] = []
        self._settled = 0
        self._latencies = array("d")
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def sent(self, partition: int, offset: int, at: float) -> None:
        """A message that was given to the producer at `at`, seconds, has this place."""
        key = _key(partition, offset)
        with self._lock:
            self._sent[key] = at
            self._settle(key)

    def answered(self, topic: int, partition: int, offset: int, at: float) -> None:
        """A record on topic RESULTS[`topic`] for the message at this place came at `at`."""
        self._note(_key(partition, offset), 1 << topic, at)

    def rejected(self, partition: int, offset: int, at: float) -> None:
        """The message at this place was refused."""
        self._note(_key(partition, offset), _REJECTED, at)

    @property
    def open(self) -> int:
        """Messages sent and acknowledged that have no complete answer yet."""
        with self._lock:
            return len(self._sent) - self._settled

    def tally(self) -> Tally:
        """The sums by now."""
        with self._lock:
            answers = [self._answers.get(key, 0) for key in self._sent]
            repeated = sum(key in self._sent for key in self._repeated)
        found = np.array(answers, np.uint8)
        bits = [(found >> topic) & 1 for topic in range(len(RESULTS))]
        refused = (found & _REJECTED) != 0
        given = np.sum(bits, axis=0) if found.size else np.zeros(0, np.int64)
        missing = int(np.where(refused, 0, len(RESULTS) - given).sum())
        duplicates = repeated + int(given[refused].sum())
        predictions, risk, actions = (int(each.sum()) for each in bits)
        return Tally(len(answers), int(refused.sum()), predictions, risk, actions, missing, duplicates)

    def latency(self) -> Latency:
        """Of all accepted ticks; zeros where there are none."""
        with self._lock:
            return _latency(np.array(self._latencies))

    def recent_latency(self) -> Latency:
        """Of the newest 2,000 accepted ticks."""
        with self._lock:
            return _latency(np.array(self._recent))

    def _note(self, key: int, bit: int, at: float) -> None:
        with self._lock:
            before = self._answers.get(key, 0)
            if before & bit:
                self._repeated.append(key)
                return
            self._answers[key] = now = before | bit
            if now in (_ALL, _REJECTED):
                self._complete[key] = at
                self._settle(key)

    def _settle(self, key: int) -> None:
        """Close the account of a message when both its place and its answer are known."""
        if key not in self._sent or key not in self._complete:
            return
        self._settled += 1
        waited = self._complete.pop(key) - self._sent[key]
        if self._answers[key] == _ALL:
            self._latencies.append(waited)
            self._recent.append(waited)


def _key(partition: int, offset: int) -> int:
    return partition << 48 | offset


def _latency(seconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Latency:
    if not seconds.size:
        return NO_LATENCY
    p50, p99 = np.percentile(seconds * 1000.0, [50, 99])
    return Latency(round(float(p50), 3), round(float(p99), 3))
