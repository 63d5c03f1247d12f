"""Every Prometheus metric of a worker and of a feed. `python -m stream.metrics` writes docs/metrics.md's tables again.

The tick path calls `chunk` and `published` once a chunk each, never once a tick. prometheus-client's own histogram
takes one observation a call and searches its buckets in Python; `Buckets` here takes an array, or one value with a
weight. Nothing here locks more than prometheus-client does by itself: use a `Metrics` from one event loop.
"""

import platform
import resource
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from stream import __version__
from stream.config import ROOT
from stream.messages import ACTIONS, ALERT_KINDS, GATES, QUANTILE_LEVELS, AlertKind, AlertState, ControlName, Reason
from stream.roles import Role

PREFIX: Final = "tapewatch_"

Output = Literal["predictions", "risk", "actions", "alerts", "rejected"]
"""What a worker publishes, by role: the label `topic` does not change with the topics' configured names."""

Stage = Literal["decode", "features", "inference", "risk", "encode", "publish"]
"""The steps of a chunk, in their order."""

Head = Literal["forecaster", "critic", "policy"]
HEADS: Final[tuple[Head, ...]] = get_args(Head)

Rival = Literal["model", "usual"]
"""Whose variance forecast: the model's, or the plain one beside it, the instrument's own average over 1800 s."""

# The target is a p50 of 10 ms and a p99 of 25 ms, so most borders lie around them; prometheus-client's default
# ladder starts at 5 ms. Milliseconds here for the reader, seconds on the wire.
LATENCY_BUCKETS: Final = tuple(
    ms / 1000 for ms in (0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 250, 1000, 5000)
)
# A step of a small chunk takes tens of microseconds.
STAGE_BUCKETS: Final = tuple(
    ms / 1000 for ms in (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 100, 250, 1000)
)
CHUNK_BUCKETS: Final = tuple(float(2**power) for power in range(14))  # 1 to 8192, the largest `chunk_ticks`
# Calibrated, so that of normal ticks a tenth lies between any two of the first ten.
ANOMALY_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)

# What is shown of each instrument on the watch-list: name, unit, help. Score and level stand apart, first.
WATCHED: Final = (
    ("score", "0 to 100", "Risk score of a watched instrument, 0 to 100."),
    ("level", "0 to 3", "Risk level of a watched instrument: 0 normal, 1 elevated, 2 high, 3 critical."),
    ("price", "quote currency", "Price of the newest tick of a watched instrument."),
    (
        "anomaly",
        "0 to 1",
        "Anomaly of the newest tick of a watched instrument: 0.99 is exceeded by 1 % of its own ticks.",
    ),
    ("flow", "0 to 1", "Component flow of a watched instrument's score."),
    ("liquidity", "0 to 1", "Component liquidity of a watched instrument's score."),
    ("volatility_ratio", "1", "Forecast volatility of a watched instrument over its own; 1 is usual."),
    ("var_99", "log return", "Value at risk 99 % of a watched instrument over 60 s; positive is a loss."),
    ("es_975", "log return", "Expected shortfall 97.5 % of a watched instrument over 60 s; positive is a loss."),
    ("expected_return", "log return", "Forecast mean of a watched instrument's log return over 60 s."),
    ("volatility", "log return", "Forecast standard deviation of a watched instrument's log return over 60 s."),
    ("probability_up", "0 to 1", "Forecast probability that a watched instrument's log return over 60 s is above 0."),
    ("target_position", "-1 to 1", "Position that the agent wants in a watched instrument; 0 is flat."),
    (
        "expected_reward",
        "log return",
        "Reward that the agent expects of its action on a watched instrument, after costs.",
    ),
    ("var_window_tests", "tests", "Tests of a watched instrument's VaR in the traffic light's window, at most 250."),
    ("var_window_exceptions", "exceptions", "Tests in that window whose loss was larger than the VaR."),
    ("var_zone", "0 to 2", "Zone of Basel's traffic light of a watched instrument: 0 green, 1 yellow, 2 red."),
)
WATCHED_NAMES: Final = tuple(name for name, _, _ in WATCHED)

