"""The metrics: what a chunk adds, what is bounded, and that the document lists what the registry exposes."""

import time

import numpy as np
import pytest
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from stream.messages import QUANTILE_LEVELS
from stream.metrics import (
    DOCUMENT,
    LATENCY_BUCKETS,
    PREFIX,
    WATCHED_NAMES,
    Buckets,
    FeedMetrics,
    Metrics,
    resident_memory,
    table,
    with_table,
)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape would read, by name and labels."""
    text = metrics.exposition()[0].decode()
    found: list[Sample] = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value for sample in found}


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def values(**known: float) -> dict[str, float]:
    """A value for each gauge of a watched instrument."""
    return dict.fromkeys(WATCHED_NAMES, 0.0) | known


QUANTILES = (-0.002, -0.001, 0.0, 0.001, 0.002)


def test_chunk_adds_ticks_rejects_and_stages() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.chunk(
            ticks=5,
            accepted=3,
            late=1,
            rejects={"json": 1, "band": 1},
            stages={"decode": 0.0005, "inference": 0.004},
            inference_seconds=0.003,
        )
    assert read(metrics, "ticks_total") == 10
    assert read(metrics, "ticks_accepted_total") == 6
    assert read(metrics, "ticks_late_total") == 2
    assert read(metrics, "ticks_rejected_total", reason="band") == 2
    assert read(metrics, "ticks_rejected_total", reason="key") == 0
    assert read(metrics, "stage_seconds_count", stage="decode") == 2
    assert read(metrics, "stage_seconds_sum", stage="inference") == pytest.approx(0.008)
    assert read(metrics, "stage_seconds_count", stage="encode") == 0
    assert read(metrics, "inference_seconds_bucket", le="0.003") == 2
    assert read(metrics, "chunk_ticks_bucket", le="4.0") == 0
    assert read(metrics, "chunk_ticks_bucket", le="8.0") == 2


def test_chunk_without_an_accepted_tick_runs_no_inference() -> None:
    metrics = Metrics()
    metrics.chunk(ticks=1, accepted=0, rejects={"json": 1})
    assert read(metrics, "inference_seconds_count") == 0


def test_unknown_reason_makes_no_new_series() -> None:
    with pytest.raises(KeyError):
        Metrics().chunk(ticks=1, accepted=0, rejects={"weather": 1})  # type: ignore[dict-item]


def test_published_weighs_the_receive_time_by_the_answered_ticks() -> None:
    metrics = Metrics()
    metrics.published(
        {"predictions": 4, "risk": 4, "actions": 4, "alerts": 1},
        receive_seconds=0.0025,
        event_seconds=np.array([0.001, 0.002, 0.0021, 9.0]),
        produce_seconds=np.array([0.0, 0.004, 0.005, 0.006]),
        publish_seconds=0.001,
    )
    assert read(metrics, "results_total", topic="actions") == 4
    assert read(metrics, "results_total", topic="alerts") == 1
    assert read(metrics, "results_total", topic="rejected") == 0
    assert read(metrics, "receive_to_publish_seconds_count") == 4
    assert read(metrics, "receive_to_publish_seconds_sum") == pytest.approx(0.01)
    assert read(metrics, "event_to_publish_seconds_bucket", le="0.002") == 2
    assert read(metrics, "event_to_publish_seconds_bucket", le="5.0") == 3
    assert read(metrics, "event_to_publish_seconds_bucket", le="+Inf") == 4
    assert read(metrics, "produce_to_publish_seconds_bucket", le="0.005") == 3
    assert read(metrics, "stage_seconds_count", stage="publish") == 1


def test_buckets_count_an_array_as_prometheus_own_histogram_counts_one_by_one() -> None:
    values = np.concatenate([np.random.default_rng(7).exponential(0.01, 500), LATENCY_BUCKETS, [0.0, 60.0]])
    theirs = Histogram("theirs", "theirs", buckets=LATENCY_BUCKETS, registry=None)
    one_by_one, at_once = Buckets(LATENCY_BUCKETS), Buckets(LATENCY_BUCKETS)
    for value in values.tolist():
        theirs.observe(value)
        one_by_one.observe(value)
    at_once.observe_all(values)
    expected = [(s.labels["le"], s.value) for s in next(iter(theirs.collect())).samples if s.name.endswith("_bucket")]
    assert at_once.cumulative() == one_by_one.cumulative() == expected
    assert at_once.sum == pytest.approx(values.sum())


def test_weight_stands_for_that_many_observations() -> None:
    buckets = Buckets((1.0, 2.0))
    buckets.observe(1.5, weight=3)
    assert buckets.counts.tolist() == [0, 3, 0]
    assert buckets.sum == 4.5


def test_time_of_a_venue_clock_ahead_of_ours_counts_as_zero() -> None:
    buckets = Buckets((1.0,))
    buckets.observe(-0.5)
    buckets.observe_all(np.array([-3.0, 0.5]))
    assert buckets.counts.tolist() == [3, 0]
    assert buckets.sum == 0.5


def test_empty_chunk_leaves_the_histograms_alone() -> None:
    buckets = Buckets((1.0,))
    buckets.observe_all(np.empty(0))
    assert buckets.counts.tolist() == [0, 0]


def test_watch_list_is_bounded_by_its_limit() -> None:
    metrics = Metrics(watch_limit=2)
    handles = [metrics.watch(0, symbol, "binance") for symbol in ("A", "B", "C")]
    assert [handle is not None for handle in handles] == [True, True, False]
    assert metrics.watch(0, "A", "binance") is handles[0]


def test_watch_list_by_name_takes_no_other_symbol() -> None:
    metrics = Metrics(watch=["B"], watch_limit=0)
    assert metrics.watch(0, "A") is None
    watched = metrics.watch(0, "B", "x")
    assert watched is not None
    assert read(metrics, "score", symbol="B", venue="x") is None  # nothing is shown before there is something
    watched.set(values(score=73.5, level=2), QUANTILES)
    assert read(metrics, "score", symbol="B", venue="x") == 73.5
    assert read(metrics, "level", symbol="B", venue="x") == 2
    assert metrics.watch(0, "B", "y") is None  # venues come from the messages: they are bounded as well


def test_alerts_open_follows_the_states() -> None:
    metrics = Metrics()
    for state in ("opened", "updated", "opened", "closed"):
        metrics.alert(0, "pump", state)
    assert read(metrics, "alerts_open", kind="pump") == 1
    assert read(metrics, "alerts_opened_total", kind="pump") == 2
    assert read(metrics, "alerts_open", kind="flow") == 0


def test_forgotten_partition_leaves_nothing_but_its_counts() -> None:
    metrics = Metrics(watch_limit=1)
    for partition, symbol in ((0, "A"), (1, "B")):
        metrics.lag(partition, 10)
        metrics.symbols(partition, 3)
        metrics.alert(partition, "flow", "opened")
        watched = metrics.watch(partition, symbol)
        if watched:
            watched.set(values(score=50.0), QUANTILES)
    metrics.forget(0)
    metrics.forget(0)  # a second revoke is no error
    assert read(metrics, "lag_ticks", partition="0") is None
    assert read(metrics, "lag_ticks", partition="1") == 10
    assert read(metrics, "symbols_tracked", partition="0") is None
    assert read(metrics, "alerts_open", kind="flow") == 1
    assert read(metrics, "alerts_opened_total", kind="flow") == 2
    assert read(metrics, "score", symbol="A", venue="") is None
    assert not [name for name, labels in samples(metrics) if ("symbol", "A") in labels]
    assert metrics.watch(1, "B") is not None  # the place on the list is free again


def test_new_models_take_the_place_of_the_old() -> None:
    metrics = Metrics()
    metrics.models([("forecaster", "gru@1"), ("critic", "gan@1")])
    metrics.models([("forecaster", "gru@2"), ("critic", "gan@1")])
    assert read(metrics, "model_info", head="forecaster", model="gru@2") == 1
    assert read(metrics, "model_info", head="forecaster", model="gru@1") is None


def test_commit_age_is_asked_for_at_each_scrape() -> None:
    metrics, ages = Metrics(), [1.5, 2.5]
    metrics.commit_age_from(lambda: ages.pop(0))
    assert [read(metrics, "commit_age_seconds") for _ in range(2)] == [1.5, 2.5]


def test_commits_and_start_are_told() -> None:
    before = time.time()
    metrics = Metrics()
    metrics.committed()
    assert read(metrics, "commits_total") == 1
    started = read(metrics, "start_time_seconds")
    assert started is not None
    assert before <= started <= time.time()


def test_two_workers_in_one_process_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.chunk(ticks=1, accepted=1)
    assert read(other, "ticks_total") == 0


def test_exposition_is_text_for_prometheus() -> None:
    text, content_type = Metrics().exposition()
    assert content_type.startswith("text/plain; version=")
    assert text.endswith(b"\n")


def test_every_metric_has_the_prefix_and_a_base_unit() -> None:
    for metric in Metrics().declared:
        assert metric.name.startswith(PREFIX)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not metric.name.endswith(("_ms", "_us", "_ns", "_milliseconds", "_percent"))
        assert metric.unit
        assert metric.help.endswith(".")


@pytest.mark.parametrize("metrics", [Metrics(), FeedMetrics("binance", ["BTCUSDT"])], ids=["worker", "feed"])
def test_declarations_are_what_the_registry_exposes(metrics: Metrics | FeedMetrics) -> None:
    suffix = {"counter": "_total"}
    exposed = {family.name + suffix.get(family.type, ""): family.type for family in metrics.registry.collect()}
    assert exposed == {metric.name: metric.kind for metric in metrics.declared}


def test_document_lists_every_metric_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text) == text, "docs/metrics.md is out of date: run `make docs`"
    for metric in Metrics().declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} |" in text


def test_table_goes_between_the_marks_and_nowhere_else() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    stale = text.replace("tapewatch_commits_total", "tapewatch_promises_total")
    assert stale != text
    assert with_table(stale) == text
    assert table(Metrics().declared) in text
    assert table(FeedMetrics("", ()).declared) in text
    with pytest.raises(ValueError, match="lacks the marks"):
        with_table("no marks here")


def test_watched_instrument_shows_every_value_under_its_name() -> None:
    metrics = Metrics()
    watched = metrics.watch(0, "A")
    assert watched is not None
    shown = {name: float(number) for number, name in enumerate(WATCHED_NAMES)}
    watched.set(shown, QUANTILES)
    assert {name: read(metrics, name, symbol="A", venue="") for name in WATCHED_NAMES} == shown
    for level, quantile in zip(QUANTILE_LEVELS, QUANTILES, strict=True):
        assert read(metrics, "return_quantile", symbol="A", venue="", quantile=str(level)) == quantile


def test_answers_count_actions_gates_and_anomaly() -> None:
    metrics = Metrics()
    metrics.answered(np.array([0.05, 0.995]), np.array([0, 2, 2], np.int8), np.array([0, 1, 3], np.int8))
    assert read(metrics, "actions_total", action="short") == 1
    assert read(metrics, "actions_total", action="flat") == 0
    assert read(metrics, "actions_total", action="long") == 2
    assert read(metrics, "actions_gated_total", rule="warming") == 1
    assert read(metrics, "actions_gated_total", rule="level") == 0
    assert read(metrics, "actions_gated_total", rule="es_limit") == 1
    assert read(metrics, "tick_anomaly_bucket", le="0.1") == 1
    assert read(metrics, "tick_anomaly_bucket", le="0.99") == 1
    assert read(metrics, "tick_anomaly_bucket", le="0.999") == 2


def test_tests_of_forecasts_are_counted() -> None:
    metrics = Metrics()
    below = np.array([[False, False, True, True, True], [False, False, False, True, True]])
    metrics.tested(1, below, {"model": np.array([0.5, 0.25]), "usual": np.array([1.0, 0.0])})
    assert read(metrics, "forecast_tests_total") == 2
    assert read(metrics, "var_exceptions_total") == 1
    assert read(metrics, "forecast_below_total", quantile="0.05") == 0
    assert read(metrics, "forecast_below_total", quantile="0.5") == 1
    assert read(metrics, "forecast_below_total", quantile="0.99") == 2
    assert read(metrics, "forecast_qlike_total", forecast="model") == 0.75
    assert read(metrics, "forecast_qlike_total", forecast="usual") == 1.0


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_memory()
    held = np.ones(8_000_000)  # 64 MB, touched
    assert resident_memory() - before > 0.8 * held.nbytes
