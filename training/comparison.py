"""A forecaster beside what a quant would put in its place, on the test part of one file.

Rows are the last tick of each second in which an instrument trades. What is fitted is fitted on the training part; what
is chosen (time constant, rounds of boosting) on the validation part. VaR, ES, coverage and direction are judged on
horizons that follow each other without a common moment, each from the first tick after the last: the worker's own rule
(stream.core.outcomes). The last tick of a second would be known as such only when the second is over, and is calmer.
"""

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from stream.core.conformal import expected_shortfall, tail_var
from stream.errors import TapewatchError
from stream.inference import DataFile
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import backtests, baselines, boosting, data, evaluation, garch, har, simulation

BASIS_POINT: Final = 1e-4
LEAST_ROWS: Final = 30
"""Seconds with a trade that each part needs at least: below it a mean says nothing."""
LEAST_HORIZONS: Final = 10
"""Rows that Diebold-Mariano needs, in horizons: below it their correlation cannot be estimated."""
MOST_FITTED: Final = 100_000
"""Rows that HAR and boosting are fitted on, every k-th of the training part: more change their QLIKE little."""
FORECASTER: Final = "forecaster"
VOLATILITY_MODELS: Final = (FORECASTER, "last value", "EWMA", "HAR", "GARCH(1,1)", "LightGBM")
AS_TRAINED: Final = "forecaster as trained"
TAIL_MODELS: Final = (FORECASTER, AS_TRAINED, "historical simulation", "filtered historical simulation")
PUBLISHED: Final = 60
"""Horizon whose VaR and ES the worker publishes: at others only the quantile of 1 % is tested as a VaR."""
BAND: Final = 0.95
Announce = Callable[[str], None]


class Loss(msgspec.Struct, frozen=True):
    """One model's volatility forecasts, one horizon."""

    model: str
    qlike: float  # log s^2 + rv / s^2
    mae: float  # of the volatility, basis points
    mse: float  # of the variance, basis points^4
    dm: float | None = (
        None  # Diebold-Mariano on QLIKE; above 0: the forecaster is better. None for itself or too few rows
    )
    p: float | None = None  # two-sided


class Coverage(msgspec.Struct, frozen=True):
    """Share of returns below a quantile."""

    level: float
    tests: int
    share: float
    low: float  # 95 % of right quantiles show a share between
    high: float

    @property
    def inside(self) -> bool:
        """Whether the share is what right quantiles show."""
        return self.low <= self.share <= self.high


class TailTests(msgspec.Struct, frozen=True):
    """One model's VaR 99 % and ES 97.5 %."""

    model: str
    pinball: float  # of the 1 % quantile, basis points
    var: backtests.VarTests
    shortfall: backtests.ShortfallTest | None  # None where no ES is published


class Direction(msgspec.Struct, frozen=True):
    """Sign of the return, where it is not 0."""

    tests: int
    accuracy: float
    majority: float  # of always saying what is more frequent in these tests
    p: float  # chance of so many right answers, if each were right with `majority`


class Horizon(msgspec.Struct, frozen=True):
    """One horizon of one instrument, or of all together."""

    seconds: int
    rows: int
    volatility: list[Loss]
    tests: int = 0  # horizons that do not overlap
    coverage: list[Coverage] = []  # of the quantiles as published
    coverage_as_trained: list[Coverage] = []
    tails: list[TailTests] = []
    direction: Direction | None = None


class Instrument(msgspec.Struct, frozen=True):
    """One instrument, or all of a file: name is ALL."""

    name: str
    horizons: list[Horizon]


ALL: Final = "all"


class Comparison(msgspec.Struct, frozen=True):
    """One file."""

    model: str  # name@version
    file: DataFile
    instruments: list[Instrument]
    ewma_seconds: dict[str, int]
    har: dict[str, list[float]]
    boosting_rounds: dict[str, int]
    notes: list[str]


class Sample(NamedTuple):
    """Rows of one instrument."""

    series: data.Series
    forecast: NDArray[np.float32]
    published: evaluation.Published
    last: NDArray[np.float64]  # [n, horizons] realised variance before
    rows: dict[int, NDArray[np.int64]]  # by part

    def realized(self, part: int, column: int) -> NDArray[np.float64]:
        """float64[k]"""
        realized: NDArray[np.float64] = self.series.realized_variance[self.rows[part], column].astype(np.float64)
        return realized


class Candidates(NamedTuple):
    """Fitted baselines of a file, one horizon."""

    ewma_seconds: int
    har: NDArray[np.float64]
    boosting: Any


