"""A comparison as files: Markdown for people, JSON for programs, plots as PNG and SVG; equal numbers, equal bytes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib
import msgspec
from matplotlib.figure import Figure

from stream.errors import TapewatchError
from training.comparison import BAND, FORECASTER, Comparison, Horizon, Instrument, Loss

SIGNIFICANT: Final = 0.01
ACCEPTED: Final = 0.05
NOTES: Final = (
    "Rows are the last tick of each second in which an instrument trades, past warming, with a horizon before and "
    "after in the same session. HAR, GARCH and LightGBM are fitted on this file's training part, their choices are "
    "made on its validation part, and all numbers are of its test part. The forecaster is one for all files.",
    "QLIKE is log s² + rv / s² of variances of at least (0.1 bp)²; MAE is of the volatility in basis points, MSE of "
    "the variance in basis points⁴. DM is Diebold-Mariano on QLIKE against the forecaster, with the errors of Newey "
    "and West over two horizons: above 0 the forecaster is better. Where instruments trade in the same second, their "
    "differences are summed before the test.",
    "Quantiles, VaR and ES are judged as the worker publishes them: followed by their own exceptions from the file's "
    "first tick on (stream/core/conformal.py), with nothing fitted on this file; `as trained` is the model's own word.",
    "VaR 99 % and ES 97.5 % are of a long position, over horizons that do not overlap, each from the first tick after "
    "the last. At 10 s, for which no VaR is published, VaR is the quantile of 1 %. Kupiec: the number of "
    "exceptions; Christoffersen: their independence, and both together (CC); Basel: the traffic light, its borders "
    "drawn at the same probabilities for any number of tests. Z is Acerbi and Szekely's second statistic, 0 at best, "
    "with its one-sided p. Historical simulation takes the last 500 such horizons; filtered, in units of GARCH(1,1).",
)


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """report.md, report.json and plots in `folder`.

    Raises
    ------
    TapewatchError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_bytes(as_json(comparison))
        drawn = [path for name, draw in PLOTS.items() for path in _save(draw(comparison), folder / name)]
        (folder / "report.md").write_text(markdown(comparison), encoding="utf-8")
    except OSError as error:
        raise TapewatchError(f"cannot write the report to {folder}: {error.strerror}") from None
    return [folder / "report.md", folder / "report.json", *drawn]


def as_json(comparison: Comparison) -> bytes:
    """Rounded to six significant digits, one key a line."""
    return msgspec.json.format(msgspec.json.encode(_rounded(msgspec.to_builtins(comparison))), indent=1) + b"\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def markdown(comparison: Comparison) -> str:
    """The report."""
    parts = [
        f"# {comparison.model} on {comparison.file.name}",
        _about(comparison),
        "## In short",
        "\n".join(f"- {line}" for line in summary(comparison)),
        "![QLIKE against EWMA](qlike.svg)",
        "## Volatility",
        *(_volatility(one) for one in _told(comparison)),
        "## Quantiles",
        f"Share of returns below the quantile; in brackets what right quantiles show in {BAND:.0%} of cases; ✗: not.",
        "![Coverage](coverage.svg)",
        _table(_COVERAGE, [row for one in comparison.instruments for row in _coverage(one)]),
        "The same quantiles as trained, before they followed their exceptions:",
        _table(_COVERAGE, [row for one in comparison.instruments for row in _coverage(one, as_trained=True)]),
        "## Value at risk and expected shortfall",
        _table(_TAILS, [row for one in comparison.instruments for row in _tails(one)]),
        "## Direction",
        _table(_DIRECTION, [row for one in comparison.instruments for row in _direction(one)]),
        "## How it was measured",
        "\n".join(f"- {note}" for note in (*NOTES, *comparison.notes, _fitted(comparison))),
    ]
    return "\n\n".join(parts) + "\n"


def _about(comparison: Comparison) -> str:
    file = comparison.file
    return (
        f"{file.rows:,} rows, sha256 `{file.sha256[:16]}…`. Training from {_utc(file.first_ns)}, validation from "
        f"{_utc(file.validation_ns)}, test from {_utc(file.test_ns)} to {_utc(file.last_ns)} (UTC). "
        f"Written by `tapewatch evaluate`."
    )


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def summary(comparison: Comparison) -> list[str]:
    """What a reader wants to know first, a line each; what was lost is said as plainly as what was won."""
    lines = [_against(h) for h in comparison.instruments[0].horizons]
    tested = [
        (f"{one.name}, {h.seconds} s", h) for one in comparison.instruments[1:] for h in one.horizons if h.coverage
    ]
    if not tested:
        return [*lines, "Too few horizons in the test part to test quantiles, VaR or ES of any one instrument."]
    count = sum(len(h.coverage) for _, h in tested)
    for what, as_trained in (("Quantiles", False), ("Quantiles as trained", True)):
        outside = [
            f"{name}: {c.share:.1%} below the {c.level:.0%} quantile"
            for name, h in tested
            for c in (h.coverage_as_trained if as_trained else h.coverage)
            if not c.inside
        ]
        lines.append(f"{what} outside the band: {len(outside)} of {count}{_named(outside)}")
    return [*lines, *_rejected(tested)]


