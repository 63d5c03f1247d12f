"""Forecasters beside each other and beside what a quant would put in their place, on the test part of one file.

The first forecaster is the champion: the others are compared with it, and its quantiles, VaR, ES and direction are
tested. VaR, ES, coverage and direction are judged on horizons that follow each other without a common moment, each from
the first tick after the last: the worker's own rule (stream.core.outcomes). The last tick of a second, on which
volatility is compared, would be known as such only when the second is over, and is calmer.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from stream.inference import DataFile
from stream.messages import HORIZONS, QUANTILE_LEVELS
from training import backtests, baselines, data, evaluation, garch, paths, regimes, simulation, volatility
from training.paths import Paths
from training.samples import LEAST_ROWS, Forecasts, Sample, following, refuse_too_little, sample
from training.volatility import BASIS_POINT, Loss, Losses

CHAMPION: Final = "champion"
AS_TRAINED: Final = "champion as trained"
EXPONENTIAL: Final = f"{AS_TRAINED}, exponential tail"
"""What its ES would be, had it no own: see `baselines.exponential_shortfall`."""
TAIL_MODELS: Final = (CHAMPION, AS_TRAINED, EXPONENTIAL, "historical simulation", "filtered historical simulation")
PUBLISHED: Final = 60
"""Horizon whose VaR and ES the worker publishes: at others only the quantile of 1 % is tested as a VaR."""
BAND: Final = 0.95
Announce = Callable[[str], None]


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
    fissler_ziegel: float | None  # FZ0 of VaR and ES 97.5 %; None where no ES is published
    var: backtests.VarTests
    shortfall: backtests.ShortfallTest | None  # likewise


class Direction(msgspec.Struct, frozen=True):
    """One forecaster's sign of the return, where it is not 0."""

    model: str
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
    directions: list[Direction] = []
    paths: Paths | None = None


class Instrument(msgspec.Struct, frozen=True):
    """One instrument, or all of a file: name is ALL."""

    name: str
    horizons: list[Horizon]


ALL: Final = "all"


class Comparison(msgspec.Struct, frozen=True):
    """One file."""

    forecasters: list[str]  # name@version, the champion first
    file: DataFile
    instruments: list[Instrument]
    breakdowns: list[regimes.Breakdown]
    ewma_seconds: dict[str, int]
    har: dict[str, list[float]]
    boosting_rounds: dict[str, int]
    notes: list[str]


class _Measured(NamedTuple):
    """One horizon, an entry an instrument."""

    losses: list[Losses]
    paths: list[paths.Measured]
    tests: list["Tested"]


def compare(dataset: data.Dataset, forecasts: Forecasts, announce: Announce = lambda text: None) -> Comparison:
    """Judge forecasts of every tick of one file.

    Parameters
    ----------
    dataset
        Of one file.
    forecasts
        The champion's first.
    announce
        Gets the name of each step.

    Raises
    ------
    TapewatchError
        If a part holds too few rows.
    """
    (file,) = dataset.files
    samples = [sample(one, {name: told[k] for name, told in forecasts.items()}) for k, one in enumerate(dataset.series)]
    refuse_too_little(file.name, samples)
    announce("GARCH(1,1)")
    fitted = [garch.fit(one) for one in dataset.series]
    garches = [one or garch.shared(fitted) for one in fitted]
    measured, chosen = [], {}
    for column, seconds in enumerate(HORIZONS):
        announce(f"HAR, LightGBM, {seconds} s")
        candidates = volatility.fit(samples, column)
        chosen[f"{seconds}s"] = candidates
        announce(f"losses, paths, VaR, ES, {seconds} s")
        own = [garch.forecast(g, s.series, seconds) for g, s in zip(garches, samples, strict=True)]
        measured.append(_measure(samples, own, candidates, column))
    models = [*forecasts, *volatility.BASELINES]
    announce("model confidence set")
    return Comparison(
        list(forecasts),
        file,
        _instruments(models, samples, measured),
        regimes.breakdowns(models, samples, [one.losses for one in measured]),
        {name: c.ewma_seconds for name, c in chosen.items()},
        {name: [float(b) for b in c.har] for name, c in chosen.items()},
        {name: c.boosting.current_iteration() for name, c in chosen.items()},
        _notes(samples, fitted),
    )


def _measure(
    samples: list[Sample], garch_variance: list[NDArray[np.float64]], fitted: volatility.Candidates, column: int
) -> _Measured:
    found = _Measured([], [], [])
    for one, own in zip(samples, garch_variance, strict=True):
        variance = volatility.variances(one, own, fitted, column)
        found.losses.append(volatility.losses(one, variance, column))
        found.paths.append(paths.measure(one, variance, column))
        found.tests.append(tail_tests(one, own, column))
    return found