DOCUMENT: Final = ROOT / "docs" / "metrics.md"
TABLE_START: Final = "<!-- table: written by `make docs` -->"
FEED_TABLE_START: Final = "<!-- table of feeds: written by `make docs` -->"
TABLE_END: Final = "<!-- end of table -->"
_STATM: Final = Path("/proc/self/statm")


class Declared(NamedTuple):
    """A metric as docs/metrics.md lists it."""

    name: str  # as exposed, `_total` included
    kind: str  # counter, gauge or histogram
    unit: str
    labels: tuple[str, ...]
    help: str


class Buckets:
    """Counts of one histogram, one label set: `counts[i]` observations in (bounds[i-1], bounds[i]]."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = list(bounds)
        self._edges = np.array(bounds, dtype=np.float64)
        self.counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Count `value` `weight` times; below 0 (a clock of the venue that runs ahead of ours) it counts as 0."""
        value = max(0.0, value)
        self.counts[bisect_left(self._bounds, value)] += weight
        self.sum += value * weight

    def observe_all(self, values: NDArray[np.float64]) -> None:
        """Count each of `values`, float64[n], as `observe` does."""
        values = np.maximum(values, 0.0)
        self.counts += np.bincount(np.searchsorted(self._edges, values), minlength=self.counts.size)
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it) as Prometheus wants them, `+Inf` last."""
        bounds = [*self._bounds, float("inf")]
        totals = np.cumsum(self.counts).tolist()
        return [(_bound_text(bound), float(total)) for bound, total in zip(bounds, totals, strict=True)]


def _bound_text(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]  # the label `le` as the client writes it
    return text


class Histograms(Collector):
    """One histogram metric: a `Buckets` for each value of its label, all known from the start."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str = "", values: Iterable[str] = ("",)):
        self._name, self._text, self._label = name, text, label
        self.of = {value: Buckets(bounds) for value in values}

    def describe(self) -> Iterable[Metric]:
        """The family without samples; the registry refuses a second metric of its name."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The family with a sample set for each value of the label."""
        family = self._family()
        for value, buckets in self.of.items():
            family.add_metric([value] if self._label else [], buckets.cumulative(), buckets.sum)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])


class Watched:
    """The gauges of one instrument on the watch-list. They appear with the first values."""

    def __init__(self, gauges: Sequence[Gauge], quantiles: Gauge, symbol: str, venue: str) -> None:
        self._gauges, self._quantiles = gauges, quantiles
        self._labels = symbol, venue
        self._bound: list[Gauge] = []

    def set(self, values: Mapping[str, float], quantiles: Sequence[float]) -> None:
        """Show a value for each of WATCHED_NAMES, and the quantiles of the return at QUANTILE_LEVELS.

        Raises
        ------
        KeyError
            If a name is missing.
        """
        if not self._bound:
            self._bound = [gauge.labels(*self._labels) for gauge in self._gauges]
            self._bound += [self._quantiles.labels(*self._labels, level) for level in QUANTILE_LEVELS]
        shown = [*(values[name] for name in WATCHED_NAMES), *quantiles]
        for gauge, value in zip(self._bound, shown, strict=True):
            gauge.set(value)

    def remove(self) -> None:
        """Take them away."""
        if self._bound:
            for gauge in self._gauges:
                gauge.remove(*self._labels)
            for level in QUANTILE_LEVELS:
                self._quantiles.remove(*self._labels, level)
            self._bound = []


