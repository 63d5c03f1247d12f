"""A challenger: a forecaster in the champion's shadow, run on every tick in a session of its own, never published.

It gets the features that the champion got, after the champion's results are on their way, and carries a state of its
own; nothing that it does can change a result. What it forecasts is put through a conformal adjustment of its own, as if
it were published, and then both are held against the same 60 s that follow, for the instruments on the watch-list.

It begins with nothing: at a start, when a partition is taken over and when the challenger changes, its carried state is
zeros and its conformal scales are 1, while the champion's have long followed the instrument. So a test begins only once
the challenger has had as many ticks of an instrument as the features need to warm up. No snapshot holds its state.
"""

import logging
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import conformal, outcomes, packing
from stream.core.conformal import ConformalRules
from stream.core.digits import round_significant
from stream.core.outcomes import Outcomes
from stream.core.packing import Packing
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results
from stream.errors import ModelMismatch
from stream.inference import INPUTS, OUTPUTS, Bundle, digest, named, new_session
from stream.metrics import Metrics
from stream.roles import Role

_LOWEST: Final = FORECAST_COLUMNS.index("quantile_01_60s")
log = logging.getLogger("tapewatch.models")


class Challenger:
    """The session of a forecaster by itself; may be shared between partitions.

    Raises
    ------
    ModelMismatch
        If ONNX Runtime refuses the graph.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.name: Final = named(bundle.card)
        self.digest: Final = digest(bundle.card)
        self.hidden_size: Final = bundle.card.hidden_size
        self.failed = False
        """It could not answer some chunk; it is asked no more."""
        self._session: Final = new_session(bundle.graph.SerializeToString())

    def run(
        self, features: NDArray[np.float32], packed: Packing, hidden: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Forecasts and ES of a chunk's accepted ticks, and the state to carry on.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
        packed
            `packing.pack` of the ticks' slots.
        hidden : float32[m, hidden_size]
            Of the instruments `packed.slots`.

        Raises
        ------
        ModelMismatch
            If a number is not finite.
        """
        inputs = {"features": features, "hidden": hidden, **packed._asdict()}
        forecast, shortfall, state = self._session.run(
            OUTPUTS["forecaster"], {name: inputs[name] for name in INPUTS["forecaster"]}
        )
        if not all(np.isfinite(values).all() for values in (forecast, shortfall, state)):
            raise ModelMismatch(f"a forecast of {self.name} is not finite")
        return forecast.astype(np.float64), shortfall, state


def nobody() -> Challenger | None:
    """There is no challenger."""
    return None


class Shadow:
    """What the challenger makes of one partition's ticks, and how champion and challenger do on the same tests.

    Parameters
    ----------
    settings
        Rules of sessions, warming and the conformal adjustment.
    current
        Whom to score now; asked once a chunk, so another one takes over with the next.
    """

    def __init__(self, settings: Settings, current: Callable[[], Challenger | None] = nobody) -> None:
        self._current = current
        self._warm_ticks = settings.features.warm_ticks
        self._session_gap_ns = int(settings.features.session_gap_seconds * 1e9)
        self._rules = ConformalRules(*msgspec.structs.astuple(settings.conformal))
        self._ended: dict[Role, list[Outcomes]] = {"champion": [], "challenger": []}
        self._begin(None)

    def _begin(self, challenger: Challenger | None) -> None:
        width = 0 if challenger is None else challenger.hidden_size
        self._challenger = challenger
        self._hidden = np.zeros((0, width), np.float32)
        self._seen = np.zeros(0, np.int64)  # ticks of each instrument
        self._conformal = conformal.new_state(0)
        self._scratch = packing.new_scratch(0)
        self._tests: dict[Role, NDArray[np.void]] = {
            "champion": outcomes.new_state(0),
            "challenger": outcomes.new_state(0),
        }

    def note(self, results: Results, features: NDArray[np.float32], row_of_slot: NDArray[np.int32]) -> None:
        """Score the ticks of a chunk; changes nothing of what it is given.

        Parameters
        ----------
        results
            As they were published, n of them.
        features : float32[n, len(FEATURES)]
        row_of_slot : int32[slots]
            Row among the tests of each watched instrument, -1 for the others.
        """
        challenger = self._current()
        if challenger is not self._challenger:
            self._begin(challenger)
        if challenger is None or challenger.failed or not len(results.slot):
            return
        try:
            self._score(challenger, results, features, row_of_slot)
        except Exception as error:  # noqa: BLE001  whatever it is, the champion goes on
            challenger.failed = True
            log.error("challenger %s is scored no more: %s", challenger.name, error)

    def _score(
        self,
        challenger: Challenger,
        results: Results,
        features: NDArray[np.float32],
        row_of_slot: NDArray[np.int32],
    ) -> None:
        self._grow(int(results.slot.max()) + 1, int(row_of_slot.max(initial=-1)) + 1)
        packed = packing.pack(results.slot, self._scratch)
        forecast, shortfall, hidden = challenger.run(features, packed, self._hidden[packed.slots])
        self._hidden[packed.slots] = hidden
        warming = results.warming | self._fresh(results.slot)
        conformal.adjust(
            self._conformal,
            results.slot,
            results.exchange_ns,
            results.price,
            warming,
            forecast,
            shortfall,
            self._rules,
            self._session_gap_ns,
        )
        forecast = round_significant(forecast)
        champion = results._replace(warming=warming)
        answered: dict[Role, Results] = {
            "champion": champion,
            "challenger": champion._replace(forecast=forecast, risk=_risk(forecast)),
        }
        for role, answers in answered.items():
            ended = outcomes.follow(self._tests[role], row_of_slot, answers, self._session_gap_ns)
            if len(ended.row):
                self._ended[role].append(ended)

    def _fresh(self, slot: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether the challenger had too few ticks of the instrument before this chunk; counts those in it."""
        fresh: NDArray[np.bool_] = self._seen[slot] < self._warm_ticks
        self._seen[: int(slot.max()) + 1] += np.bincount(slot)
        return fresh

    def _grow(self, instruments: int, watched: int) -> None:
        missing = instruments - len(self._seen)
        if missing > 0:
            missing = max(missing, len(self._seen))
            self._hidden = np.pad(self._hidden, ((0, missing), (0, 0)))
            self._seen = np.pad(self._seen, (0, missing))
            self._conformal = np.concatenate([self._conformal, conformal.new_state(missing)])
            self._scratch = packing.new_scratch(len(self._seen))
        for role, tests in self._tests.items():
            if len(tests) < watched:
                self._tests[role] = np.concatenate([tests, outcomes.new_state(watched - len(tests))])

    def show(self, metrics: Metrics) -> None:
        """Tell of the tests that have ended: each is of both, and so they are as many."""
        for champion, challenger in zip(self._ended["champion"], self._ended["challenger"], strict=True):
            both: dict[Role, Outcomes] = {"champion": champion, "challenger": challenger}
            metrics.duelled(
                len(champion.row),
                {role: int(ended.exceptions.sum()) for role, ended in both.items()},
                {
                    role: outcomes.qlike(ended.forecast_variance, ended.realized_variance)
                    for role, ended in both.items()
                },
            )
        for ended_tests in self._ended.values():
            ended_tests.clear()


def _risk(forecast: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of the risk a test looks at; the usual variance, which is the champion's, is not."""
    risk = np.zeros((len(forecast), len(RISK_COLUMNS)))
    risk[:, outcomes.VAR_99] = np.maximum(0.0, -forecast[:, _LOWEST])
    risk[:, outcomes.VOLATILITY_RATIO] = 1.0
    return risk
