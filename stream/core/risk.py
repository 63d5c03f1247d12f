"""Risk of holding one unit for 60 s, and one number for it: from forecast, anomaly and flow to score and level.

VaR and ES are positive for a loss of a long position. The score is the root of the weighted mean square of five
components in [0, 1], times 100: monotone in each of them, and one extreme component weighs more than several mild
ones. It is smoothed over `score_seconds`, and the level follows it with hysteresis.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stream.core.digits import round_significant
from stream.core.features import GAP, INDEX, MIN_VARIANCE, WARMING
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS

STATE: Final = np.dtype([("started", np.bool_), ("score", np.float64), ("level", np.int64)], align=True)

VOLATILITY_60: Final = FORECAST_COLUMNS.index("volatility_60s")
QUANTILE_01_60: Final = FORECAST_COLUMNS.index("quantile_01_60s")
ANOMALY, VAR_99, ES_975, VOLATILITY_RATIO, FLOW, LIQUIDITY, SCORE = range(len(RISK_COLUMNS))
_VARIANCE_1800: Final = INDEX["log_grid_variance_1800s"]
_IMBALANCE_10: Final = INDEX["order_flow_imbalance_10s"]
_VOLUME_RATIO_10: Final = INDEX["log_volume_ratio_10s"]
_IMPACT_60: Final = INDEX["log_price_impact_60s"]
_IMPACT_1800: Final = INDEX["log_price_impact_1800s"]

HORIZON_SECONDS: Final = 60.0
# Where a component reaches 1: eight times the usual volatility or price impact, sixteen times the usual volume, an
# anomaly that one normal tick in ten thousand exceeds.
FULL_RATIO: Final = math.log(8.0)
FULL_VOLUME: Final = math.log(16.0)
FULL_ANOMALY: Final = math.log(1e4)
# A burst at one time still moves the score: a tick counts as at least this part of `score_seconds`.
LEAST_STEP: Final = 1.0 / 64.0
# A volatility of 1e-7 a root second is a price that does not move; ratios to less mean nothing.
MAX_RATIO: Final = 1e6


class RiskRules(NamedTuple):
    """`config.Risk`, in its order."""

    weight_volatility: float
    weight_anomaly: float
    weight_flow: float
    weight_liquidity: float
    weight_tail: float
    elevated: float
    high: float
    critical: float
    hysteresis: float
    score_seconds: float
    es_limit: float


class RiskAnswers(NamedTuple):
    """Risk of each accepted tick."""

    risk: NDArray[np.float64]  # [m, len(RISK_COLUMNS)], six significant digits
    level: NDArray[np.int8]  # [m] index into messages.LEVELS


def new_state(instruments: int) -> NDArray[np.void]:
    """State of so many instruments without a score: STATE[instruments]."""
    return np.zeros(instruments, STATE)


def compute(
    state: NDArray[np.void],
    slot: NDArray[np.int32],
    features: NDArray[np.float32],
    context: NDArray[np.float64],
    forecast: NDArray[np.float64],
    shortfall: NDArray[np.float64],
    anomaly: NDArray[np.float64],
    rules: RiskRules,
) -> RiskAnswers:
    """Assess the accepted ticks in order; `state` is updated in place.

    Parameters
    ----------
    state : STATE[instruments]
    slot : int32[m]
    features : float32[m, len(FEATURES)]
    context : float64[m, len(CONTEXT)]
    forecast : float64[m, len(FORECAST_COLUMNS)]
    shortfall : float64[m]
        ES 97.5 % over 60 s, from `conformal.adjust`.
    anomaly : float64[m]
        Tail probability, 0 to 1.
    rules
        Weights, borders of the levels, smoothing.
    """
    risk = np.empty((slot.shape[0], len(RISK_COLUMNS)))
    level = np.empty(slot.shape[0], np.int8)
    _walk(state, slot, features, context, forecast, shortfall, anomaly, rules, risk, level)
    round_significant(risk, risk)
    return RiskAnswers(risk, level)


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    state: Any,
    slot: Any,
    features: Any,
    context: Any,
    forecast: Any,
    shortfall: Any,
    anomaly: Any,
    rules: RiskRules,
    risk: Any,
    level: Any,
) -> None:
    for i in range(slot.shape[0]):
        s = state[slot[i]]
        raw = _assess(features[i], forecast[i], shortfall[i], anomaly[i], rules, risk[i])
        _smooth(s, raw, context[i, GAP], rules.score_seconds)
        risk[i, SCORE] = s.score
        s.level = 0 if context[i, WARMING] else next_level(s.level, s.score, rules)
        level[i] = s.level


@njit(inline="always")
def _assess(f: Any, forecast: Any, shortfall: float, anomaly: float, rules: RiskRules, row: Any) -> float:
    """Write the row's components, return the score before smoothing."""
    row[ANOMALY] = anomaly
    row[VAR_99] = max(0.0, -forecast[QUANTILE_01_60])
    row[ES_975] = shortfall
    usual = math.sqrt((math.exp(f[_VARIANCE_1800]) + MIN_VARIANCE) * HORIZON_SECONDS)
    row[VOLATILITY_RATIO] = min(forecast[VOLATILITY_60] / usual, MAX_RATIO)
    row[FLOW] = abs(f[_IMBALANCE_10]) * _unit(f[_VOLUME_RATIO_10] / FULL_VOLUME)
    row[LIQUIDITY] = _unit((f[_IMPACT_60] - f[_IMPACT_1800]) / FULL_RATIO)
    return score(
        _unit(math.log(max(row[VOLATILITY_RATIO], 1.0)) / FULL_RATIO),
        _unit(-math.log(max(1.0 - anomaly, 1e-12)) / FULL_ANOMALY),
        row[FLOW],
        row[LIQUIDITY],
        _unit(row[ES_975] / rules.es_limit),
        rules,
    )


@njit(cache=True)
def score(volatility: float, anomaly: float, flow: float, liquidity: float, tail: float, rules: RiskRules) -> float:
    """Score 0 to 100 of five components in [0, 1]: root of their weighted mean square."""
    weights = (
        rules.weight_volatility + rules.weight_anomaly + rules.weight_flow + rules.weight_liquidity + rules.weight_tail
    )
    square = (
        rules.weight_volatility * volatility * volatility
        + rules.weight_anomaly * anomaly * anomaly
        + rules.weight_flow * flow * flow
        + rules.weight_liquidity * liquidity * liquidity
        + rules.weight_tail * tail * tail
    )
    return 100.0 * math.sqrt(min(1.0, square / weights))


@njit(cache=True)
def next_level(level: int, score: float, rules: RiskRules) -> int:
    """Level 0 to 3: up as soon as the score reaches a border, down once it is `hysteresis` below."""
    borders = (rules.elevated, rules.high, rules.critical)
    while level < 3 and score >= borders[level]:
        level += 1
    while level > 0 and score < borders[level - 1] - rules.hysteresis:
        level -= 1
    return level


@njit(inline="always")
def _smooth(s: Any, raw: float, gap: float, seconds: float) -> None:
    if not s.started:
        s.started = True
        s.score = raw
        return
    s.score += (1.0 - math.exp(-max(gap / seconds, LEAST_STEP))) * (raw - s.score)


@njit(inline="always")
def _unit(x: float) -> float:
    return min(1.0, max(0.0, x))