def compare(
    dataset: data.Dataset, forecast: list[NDArray[np.float32]], model: str, announce: Announce = lambda text: None
) -> Comparison:
    """Judge forecasts of every tick of one file.

    Parameters
    ----------
    dataset
        Of one file.
    forecast : float32[n, len(FORECAST_COLUMNS)], one a series
    model
        name@version.
    announce
        Gets the name of each step.

    Raises
    ------
    TapewatchError
        If a part holds too few rows.
    """
    (file,) = dataset.files
    samples = [sample(one, f) for one, f in zip(dataset.series, forecast, strict=True)]
    _refuse_too_little(file.name, samples)
    announce("GARCH(1,1)")
    fitted = [garch.fit(one) for one in dataset.series]
    garches = [one or garch.shared(fitted) for one in fitted]
    losses: list[list[Losses]] = []
    variances: dict[int, list[NDArray[np.float64]]] = {}
    chosen: dict[str, Candidates] = {}
    for column, seconds in enumerate(HORIZONS):
        announce(f"HAR, LightGBM, {seconds} s")
        candidates = fit(samples, column)
        chosen[f"{seconds}s"] = candidates
        variances[seconds] = [garch.forecast(g, s.series, seconds) for g, s in zip(garches, samples, strict=True)]
        losses.append([_losses(s, v, candidates, column) for s, v in zip(samples, variances[seconds], strict=True)])
    announce("VaR, ES")
    tests = [
        [tail_tests(s, variances[seconds][k], column) for column, seconds in enumerate(HORIZONS)]
        for k, s in enumerate(samples)
    ]
    return Comparison(
        model,
        file,
        _instruments(samples, losses, tests),
        {name: c.ewma_seconds for name, c in chosen.items()},
        {name: [float(b) for b in c.har] for name, c in chosen.items()},
        {name: c.boosting.current_iteration() for name, c in chosen.items()},
        _notes(samples, fitted),
    )


def sample(series: data.Series, forecast: NDArray[np.float32]) -> Sample:
    """The rows of a series."""
    last = baselines.last_value(series)
    good = data.usable_rows(series) & np.isfinite(last).all(1) & last_of_second(series.clock_ns)
    parts = (data.TRAIN, data.VALIDATION, data.TEST)
    rows = {part: np.flatnonzero(good & (series.part == part)) for part in parts}
    return Sample(series, forecast, evaluation.publish(series, forecast), last, rows)


