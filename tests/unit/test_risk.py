"""Risk by hand."""

import math

import numpy as np
import pytest

from stream.config import Settings
from stream.core import risk
from stream.core.features import CONTEXT, FEATURES, GAP, INDEX, WARMING
from stream.core.results import FORECAST_COLUMNS
from stream.core.risk import RiskAnswers, RiskRules

RULES = RiskRules(*(getattr(Settings().risk, name) for name in RiskRules._fields))


def assess(n: int, *, gap: float = 1.0, warming: bool = False, **values: float) -> RiskAnswers:
    """The same tick n times; values are features or forecast columns, `anomaly` or `shortfall`."""
    features = np.zeros((n, len(FEATURES)), np.float32)
    features[:, INDEX["log_grid_variance_1800s"]] = math.log(1e-8)  # 60 s volatility 7.7e-4
    forecast = np.zeros((n, len(FORECAST_COLUMNS)))
    anomaly = np.full(n, values.pop("anomaly", 0.0))
    shortfall = np.full(n, values.pop("shortfall", 0.0))
    for name, value in values.items():
        if name in INDEX:
            features[:, INDEX[name]] = value
        else:
            forecast[:, FORECAST_COLUMNS.index(name)] = value
    context = np.zeros((n, len(CONTEXT)))
    context[:, GAP] = gap
    context[:, WARMING] = warming
    slot = np.zeros(n, np.int32)
    return risk.compute(risk.new_state(1), slot, features, context, forecast, shortfall, anomaly, RULES)


def test_var_is_the_loss_at_the_first_percentile() -> None:
    answers = assess(1, quantile_01_60s=-0.004, quantile_05_60s=-0.002, shortfall=0.005)
    assert answers.risk[0, risk.VAR_99] == 0.004
    assert answers.risk[0, risk.ES_975] == 0.005


def test_a_forecast_without_losses_has_no_var() -> None:
    answers = assess(1, quantile_01_60s=0.001, quantile_05_60s=0.002)
    assert answers.risk[0, risk.VAR_99] == 0.0


def test_volatility_ratio_compares_with_the_instruments_own() -> None:
    answers = assess(1, volatility_60s=2.0 * math.sqrt(60 * 1e-8))
    assert answers.risk[0, risk.VOLATILITY_RATIO] == pytest.approx(2.0, rel=1e-5)


def test_flow_needs_one_side_and_volume() -> None:
    usual = assess(1, order_flow_imbalance_10s=1.0, log_volume_ratio_10s=0.0)
    busy = assess(1, order_flow_imbalance_10s=-1.0, log_volume_ratio_10s=math.log(4.0))
    assert usual.risk[0, risk.FLOW] == 0.0
    assert busy.risk[0, risk.FLOW] == pytest.approx(0.5, rel=1e-5)


def test_score_is_zero_without_risk_and_hundred_with_all_of_it() -> None:
    assert risk.score(0.0, 0.0, 0.0, 0.0, 0.0, RULES) == 0.0
    assert risk.score(1.0, 1.0, 1.0, 1.0, 1.0, RULES) == 100.0
    assert risk.score(1.0, 0.0, 0.0, 0.0, 0.0, RULES) == pytest.approx(100.0 * math.sqrt(0.3))


def test_level_rises_at_once_and_falls_below_the_border_less_hysteresis() -> None:
    assert risk.next_level(0, 85.0, RULES) == 3
    assert risk.next_level(2, 56.0, RULES) == 2  # high from 60, left below 55
    assert risk.next_level(2, 54.9, RULES) == 1
    assert risk.next_level(3, 10.0, RULES) == 0


def test_score_is_smoothed_over_event_time() -> None:
    features = np.zeros((2, len(FEATURES)), np.float32)
    context = np.zeros((2, len(CONTEXT)))
    context[1, GAP] = RULES.score_seconds
    anomaly = np.array([0.0, 1.0 - 1e-9])
    state = risk.new_state(1)
    slot = np.zeros(2, np.int32)
    answers = risk.compute(state, slot, features, context, np.zeros((2, 16)), np.zeros(2), anomaly, RULES)
    full = 100.0 * math.sqrt(RULES.weight_anomaly)
    assert answers.risk[1, risk.SCORE] == pytest.approx(full * (1.0 - math.exp(-1.0)), rel=1e-4)


def test_warming_instrument_is_normal_whatever_its_score() -> None:
    def levels(warming: bool) -> list[int]:
        answers = assess(200, warming=warming, anomaly=1.0 - 1e-12, volatility_60s=1.0, quantile_01_60s=-0.9)
        return [int(level) for level in answers.level]

    assert levels(warming=False)[-1] > 0
    assert levels(warming=True) == [0] * 200


def test_a_price_that_never_moved_gives_finite_risk() -> None:
    answers = assess(1, log_grid_variance_1800s=math.log(1e-14), volatility_60s=1e-3)
    assert np.isfinite(answers.risk).all()
