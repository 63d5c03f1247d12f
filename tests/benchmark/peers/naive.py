"""The plain way: `python -m tests.benchmark.peers.naive`, an ordinary Faust agent that takes one tick at a time.

It does the worker's work as Faust's and ONNX Runtime's documentation teach it: JSON by Faust's codec, the features of
one tick (by the worker's own compiled kernel, which is more than the plain way would have), a session a model and
three calls of batch 1, JSON again, and `topic.send` a record. It finds no alerts and no rejects, which is less work.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import faust
import numpy as np
import onnxruntime

from stream import config, inference, messages
from stream.config import Settings
from stream.core import actions, conformal, features, rarity, risk
from stream.core.digits import round_significant
from stream.core.features import WARMING
from stream.core.results import RISK_COLUMNS
from stream.pipeline import State, feature_rules
from tests.benchmark.peers.scoring import Record, columns, horizons

FIRST = np.zeros(1, np.int64)
ONE_STEP = {"pack": FIRST[np.newaxis], "rest": FIRST[np.newaxis], "carry": FIRST, "unpack": FIRST, "last": FIRST}


class Scorer:
    """Models, and the state of each partition."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(settings.worker.models)
        models = inference.load(folder)  # checks the bundles and says which are the newest
        self.names = models.names
        self._calibration = models.calibration
        self._forecaster, self._critic, self._policy = (
            onnxruntime.InferenceSession(folder.joinpath(*name.split("@"), "model.onnx"), _one_thread())
            for name in models.names
        )
        self._rules = feature_rules(settings)
        self._risk_rules = risk.RiskRules(*(getattr(settings.risk, name) for name in settings.risk.__struct_fields__))
        self._conformal_rules = conformal.ConformalRules(settings.conformal.step, settings.conformal.bound)
        self._rarity_rules = rarity.RarityRules(settings.rarity.step, settings.rarity.bound)
        self._states: dict[int, State] = defaultdict(lambda: State(models.hidden_size))
        self._slots: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)

    def score(self, partition: int, offset: int, tick: Record) -> tuple[Record, Record, Record] | None:
        """Prediction, risk and action of one tick; None if it is refused."""
        slots, state = self._slots[partition], self._states[partition]
        slot = slots.setdefault((tick["symbol"], tick["venue"]), len(slots))
        state.grow(len(slots))
        slot_column = np.array([slot], np.int32)
        found = features.compute(state.features, columns([slot], [offset], [tick]), self._rules)
        if not len(found.row):
            return None
        raw, tail, state.hidden[[slot]] = self._forecaster.run(
            ["forecast", "shortfall", "hidden_out"],
            {"features": found.features, "hidden": state.hidden[[slot]], **ONE_STEP},
        )
        (score,) = self._critic.run(["critic_score"], {"features": found.features, "window": found.window})
        anomaly = np.interp(score[:, 0], *self._calibration)
        warming = found.context[:, WARMING] != 0.0
        rare = rarity.adjust(state.rarity, slot_column, warming, anomaly, self._rarity_rules)
        values, rewards = self._policy.run(["action_values", "rewards"], {"features": found.features, "forecast": raw})
        forecast = raw.astype(np.float64)
        shortfall = conformal.adjust(
            state.conformal,
            slot_column,
            np.array([tick["exchange_ns"]]),
            np.array([tick["price"]], np.float64),
            warming,
            forecast,
            tail,
            self._conformal_rules,
            self._rules.session_gap_ns,
        )
        forecast = round_significant(forecast)
        assessed = risk.compute(
            state.risk, slot_column, found.features, found.context, forecast, shortfall, rare, self._risk_rules
        )
        taken = actions.compute(
            state.actions,
            slot_column,
            found.context,
            assessed.risk,
            assessed.level,
            values,
            rewards,
            self._risk_rules.es_limit,
        )
        head = {
            "symbol": tick["symbol"],
            "venue": tick["venue"],
            "partition": partition,
            "offset": offset,
            "exchange_ns": tick["exchange_ns"],
            "warming": bool(found.context[0, WARMING]),
        }
        forecaster, critic, policy = self.names
        return (
            head | {"horizons": horizons(forecast[0].tolist()), "model": forecaster},
            head | _risk(assessed) | {"model": critic},
            head | _action(taken) | {"model": policy},
        )


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _risk(assessed: risk.RiskAnswers) -> Record:
    numbers = dict(zip(RISK_COLUMNS, assessed.risk[0].tolist(), strict=True))
    return numbers | {"level": messages.LEVELS[assessed.level[0]]}


def _action(taken: actions.ActionAnswers) -> Record:
    return {
        "action": messages.ACTIONS[taken.action[0]],
        "target_position": float(taken.target_position[0]),
        "action_values": taken.action_values[0].tolist(),
        "expected_reward": float(taken.expected_reward[0]),
        "gated_by": messages.GATES[taken.gate[0]],
    }


def make_app(settings: Settings) -> faust.App:
    """The Faust app: one agent."""
    app = faust.App(
        settings.worker.group,
        broker=f"kafka://{settings.broker}",
        consumer_auto_offset_reset="earliest",
        value_serializer="json",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    names = settings.topics
    ticks, predictions, risks, acts = (
        app.topic(name, key_serializer="raw", value_serializer="json")
        for name in (names.ticks, names.predictions, names.risk, names.actions)
    )
    scorer = Scorer(settings)

    @app.agent(ticks)
    async def score(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            message = event.message
            answer = scorer.score(message.partition, message.offset, event.value)
            if answer is not None:
                for topic, record in zip((predictions, risks, acts), answer, strict=True):
                    await topic.send(key=event.key, value=record, partition=message.partition)

    return app


if __name__ == "__main__":
    faust.Worker(make_app(config.load()), loglevel="WARNING").execute_from_commandline()
