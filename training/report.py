"""A comparison as files: Markdown for people, JSON for programs, plots; equal numbers, equal bytes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import TapewatchError
from training import confidence_set
from training.comparison import BAND, Comparison, Horizon, Instrument
from training.paths import BAND_SECONDS
from training.plots import PLOTS, save
from training.regimes import REGIMES
from training.volatility import BASELINES, Loss

SIGNIFICANT: Final = 0.01
ACCEPTED: Final = 0.05
NOTES: Final = (
    "Rows are the last tick of each second in which an instrument trades, past warming, with a horizon before and "
    "after in the same session. HAR, GARCH and LightGBM are fitted on this file's training part, their choices are "
    "made on its validation part, and all numbers are of its test part. A forecaster is one for all files.",
    "QLIKE is log s² + rv / s² of variances of at least (0.1 bp)²; MAE is of the volatility in basis points, MSE of "
    "the variance in basis points⁴; pinball is the mean over the five quantiles as published, in basis points. DM is "
    "Diebold-Mariano on QLIKE against the champion, with the errors of Newey and West over two horizons: above 0 the "
    "champion is better. Where instruments trade in the same second, their losses are summed before the test.",
    f"In the set: the model confidence set of {1 - confidence_set.SIZE:.0%} (Hansen, Lunde and Nason 2011) on QLIKE, "
    "all instruments together; the best model is in it with that probability, however many were tried. p is at least "
    f"{confidence_set.SIZE:g} of those in it. {confidence_set.RESAMPLES:,} resamples of blocks of "
    f"{confidence_set.BLOCK_HORIZONS} horizons, as far as Diebold-Mariano's errors reach. A model whose mean hangs on "
    "a few enormous losses, as the last value's, may stay in: its mean is hardly known.",
    "Paths: log volatility from horizon to horizon without overlap, pauses cut out, each path in units of its own mean "
    "and deviation. DTW is the distance of dynamic time warping to the realised path, root mean square of a step; a "
    f"moment may be shifted by {BAND_SECONDS} s. The last value is the realised path one step late, which warping "
    "forgives. Instruments are averaged by their steps.",
    "Hours are UTC. The borders of the regimes are terciles over the training rows of each instrument, of the variance "
    "over 300 s and of the Roll spread over 300 s at the moment of the forecast. The best baseline is of all rows.",
    "The champion's quantiles, VaR and ES are judged as the worker publishes them: followed by their own exceptions "
    "from the file's first tick on (stream/core/conformal.py), with nothing fitted on this file; `as trained` is the "
    "model's own word.",
    "VaR 99 % and ES 97.5 % are of a long position, over horizons that do not overlap, each from the first tick after "
    "the last. At 10 s, for which no VaR is published, VaR is the quantile of 1 %. Kupiec: the number of "
    "exceptions; Christoffersen: their independence, and both together (CC); Basel: the traffic light, its borders "
    "drawn at the same probabilities for any number of tests. Z is Acerbi and Szekely's second statistic, 0 at best, "
    "with its one-sided p. FZ0 is the loss of VaR and ES 97.5 % together (Patton, Ziegel and Chen 2019, eq. 6), lower "
    "is better. The forecaster's ES is its own; `exponential tail` puts in its place what the tail beyond its "
    "quantiles of 5 and 1 % has if it is exponential. Historical simulation takes the last 500 such horizons; "
    "filtered, in units of GARCH(1,1).",
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
        drawn = [path for name, draw in PLOTS.items() for path in save(draw(comparison), folder / name)]
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
        f"# {', '.join(comparison.forecasters)} on {comparison.file.name}",
        _about(comparison),
        "## In short",
        "\n".join(f"- {line}" for line in summary(comparison)),
        "![QLIKE against EWMA](qlike.svg)",
        "## Volatility",
        *(_volatility(one) for one in _told(comparison)),
        "## Likeness of paths",
        _table(_PATHS, _paths(comparison.instruments[0])),
        "## QLIKE apart",
        *(part for by in ("hour", *REGIMES) for part in (f"By {by}:", _breakdown(comparison, by))),
        "## Quantiles",
        "Share of returns below the champion's quantile; in brackets what right quantiles show in "
        f"{BAND:.0%} of cases; ✗: not.",
        "![Coverage](coverage.svg)",
        _table(_COVERAGE, [row for one in comparison.instruments for row in _coverage(one)]),
        "The same quantiles as trained, before they followed their exceptions:",
        _table(_COVERAGE, [row for one in comparison.instruments for row in _coverage(one, as_trained=True)]),
        "## Value at risk and expected shortfall",
        _table(_TAILS, [row for one in comparison.instruments for row in _tails(one)]),
        "## Direction",
        _table(_DIRECTION, [row for one in comparison.instruments for row in _directions(one)]),
        "## How it was measured",
        "\n".join(f"- {note}" for note in (*NOTES, *comparison.notes, _fitted(comparison))),
    ]
    return "\n\n".join(parts) + "\n"


def _about(comparison: Comparison) -> str:
    file = comparison.file
    return (
        f"{_roles(comparison)}{file.rows:,} rows, sha256 `{file.sha256[:16]}…`. "
        f"Training from {_utc(file.first_ns)}, validation from {_utc(file.validation_ns)}, "
        f"test from {_utc(file.test_ns)} to {_utc(file.last_ns)} (UTC). "
        f"Written by `tapewatch evaluate`."
    )


def _roles(comparison: Comparison) -> str:
    champion, *others = comparison.forecasters
    return f"The champion is {champion}; beside it stand {', '.join(others)}. " if others else ""


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
    """Who is better and worse than the champion, by QLIKE of all instruments together, and who may be the best."""
    champion, *others = horizon.volatility
    said: dict[str, list[str]] = {key: [] for key in ("better than", "worse than", "not told apart from", _TOO_FEW)}
    for loss in others:
        said[_verdict(loss)].append(loss.model)
    words = "; ".join(f"{key} {', '.join(models)}" for key, models in said.items() if models)
    return (
        f"Volatility, {horizon.seconds} s: {champion.model} is {words} (QLIKE, Diebold-Mariano, p < {SIGNIFICANT})."
        f"{_in_set(horizon)}"
    )


def _in_set(horizon: Horizon) -> str:
    models = [loss.model for loss in horizon.volatility if loss.in_set]
    return f" In the {1 - confidence_set.SIZE:.0%} model confidence set: {', '.join(models)}." if models else ""


_TOO_FEW: Final = "on too few rows to tell from"
NAMED: Final = 6
"""Names in a line of the summary; the tables have them all."""


def _verdict(loss: Loss) -> str:
    if loss.dm is None or loss.p is None:
        return _TOO_FEW
    return "not told apart from" if loss.p >= SIGNIFICANT else "better than" if loss.dm > 0 else "worse than"


def _named(names: list[str]) -> str:
    """What a count is followed by: the first few names."""
    more = f"; and {len(names) - NAMED} more in the report's tables" if len(names) > NAMED else ""
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
    """README.md of a folder of reports: what the champion was better and worse than, file by file."""
    champion, *others = comparisons[0].forecasters
    rows = [
        [f"[{one.file.name}]({Path(one.file.name).stem}/report.md)", f"{h.seconds} s", f"{h.rows:,}"]
        + ["★" if h.volatility[0].in_set else ""]
        + [
            f"{_MARK[_verdict(loss)]} {loss.qlike - h.volatility[0].qlike:+.3g}{' ★' if loss.in_set else ''}"
            for loss in h.volatility[1:]
        ]
        for one in comparisons
        for h in one.instruments[0].horizons
    ]
    legend = (
        f"QLIKE of each less that of {champion}, the champion, on the test part: above 0 the champion is better. "
        f"✓ and ✗: Diebold-Mariano calls the champion better or worse, p < {SIGNIFICANT}; =: not told apart; "
        f"?: too few rows. ★: in the {1 - confidence_set.SIZE:.0%} model confidence set."
    )
    head = ("file", "horizon", "rows", champion, *others, *BASELINES)
    lines = [f"**{one.file.name}**\n\n" + "\n".join(f"- {line}" for line in summary(one)) for one in comparisons]
    words = (
        "The quantiles, VaR and ES are the champion's as a worker publishes them; *as trained*: before they followed "
        f"their exceptions. The band of a quantile is where right ones lie in {BAND:.0%} of cases. Kupiec: how many "
        "exceptions there are; CC: that, and their independence. *How it was measured* in each report says what the "
        "rest means; its words are in the [glossary](../glossary.md#forecast). `tapewatch train all` chooses its "
        "champion by the [validation loss](../how-to/retrain.md), before any of these test parts is looked at."
    )
    parts = [
        "# Forecasters and baselines",
        "Written by `tapewatch evaluate`.",
        legend,
        _table(head, rows),
        words,
        *lines,
    ]
    return "\n\n".join(parts) + "\n"


_MARK: Final = {"better than": "✓", "worse than": "✗", "not told apart from": "=", _TOO_FEW: "?"}


def _told(comparison: Comparison) -> list[Instrument]:
    """All together, and each instrument where there are several."""
    return comparison.instruments[:1] if len(comparison.instruments) == 2 else comparison.instruments


def _volatility(one: Instrument) -> str:
    with_set = any(loss.set_p is not None for horizon in one.horizons for loss in horizon.volatility)
    rows = []
    for horizon in one.horizons:
        best = min(loss.qlike for loss in horizon.volatility)
        rows += [
            [f"{horizon.seconds} s", *_losses(loss, best), *([_membership(loss)] if with_set else [])]
            for loss in horizon.volatility
        ]
    title = f"### {one.name}\n\n" + ", ".join(f"{h.seconds} s: {h.rows:,} rows" for h in one.horizons) + "\n\n"
    return title + _table((*_VOLATILITY, *(["in the set, p"] if with_set else [])), rows)


def _losses(loss: Loss, best: float) -> list[str]:
    return [
        loss.model,
        _qlike(loss.qlike, best),
        f"{loss.mae:.3f}",
        f"{loss.mse:.4g}",
        "" if loss.pinball is None else f"{loss.pinball:.4f}",
        "" if loss.dm is None else f"{loss.dm:+.2f}",
        "" if loss.p is None else _p(loss.p),
    ]


def _qlike(qlike: float, best: float) -> str:
    """Bold where it is the best."""
    text = f"{qlike:,.4f}" if abs(qlike) < 1e4 else f"{qlike:.3g}"
    return f"**{text}**" if qlike == best else text


def _membership(loss: Loss) -> str:
    return "" if loss.set_p is None else f"{'★' if loss.in_set else 'no'} {_p(loss.set_p)}"


def _paths(one: Instrument) -> list[list[str]]:
    return [
        [f"{h.seconds} s", f"{h.paths.steps:,}", path.model, f"{path.correlation:.3f}", f"{path.distance:.3f}"]
        for h in one.horizons
        if h.paths
        for path in h.paths.models
    ]


def _breakdown(comparison: Comparison, by: str) -> str:
    """Forecasters and the baseline that is the best of all over the horizon, group by group."""
    rows = []
    for parted, horizon in zip(
        (one for one in comparison.breakdowns if one.by == by), comparison.instruments[0].horizons, strict=True
    ):
        baseline = min((x for x in horizon.volatility if x.model in BASELINES), key=lambda loss: loss.qlike).model
        shown = [*comparison.forecasters, baseline]
        for group in parted.groups:
            best = min(group.qlike[model] for model in shown)
            told = [_qlike(group.qlike[model], best) for model in shown]
            rows.append([group.name, f"{parted.seconds} s", f"{group.rows:,}", *told, baseline])
    return _table((by, "horizon", "rows", *comparison.forecasters, "best baseline", "which is"), rows)


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
            "" if t.fissler_ziegel is None else f"{t.fissler_ziegel:.4f}",
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


def _directions(one: Instrument) -> list[list[str]]:
    return [
        [
            one.name,
            f"{h.seconds} s",
            direction.model,
            f"{direction.tests:,}",
            f"{direction.accuracy:.1%}",
            f"{direction.majority:.1%}",
            _p(direction.p),
        ]
        for h in one.horizons
        for direction in h.directions
    ]


_VOLATILITY: Final = ("horizon", "model", "QLIKE", "MAE", "MSE", "pinball", "DM", "p")
_PATHS: Final = ("horizon", "steps", "model", "correlation", "DTW")
_COVERAGE: Final = ("instrument", "horizon", "tests", "1 %", "5 %", "50 %", "95 %", "99 %")
_TAILS: Final = (
    *("instrument", "horizon", "model", "exceptions", "pinball 1 %, bp", "FZ0", "Kupiec p", "independence p", "CC p"),
    *("Basel", "Z", "Z p"),
)
_DIRECTION: Final = ("instrument", "horizon", "model", "tests", "accuracy", "majority", "p")


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
