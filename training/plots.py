"""The pictures of a comparison, as PNG and SVG; equal numbers, equal bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure

from training.comparison import Comparison


def _style() -> Any:  # matplotlib lists every key in the type
    # Ids in an SVG are drawn from a hash of their content and this salt; without it each run gives another file.
    return {
        "svg.hashsalt": "tapewatch",
        "svg.fonttype": "none",
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def save(figure: Figure, stem: Path) -> list[Path]:
    """As PNG and SVG, without a date or a version of the program in them."""
    with matplotlib.rc_context(_style()):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        figure.savefig(stem.with_suffix(".png"), dpi=120, metadata={"Software": None})
    return [stem.with_suffix(".svg"), stem.with_suffix(".png")]


def draw_qlike(comparison: Comparison) -> Figure:
    """QLIKE of each model less EWMA's, all instruments together; below 0 is better."""
    with matplotlib.rc_context(_style()):
        figure = Figure(
            figsize=(7.0, 1.4 + 0.2 * len(comparison.instruments[0].horizons[0].volatility)), layout="constrained"
        )
        for axes, horizon in zip(figure.subplots(1, 2), comparison.instruments[0].horizons, strict=True):
            table = {loss.model: loss.qlike for loss in horizon.volatility}
            # The last value is 0 in a quiet minute and its QLIKE has no bound: it would flatten all others.
            models = [name for name in table if name not in ("EWMA", "last value")]
            difference = [table[name] - table["EWMA"] for name in models]
            colours = ["tab:blue" if name in comparison.forecasters else "tab:gray" for name in models]
            axes.barh(models[::-1], difference[::-1], color=colours[::-1])
            axes.axvline(0.0, color="black", linewidth=0.8)
            axes.set_title(f"{horizon.seconds} s")
            axes.set_xlabel("QLIKE less EWMA's; left is better")
    return figure


def draw_coverage(comparison: Comparison) -> Figure:
    """Observed less promised share below each quantile, with the bands."""
    tested = [(f"{one.name}, {h.seconds} s", h) for one in comparison.instruments for h in one.horizons if h.coverage]
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(7.0, 1.2 + 0.35 * max(len(tested), 1)), layout="constrained")
        for number, axes in enumerate(figure.subplots(1, 5, sharey=True)):
            for row, (_, horizon) in enumerate(tested):
                found = horizon.coverage[number]
                axes.plot([100 * found.low, 100 * found.high], [row, row], color="tab:gray", linewidth=5, alpha=0.4)
                axes.plot(100 * found.share, row, "o", color="tab:blue" if found.inside else "tab:red", markersize=4)
            if tested:
                level = tested[0][1].coverage[number].level
                axes.axvline(100 * level, color="black", linewidth=0.6)
                axes.set_title(f"{level:.0%}")
            axes.set_yticks(range(len(tested)), [name for name, _ in tested])
            axes.set_ylim(max(len(tested), 1) - 0.5, -0.5)
        figure.supxlabel(
            "% of returns below the quantile; gray: what right quantiles show in 95 % of cases", fontsize=8
        )
    return figure


PLOTS: Final[dict[str, Callable[[Comparison], Figure]]] = {"qlike": draw_qlike, "coverage": draw_coverage}
