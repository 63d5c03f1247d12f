"""Alerts by hand: each kind opens for its reason, and does not flap."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import alerts
from stream.core.alerts import CLOSED, KINDS, OPENED, UPDATED, AlertRules
from stream.core.features import (
    CONTEXT,
    FEATURES,
    GAP,
    INDEX,
    LATE_FAULTS,
    USUAL_GAP,
    VOLUME_AGAINST_4H,
    WARMING,
)

RULES = AlertRules(*(getattr(Settings().alerts, name) for name in AlertRules._fields))

CALM = {
    "log_grid_variance_60s": math.log(1e-8),
    "log_grid_variance_300s": math.log(1e-8),
    "log_grid_variance_1800s": math.log(1e-8),
    "log_trade_rate_60s": 0.0,  # one trade a second
    "log_roll_spread_300s": math.log(1e-6),
    "log_time_since_last_trade": 0.0,
}
VOLATILE = {"log_grid_variance_60s": math.log(30 * 1e-8)}  # 5.5 times the volatility
PUMPED = {
    "momentum_60s": 0.06,
    "log_volume_ratio_10s": math.log(40.0),
    "log_rush_order_rate_10s": math.log(1.0 + 4.0),
    "rush_order_imbalance_10s": 0.9,
}


def tick(**changes: float) -> NDArray[np.float32]:
    row = np.zeros(len(FEATURES), np.float32)
    for name, value in (CALM | changes).items():
        row[INDEX[name]] = value
    return row


def watch(
    rows: list[NDArray[np.float32]],
    *,
    gaps: list[float] | None = None,
    warming: bool = False,
    anomaly: list[float] | None = None,
    context: dict[int, list[float]] | None = None,
    rules: AlertRules = RULES,
) -> list[tuple[str, int, int]]:
    """Kind, change and row of each event, for ticks one second apart."""
    n = len(rows)
    columns = np.zeros((n, len(CONTEXT)))
    columns[:, GAP] = gaps or [1.0] * n
    columns[:, USUAL_GAP] = 1.0
    columns[:, WARMING] = warming
    columns[:, VOLUME_AGAINST_4H] = 1.0
    for column, values in (context or {}).items():
        columns[:, column] = values
    events = alerts.compute(
        alerts.new_state(1),
        np.zeros(n, np.int32),
        np.arange(n, dtype=np.int64),
        np.array(rows),
        columns,
        np.array(anomaly or [0.5] * n),
        rules,
    )
    return [(KINDS[event["kind"]], int(event["state"]), int(event["row"])) for event in events]


def test_calm_market_opens_nothing() -> None:
    assert watch([tick()] * 100) == []


def test_volatility_opens_once_and_closes_after_it_has_stayed_low() -> None:
    rows = [tick(), *[tick(**VOLATILE)] * 20, *[tick()] * 20]
    hold = int(RULES.hold_seconds)
    assert watch(rows) == [("volatility", OPENED, 1), ("volatility", CLOSED, 21 + hold)]


def test_value_that_dips_for_a_moment_does_not_flap() -> None:
    rows = [tick(**VOLATILE), tick(), tick(**VOLATILE), tick()] * 10
    assert watch(rows) == [("volatility", OPENED, 0)]


def test_value_between_the_borders_neither_opens_nor_closes() -> None:
    between = tick(log_grid_variance_60s=math.log(12 * 1e-8))  # ratio 3.46, between 2.8 and 4
    assert watch([between] * 50) == []
    assert watch([tick(**VOLATILE), *[between] * 50]) == [("volatility", OPENED, 0)]


def test_alert_that_grows_is_updated() -> None:
    worse = tick(log_grid_variance_60s=math.log(90 * 1e-8))
    assert watch([tick(**VOLATILE), worse, worse])[:2] == [("volatility", OPENED, 0), ("volatility", UPDATED, 1)]


def test_ratios_of_a_handful_of_trades_are_no_alert() -> None:
    assert watch([tick(**VOLATILE, log_trade_rate_60s=math.log(0.1))]) == []


def test_price_jump_is_measured_in_deviations_of_the_time_it_had() -> None:
    at_once = tick(momentum_1s=-1e-3)  # ten deviations of a second
    after_a_minute = tick(momentum_1s=-1e-3, log_time_since_last_trade=math.log(60.0))
    assert watch([at_once])[0] == ("price_jump", OPENED, 0)
    assert watch([after_a_minute]) == []


def test_bounce_in_a_wide_market_is_no_price_jump() -> None:
    assert watch([tick(momentum_1s=1e-3, log_roll_spread_300s=math.log(1e-3))]) == []


def test_pump_needs_all_of_its_signs() -> None:
    assert ("pump", OPENED, 0) in watch([tick(**PUMPED)])
    for missing in PUMPED:
        signs = {name: value for name, value in PUMPED.items() if name != missing}
        assert watch([tick(**signs)]) == [], missing


def test_pump_is_measured_by_the_volume_of_four_hours() -> None:
    late = PUMPED | {"log_volume_ratio_10s": math.log(4.0)}  # the last 1800 s are full of it
    assert watch([tick(**late)]) == []
    assert watch([tick(**late)], context={VOLUME_AGAINST_4H: [10.0]}) == [("pump", OPENED, 0)]


def test_a_rush_of_sellers_is_no_pump() -> None:
    assert watch([tick(**PUMPED | {"rush_order_imbalance_10s": -0.9})]) == []


def test_flow_needs_unusual_volume() -> None:
    one_sided = {"order_flow_imbalance_60s": -0.95}
    assert watch([tick(**one_sided)]) == []
    assert watch([tick(**one_sided, log_volume_ratio_60s=math.log(4.0))]) == [("flow", OPENED, 0)]


def test_liquidity_compares_price_impact_with_the_usual() -> None:
    assert watch([tick(log_price_impact_60s=math.log(6.0))]) == [("liquidity", OPENED, 0)]


def test_anomaly_needs_many_anomalous_ticks() -> None:
    n = 200
    assert watch([tick()] * n, anomaly=[0.999 if k == 50 else 0.5 for k in range(n)]) == []
    assert watch([tick()] * n, anomaly=[0.999] * n)[0][0] == "anomaly"


def test_gap_opens_a_feed_alert() -> None:
    assert watch([tick()] * 3, gaps=[1.0, 90.0, 1.0])[0] == ("feed", OPENED, 1)


def test_pause_of_a_quiet_instrument_is_no_gap() -> None:
    assert watch([tick()] * 3, gaps=[1.0, 90.0, 1.0], context={USUAL_GAP: [30.0] * 3}) == []


def test_late_ticks_open_a_feed_alert_with_its_detail() -> None:
    events = watch([tick()] * 2, context={LATE_FAULTS: [0.0, 5.0]})
    assert events == [("feed", OPENED, 1)]


def test_only_feed_alerts_open_while_warming() -> None:
    events = watch([tick(**VOLATILE, **PUMPED)] * 2, gaps=[1.0, 90.0], warming=True)
    assert events == [("feed", OPENED, 1)]


def test_more_events_than_room_are_all_kept() -> None:
    rules = RULES._replace(hold_seconds=1e-9)
    rows = [tick(**VOLATILE, **PUMPED), tick(), tick()] * 40
    kinds = [event[0] for event in watch(rows, rules=rules)]
    assert kinds.count("volatility") == 80
    assert kinds.count("pump") == 80


def test_contributions_name_the_feature_that_drove_the_alert() -> None:
    row = tick(**VOLATILE)
    shares = alerts.contributions(alerts.VOLATILITY, row, np.zeros(len(CONTEXT)), tick().astype(np.float64), RULES)
    assert int(np.argmax(shares)) == INDEX["log_grid_variance_60s"]
    # Put back to normal, the value falls from sqrt(30) to 1 (less the floor's part).
    assert shares.max() == pytest.approx(math.sqrt(30.0) - 1.0, rel=0.01)
    assert np.count_nonzero(shares) == 1