class Tested(NamedTuple):
    """Horizons of one instrument that do not overlap, in its test part."""

    log_return: NDArray[np.float64]  # [k]
    quantiles: NDArray[np.float64]  # [k, levels] as published
    as_trained: NDArray[np.float64]  # [k, levels]
    probability_up: dict[str, NDArray[np.float64]]  # [k] of each forecaster
    tails: dict[str, simulation.Tail]


def tail_tests(one: Sample, garch_variance: NDArray[np.float64], column: int) -> Tested:
    """Follow horizon after horizon; those of the earlier parts serve the historical simulation."""
    usable = np.flatnonzero(data.usable_rows(one.series))
    rows = usable[following(one.series.clock_ns[usable], HORIZONS[column] * data.SECOND)]
    wanted = np.flatnonzero(one.series.part[rows] == data.TEST)
    log_return = one.series.log_return[rows, column].astype(np.float64)
    test = rows[wanted]
    as_trained = one.said.forecast[test][:, evaluation.QUANTILES[column]].astype(np.float64)
    quantiles = one.published.forecast[test][:, evaluation.QUANTILES[column]]
    return Tested(
        log_return[wanted],
        quantiles,
        as_trained,
        {name: told.forecast[test, evaluation.UP[column]].astype(np.float64) for name, told in one.forecasts.items()},
        {
            CHAMPION: forecast_tail(quantiles, one.published.shortfall[test]),
            AS_TRAINED: forecast_tail(as_trained, one.said.shortfall[test, column].astype(np.float64)),
            EXPONENTIAL: forecast_tail(as_trained, baselines.exponential_shortfall(as_trained)),
            TAIL_MODELS[3]: simulation.simulate(log_return, wanted),
            TAIL_MODELS[4]: simulation.simulate(log_return, wanted, np.sqrt(garch_variance[rows])),
        },
    )


def forecast_tail(quantiles: NDArray[np.float64], shortfall: NDArray[np.float64]) -> simulation.Tail:
    """VaR as the worker makes it of the quantiles of 1 and 5 %, and an ES: float64[k, levels], float64[k]."""
    value_at_risk = baselines.value_at_risk(quantiles)
    var_99 = np.maximum(0.0, -quantiles[:, QUANTILE_LEVELS.index(0.01)])
    return simulation.Tail(var_99, value_at_risk, np.maximum(shortfall, value_at_risk))  # the model's is a float32


def _instruments(models: list[str], samples: list[Sample], measured: list[_Measured]) -> list[Instrument]:
    """All together first, then each that has enough."""
    listed = [Instrument(ALL, [_together(models, m, s) for m, s in zip(measured, HORIZONS, strict=True)])]
    for k, one in enumerate(samples):
        if len(one.rows[data.TEST]) >= LEAST_ROWS:
            horizons = [_horizon(models, m, k, s) for m, s in zip(measured, HORIZONS, strict=True)]
            listed.append(Instrument(one.series.symbol, horizons))
    return listed


def _together(models: list[str], measured: _Measured, seconds: int) -> Horizon:
    rows = sum(len(one.second) for one in measured.losses)
    table = volatility.table(models, measured.losses, seconds, with_set=True)
    return Horizon(seconds, rows, table, paths=paths.paths(models, measured.paths))


def _horizon(models: list[str], measured: _Measured, k: int, seconds: int) -> Horizon:
    """Of instrument k."""
    losses, tested = measured.losses[k], measured.tests[k]
    tests = len(tested.log_return)
    horizon = Horizon(
        seconds,
        len(losses.second),
        volatility.table(models, [losses], seconds, with_set=False),
        tests,
        paths=paths.paths(models, [measured.paths[k]]),
    )
    if tests < backtests.LEAST_TESTS:
        return horizon
    return msgspec.structs.replace(
        horizon,
        coverage=coverage(tested.log_return, tested.quantiles),
        coverage_as_trained=coverage(tested.log_return, tested.as_trained),
        tails=tails(tested, with_shortfall=seconds == PUBLISHED),
        directions=directions(tested),
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
        pair = tail.var_975[there], tail.es_975[there]
        found.append(
            TailTests(
                model,
                float(np.maximum(0.01 * missed, -0.99 * missed).mean() / BASIS_POINT),
                float(baselines.fissler_ziegel(*pair, -loss).mean()) if with_shortfall else None,
                backtests.var_tests(loss > var_99, 0.01),
                backtests.shortfall_test(loss, *pair, np.random.default_rng(0)) if with_shortfall else None,
            )
        )
    return found


def directions(tested: Tested) -> list[Direction]:
    """Accuracy of each forecaster where the price differs after the horizon; none where it never does."""
    moved = tested.log_return != 0
    count = int(moved.sum())
    if count == 0:
        return []
    up = tested.log_return[moved] > 0
    majority = max(float(up.mean()), 1.0 - float(up.mean()))
    found = []
    for model, probability in tested.probability_up.items():
        right = int((up == (probability[moved] > 0.5)).sum())
        found.append(Direction(model, count, right / count, majority, float(binom.sf(right - 1, count, majority))))
    return found


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