class Metrics:
    """The metrics of one worker, in a registry of their own.

    Parameters
    ----------
    watch
        Symbols with a score and level of their own; empty: the first `watch_limit` instruments seen.
    watch_limit
        Most instruments (a symbol at a venue) on the watch-list at a time; never less than `len(watch)`.
    """

    def __init__(self, watch: Sequence[str] = (), watch_limit: int = 32) -> None:
        # Else each counter brings a gauge of its birth; start_time_seconds says it once.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []
        self._watch = frozenset(watch)
        self._watch_limit = max(watch_limit, len(self._watch))
        self._watched: dict[tuple[int, str, str], Watched] = {}
        self._open: dict[tuple[int, AlertKind], int] = {}
        self.model_names: dict[Head, str] = {}  # name@version of each head
        self._shadow = ""  # name@version of the challenger
        self._declare_flow()
        self._declare_latency()
        self._declare_progress()
        self._declare_risk()
        self._declare_models()
        self._declare_challenger()
        self._declare_process()

    def _declare_flow(self) -> None:
        self._ticks = self._counter("ticks", "ticks", "Messages read from the topic of ticks, refused ones included.")
        self._accepted = self._counter(
            "ticks_accepted", "ticks", "Ticks that were answered on each of the result topics."
        )
        self._late = self._counter(
            "ticks_late", "ticks", "Accepted ticks older than one before them, used with time clamped."
        )
        rejected = self._counter(
            "ticks_rejected", "messages", "Messages refused, by the reason in their headers.", "reason"
        )
        self._rejected = {reason: rejected.labels(reason) for reason in get_args(Reason)}
        results = self._counter("results", "records", "Records that the broker has acknowledged, by topic.", "topic")
        self._results = {output: results.labels(output) for output in get_args(Output)}
        self._chunk_ticks = self._histogram("chunk_ticks", "ticks", "Ticks in a chunk.", CHUNK_BUCKETS).of[""]

    def _declare_latency(self) -> None:
        self._event = self._histogram(
            "event_to_publish_seconds",
            "s",
            "From the venue's clock to the broker's acknowledgement of the results; a replay of old ticks is beyond.",
            LATENCY_BUCKETS,
        ).of[""]
        self._produce = self._histogram(
            "produce_to_publish_seconds",
            "s",
            "From the timestamp of the tick's Kafka record (whole ms) to the acknowledgement of its results.",
            LATENCY_BUCKETS,
        ).of[""]
        self._receive = self._histogram(
            "receive_to_publish_seconds",
            "s",
            "From the arrival of a tick's chunk in the worker to the acknowledgement of its results.",
            LATENCY_BUCKETS,
        ).of[""]
        self._stages = self._histogram(
            "stage_seconds", "s", "Time a chunk spends in each step.", STAGE_BUCKETS, "stage", get_args(Stage)
        ).of
        self._inference = self._histogram(
            "inference_seconds",
            "s",
            "Time of the models for a chunk of accepted ticks, one run of the session, packing included.",
            STAGE_BUCKETS,
        ).of[""]

    def _declare_progress(self) -> None:
        self._lag = self._gauge(
            "lag_ticks", "ticks", "Ticks in a partition that the worker has not read yet.", "partition"
        )
        self._commit_age = self._gauge(
            "commit_age_seconds", "s", "Age of the oldest tick read and not committed; 0 where all are."
        )
        self._commits = self._counter("commits", "commits", "Commits of offsets that the broker has acknowledged.")
        self._recovery = self._gauge(
            "recovery_seconds", "s", "Time in which snapshots were loaded at the last assignment."
        )
        self._snapshots = self._counter(
            "snapshots", "snapshots", "Snapshots of instruments that were committed with their offsets."
        )
        self._recomputed = self._counter(
            "recomputed_ticks",
            "ticks",
            "Ticks answered before that were computed again, unpublished, since the snapshots taken up were older.",
        )
        self._symbols = self._gauge(
            "symbols_tracked",
            "instruments",
            "Instruments (a symbol at a venue) held in a partition's state.",
            "partition",
        )

    def _declare_risk(self) -> None:
        self._watched_gauges = [self._gauge(name, unit, text, "symbol", "venue") for name, unit, text in WATCHED]
        self._quantiles = self._gauge(
            "return_quantile",
            "log return",
            "Forecast quantile of a watched instrument's log return over 60 s.",
            "symbol",
            "venue",
            "quantile",
        )
        opened = self._counter("alerts_opened", "alerts", "Alerts that opened, by kind.", "kind")
        self._alerts_opened = {kind: opened.labels(kind) for kind in ALERT_KINDS}
        is_open = self._gauge("alerts_open", "alerts", "Alerts that are open now, by kind.", "kind")
        self._alerts_open = {kind: is_open.labels(kind) for kind in ALERT_KINDS}

    def _declare_models(self) -> None:
        self._tick_anomaly = self._histogram(
            "tick_anomaly", "0 to 1", "Anomaly of each answered tick that is not warming.", ANOMALY_BUCKETS
        ).of[""]
        self._tests = self._counter(
            "forecast_tests", "tests", "Forecasts of watched instruments held against the 60 s that followed."
        )
        below = self._counter(
            "forecast_below", "tests", "Tests whose log return was below the forecast quantile.", "quantile"
        )
        self._below = [below.labels(level) for level in QUANTILE_LEVELS]
        loss = self._counter(
            "forecast_qlike",
            "QLIKE",
            "Sum of QLIKE over the tests, of the model and of the usual variance.",
            "forecast",
        )
        self._qlike = {rival: loss.labels(rival) for rival in get_args(Rival)}
        self._exceptions = self._counter("var_exceptions", "tests", "Tests whose loss was larger than the VaR 99 %.")
        self._stability = self._gauge(
            "feature_stability_index",
            "PSI",
            "Population stability index of a feature: ticks of 15 minutes against the training file most like them.",
            "feature",
        )
        actions = self._counter("actions", "ticks", "Actions of the agent after the risk rules, by action.", "action")
        self._actions = [actions.labels(action) for action in ACTIONS]
        gated = self._counter("actions_gated", "ticks", "Actions that a risk rule overrode, by rule.", "rule")
        self._gated = [gated.labels(gate) for gate in GATES if gate is not None]
        controls = self._counter(
            "controls", "controls", "Controls that partitions have taken: each counts once a partition.", "control"
        )
        self._controls = {name: controls.labels(name) for name in get_args(ControlName)}
        self._halted = self._gauge(
            "actions_halted", "0 to 2", "The agent's actions are halted: 0 nowhere, 1 of some symbols, 2 of all."
        )

    def _declare_challenger(self) -> None:
        self._duels = self._counter(
            "challenger_tests",
            "tests",
            "Forecasts of champion and challenger held against the same 60 s that followed.",
        )
        loss = self._counter(
            "challenger_qlike", "QLIKE", "Sum of QLIKE over these tests, of champion and challenger.", "role"
        )
        exceptions = self._counter(
            "challenger_var_exceptions",
            "tests",
            "These tests whose loss was larger than the VaR 99 %, by role.",
            "role",
        )
        self._duel_qlike = {role: loss.labels(role) for role in get_args(Role)}
        self._duel_exceptions = {role: exceptions.labels(role) for role in get_args(Role)}

    def _declare_process(self) -> None:
        self._model = self._gauge(
            "model_info",
            "1",
            "1 for the model, name@version, that serves a head, or is the challenger.",
            "head",
            "model",
        )
        swaps = self._counter(
            "model_swaps", "swaps", "Times that a new model took over in a partition while the worker ran.", "head"
        )
        self._swaps = {head: swaps.labels(head) for head in HEADS}
        self._refused_models = self._gauge(
            "models_refused",
            "bundles",
            "Bundles in the folder of models that would be in force, or challenge, but do not fit.",
        )
        build = self._gauge("build_info", "1", "1, with the versions of Tapewatch and Python.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        self._gauge("start_time_seconds", "s since 1970", "When the worker started, s since the Unix epoch.").set(
            time.time()
        )
        self._gauge("resident_memory_bytes", "bytes", "Memory of the worker that is in RAM.").set_function(
            resident_memory
        )

    def _counter(self, name: str, unit: str, text: str, *labels: str) -> Counter:
        self.declared.append(Declared(f"{PREFIX}{name}_total", "counter", unit, labels, text))
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, unit: str, text: str, *labels: str) -> Gauge:
        self.declared.append(Declared(PREFIX + name, "gauge", unit, labels, text))
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, unit: str, text: str, bounds: Sequence[float], label: str = "", values: Iterable[str] = ("",)
    ) -> Histograms:
        self.declared.append(Declared(PREFIX + name, "histogram", unit, (label,) if label else (), text))
        histogram = Histograms(PREFIX + name, text, bounds, label, values)
        self.registry.register(histogram)
        return histogram

    def chunk(
        self,
        *,
        ticks: int,
        accepted: int,
        late: int = 0,
        rejects: Mapping[Reason, int] | None = None,
        stages: Mapping[Stage, float] | None = None,
        inference_seconds: float | None = None,
    ) -> None:
        """Count a chunk that was computed.

        Parameters
        ----------
        ticks
            Messages in the chunk, refused ones included.
        accepted, late
            How many of them were answered, and how many of those came late.
        rejects
            How many were refused, by reason.
        stages
            Seconds in each step.
        inference_seconds
            Seconds in the models; None where no tick was accepted, so that idle chunks do not flatter it.

        Raises
        ------
        KeyError
            If a reason or a stage is not one of the closed sets.
        """
        self._ticks.inc(ticks)
        self._accepted.inc(accepted)
        self._late.inc(late)
        self._chunk_ticks.observe(ticks)
        for reason, count in (rejects or {}).items():
            self._rejected[reason].inc(count)
        for stage, seconds in (stages or {}).items():
            self._stages[stage].observe(seconds)
        if inference_seconds is not None:
            self._inference.observe(inference_seconds)

    def published(
        self,
        results: Mapping[Output, int],
        *,
        receive_seconds: float | None = None,
        event_seconds: NDArray[np.float64] | None = None,
        produce_seconds: NDArray[np.float64] | None = None,
        publish_seconds: float | None = None,
    ) -> None:
        """Count the results of a chunk once the broker has acknowledged them.

        Parameters
        ----------
        results
            Records by topic.
        receive_seconds
            From the chunk's arrival to now; counts once for each prediction among `results`.
        event_seconds, produce_seconds
            float64[n]: now less the venue's time, and less the Kafka record's, of each answered tick.
        publish_seconds
            Seconds in the stage `publish`, for callers that know them only here.
        """
        for output, count in results.items():
            self._results[output].inc(count)
        if receive_seconds is not None:
            self._receive.observe(receive_seconds, results.get("predictions", 0))
        if event_seconds is not None:
            self._event.observe_all(event_seconds)
        if produce_seconds is not None:
            self._produce.observe_all(produce_seconds)
        if publish_seconds is not None:
            self._stages["publish"].observe(publish_seconds)

    def answered(self, anomaly: NDArray[np.float64], action: NDArray[np.int8], gate: NDArray[np.int8]) -> None:
        """Count the answers of a chunk.

        Parameters
        ----------
        anomaly : float64[m]
            Of the ticks that are not warming.
        action, gate : int8[n]
            Indices into `messages.ACTIONS` and `messages.GATES`, of each answered tick.
        """
        self._tick_anomaly.observe_all(anomaly)
        for counter, count in zip(self._actions, np.bincount(action, minlength=len(ACTIONS)).tolist(), strict=True):
            counter.inc(count)
        overridden = np.bincount(gate, minlength=len(GATES)).tolist()[1:]  # the first is no rule
        for counter, count in zip(self._gated, overridden, strict=True):
            counter.inc(count)

    def tested(self, exceptions: int, below: NDArray[np.bool_], qlike: Mapping[Rival, NDArray[np.float64]]) -> None:
        """Count forecasts that were held against what followed.

        Parameters
        ----------
        exceptions
            How many of them lost more than their VaR.
        below : bool[k, 5]
            Whether the return was below each of QUANTILE_LEVELS.
        qlike
            float64[k] of each rival.
        """
        self._tests.inc(len(below))
        self._exceptions.inc(exceptions)
        for counter, count in zip(self._below, below.sum(axis=0).tolist(), strict=True):
            counter.inc(count)
        for rival, losses in qlike.items():
            self._qlike[rival].inc(float(losses.sum()))

    def committed(self) -> None:
        """Count a commit that the broker has acknowledged."""
        self._commits.inc()

    def recovered(self, seconds: float) -> None:
        """Show how long the loading of snapshots took."""
        self._recovery.set(seconds)

    def snapshots(self, count: int) -> None:
        """Count snapshots of a checkpoint that is committed."""
        self._snapshots.inc(count)

    def recomputed(self, ticks: int) -> None:
        """Count ticks that were computed again and not published."""
        self._recomputed.inc(ticks)

    def commit_age_from(self, seconds: Callable[[], float]) -> None:
        """Ask `seconds` for the age of the oldest uncommitted tick at each scrape, so that it grows by itself."""
        self._commit_age.set_function(seconds)

    def lag(self, partition: int, ticks: int) -> None:
        """Show how many ticks of the partition are not read yet."""
        self._lag.labels(partition).set(ticks)

    def symbols(self, partition: int, count: int) -> None:
        """Show how many instruments the state of the partition holds."""
        self._symbols.labels(partition).set(count)

    def watch(self, partition: int, symbol: str, venue: str = "") -> Watched | None:
        """The gauges of an instrument, or None where it is not on the watch-list or that is full.

        Ask once for each instrument, when it is first seen, and keep the answer.
        """
        key = (partition, symbol, venue)
        if key in self._watched:
            return self._watched[key]
        if (self._watch and symbol not in self._watch) or len(self._watched) >= self._watch_limit:
            return None
        watched = Watched(self._watched_gauges, self._quantiles, symbol, venue)
        self._watched[key] = watched
        return watched

    def alert(self, partition: int, kind: AlertKind, state: AlertState) -> None:
        """Follow a change of an alert's state."""
        if state == "updated":
            return
        step = 1 if state == "opened" else -1
        self._open[partition, kind] = self._open.get((partition, kind), 0) + step
        self._alerts_open[kind].inc(step)
        if state == "opened":
            self._alerts_opened[kind].inc()

    def forget(self, partition: int) -> None:
        """Take away what is shown of a partition that another worker has now: lag, symbols, watch-list, alerts."""
        for gauge in (self._lag, self._symbols):
            gauge.remove_by_labels({"partition": str(partition)})
        for key in [key for key in self._watched if key[0] == partition]:
            self._watched.pop(key).remove()
        for opened in [opened for opened in self._open if opened[0] == partition]:
            self._alerts_open[opened[1]].dec(self._open.pop(opened))

    def models(self, names: Iterable[tuple[Head, str]]) -> None:
        """Show the models, name@version, that serve each head, in place of those before."""
        names = list(names)
        self.model_names = {
            head: ", ".join(sorted(model for of, model in names if of == head)) for head in get_args(Head)
        }
        self._model.clear()
        for head, model in names:
            self._model.labels(head, model).set(1)
        self.challenger(self._shadow)

    def control(self, name: ControlName) -> None:
        """Count a control that a partition has taken."""
        self._controls[name].inc()

    def halted(self, scope: int) -> None:
        """Show whether the agent's actions are halted: 0 nowhere, 1 of some symbols, 2 of all."""
        self._halted.set(scope)

    def swapped(self, heads: Iterable[Head]) -> None:
        """Count the heads that another model serves in a partition now."""
        for head in heads:
            self._swaps[head].inc()

    def challenger(self, name: str) -> None:
        """Show which model, name@version, is scored in the champion's shadow; empty: none."""
        if self._shadow and self._shadow != name:
            self._model.remove("challenger", self._shadow)
        self._shadow = name
        if name:
            self._model.labels("challenger", name).set(1)

    def duelled(self, tests: int, exceptions: Mapping[Role, int], qlike: Mapping[Role, NDArray[np.float64]]) -> None:
        """Count tests of champion and challenger alike: of each role how many exceptions, and float64[tests] QLIKE."""
        self._duels.inc(tests)
        for role in get_args(Role):
            self._duel_exceptions[role].inc(exceptions[role])
            self._duel_qlike[role].inc(float(qlike[role].sum()))

    def drift(self, index: Mapping[str, float]) -> None:
        """Show the population stability index of the features, in place of those before."""
        self._stability.clear()
        for feature, value in index.items():
            self._stability.labels(feature).set(value)

    def refused_models(self, count: int) -> None:
        """Show how many bundles in the folder are refused."""
        self._refused_models.set(count)

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and the value of its header Content-Type (charset included)."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class FeedMetrics:
    """The metrics of one `tapewatch feed`, in a registry of their own; `symbols` bounds the label."""

    def __init__(self, venue: str, symbols: Sequence[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []
        self.ticks = self._counter("feed_ticks", "ticks", "Trades of the venue that were sent to Kafka.", "symbol")
        self.missing = self._counter(
            "feed_missing", "trades", "Trade ids that the venue skipped; some may have come later.", "symbol"
        )
        self.duplicates = self._counter(
            "feed_duplicates", "trades", "Trades that the venue repeated, and that were dropped.", "symbol"
        )
        for counter in (self.ticks, self.missing, self.duplicates):
            for symbol in symbols:
                counter.labels(symbol)
        self.frames_refused = self._counter("feed_frames_refused", "frames", "Frames that could not be understood.")
        self.reconnects = self._counter("feed_reconnects", "connections", "Connections that ended or were not had.")
        self.connected = self._gauge("feed_connected", "0 or 1", "1 while the venue is connected.")
        self._newest = self._gauge(
            "feed_last_tick_seconds", "s since 1970", "When a trade of the symbol came last; 0 if never.", "symbol"
        )
        for symbol in symbols:
            self._newest.labels(symbol)
        text = "From the venue's clock to the arrival of a trade here; below 0 counts as 0."
        self.declared.append(Declared(PREFIX + "feed_delay_seconds", "histogram", "s", (), text))
        self._delay = Histogram(PREFIX + "feed_delay_seconds", text, registry=self.registry, buckets=LATENCY_BUCKETS)
        info = self._gauge("feed_info", "1", "1, with the venue and the version of Tapewatch.", "venue", "version")
        info.labels(venue, __version__).set(1)

    def sent(self, symbol: str, delay_seconds: float) -> None:
        """Count a trade."""
        self.ticks.labels(symbol).inc()
        self._newest.labels(symbol).set_to_current_time()
        self._delay.observe(max(0.0, delay_seconds))

    def _counter(self, name: str, unit: str, text: str, *labels: str) -> Counter:
        self.declared.append(Declared(f"{PREFIX}{name}_total", "counter", unit, labels, text))
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, unit: str, text: str, *labels: str) -> Gauge:
        self.declared.append(Declared(PREFIX + name, "gauge", unit, labels, text))
        return Gauge(PREFIX + name, text, labels, registry=self.registry)


def resident_memory() -> float:
    """Bytes of this process that are in RAM; where /proc cannot tell, the most there have been."""
    try:
        return float(int(_STATM.read_text().split()[1]) * resource.getpagesize())
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(largest if sys.platform == "darwin" else largest * 1024)  # macOS counts bytes, others KiB


def table(declared: Sequence[Declared]) -> str:
    """Metrics as a Markdown table, one row each in the order of their declaration."""
    rows = ["| metric | type | unit | labels | what |", "|---|---|---|---|---|"]
    for metric in declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """The document `text` with the present tables, each between its two marks.

    Raises
    ------
    ValueError
        If a mark is missing.
    """
    for start, declared in ((TABLE_START, Metrics().declared), (FEED_TABLE_START, FeedMetrics("", ()).declared)):
        before, _, rest = text.partition(start)
        _, mark, after = rest.partition(TABLE_END)
        if not mark:
            raise ValueError(f"the document lacks the marks {start} and {TABLE_END}")
        text = f"{before}{start}\n{table(declared)}{TABLE_END}{after}"
    return text


def write(document: Path = DOCUMENT) -> None:
    """Bring the table in `document` up to date."""
    document.write_text(with_table(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