def last_of_second(clock_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a tick is the last of its second: bool[n]."""
    second = clock_ns // data.SECOND
    return np.append(second[1:] != second[:-1], np.True_)


def _refuse_too_little(file: str, samples: list[Sample]) -> None:
    for part, what in ((data.TRAIN, "training"), (data.VALIDATION, "validation"), (data.TEST, "test")):
        rows = sum(len(s.rows[part]) for s in samples)
        if rows < LEAST_ROWS:
            raise TapewatchError(
                f"{file}: {rows:,} seconds with a trade in the {what} part, past warming and with "
                f"{max(HORIZONS)} s of the same session before and after; {LEAST_ROWS:,} are needed: give a longer file"
            )


def fit(samples: list[Sample], column: int) -> Candidates:
    """Fit HAR and boosting on the training part, choose EWMA's time constant on the validation part."""
    train, validation = (_pooled(samples, part, column) for part in (data.TRAIN, data.VALIDATION))
    seconds = HORIZONS[column]
    tuning = {
        tau: float(baselines.qlike(baselines.ewma(validation.features, tau)[:, column], validation.realized).mean())
        for tau in baselines.EWMA_SECONDS
    }
    return Candidates(
        min(tuning, key=lambda tau: tuning[tau]),
        har.fit(train.features, train.last, train.realized, seconds),
        boosting.fit(
            boosting.Rows(train.features, train.realized, seconds),
            boosting.Rows(validation.features, validation.realized, seconds),
        ),
    )


class _Pooled(NamedTuple):
    features: NDArray[np.float32]
    last: NDArray[np.float64]
    realized: NDArray[np.float64]


def _pooled(samples: list[Sample], part: int, column: int) -> _Pooled:
    """Rows of all instruments in one part, at most about MOST_FITTED."""
    step = math.ceil(sum(len(s.rows[part]) for s in samples) / MOST_FITTED)
    rows = [s.rows[part][::step] for s in samples]
    return _Pooled(
        np.concatenate([s.series.features[r] for s, r in zip(samples, rows, strict=True)]),
        np.concatenate([s.last[r, column] for s, r in zip(samples, rows, strict=True)]),
        np.concatenate([s.realized(part, column)[::step] for s in samples]),
    )


class Losses(NamedTuple):
    """Losses of the models on the test rows of one instrument, one horizon."""

    second: NDArray[np.int64]  # [k]
    qlike: NDArray[np.float64]  # [models, k]
    absolute: NDArray[np.float64]  # [models, k] of the volatility, basis points
    squared: NDArray[np.float64]  # [models, k] of the variance, basis points^4


def _losses(one: Sample, garch_variance: NDArray[np.float64], fitted: Candidates, column: int) -> Losses:
    rows, seconds = one.rows[data.TEST], HORIZONS[column]
    features, last, realized = one.series.features[rows], one.last[rows, column], one.realized(data.TEST, column)
    own = one.forecast[rows][:, evaluation.VOLATILITY[column]].astype(np.float64) ** 2
    variance = np.stack(
        (
            np.maximum(own, baselines.LEAST_VARIANCE),
            last,
            baselines.ewma(features, fitted.ewma_seconds)[:, column],
            har.forecast(fitted.har, features, last, seconds),
            garch_variance[rows],
            boosting.forecast(fitted.boosting, features, seconds) if len(rows) else np.empty(0),
        )
    )
    return Losses(
        one.series.clock_ns[rows] // data.SECOND,
        baselines.qlike(variance, realized),
        np.abs(np.sqrt(variance) - np.sqrt(realized)) / BASIS_POINT,
        ((variance - realized) / BASIS_POINT**2) ** 2,
    )


def volatility_table(losses: list[Losses], seconds: int) -> list[Loss]:
    """Means over all rows, and Diebold-Mariano against the first model.

    Instruments that trade in one second are not independent: their differences are summed, second by second.
    """
    qlike, absolute, squared = (np.concatenate([x[k] for x in losses], 1) for k in (1, 2, 3))
    moment = np.concatenate([x.second for x in losses])
    moments, inverse = np.unique(moment, return_inverse=True)
    table = []
    for k, model in enumerate(VOLATILITY_MODELS):
        known = k > 0 and len(moments) >= LEAST_HORIZONS * seconds
        difference: NDArray[Any] = np.bincount(inverse, qlike[k] - qlike[0])
        dm = diebold_mariano(difference, 2 * seconds) if known else None
        table.append(
            Loss(
                model,
                float(qlike[k].mean()),
                float(absolute[k].mean()),
                float(squared[k].mean()),
                dm,
                None if dm is None else math.erfc(abs(dm) / math.sqrt(2.0)),
            )
        )
    return table


def diebold_mariano(difference: NDArray[np.float64], lags: int) -> float:
    """Mean over its standard error, normal under equal losses (Diebold and Mariano 1995).

    Parameters
    ----------
    difference : float64[n]
        Loss of the other less that of ours, in order of time.
    lags
        Of the Bartlett kernel (Newey and West 1987). Rows that share a part of their horizon are correlated: twice
        the rows of a horizon give the last of these the weight of a half.

    Returns
    -------
    float
        Above 0 if ours is better; 0 if the losses never differ.
    """
    centred = difference - difference.mean()
    variance = float(centred @ centred)
    for lag in range(1, min(lags, len(difference) - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    if variance <= 0.0:
        return 0.0
    return float(difference.sum() / math.sqrt(variance))


class Tested(NamedTuple):
    """Horizons of one instrument that do not overlap, in its test part."""

    log_return: NDArray[np.float64]  # [k]
    quantiles: NDArray[np.float64]  # [k, levels] as published
    as_trained: NDArray[np.float64]  # [k, levels]
    probability_up: NDArray[np.float64]  # [k]
    tails: dict[str, simulation.Tail]


def tail_tests(one: Sample, garch_variance: NDArray[np.float64], column: int) -> Tested:
    """Follow horizon after horizon; those of the earlier parts serve the historical simulation."""
    usable = np.flatnonzero(data.usable_rows(one.series))
    rows = usable[following(one.series.clock_ns[usable], HORIZONS[column] * data.SECOND)]
    wanted = np.flatnonzero(one.series.part[rows] == data.TEST)
    log_return = one.series.log_return[rows, column].astype(np.float64)
    test = rows[wanted]
    as_trained = one.forecast[test][:, evaluation.QUANTILES[column]].astype(np.float64)
    quantiles = one.published.forecast[test][:, evaluation.QUANTILES[column]]
    return Tested(
        log_return[wanted],
        quantiles,
        as_trained,
        one.forecast[test][:, evaluation.UP[column]].astype(np.float64),
        {
            FORECASTER: published_tail(quantiles, one.published.shortfall[test]),
            AS_TRAINED: forecast_tail(as_trained),
            TAIL_MODELS[2]: simulation.simulate(log_return, wanted),
            TAIL_MODELS[3]: simulation.simulate(log_return, wanted, np.sqrt(garch_variance[rows])),
        },
    )


def following(clock_ns: NDArray[np.int64], horizon_ns: int) -> NDArray[np.int64]:
    """Rows that start at or after the end of the horizon of the row before: int64[k]."""
    rows = []
    row = 0
    while row < len(clock_ns):
        rows.append(row)
        row = int(np.searchsorted(clock_ns, clock_ns[row] + horizon_ns))
    return np.array(rows, np.int64)


def published_tail(quantiles: NDArray[np.float64], shortfall: NDArray[np.float64]) -> simulation.Tail:
    """VaR and ES as published: float64[k, levels], float64[k]."""
    return forecast_tail(quantiles)._replace(es_975=shortfall)


def forecast_tail(quantiles: NDArray[np.float64]) -> simulation.Tail:
    """VaR and ES as the worker makes them of the quantiles of 1 and 5 %, before it adjusts the ES."""
    loss_01, loss_05 = -quantiles[:, QUANTILE_LEVELS.index(0.01)], -quantiles[:, QUANTILE_LEVELS.index(0.05)]
    pairs = list(zip(loss_05.tolist(), loss_01.tolist(), strict=True))
    value_at_risk = np.array([tail_var(*pair) for pair in pairs])
    return simulation.Tail(np.maximum(0.0, loss_01), value_at_risk, np.array([expected_shortfall(*p) for p in pairs]))


def _instruments(samples: list[Sample], losses: list[list[Losses]], tests: list[list[Tested]]) -> list[Instrument]:
    """All together first, then each that has enough."""
    together = [
        Horizon(seconds, sum(len(x.second) for x in losses[c]), volatility_table(losses[c], seconds))
        for c, seconds in enumerate(HORIZONS)
    ]
    listed = [Instrument(ALL, together)]
    for k, one in enumerate(samples):
        if len(one.rows[data.TEST]) < LEAST_ROWS:
            continue
        horizons = [
            _horizon(seconds, volatility_table([losses[c][k]], seconds), len(losses[c][k].second), tests[k][c])
            for c, seconds in enumerate(HORIZONS)
        ]
        listed.append(Instrument(one.series.symbol, horizons))
    return listed


def _horizon(seconds: int, volatility: list[Loss], rows: int, tested: Tested) -> Horizon:
    tests = len(tested.log_return)
    if tests < backtests.LEAST_TESTS:
        return Horizon(seconds, rows, volatility, tests)
    return Horizon(
        seconds,
        rows,
        volatility,
        tests,
        coverage(tested.log_return, tested.quantiles),
        coverage(tested.log_return, tested.as_trained),
        tails(tested, with_shortfall=seconds == PUBLISHED),
        direction(tested),
    )


def coverage(log_return: NDArray[np.float64], quantiles: NDArray[np.float64]) -> list[Coverage]:
    """Share of the returns below each quantile, with the band that right quantiles show."""
    tests = len(log_return)
    found = []
    for k, level in enumerate(QUANTILE_LEVELS):
        share = float((log_return < quantiles[:, k]).mean())
        low, high = binom.interval(BAND, tests, level)
        found.append(Coverage(level, tests, share, float(low) / tests, float(high) / tests))
    return found


def tails(tested: Tested, *, with_shortfall: bool) -> list[TailTests]:
    """The tests of each model that has enough horizons with a forecast."""
    found = []
    for model, tail in tested.tails.items():
        there = np.isfinite(tail.var_99) & (tail.es_975 > 0)
        if there.sum() < backtests.LEAST_TESTS:
            continue
        loss, var_99 = -tested.log_return[there], tail.var_99[there]
        missed = var_99 - loss
        rng = np.random.default_rng(0)
        beyond = (
            backtests.shortfall_test(loss, tail.var_975[there], tail.es_975[there], rng) if with_shortfall else None
        )
        found.append(
            TailTests(
                model,
                float(np.maximum(0.01 * missed, -0.99 * missed).mean() / BASIS_POINT),
                backtests.var_tests(loss > var_99, 0.01),
                beyond,
            )
        )
    return found


def direction(tested: Tested) -> Direction | None:
    """Accuracy where the price differs after the horizon; None where it never does."""
    moved = tested.log_return != 0
    count = int(moved.sum())
    if count == 0:
        return None
    up = tested.log_return[moved] > 0
    right = int((up == (tested.probability_up[moved] > 0.5)).sum())
    majority = max(float(up.mean()), 1.0 - float(up.mean()))
    return Direction(count, right / count, majority, float(binom.sf(right - 1, count, majority)))


def _notes(samples: list[Sample], fitted: list[garch.Garch | None]) -> list[str]:
    """What could not be done, in words."""
    few = [s.series.symbol for s in samples if 0 < len(s.rows[data.TEST]) < LEAST_ROWS]
    notes = [f"Fewer than {LEAST_ROWS} test rows, so only in `{ALL}`: {', '.join(few)}."] if few else []
    shared = [s.series.symbol for s, g in zip(samples, fitted, strict=True) if g is None and len(s.rows[data.TEST])]
    if shared:
        notes.append(
            f"GARCH(1,1) takes the median parameters of the other instruments, or RiskMetrics', "
            f"for {', '.join(shared)}: too little in the training part."
        )
    return notes
