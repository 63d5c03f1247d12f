"""What the worker tells its metrics about a chunk, so that the tick path has one call for each step."""

import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from stream.core.results import RISK_COLUMNS, Results
from stream.decoding import Instruments
from stream.metrics import Metrics, Output, Watched
from stream.pipeline import Output as Computed
from stream.transport import Delivery

_SCORE = RISK_COLUMNS.index("score")


class Scores:
    """Last score and level of each instrument of a partition, shown once a second for those on the watch-list."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._score: NDArray[np.float64] = np.zeros(0)
        self._level: NDArray[np.int8] = np.zeros(0, np.int8)
        self._watched: dict[int, Watched] = {}
        self._known = 0

    def note(self, results: Results) -> None:
        """Keep the last of each instrument in a chunk."""
        if not len(results.slot):
            return
        self._grow(int(results.slot.max()) + 1)
        self._score[results.slot] = results.risk[:, _SCORE]  # of several ticks the last one stays
        self._level[results.slot] = results.level

    def show(self, metrics: Metrics, instruments: Instruments) -> None:
        """Bring the gauges up to date."""
        for slot in range(self._known, len(instruments)):
            watched = metrics.watch(self._partition, *instruments.names[slot])
            if watched is not None:
                self._watched[slot] = watched
        self._known = len(instruments)
        for slot, watched in self._watched.items():
            if slot < len(self._score):
                watched.set(float(self._score[slot]), int(self._level[slot]))

    def _grow(self, instruments: int) -> None:
        if instruments > len(self._score):
            more = max(instruments, 2 * len(self._score)) - len(self._score)
            self._score = np.concatenate([self._score, np.zeros(more)])
            self._level = np.concatenate([self._level, np.zeros(more, np.int8)])


def note_computed(metrics: Metrics, delivery: Delivery, computed: Computed) -> None:
    """Count a chunk that was computed."""
    accepted = len(computed.results.offset)
    metrics.chunk(
        ticks=len(delivery.chunk.offsets),
        accepted=accepted,
        late=computed.late,
        rejects=Counter(each.reason for each in computed.rejected),
        stages=computed.seconds,
        inference_seconds=computed.seconds.get("inference") if accepted else None,
    )
    for alert in computed.alerts:
        metrics.alert(alert.partition, alert.kind, alert.state)


def note_published(metrics: Metrics, delivery: Delivery, computed: Computed, publish_seconds: float) -> None:
    """Count the results of a chunk that the broker has acknowledged just now."""
    results = computed.results
    count = len(results.offset)
    counts: dict[Output, int] = {
        "predictions": count,
        "risk": count,
        "actions": count,
        "alerts": len(computed.alerts),
        "rejected": len(computed.rejected),
    }
    metrics.published(
        counts,
        receive_seconds=time.monotonic() - delivery.received if count else None,
        event_seconds=_since_traded(results) if count else None,
        produce_seconds=_since_produced(delivery, results) if count else None,
        publish_seconds=publish_seconds,
    )


def _since_traded(results: Results) -> NDArray[np.float64]:
    """Seconds since the venue's time of each answered tick."""
    return np.asarray(time.time_ns() - results.exchange_ns, np.float64) * 1e-9


def _since_produced(delivery: Delivery, results: Results) -> NDArray[np.float64]:
    """Seconds since the Kafka timestamp of each answered tick."""
    rows = np.searchsorted(np.asarray(delivery.chunk.offsets), results.offset)
    produced: NDArray[np.float64] = np.asarray(delivery.timestamps)[rows] * 1e-3
    return time.time() - produced