def _against(horizon: Horizon) -> str:
    """Who is better and worse than the forecaster, by QLIKE of all instruments together."""
    said: dict[str, list[str]] = {key: [] for key in ("better than", "worse than", "not told apart from", _TOO_FEW)}
    for loss in horizon.volatility[1:]:
        said[_verdict(loss)].append(loss.model)
    words = "; ".join(f"{key} {', '.join(models)}" for key, models in said.items() if models)
    return f"Volatility, {horizon.seconds} s: the forecaster is {words} (QLIKE, Diebold-Mariano, p < {SIGNIFICANT})."


_TOO_FEW: Final = "on too few rows to tell from"
NAMED: Final = 6
"""Names in a line of the summary; the tables have them all."""


def _verdict(loss: Loss) -> str:
    if loss.dm is None or loss.p is None:
        return _TOO_FEW
    return "not told apart from" if loss.p >= SIGNIFICANT else "better than" if loss.dm > 0 else "worse than"


def _named(names: list[str]) -> str:
    """What a count is followed by: the first few names."""
    more = f"; and {len(names) - NAMED} more, see below" if len(names) > NAMED else ""
    return f": {'; '.join(names[:NAMED])}{more}." if names else "."


def _rejected(tested: list[tuple[str, Horizon]]) -> list[str]:
    lines = []
    for model in dict.fromkeys(t.model for _, h in tested for t in h.tails):
        mine = [(name, t) for name, h in tested for t in h.tails if t.model == model]
        var = [
            f"{name} ({t.var.exceptions} of {t.var.tests:,})"
            for name, t in mine
            if min(t.var.kupiec_p, t.var.conditional_coverage_p) < ACCEPTED
        ]
        beyond = [(name, t.shortfall) for name, t in mine if t.shortfall]
        es = [f"{name} (Z {test.statistic:+.2f})" for name, test in beyond if test.p < ACCEPTED]
        for what, names, of in (("VaR 99 % (Kupiec or CC)", var, len(mine)), ("ES 97.5 %", es, len(beyond))):
            lines.append(f"{what} of the {model} rejected at {ACCEPTED:.0%}: {len(names)} of {of}{_named(names)}")
    return lines


def overview(comparisons: list[Comparison]) -> str:
    """README.md of a folder of reports: what the forecaster was better and worse than, file by file."""
    rows = [
        [f"[{one.file.name}]({Path(one.file.name).stem}/report.md)", f"{h.seconds} s", f"{h.rows:,}"]
        + [f"{_MARK[_verdict(loss)]} {loss.qlike - h.volatility[0].qlike:+.3g}" for loss in h.volatility[1:]]
        for one in comparisons
        for h in one.instruments[0].horizons
    ]
    head = (
        "file",
        "horizon",
        "rows",
        *(loss.model for loss in comparisons[0].instruments[0].horizons[0].volatility[1:]),
    )
    legend = (
        f"QLIKE of each less that of {comparisons[0].model}, on the test part: above 0 the forecaster is better. "
        f"✓ and ✗: Diebold-Mariano calls the forecaster better or worse, p < {SIGNIFICANT}; =: not told apart; "
        "?: too few rows."
    )
    lines = [f"**{one.file.name}**\n\n" + "\n".join(f"- {line}" for line in summary(one)) for one in comparisons]
    parts = ["# Forecaster and baselines", "Written by `tapewatch evaluate`.", legend, _table(head, rows), *lines]
    return "\n\n".join(parts) + "\n"


_MARK: Final = {"better than": "✓", "worse than": "✗", "not told apart from": "=", _TOO_FEW: "?"}


def _told(comparison: Comparison) -> list[Instrument]:
    """All together, and each instrument where there are several."""
    return comparison.instruments[:1] if len(comparison.instruments) == 2 else comparison.instruments


