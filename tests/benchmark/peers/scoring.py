"""What all peers have in common: columns of decoded ticks in, the records of the three topics out.

The scoring itself is the worker's own, which is more than a user would have: the compiled features, one call of all
models for a batch, risk, actions, and alerts, which no peer publishes. What differs is how a peer reads, decodes,
batches, encodes and sends.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stream import inference, messages
from stream.config import Settings
from stream.core.features import TickColumns
from stream.core.results import RISK_COLUMNS, Results
from stream.decoding import SIDES
from stream.pipeline import Pipeline, compile_kernels

Record = dict[str, Any]
Answer = tuple[Record, Record, Record]
"""Prediction, risk and action of a tick."""


class Scorer:
    """Models, and the state of each partition."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = inference.load(Path(settings.worker.models))
        self._pipelines: dict[int, Pipeline] = {}
        compile_kernels(self._models, settings)

    def score(self, partition: int, offsets: Sequence[int], ticks: Sequence[Record]) -> list[Answer]:
        """Answers to ticks of one partition, in their order; those of the benchmark are never refused."""
        pipeline = self._pipelines.get(partition)
        if pipeline is None:
            pipeline = self._pipelines[partition] = Pipeline(self._settings, self._models, partition)
        slots = [pipeline.instruments.add(tick["symbol"], tick.get("venue", "")) for tick in ticks]
        results = pipeline.answer(columns(slots, offsets, ticks)).results
        return list(records(results, pipeline.instruments.names, partition, self._models.names))


def columns(slots: Sequence[int], offsets: Sequence[int], ticks: Sequence[Record]) -> TickColumns:
    """Decoded ticks as the kernels want them."""
    return TickColumns(
        np.array(slots, np.int32),
        np.array([tick["exchange_ns"] for tick in ticks], np.int64),
        np.array([tick["price"] for tick in ticks], np.float64),
        np.array([tick["size"] for tick in ticks], np.float64),
        np.array([SIDES[tick.get("side")] for tick in ticks], np.int8),
        np.array([messages.trade_key(tick.get("trade_id")) for tick in ticks], np.int64),
        np.array(offsets, np.int64),
    )


def records(
    results: Results, names: Sequence[tuple[str, str]], partition: int, models: Sequence[str]
) -> Iterator[Answer]:
    """The records of each tick, as dicts."""
    forecaster, critic, policy = models
    for slot, offset, exchange_ns, warming, forecast, risk, level, action, target, values, reward, gate in zip(
        results.slot.tolist(),
        results.offset.tolist(),
        results.exchange_ns.tolist(),
        results.warming.tolist(),
        results.forecast.tolist(),
        results.risk.tolist(),
        results.level.tolist(),
        results.action.tolist(),
        results.target_position.tolist(),
        results.action_values.tolist(),
        results.expected_reward.tolist(),
        results.gate.tolist(),
        strict=True,
    ):
        symbol, venue = names[slot]
        head = {
            "symbol": symbol,
            "venue": venue,
            "partition": partition,
            "offset": offset,
            "exchange_ns": exchange_ns,
            "warming": warming,
        }
        yield (
            head | {"horizons": horizons(forecast), "model": forecaster},
            head | dict(zip(RISK_COLUMNS, risk, strict=True)) | {"level": messages.LEVELS[level], "model": critic},
            head
            | {
                "action": messages.ACTIONS[action],
                "target_position": target,
                "action_values": values,
                "expected_reward": reward,
                "gated_by": messages.GATES[gate],
                "model": policy,
            },
        )


def horizons(forecast: list[float]) -> list[Record]:
    """The forecast's columns by horizon."""
    width = len(forecast) // len(messages.HORIZONS)
    return [
        {
            "horizon_seconds": seconds,
            "expected_return": forecast[first],
            "volatility": forecast[first + 1],
            "probability_up": forecast[first + 2],
            "quantiles": forecast[first + 3 : first + width],
        }
        for seconds, first in zip(messages.HORIZONS, range(0, len(forecast), width), strict=True)
    ]
