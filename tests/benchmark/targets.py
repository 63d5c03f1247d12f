"""What was asked for, beside what was found: medians over the runs, each ratio taken run by run."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from tests.benchmark.checkpoints import AT_LEAST_ONCE, EXACTLY_ONCE, PLAIN, Kept
from tests.benchmark.drain import MANY, SKEW_SYMBOLS, Drained
from tests.benchmark.findings import Findings
from tests.benchmark.latency import Rated

DRAIN: Final = 200_000.0
RAW_SHARE: Final = 0.8
NAIVE_TIMES: Final = 40.0
PEER_TIMES: Final = 5.0
LATENCY_MS: Final = {"p50": 4.0, "p99": 10.0, "p999": 30.0}
OWN_MS: Final = 1.0
OWN_RATE: Final = 5000.0
EXACTLY_ONCE_MS: Final = {"p50": 80.0, "p99": 200.0}
EXACTLY_ONCE_RATE: Final = 5000.0
LAG_SECONDS: Final = 1.0
MANY_TIMES: Final = 1.5
MANY_BYTES: Final = 600e6
START_SECONDS: Final = 3.0
TWO_TIMES: Final = 1.8
BACKTEST: Final = 250_000.0
SKEW_SHARE: Final = 0.8
HEADS_US: Final = {512: 1.5, 1: 60.0}
"""Ticks a chunk -> microseconds a tick of all heads in one call, on one core."""
CHECKPOINT_SHARE: Final = {
    AT_LEAST_ONCE.name: {16: 0.95, MANY: 0.85},
    EXACTLY_ONCE.name: {16: 0.75, MANY: 0.75},
}
"""Way -> instruments -> share of the drain without snapshots."""
RECOVERY_SECONDS: Final = 2.0


class Judged(NamedTuple):
    """One target."""

    measure: str
    target: str
    found: str
    met: bool

    @property
    def verdict(self) -> str:
        """For people."""
        return "met" if self.met else "**missed**"


def judge(findings: Findings) -> list[Judged]:
    """The targets of all parts that were measured."""
    return [judged for part in PARTS for judged in part(findings)]


def _drain(findings: Findings) -> Iterator[Judged]:
    drained = {each.name: each for each in findings.drain or []}
    workers = [each for each in drained.values() if each.subject == "worker"]
    for what, field in (("a CPU second", "ticks_per_cpu_second"), ("by the wall", "ticks_per_second")):
        if workers:
            rates = [each.median(field) for each in workers]
            found = ", ".join(
                f"{rate:,.0f} (partitions: {each.partitions})" for rate, each in zip(rates, workers, strict=True)
            )
            yield Judged(f"drain, ticks/s {what}", f">= {DRAIN:,.0f}", found, max(rates) >= DRAIN)
    for other, least in (("raw loop", RAW_SHARE), ("naive", NAIVE_TIMES)):
        if {"worker", other} <= set(drained):
            yield _at_least(f"drain, of the {other}'s by CPU", least, _times(drained["worker"], drained[other]))


def _peers(findings: Findings) -> Iterator[Judged]:
    named = {each.name: each for each in findings.peers or []}
    ours = named.pop("worker", None)
    if ours and named:
        for what, field in (("CPU", "ticks_per_cpu_second"), ("the wall", "ticks_per_second")):
            best = max(named.values(), key=lambda each: each.median(field))
            yield _at_least(f"drain, of the best peer's ({best.name}) by {what}", PEER_TIMES, _times(ours, best, field))


def _latency(findings: Findings) -> Iterator[Judged]:
    for each in findings.latency or []:
        if each.subject == "worker, exactly once" and each.ticks_per_second == EXACTLY_ONCE_RATE:
            what = f"producer to consumer, exactly once, at {EXACTLY_ONCE_RATE:,.0f} ticks/s: p50, p99"
            yield _quantiles(what, each, EXACTLY_ONCE_MS)
        if each.subject != "worker":
            continue
        what = f"producer to consumer at {each.ticks_per_second:,.0f} ticks/s: p50, p99, p99.9"
        yield _quantiles(what, each, LATENCY_MS)
        owned = [run.own for run in each.runs if run.own is not None]
        if each.ticks_per_second == OWN_RATE and owned:
            stages = median(own.stages_mean for own in owned)
            acknowledged = median(own.acknowledged_p50 for own in owned)
            yield Judged(
                f"own share at {OWN_RATE:,.0f} ticks/s",
                f"<= {OWN_MS:g} ms",
                f"{stages:.2f} (stages of a chunk), {acknowledged:.2f} (with the broker's acknowledgement, p50)",
                stages <= OWN_MS,
            )


def _burst(findings: Findings) -> Iterator[Judged]:
    for each in findings.burst or []:
        if each.subject == "worker":
            worst = each.median("worst_seconds")
            yield Judged("burst, worst lag", f"< {LAG_SECONDS:g} s", f"{worst:.2f}", worst < LAG_SECONDS)
            after = [run.normal_after_seconds for run in each.runs]
            usual = median(float("inf") if seconds is None else seconds for seconds in after)
            before = each.median("before_p50_ms")
            # Back to what was no normal before is not what is asked for.
            normal = before <= LATENCY_MS["p99"]
            found = f"{usual:.1f} (p50 before: {before:.0f} ms)"
            yield Judged("burst, normal again after", "<= 1 s", found, normal and usual <= 1.0)


def _symbols(findings: Findings) -> Iterator[Judged]:
    if findings.symbols is None or not findings.symbols.worker:
        return
    few, many = findings.symbols.worker
    times = _times(few, many)
    what = f"{MANY:,} symbols"
    yield Judged(f"{what}, cost of {SKEW_SYMBOLS}", f"<= {MANY_TIMES:g}", f"{times:.2f}", times <= MANY_TIMES)
    size = many.median("peak_memory_bytes")
    yield Judged(f"{what}, memory", f"<= {MANY_BYTES / 1e6:.0f} MB", f"{size / 1e6:.0f}", size <= MANY_BYTES)


def _others(findings: Findings) -> Iterator[Judged]:
    if findings.start:
        seconds = median(findings.start.seconds)
        yield Judged("start to first result", f"<= {START_SECONDS:g} s", f"{seconds:.2f}", seconds <= START_SECONDS)
    if findings.workers:
        one, two = findings.workers
        yield _at_least("two workers, of one by the wall", TWO_TIMES, _times(two, one, "ticks_per_second"))
    if findings.backtest:
        rate = median(run.ticks_per_cpu_second for run in findings.backtest.runs)
        yield Judged("backtest, ticks a CPU second", f">= {BACKTEST:,.0f}", f"{rate:,.0f}", rate >= BACKTEST)
    if findings.skew:
        even, skewed = findings.skew
        yield _at_least("skew, of the even case by CPU", SKEW_SHARE, _times(skewed, even))


def _stages(findings: Findings) -> Iterator[Judged]:
    for each in findings.stages or []:
        most = HEADS_US.get(each.chunk_ticks)
        if most is not None:
            us = each.median("inference")
            what = f"all heads, a tick in chunks of {each.chunk_ticks}"
            yield Judged(what, f"<= {most:g} us", f"{us:.2f}", us <= most)


def _checkpoints(findings: Findings) -> Iterator[Judged]:
    kept = {(each.way, each.instruments): each for each in findings.checkpoints or []}
    for way, shares in CHECKPOINT_SHARE.items():
        for instruments, least in shares.items():
            with_them, without = kept.get((way, instruments)), kept.get((PLAIN.name, instruments))
            if with_them is not None and without is not None:
                what = f"{way}, {instruments:,} instruments, of the drain without snapshots by the wall"
                yield _at_least(what, least, _times(with_them, without, "ticks_per_second"))


def _recovery(findings: Findings) -> Iterator[Judged]:
    for each in findings.recovery or []:
        if each.instruments == MANY:
            seconds, most = median(each.seconds), RECOVERY_SECONDS
            yield Judged(f"state of {MANY:,} instruments back", f"<= {most:g} s", f"{seconds:.2f}", seconds <= most)


PARTS: Final[Sequence[Callable[[Findings], Iterator[Judged]]]] = (
    _drain,
    _peers,
    _latency,
    _burst,
    _symbols,
    _others,
    _stages,
    _checkpoints,
    _recovery,
)


def _quantiles(measure: str, rated: Rated, most: dict[str, float]) -> Judged:
    values = {name: rated.median(name) for name in most}
    return Judged(
        measure,
        " / ".join(f"{limit:g}" for limit in most.values()) + " ms",
        " / ".join(f"{value:.1f}" for value in values.values()),
        all(value <= most[name] for name, value in values.items()),
    )


def _times(one: Drained | Kept, other: Drained | Kept, field: str = "ticks_per_cpu_second") -> float:
    pairs = zip(one.runs, other.runs, strict=True)
    return float(median(getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs))


def _at_least(measure: str, least: float, found: float) -> Judged:
    return Judged(measure, f">= {least:g}", f"{found:.2f}", found >= least)
