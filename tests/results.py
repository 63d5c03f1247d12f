"""Results to encode: drawn columns, and the same results as the structs that their readers decode."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream import messages
from stream.core.digits import round_significant
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from stream.messages import ACTIONS, GATES, LEVELS, Action, Horizon, Prediction, Risk

FIRST_NS = 1_723_161_257_679_000_000

Instrument = tuple[str, str]


def draw_results(rows: int, instruments: int, seed: int = 0) -> Results:
    """Results in the ranges of real ones: returns around 1e-4, sizes of position and probabilities up to 1."""
    random = np.random.default_rng(seed)
    forecast = random.standard_normal((rows, len(FORECAST_COLUMNS))) * 10.0 ** random.uniform(-6, -3, (rows, 1))
    for column, name in enumerate(FORECAST_COLUMNS):
        if name.startswith("volatility"):
            forecast[:, column] = abs(forecast[:, column])
        elif name.startswith("probability"):
            forecast[:, column] = random.uniform(0, 1, rows)
    risk = random.uniform(0, 1, (rows, len(RISK_COLUMNS)))
    risk[:, RISK_COLUMNS.index("score")] *= 100
    return Results(
        slot=random.integers(0, instruments, rows).astype(np.int32),
        offset=np.arange(rows, dtype=np.int64) + 1_000_000,
        exchange_ns=FIRST_NS + np.cumsum(random.integers(0, 10**8, rows)),
        price=round_significant(random.uniform(1, 70_000, rows)),
        warming=random.random(rows) < 0.1,
        forecast=round_significant(forecast),
        risk=round_significant(risk),
        level=_codes(random, LEVELS, rows),
        action=_codes(random, ACTIONS, rows),
        target_position=round_significant(random.uniform(-1, 1, rows)),
        action_values=round_significant(random.standard_normal((rows, 3)) * 1e-4),
        expected_reward=round_significant(random.standard_normal(rows) * 1e-5),
        gate=_codes(random, GATES, rows),
    )


def _codes(random: np.random.Generator, names: Sequence[object], rows: int) -> NDArray[np.int8]:
    return random.integers(0, len(names), rows).astype(np.int8)


def structs(
    results: Results, instruments: Sequence[Instrument], partition: int, models: Sequence[str]
) -> list[list[Any]]:
    """The results as the structs of the topics predictions, risk and actions."""
    rows = range(len(results.slot))
    heads = [_head(results, row, instruments, partition) for row in rows]
    return [
        [make(results, row, head, model) for row, head in zip(rows, heads, strict=True)]
        for make, model in zip((_prediction, _risk, _action), models, strict=True)
    ]


def _head(results: Results, row: int, instruments: Sequence[Instrument], partition: int) -> dict[str, Any]:
    symbol, venue = instruments[results.slot[row]]
    return {
        "symbol": symbol,
        "venue": venue,
        "partition": partition,
        "offset": int(results.offset[row]),
        "exchange_ns": int(results.exchange_ns[row]),
        "warming": bool(results.warming[row]),
    }


def _prediction(results: Results, row: int, head: dict[str, Any], model: str) -> Prediction:
    horizons = [_horizon(results, row, seconds) for seconds in messages.HORIZONS]
    return Prediction(**head, horizons=horizons, model=model)


def _horizon(results: Results, row: int, seconds: int) -> Horizon:
    of = dict(zip(FORECAST_COLUMNS, results.forecast[row].tolist(), strict=True))
    return Horizon(
        horizon_seconds=seconds,
        expected_return=of[f"expected_return_{seconds}s"],
        volatility=of[f"volatility_{seconds}s"],
        probability_up=of[f"probability_up_{seconds}s"],
        quantiles=[of[f"quantile_{level}_{seconds}s"] for level in ("01", "05", "50", "95", "99")],
    )


def _risk(results: Results, row: int, head: dict[str, Any], model: str) -> Risk:
    numbers = dict(zip(RISK_COLUMNS, results.risk[row].tolist(), strict=True))
    return Risk(**head, **numbers, level=LEVELS[results.level[row]], model=model)


def _action(results: Results, row: int, head: dict[str, Any], model: str) -> Action:
    return Action(
        **head,
        action=ACTIONS[results.action[row]],
        target_position=float(results.target_position[row]),
        action_values=results.action_values[row].tolist(),
        expected_reward=float(results.expected_reward[row]),
        gated_by=GATES[results.gate[row]],
        model=model,
    )
