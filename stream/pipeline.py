"""One chunk of ticks in, results out: decode -> features -> models -> scales -> risk -> actions -> alerts -> encode.

A `Pipeline` owns the state of one partition. Its results are a pure function of the partition's ticks in their order
and of the models in force at each: where the stream was cut into chunks, when it ran and on which worker changes
nothing. Controls among the ticks halt and resume the agent's actions for the ticks behind them (`halts`).

Where the models change, all state goes on, but the forecaster's own: what one forecaster carries for an instrument
means nothing to another. So it belongs to the forecaster of the instrument's last answered tick, and where another one
is in force at the next, that one begins with zeros, as for an instrument that it never saw. An instrument that had no
tick in between goes on with what it carried when its forecaster comes back.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream import decoding, explanations, halts, snapshots
from stream.config import Settings
from stream.core import actions, alerts, conformal, features, history, outcomes, packing, rarity, risk
from stream.core.actions import ActionAnswers
from stream.core.alerts import AlertRules
from stream.core.conflation import Chosen, Names
from stream.core.conformal import ConformalRules
from stream.core.digits import round_significant
from stream.core.features import DUPLICATE, LATE, WARMING, FeatureColumns, FeatureRules, TickColumns
from stream.core.rarity import RarityRules
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results, concatenate
from stream.core.risk import RiskAnswers, RiskRules
from stream.decoding import Chunk, Instruments, Rejected
from stream.encoding import PackedBatch, ResultEncoder
from stream.errors import BadMessage, WorkerFailed
from stream.halts import Halts, Taken
from stream.inference import Inference, Models
from stream.messages import HORIZONS, Alert, Contribution, Reason
from stream.metrics import Stage
from stream.sealed import Stored
from stream.snapshots import Captured

FIRST_CAPACITY: Final = 64
MILLISECOND: Final = 1e-3
MAX_RULE: Final = 200  # characters of an error's text in the header of a reject
_NO_RESULTS: Final = Results(
    slot=np.empty(0, np.int32),
    offset=np.empty(0, np.int64),
    exchange_ns=np.empty(0, np.int64),
    price=np.empty(0),
    warming=np.empty(0, np.bool_),
    forecast=np.empty((0, len(FORECAST_COLUMNS))),
    risk=np.empty((0, len(RISK_COLUMNS))),
    level=np.empty(0, np.int8),
    action=np.empty(0, np.int8),
    target_position=np.empty(0),
    action_values=np.empty((0, 3)),
    expected_reward=np.empty(0),
    gate=np.empty(0, np.int8),
)
_NOTHING: Final = Inference(
    forecast=np.empty((0, len(FORECAST_COLUMNS)), np.float32),
    shortfall=np.empty((0, len(HORIZONS)), np.float32),
    hidden=np.empty((0, 0), np.float32),
    score=np.empty(0, np.float32),
    action_values=np.empty((0, 9), np.float32),
    rewards=np.empty((0, 9), np.float32),
)


class State:
    """All that the results of a partition's ticks depend on: arrays with one row an instrument."""

    def __init__(self, hidden_size: int, capacity: int = FIRST_CAPACITY) -> None:
        self.features = features.new_state(capacity)
        self.conformal = conformal.new_state(capacity)
        self.rarity = rarity.new_state(capacity)
        self.risk = risk.new_state(capacity)
        self.actions = actions.new_state(capacity)
        self.alerts = alerts.new_state(capacity)
        self.hidden = np.zeros((capacity, hidden_size), np.float32)  # as wide as the widest forecaster so far needs
        self.forecaster = np.zeros(capacity, np.uint64)  # snapshots.fingerprint of the one that made `hidden`
        self.changed = np.zeros(capacity, np.bool_)  # since the last capture

    def grow(self, instruments: int) -> None:
        """Make room for so many instruments, doubling."""
        capacity = len(self.features)
        if instruments <= capacity:
            return
        for name, old in vars(self).items():
            new = np.zeros((max(instruments, 2 * capacity), *old.shape[1:]), old.dtype)
            new[:capacity] = old
            setattr(self, name, new)

    def widen(self, hidden_size: int) -> None:
        """Make room for so many numbers of a forecaster."""
        missing = hidden_size - self.hidden.shape[1]
        if missing > 0:
            self.hidden = np.pad(self.hidden, ((0, 0), (0, missing)))

    def copy(self, slots: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Copies of some rows of every array that results depend on."""
        return {name: _taken(rows, slots) for name, rows in vars(self).items() if name != "changed"}

    def put_back(self, slots: NDArray[Any], rows: dict[str, NDArray[Any]]) -> None:
        """Undo what has happened to some rows since `copy`."""
        for name, old in rows.items():
            getattr(self, name)[slots] = old


def _taken(rows: NDArray[Any], slots: NDArray[Any]) -> NDArray[Any]:
    """`rows[slots]`, eight times faster for structured rows: as opaque bytes, instead of field by field."""
    if rows.dtype.names is None:
        return rows.take(slots, axis=0)
    return rows.view(f"V{rows.dtype.itemsize}").take(slots).view(rows.dtype)


class Answers(NamedTuple):
    """What a chunk of decoded ticks came to."""

    results: Results
    features: FeatureColumns
    alerts: list[Alert]
    refused: list[tuple[int, Reason, str]]  # row in the chunk's columns, reason, rule


class Output(NamedTuple):
    """What a chunk of messages came to, ready to be published."""

    batches: list[PackedBatch]  # predictions, risk, actions; none without an accepted tick, or where they are conflated
    alerts: list[Alert]
    rejected: list[Rejected]
    results: Results
    late: int
    seconds: dict[Stage, float]
    features: NDArray[np.float32] = np.empty((0, len(features.FEATURES)), np.float32)  # of the results' ticks
    errors: Sequence[Exception] = ()  # what went wrong on our side; the ticks that did it are rejected as `internal`
    controls: Sequence[Taken] = ()  # they are no ticks: neither answered nor rejected
    answered: Sequence[tuple[Names, Results]] = ()  # the results by the models that made them, in order


class Restored(NamedTuple):
    """What a pipeline took from snapshots."""

    instruments: int
    without_hidden: int  # of them carry the state of another forecaster than is in force
    next_offset: int  # all ticks of the partition below it are included


class Pipeline:
    """The path of one partition's ticks.

    Parameters
    ----------
    settings
        Rules and limits.
    models
        Loaded bundles; may be shared between pipelines.
    partition
        Number that the results carry.
    """

    def __init__(self, settings: Settings, models: Models, partition: int) -> None:
        self.partition: Final = partition
        self.instruments: Final = Instruments(settings.worker.max_symbols)
        self.state: Final = State(models.hidden_size)
        self._undo = np.empty(0, np.int64), dict[str, NDArray[Any]]()
        self._models = models
        self._forecaster = np.uint64(snapshots.fingerprint(models.names[0]))
        self._successors: deque[tuple[int, Models]] = deque()  # first offset, models, in order
        self._rules = feature_rules(settings)
        self._conformal_rules = ConformalRules(*msgspec.structs.astuple(settings.conformal))
        self._rarity_rules = RarityRules(*msgspec.structs.astuple(settings.rarity))
        self._risk_rules = RiskRules(*msgspec.structs.astuple(settings.risk))
        self._alert_rules = AlertRules(*msgspec.structs.astuple(settings.alerts))
        self._band = settings.features.band
        self._max_bytes = settings.worker.message_max_bytes
        topics = settings.topics
        transactional = settings.worker.delivery == "exactly_once"
        self._encoder = ResultEncoder(
            models.names,
            (topics.predictions, topics.risk, topics.actions),
            transactional=transactional,
            form=settings.format,
        )
        self._encoded = 0  # instruments that the encoder knows
        self._conflates = settings.worker.conflate_ms > 0
        self._scratch = packing.new_scratch(FIRST_CAPACITY)
        self._silence = Silence(settings.alerts.stale_seconds, settings.alerts.gap_ratio)
        self._halts = halts.NOTHING
        self._captured_halts: Halts | None = halts.NOTHING  # None: the record that was written is gone

    @property
    def models(self) -> tuple[str, str, str]:
        """name@version of forecaster, critic and policy in force."""
        return self._models.names

    @property
    def halts(self) -> Halts:
        """Where the agent's actions are halted."""
        return self._halts

    def succeed(self, next_offset: int, successors: Iterable[tuple[int, Models]]) -> None:
        """Let other models be in force from an offset on, or several one after the other.

        Parameters
        ----------
        next_offset
            All ticks below it are processed, and none from it on. Successors that were told before and begin behind it
            are forgotten.
        successors
            First offset, none below `next_offset`, and models.
        """
        self._begin(next_offset)
        self._successors = deque(successors)

    def _begin(self, next_offset: int) -> None:
        while self._successors and self._successors[0][0] <= next_offset:
            self._use(self._successors.popleft()[1])

    def process(self, chunk: Chunk, timestamp_ms: int) -> Output:
        """Answer every message of a chunk.

        Parameters
        ----------
        chunk
            Messages of this partition, behind all that were processed before.
        timestamp_ms
            Time of publishing, ms since the Unix epoch; it stands in no result.

        Whatever fails in here, the state is put back, and the halves of the chunk are tried, and their halves. So the
        tick that cannot be computed is found and refused as `internal`, and all others are answered.
        """
        parts = []
        for first, models in list(self._successors):
            row = bisect_left(chunk.offsets, first)
            if row == len(chunk.offsets):
                break
            if row:
                parts.append(self._attempt(chunk.part(slice(None, row)), timestamp_ms))
                chunk = chunk.part(slice(row, None))
            self._use(models)
            self._successors.popleft()
        last = self._attempt(chunk, timestamp_ms)
        return _joined([*parts, last]) if parts else last

    def _use(self, models: Models) -> None:
        self._models = models
        self._forecaster = np.uint64(snapshots.fingerprint(models.names[0]))
        self.state.widen(models.hidden_size)
        self._encoder.set_models(models.names)

    def _attempt(self, chunk: Chunk, timestamp_ms: int) -> Output:
        self._undo = np.empty(0, np.int64), {}
        try:
            return self._process(chunk, timestamp_ms)
        except MemoryError:  # smaller pieces would only hide it
            self.state.put_back(*self._undo)
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, one tick must not stop the others
            self.state.put_back(*self._undo)
            self._scratch = packing.new_scratch(len(self.state.hidden))
            if len(chunk.offsets) == 1:
                return _faulty(chunk, error)
        middle = len(chunk.offsets) // 2
        halves = chunk.part(slice(None, middle)), chunk.part(slice(middle, None))
        return _joined([self._attempt(half, timestamp_ms) for half in halves])

    def _process(self, chunk: Chunk, timestamp_ms: int) -> Output:
        clock = Stopwatch()
        known = len(self.instruments)
        ticks, row, rejected, controls = decoding.decode(chunk, self.instruments, self._max_bytes)
        self._prepare(ticks.slot)
        passage = halts.pass_through(
            self._halts,
            [(chunk.offsets[at], control) for at, control in controls],
            ticks.offset,
            ticks.slot,
            self.instruments.names,
            known,
        )
        rejected += [_rejected(chunk, bisect_left(chunk.offsets, at), "control", rule) for at, rule in passage.refused]
        clock.lap("decode")
        answers = self.answer(ticks, clock, passage.halted)
        rejected += [_rejected(chunk, int(row[at]), reason, rule) for at, reason, rule in answers.refused]
        batches = [] if self._conflates else self.encode(answers.results, timestamp_ms)
        returned = self._returned(answers.results, timestamp_ms)
        clock.lap("encode")
        late = int((answers.features.verdict == LATE).sum())
        rejected.sort(key=lambda refusal: refusal.offset)
        inputs = answers.features.features
        self._halts = passage.after  # last, so that they stay as they were if anything fails
        changes = returned + answers.alerts
        answered = [(self._models.names, answers.results)]
        return Output(
            batches, changes, rejected, answers.results, late, clock.seconds, inputs, (), passage.taken, answered
        )

    def answer(
        self, ticks: TickColumns, clock: "Stopwatch | None" = None, halted: NDArray[np.bool_] | None = None
    ) -> Answers:
        """Answer decoded ticks whose slots come from `instruments`; updates the state.

        `halted`, bool[n], says of each tick whether people have halted the agent there; None: nowhere.
        """
        clock = clock or Stopwatch()
        self._grow()
        columns = features.compute(self.state.features, ticks, self._rules)
        clock.lap("features")
        slot = ticks.slot[columns.row]
        inference = self._infer(slot, columns)
        clock.lap("inference")
        anomaly = np.interp(inference.score, *self._models.calibration)
        warming = columns.context[:, WARMING] != 0.0
        forecast, shortfall = self._adjust(slot, ticks, columns, inference, warming)
        rare = rarity.adjust(self.state.rarity, slot, warming, anomaly, self._rarity_rules)
        assessed = risk.compute(
            self.state.risk, slot, columns.features, columns.context, forecast, shortfall, rare, self._risk_rules
        )
        taken = actions.compute(
            self.state.actions,
            slot,
            columns.context,
            assessed.risk,
            assessed.level,
            inference.action_values,
            inference.rewards,
            self._risk_rules.es_limit,
            None if halted is None else halted[columns.row],
        )
        results = _results(ticks, columns, slot, forecast, assessed, taken)
        # By the table: a mean over some thirty ticks would hardly rise where each of them makes the next less rare.
        changes = self._alerts(results, columns, anomaly)
        clock.lap("risk")
        return Answers(results, columns, changes, self._refusals(ticks, columns))

    def encode_newest(self, chosen: Iterable[Chosen], timestamp_ms: int) -> list[PackedBatch]:
        """What conflation has chosen of the results, as record batches of the three topics."""
        batches = []
        for models, results, ticks in chosen:
            self._encoder.set_models(models)
            batches += self.encode(results, timestamp_ms, ticks)
        self._encoder.set_models(self._models.names)
        return batches

    def encode(self, results: Results, timestamp_ms: int, ticks: NDArray[np.int64] | None = None) -> list[PackedBatch]:
        """The results as record batches of the three topics; `ticks` says how many each stands for."""
        for slot in range(self._encoded, len(self.instruments)):
            self._encoder.add(slot, *self.instruments.names[slot])
        self._encoded = len(self.instruments)
        return self._encoder.encode(results, self.partition, timestamp_ms, ticks)

    def _prepare(self, slot: NDArray[np.int32]) -> None:
        """Make room, and keep what the ticks are about to change."""
        self._grow()
        self.state.changed[slot] = True
        slots = np.flatnonzero(np.bincount(slot))
        self._undo = slots, self.state.copy(slots)

    def recapture(self) -> None:
        """The snapshots that were written are gone: the next capture is of every instrument."""
        self.state.changed[: len(self.instruments)] = True
        self._captured_halts = None

    def capture(self, next_offset: int) -> Captured:
        """A copy of the state of the instruments that had ticks since the last capture, and the halts if they changed.

        Parameters
        ----------
        next_offset
            Of the partition: all ticks below it are computed, and none from it on.
        """
        slots = np.flatnonzero(self.state.changed)
        self.state.changed[:] = False
        names = [self.instruments.names[slot] for slot in slots.tolist()]
        changed, self._captured_halts = self._halts is not self._captured_halts, self._halts
        written = halts.write(self._halts, next_offset) if changed else None
        return Captured(names, self.state.copy(slots), next_offset, written)

    def restore(self, stored: Sequence[Stored], topic: str) -> Restored:
        """Take up the state of snapshots, before the first tick.

        Parameters
        ----------
        stored
            The newest snapshot of each instrument of the partition, and the record of its halts, from `topic`.

        Raises
        ------
        DamagedSnapshot
            If one cannot be read.
        WorkerFailed
            If they are more than `worker.max_symbols`.
        """
        record, stored = halts.part(stored)
        tables = snapshots.read(stored, topic, self.partition)
        next_offset = max((int(rows["next_offset"].max()) for _, rows in tables), default=0)
        if record is not None:
            self._halts, included = halts.read(record, topic, self.partition)
            self._captured_halts, next_offset = self._halts, max(next_offset, included)
        self._begin(next_offset)
        without_hidden = 0
        for names, rows in tables:
            try:
                slots = np.array([self.instruments.add(*name) for name in names], np.int64)
            except BadMessage as error:
                raise WorkerFailed(
                    f"topic {topic}, partition {self.partition} holds {len(stored)} instruments: {error.rule}"
                ) from None
            self._grow()
            self.state.widen(rows["hidden"].shape[1])
            snapshots.fill(vars(self.state), slots, rows)
            if rows["hidden"].shape[1] < self._models.hidden_size:
                # Of the forecaster in force it cannot be, whatever that was called. Another's waits for its return.
                self.state.forecaster[slots[self.state.forecaster[slots] == self._forecaster]] = 0
            without_hidden += int((self.state.forecaster[slots] != self._forecaster).sum())
        return Restored(len(stored), without_hidden, next_offset)

    def stale(self, now_ms: int) -> list[Alert]:
        """Feed alerts for instruments that have fallen silent, by the worker's clock: ticks cannot tell it."""
        gap = features.usual_gaps(self.state.features[: len(self.instruments)])
        return [self._feed_alert(*change) for change in self._silence.opened(now_ms, gap)]

    def _grow(self) -> None:
        count = len(self.instruments)
        self.state.grow(count)
        if len(self._scratch) < len(self.state.hidden):
            self._scratch = packing.new_scratch(len(self.state.hidden))

    def _infer(self, slot: NDArray[np.int32], columns: FeatureColumns) -> Inference:
        """Raw outputs of the heads; carries the hidden state on."""
        if not len(slot):
            return _NOTHING
        packed = packing.pack(slot, self._scratch)
        inference = self._models.run(columns.features, columns.window, packed, self._carried(packed.slots))
        self._carry(packed.slots, inference.hidden)
        return inference

    def _adjust(
        self,
        slot: NDArray[np.int32],
        ticks: TickColumns,
        columns: FeatureColumns,
        inference: Inference,
        warming: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The forecast as it is published, rounded, and the ES."""
        forecast = inference.forecast.astype(np.float64)
        shortfall = conformal.adjust(
            self.state.conformal,
            slot,
            ticks.exchange_ns[columns.row],
            ticks.price[columns.row],
            warming,
            forecast,
            inference.shortfall,
            self._conformal_rules,
            self._rules.session_gap_ns,
        )
        return round_significant(forecast), shortfall

    def _carried(self, slots: NDArray[Any]) -> NDArray[np.float32]:
        hidden = self.state.hidden[slots, : self._models.hidden_size]
        hidden[self.state.forecaster[slots] != self._forecaster] = 0.0
        return hidden

    def _carry(self, slots: NDArray[Any], hidden: NDArray[np.float32]) -> None:
        width = hidden.shape[1]
        self.state.hidden[slots, :width] = hidden
        self.state.hidden[slots, width:] = 0.0
        self.state.forecaster[slots] = self._forecaster

    def _alerts(self, results: Results, columns: FeatureColumns, anomaly: NDArray[np.float64]) -> list[Alert]:
        events = alerts.compute(
            self.state.alerts,
            results.slot,
            results.offset,
            columns.features,
            columns.context,
            anomaly,
            self._alert_rules,
        )
        changes = []
        for event in events:
            row = event["row"]
            why: list[Contribution] = []
            if event["state"] == alerts.OPENED:
                tick = columns.features[row], columns.window[row], columns.context[row]
                why = explanations.reasons(event, *tick, self._models, self._alert_rules)
            symbol, venue = self.instruments.names[results.slot[row]]
            where = self.partition, int(results.offset[row]), int(results.exchange_ns[row])
            changes.append(explanations.message(event, symbol, venue, *where, why))
        return changes

    def _refusals(self, ticks: TickColumns, columns: FeatureColumns) -> list[tuple[int, Reason, str]]:
        refused: list[tuple[int, Reason, str]] = []
        for row in np.flatnonzero(columns.verdict >= DUPLICATE).tolist():
            if columns.verdict[row] == DUPLICATE:
                rule = f"trade_id {ticks.trade_id[row]} is among the last {features.TRADE_IDS} of the instrument"
                refused.append((row, "duplicate", rule))
            else:
                rule = f"price {ticks.price[row]:g} is more than {self._band:g} (log) from the last price"
                refused.append((row, "band", rule))
        return refused

    def _returned(self, results: Results, timestamp_ms: int) -> list[Alert]:
        """Close the stale alerts of instruments whose ticks have come back."""
        changes = self._silence.heard(results, timestamp_ms)
        return [self._feed_alert(*change) for change in changes]

    def _feed_alert(self, slot: int, silent_seconds: float, threshold: float, opened: int, offset: int) -> Alert:
        symbol, venue = self.instruments.names[slot]
        return explanations.stale(
            symbol,
            venue,
            self.partition,
            offset,
            int(self.state.features["last_ns"][slot]),
            silent_seconds,
            threshold,
            opened,
        )


class Silence:
    """When each instrument was last heard, by the worker's clock, and which of them are stale.

    It is no part of the state: a worker that starts again starts listening again.
    """

    def __init__(self, stale_seconds: float, gap_ratio: float) -> None:
        self._stale_seconds = stale_seconds
        self._gap_ratio = gap_ratio
        self._heard_ms = np.zeros(0, np.int64)
        self._offset = np.zeros(0, np.int64)
        self._stale: dict[int, tuple[float, int]] = {}  # slot -> threshold, offset of the last tick before

    def heard(self, results: Results, now_ms: int) -> list[tuple[int, float, float, int, int]]:
        """Note the ticks; returns the instruments that were stale: slot, 0 s, threshold, opening, own offset."""
        if not len(results.slot):
            return []
        self._grow(int(results.slot.max()) + 1)
        self._heard_ms[results.slot] = now_ms
        self._offset[results.slot] = results.offset  # of several ticks the last one stays
        if not self._stale:
            return []
        back = [slot for slot in np.unique(results.slot).tolist() if slot in self._stale]
        return [(slot, 0.0, *self._stale.pop(slot), int(self._offset[slot])) for slot in back]

    def opened(self, now_ms: int, usual_gap: NDArray[np.float64]) -> list[tuple[int, float, float, int, int]]:
        """Instruments that have just become stale: slot, seconds of silence, threshold, opening, last offset."""
        count = min(len(self._heard_ms), len(usual_gap))
        silent = (now_ms - self._heard_ms[:count]) * MILLISECOND
        threshold = np.maximum(self._stale_seconds, self._gap_ratio * usual_gap[:count])
        fresh = np.flatnonzero((silent >= threshold) & (self._heard_ms[:count] > 0)).tolist()
        changes = []
        for slot in fresh:
            if slot not in self._stale:
                offset = int(self._offset[slot])
                self._stale[slot] = float(threshold[slot]), offset
                changes.append((slot, float(silent[slot]), float(threshold[slot]), offset, offset))
        return changes

    def _grow(self, instruments: int) -> None:
        if instruments > len(self._heard_ms):
            more = max(instruments, 2 * len(self._heard_ms)) - len(self._heard_ms)
            self._heard_ms = np.concatenate([self._heard_ms, np.zeros(more, np.int64)])
            self._offset = np.concatenate([self._offset, np.zeros(more, np.int64)])


class Stopwatch:
    """Seconds of each stage of a chunk."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: Stage) -> None:
        """Book the time since the last lap."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def feature_rules(settings: Settings) -> FeatureRules:
    """`config.Features` in the kernel's units."""
    rules = settings.features
    return FeatureRules(
        int(rules.session_gap_seconds * 1e9),
        rules.warm_ticks,
        rules.warm_seconds,
        rules.band,
        rules.band_agree,
        rules.clock_agree,
    )


def compile_kernels(models: Models, settings: Settings) -> None:
    """Run two made-up ticks through every kernel, so that the first real ones do not wait for the compiler.

    The compiled code is kept in `__pycache__` beside the source.
    """
    pipeline = Pipeline(settings, models, 0)
    tick = b'{"symbol":"A","exchange_ns":1700000000000000000,"price":1,"size":1}'
    output = pipeline.process(Chunk(0, [0, 1], [b"A", b"A"], [tick, tick]), 0)
    pipeline.encode(output.results, 0)  # where results are conflated, that has not been done
    outcomes.follow(outcomes.new_state(1), np.zeros(1, np.int32), output.results, 0)
    history.note(np.zeros(1, history.NEWEST), history.new_rings(1), np.zeros(1, np.int32), output.results, 0)
    for kind in range(len(alerts.KINDS)):
        nothing = np.zeros(len(features.FEATURES))
        context = np.zeros(len(features.CONTEXT))
        alerts.contributions(kind, nothing.astype(np.float32), context, nothing, pipeline._alert_rules)


def _results(
    ticks: TickColumns,
    columns: FeatureColumns,
    slot: NDArray[np.int32],
    forecast: NDArray[np.float64],
    assessed: RiskAnswers,
    taken: ActionAnswers,
) -> Results:
    return Results(
        slot=slot,
        offset=ticks.offset[columns.row],
        exchange_ns=ticks.exchange_ns[columns.row],
        price=ticks.price[columns.row],
        warming=columns.context[:, WARMING] != 0.0,
        forecast=forecast,
        risk=assessed.risk,
        level=assessed.level,
        action=taken.action,
        target_position=taken.target_position,
        action_values=taken.action_values,
        expected_reward=taken.expected_reward,
        gate=taken.gate,
    )


def _faulty(chunk: Chunk, error: Exception) -> Output:
    """The output for a single message that cannot be computed: refused, and told as an alert that closes at once."""
    rule = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_RULE]
    rejected = _rejected(chunk, 0, "internal", rule)
    alerts_ = explanations.internal(chunk.partition, rejected.offset, rejected.raw)
    return Output([], alerts_, [rejected], _NO_RESULTS, 0, {}, errors=[error])


def _joined(parts: Sequence[Output]) -> Output:
    seconds: dict[Stage, float] = {}
    for part in parts:
        for stage, spent in part.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return Output(
        [batch for part in parts for batch in part.batches],
        [alert for part in parts for alert in part.alerts],
        [refusal for part in parts for refusal in part.rejected],
        concatenate([part.results for part in parts]),
        sum(part.late for part in parts),
        seconds,
        np.concatenate([part.features for part in parts]),
        [error for part in parts for error in part.errors],
        [taken for part in parts for taken in part.controls],
        [answered for part in parts for answered in part.answered],
    )


def _rejected(chunk: Chunk, row: int, reason: Reason, rule: str) -> Rejected:
    return Rejected(chunk.offsets[row], chunk.keys[row], chunk.values[row] or b"", reason, rule)
