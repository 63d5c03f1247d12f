"""What the worker tells its metrics about a chunk, so that the tick path has one call for each step."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.config import Features
from stream.core import drift, outcomes
from stream.core.conflation import Chosen
from stream.core.features import FEATURES
from stream.core.outcomes import Outcomes, TrafficLight
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from stream.decoding import Instruments
from stream.inference import Card, named
from stream.metrics import Metrics, Watched
from stream.pipeline import Output as Computed
from stream.transport import Delivery

DRIFT_SECONDS: Final = 900.0
DRIFT_TICKS: Final = 500  # counted ones: with ten bins of a tenth chance alone gives an index of about 9 / 500
_FROM_RISK: Final = {name: RISK_COLUMNS.index(name) for name in RISK_COLUMNS}
_FROM_FORECAST: Final = {
    name: FORECAST_COLUMNS.index(f"{name}_60s") for name in ("expected_return", "volatility", "probability_up")
}
_QUANTILES: Final = slice(outcomes.QUANTILES[0], outcomes.QUANTILES[-1] + 1)


class Scores:
    """What was last answered for each instrument of a partition, shown once a second for those on the watch-list.

    For these, each forecast is also held against what followed.
    """

    def __init__(self, partition: int, session_gap_seconds: float = Features().session_gap_seconds) -> None:
        self._partition = partition
        self._session_gap_ns = int(session_gap_seconds * 1e9)
        self._newest: dict[int, tuple[Results, int]] = {}  # slot -> results of a chunk, row
        self._watched: dict[int, Watched] = {}
        self._known = 0
        self._row_of_slot = np.full(0, -1, np.int32)
        self._slots: list[int] = []  # of each row of the tests
        self._lights: list[TrafficLight] = []
        self._tests = outcomes.new_state(0)
        self._ended: list[Outcomes] = []

    @property
    def row_of_slot(self) -> NDArray[np.int32]:
        """int32[slots]: row of each watched instrument among the tests, -1 for the others."""
        return self._row_of_slot

    def note(self, results: Results) -> None:
        """Keep the last of each watched instrument in a chunk."""
        if not len(results.slot):
            return
        ended = outcomes.follow(self._tests, self._row_of_slot, results, self._session_gap_ns)
        if len(ended.row):
            self._ended.append(ended)
        for row in np.flatnonzero(ended.newest >= 0).tolist():
            self._newest[self._slots[row]] = results, int(ended.newest[row])
        if results.slot.max() >= self._known:  # it is decided at the next `show` whether they are watched
            new = np.flatnonzero(results.slot >= self._known)
            self._newest.update((int(results.slot[row]), (results, row)) for row in new.tolist())

    def show(self, metrics: Metrics, instruments: Instruments) -> None:
        """Bring the gauges up to date."""
        self._watch(metrics, instruments)
        for ended in self._ended:
            self._tell(metrics, ended)
        self._ended.clear()
        for slot in self._newest.keys() & self._watched.keys():
            results, row = self._newest[slot]
            light = self._lights[self._row_of_slot[slot]]
            self._watched[slot].set(_values(results, row, light), results.forecast[row, _QUANTILES].tolist())
        self._newest.clear()

    def _tell(self, metrics: Metrics, ended: Outcomes) -> None:
        for row, exception in zip(ended.row.tolist(), ended.exceptions.tolist(), strict=True):
            self._lights[row].add(exception)
        metrics.tested(
            int(ended.exceptions.sum()),
            ended.below,
            {
                "model": outcomes.qlike(ended.forecast_variance, ended.realized_variance),
                "usual": outcomes.qlike(ended.usual_variance, ended.realized_variance),
            },
        )

    def _watch(self, metrics: Metrics, instruments: Instruments) -> None:
        """Take instruments that are new on the watch-list, while it has room."""
        if len(instruments) == self._known:
            return
        rows = np.full(len(instruments), -1, np.int32)
        rows[: self._known] = self._row_of_slot
        for slot in range(self._known, len(instruments)):
            watched = metrics.watch(self._partition, *instruments.names[slot])
            if watched is not None:
                rows[slot] = len(self._lights)
                self._watched[slot] = watched
                self._lights.append(TrafficLight())
                self._slots.append(slot)
        self._row_of_slot = rows
        self._known = len(instruments)
        self._tests = np.concatenate([self._tests, outcomes.new_state(len(self._lights) - len(self._tests))])


class Drift:
    """Features of the answered ticks against those that the forecaster was trained on.

    After a swap they are held against the new one's, counted from its first answer on; until these are enough nothing
    is shown.

    Parameters
    ----------
    wanted
        Card of the forecaster that is in force or about to be; None where there is none. Without histograms in it
        nothing is shown.
    clock
        Seconds; never goes back.
    """

    def __init__(self, wanted: Callable[[], Card | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted = wanted
        self._clock = clock
        self._changed = False  # since the last `show`
        self._begin(wanted())

    def _begin(self, card: Card | None) -> None:
        self._card = card
        self._window: drift.Window | None = None
        if card is not None and card.histograms:
            self._expected = np.array([each.shares for each in card.histograms])
            self._window = drift.Window(np.array([each.edges for each in card.histograms]), DRIFT_SECONDS)

    def note(self, computed: Computed, forecaster: str) -> None:
        """Count the ticks of a chunk, the last of which `forecaster`, name@version, answered."""
        wanted = self._wanted()
        if wanted is not self._card and wanted is not None and named(wanted) == forecaster:
            self._begin(wanted)
            self._changed = True
        results = computed.results
        if self._window is not None and len(results.offset):
            self._window.add(computed.features, results.offset, results.warming, self._clock())

    def show(self, metrics: Metrics) -> None:
        """Bring the gauges up to date, where there are ticks enough to tell."""
        if self._changed:
            metrics.drift({})
            self._changed = False
        if self._window is None:
            return
        counts = self._window.counts(self._clock())
        if counts[0].sum() >= DRIFT_TICKS:
            index = drift.stability_index(self._expected, counts)
            metrics.drift(dict(zip(FEATURES, index.tolist(), strict=True)))


def _values(results: Results, row: int, light: TrafficLight) -> dict[str, float]:
    """The newest answers for an instrument, by the names of its gauges."""
    risk, forecast = results.risk[row].tolist(), results.forecast[row].tolist()
    return {
        **{name: risk[column] for name, column in _FROM_RISK.items()},
        **{name: forecast[column] for name, column in _FROM_FORECAST.items()},
        "level": int(results.level[row]),
        "price": float(results.price[row]),
        "target_position": float(results.target_position[row]),
        "expected_reward": float(results.expected_reward[row]),
        "var_window_tests": light.tests,
        "var_window_exceptions": light.exceptions,
        "var_zone": light.zone,
    }


def note_computed(metrics: Metrics, delivery: Delivery, computed: Computed) -> None:
    """Count a chunk that was computed."""
    accepted = len(computed.results.offset)
    metrics.chunk(
        ticks=len(delivery.chunk.offsets) - len(computed.controls),
        accepted=accepted,
        late=computed.late,
        rejects=Counter(each.reason for each in computed.rejected),
        stages=computed.seconds,
        inference_seconds=computed.seconds.get("inference") if accepted else None,
    )
    results = computed.results
    metrics.answered(results.risk[~results.warming, _FROM_RISK["anomaly"]], results.action, results.gate)
    for alert in computed.alerts:
        metrics.alert(alert.partition, alert.kind, alert.state)


def note_published(metrics: Metrics, delivery: Delivery, computed: Computed, publish_seconds: float) -> None:
    """Count the results of a chunk that the broker has acknowledged just now."""
    note_held(metrics, computed)
    _note_results(metrics, delivery, computed.results)
    metrics.published({}, publish_seconds=publish_seconds)


def note_held(metrics: Metrics, computed: Computed) -> None:
    """Count what has been acknowledged of a chunk whose results are held back."""
    metrics.published({"alerts": len(computed.alerts), "rejected": len(computed.rejected)})


def note_newest(
    metrics: Metrics, deliveries: Sequence[Delivery], chosen: Sequence[Chosen], publish_seconds: float
) -> None:
    """Count the results that were chosen of some chunks, and that the broker has acknowledged just now."""
    ends = [delivery.span.end for delivery in deliveries]
    for results in (each.results for each in chosen):
        borders = np.searchsorted(results.offset, ends).tolist()
        for delivery, first, last in zip(deliveries, [0, *borders], borders, strict=False):
            _note_results(metrics, delivery, results.rows(slice(first, last)))
    metrics.published({}, publish_seconds=publish_seconds)


def _note_results(metrics: Metrics, delivery: Delivery, results: Results) -> None:
    count = len(results.offset)
    if count:
        metrics.published(
            {"predictions": count, "risk": count, "actions": count},
            receive_seconds=time.monotonic() - delivery.received,
            event_seconds=_since_traded(results),
            produce_seconds=_since_produced(delivery, results),
        )


def _since_traded(results: Results) -> NDArray[np.float64]:
    """Seconds since the venue's time of each answered tick."""
    return np.asarray(time.time_ns() - results.exchange_ns, np.float64) * 1e-9


def _since_produced(delivery: Delivery, results: Results) -> NDArray[np.float64]:
    """Seconds since the Kafka timestamp of each answered tick."""
    rows = np.searchsorted(np.asarray(delivery.chunk.offsets), results.offset)
    produced: NDArray[np.float64] = np.asarray(delivery.timestamps)[rows] * 1e-3
    return time.time() - produced
