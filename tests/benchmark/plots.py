"""The findings as pictures in docs/performance/: SVG for the page, and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.benchmark.burst import BIN_SECONDS, Burst
from tests.benchmark.drain import Drained
from tests.benchmark.findings import Findings
from tests.benchmark.latency import Rated
from tests.benchmark.symbols import Symbols

# matplotlib lists every key in the type. Ids in an SVG are drawn from a hash of their content and this salt; without it
# each run gives another file.
STYLE: Final[Any] = {
    "svg.hashsalt": "tapewatch",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
OURS: Final = "tab:blue"
THEIRS: Final = "tab:gray"
QUANTILES: Final = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def write(findings: Findings, folder: Path) -> list[str]:
    """Draw what was measured; names of the pictures without their endings."""
    written = []
    for name, draw in PLOTS.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(findings)
            if figure is None:
                continue
            stem = folder / name
            figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
            figure.savefig(stem.with_suffix(".png"), dpi=120, metadata={"Software": None})
        written.append(name)
    return written


def draw_rates(findings: Findings) -> Figure | None:
    """Throughput and latency over the rate of the ticks: worker and raw loop."""
    if findings.latency is None:
        return None
    figure = Figure(figsize=(7.5, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for subject, color in (("worker", OURS), ("raw loop", THEIRS)):
        rated = [each for each in findings.latency if each.subject == subject]
        if not rated:
            continue
        asked = [each.ticks_per_second for each in rated]
        for (name, label), style in zip(QUANTILES.items(), ("-", "--", ":"), strict=True):
            left.plot(asked, [each.median(name) for each in rated], style, color=color, label=f"{subject}, {label}")
        right.plot(asked, [_answered(each) for each in rated], "o-", color=color, label=subject)
    left.set(xscale="log", yscale="log", xlabel="ticks/s sent", ylabel="ms from producer to consumer")
    right.set(xscale="log", yscale="log", xlabel="ticks/s sent", ylabel="ticks/s answered")
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        _plain(axis)
    left.legend(fontsize=7, frameon=False)
    right.legend(fontsize=7, frameon=False)
    return figure


def _plain(axis: Axis) -> None:
    """1, 2 and 5 of each power of ten, as people write them."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _answered(rated: Rated) -> float:
    return median(run.answered_per_second or run.sent_per_second for run in rated.runs)


def draw_throughput(findings: Findings) -> Figure | None:
    """Ticks a CPU second of all that drain the same ticks, with the spread of the runs."""
    drained = [
        *(findings.drain or []),
        *(each for each in findings.peers or [] if each.name not in ("worker", "naive")),
    ]
    if not drained:
        return None
    drained.sort(key=lambda each: each.median("ticks_per_cpu_second"))
    figure = Figure(figsize=(7.5, 0.8 + 0.3 * len(drained)), layout="constrained")
    axes: Axes = figure.subplots()
    axes.barh(
        [each.name for each in drained],
        [each.median("ticks_per_cpu_second") for each in drained],
        xerr=np.array([_spread(each) for each in drained]).T,
        color=[OURS if each.subject == "worker" else THEIRS for each in drained],
    )
    axes.set(xscale="log", xlabel="ticks a CPU second, three results each")
    _plain(axes.xaxis)
    return figure


def _spread(drained: Drained) -> tuple[float, float]:
    rates, middle = [run.ticks_per_cpu_second for run in drained.runs], drained.median("ticks_per_cpu_second")
    return middle - min(rates), max(rates) - middle


def draw_symbols(findings: Findings) -> Figure | None:
    """Cost of a tick in the pipeline over the number of symbols."""
    if findings.symbols is None:
        return None
    figure = Figure(figsize=(5.0, 2.8), layout="constrained")
    axes: Axes = figure.subplots()
    _draw_cost(axes, findings.symbols)
    axes.set(xscale="log", xlabel="symbols, at the same total rate", ylabel="us a tick, pipeline alone", ylim=(0, None))
    _plain(axes.xaxis)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _draw_cost(axes: Axes, symbols: Symbols) -> None:
    for even, label, style in ((True, "all alike", "o-"), (False, "Zipf's frequencies", "s--")):
        costs = [each for each in symbols.pipeline if each.even is even]
        axes.plot([each.instruments for each in costs], [each.us_a_tick for each in costs], style, label=label)


def draw_burst(findings: Findings) -> Figure | None:
    """Lag over time through the burst: of each tenth of a second the longest and the median, median of the runs."""
    if findings.burst is None:
        return None
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    axes: Axes = figure.subplots()
    for each, color in zip(findings.burst, (OURS, THEIRS), strict=True):
        for longest, style in ((True, "-"), (False, ":")):
            lags = _lags(each, longest)
            seconds = np.arange(len(lags)) * BIN_SECONDS
            axes.plot(seconds, lags, style, color=color, label=f"{each.subject}, {'longest' if longest else 'median'}")
    axes.set(yscale="log", xlabel="s; the burst is sent from 3 to 4", ylabel="lag, ms")
    _plain(axes.yaxis)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _lags(burst: Burst, longest: bool) -> Sequence[float]:
    runs = [run.longest_ms if longest else run.median_ms for run in burst.runs]
    return [median(values) for values in zip(*runs, strict=False)]


PLOTS: Final[dict[str, Callable[[Findings], Figure | None]]] = {
    "rates": draw_rates,
    "throughput": draw_throughput,
    "symbols": draw_symbols,
    "burst": draw_burst,
}
CAPTIONS: Final = {
    "rates": "Latency and throughput over the rate of the ticks",
    "throughput": "Ticks a CPU second of the worker, the raw loop and the peers",
    "symbols": "Cost of a tick over the number of symbols",
    "burst": "Lag through the burst",
}