def _volatility(one: Instrument) -> str:
    rows = []
    for horizon in one.horizons:
        best = min(loss.qlike for loss in horizon.volatility)
        for loss in horizon.volatility:
            qlike = f"{loss.qlike:,.4f}" if abs(loss.qlike) < 1e4 else f"{loss.qlike:.3g}"
            rows.append(
                [
                    f"{horizon.seconds} s",
                    loss.model,
                    f"**{qlike}**" if loss.qlike == best else qlike,
                    f"{loss.mae:.3f}",
                    f"{loss.mse:.4g}",
                    "" if loss.dm is None else f"{loss.dm:+.2f}",
                    "" if loss.p is None else _p(loss.p),
                ]
            )
    title = f"### {one.name}\n\n" + ", ".join(f"{h.seconds} s: {h.rows:,} rows" for h in one.horizons) + "\n\n"
    return title + _table(_VOLATILITY, rows)


def _coverage(one: Instrument, *, as_trained: bool = False) -> list[list[str]]:
    return [
        [one.name, f"{h.seconds} s", f"{h.tests:,}"]
        + [
            f"{c.share:.2%} ({c.low:.2%} to {c.high:.2%}){'' if c.inside else ' ✗'}"
            for c in (h.coverage_as_trained if as_trained else h.coverage)
        ]
        for h in one.horizons
        if h.coverage
    ]


def _tails(one: Instrument) -> list[list[str]]:
    return [
        [
            one.name,
            f"{h.seconds} s",
            t.model,
            f"{t.var.exceptions} of {t.var.tests:,}",
            f"{t.pinball:.4f}",
            _p(t.var.kupiec_p),
            _p(t.var.independence_p),
            _p(t.var.conditional_coverage_p),
            t.var.basel,
            f"{t.shortfall.statistic:+.2f}" if t.shortfall else "",
            _p(t.shortfall.p) if t.shortfall else "",
        ]
        for h in one.horizons
        for t in h.tails
    ]


def _direction(one: Instrument) -> list[list[str]]:
    return [
        [
            one.name,
            f"{h.seconds} s",
            f"{h.direction.tests:,}",
            f"{h.direction.accuracy:.1%}",
            f"{h.direction.majority:.1%}",
            _p(h.direction.p),
        ]
        for h in one.horizons
        if h.direction
    ]


_VOLATILITY: Final = ("horizon", "model", "QLIKE", "MAE", "MSE", "DM", "p")
_COVERAGE: Final = ("instrument", "horizon", "tests", "1 %", "5 %", "50 %", "95 %", "99 %")
_TAILS: Final = (
    *("instrument", "horizon", "model", "exceptions", "pinball 1 %, bp", "Kupiec p", "independence p", "CC p"),
    *("Basel", "Z", "Z p"),
)
_DIRECTION: Final = ("instrument", "horizon", "tests", "accuracy", "majority", "p")


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    if not rows:
        return "No instrument has enough horizons in its test part."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fitted(comparison: Comparison) -> str:
    chosen = [
        f"{name}: EWMA over {comparison.ewma_seconds[name]} s, HAR coefficients of 1800, 60, 300 s and the last "
        f"horizon {', '.join(f'{b:.3f}' for b in comparison.har[name])}, {comparison.boosting_rounds[name]} "
        "rounds of boosting"
        for name in comparison.har
    ]
    return f"Chosen and fitted. {'; '.join(chosen)}."


def _style() -> Any:  # matplotlib lists every key in the type
    # Ids in an SVG are drawn from a hash of their content and this salt; without it each run gives another file.
    return {
        "svg.hashsalt": "tapewatch",
        "svg.fonttype": "none",
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _save(figure: Figure, stem: Path) -> list[Path]:
    """As PNG and SVG, without a date or a version of the program in them."""
    with matplotlib.rc_context(_style()):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        figure.savefig(stem.with_suffix(".png"), dpi=120, metadata={"Software": None})
    return [stem.with_suffix(".svg"), stem.with_suffix(".png")]


def draw_qlike(comparison: Comparison) -> Figure:
    """QLIKE of each model less EWMA's, all instruments together; below 0 is better."""
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(7.0, 2.6), layout="constrained")
        for axes, horizon in zip(figure.subplots(1, 2), comparison.instruments[0].horizons, strict=True):
            table = {loss.model: loss.qlike for loss in horizon.volatility}
            # The last value is 0 in a quiet minute and its QLIKE has no bound: it would flatten all others.
            models = [name for name in table if name not in ("EWMA", "last value")]
            difference = [table[name] - table["EWMA"] for name in models]
            colours = ["tab:blue" if name == FORECASTER else "tab:gray" for name in models]
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
