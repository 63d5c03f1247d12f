"""`tapewatch backtest`: the worker's pipeline over a file of ticks, with no Kafka.

Writes what the topics would hold as Parquet: predictions, risk and actions with a row for each accepted tick, alerts
and rejected. `offset` is the tick's row number in the file. The numbers are the wire's own, rounded to six digits,
and the same ticks give the same files whatever the size of the chunks.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream import inference, signatures
from stream.config import Settings
from stream.core.features import TickColumns
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS, Results, concatenate
from stream.errors import BadFile, BadMessage
from stream.feeds.files import TickBatch, open_ticks
from stream.inference import Models
from stream.messages import ACTIONS, GATES, LEVELS, Alert, Reason
from stream.pipeline import Answers, Pipeline

ROWS_A_GROUP: Final = 131_072
CHUNK_TICKS: Final = 2048
"""Ticks a chunk unless told otherwise: nobody waits for the first of them, so larger than live."""

_TICK: Final = [
    ("symbol", pa.string()),
    ("venue", pa.string()),
    ("offset", pa.int64()),
    ("exchange_ns", pa.int64()),
    ("price", pa.float64()),
    ("warming", pa.bool_()),
]
_NAME: Final = pa.string()
SCHEMAS: Final = {
    "predictions": pa.schema([*_TICK, *((name, pa.float64()) for name in FORECAST_COLUMNS), ("model", _NAME)]),
    "risk": pa.schema([*_TICK, *((name, pa.float64()) for name in RISK_COLUMNS), ("level", _NAME), ("model", _NAME)]),
    "actions": pa.schema(
        [
            *_TICK,
            ("action", _NAME),
            ("target_position", pa.float64()),
            *((f"action_value_{action}", pa.float64()) for action in ACTIONS),
            ("expected_reward", pa.float64()),
            ("gated_by", _NAME),
            ("model", _NAME),
        ]
    ),
    "alerts": pa.schema(
        [
            *((name, pa.string()) for name in ("alert_id", "symbol", "venue", "kind", "severity", "state", "detail")),
            ("offset", pa.int64()),
            ("exchange_ns", pa.int64()),
            ("value", pa.float64()),
            ("threshold", pa.float64()),
            (
                "reasons",
                pa.list_(
                    pa.struct([("feature", pa.string()), ("value", pa.float64()), ("contribution", pa.float64())])
                ),
            ),
        ]
    ),
    "rejected": pa.schema(
        [("offset", pa.int64()), ("reason", pa.string()), ("rule", pa.string()), ("raw", pa.binary())]
    ),
}


class Summary(NamedTuple):
    """What a backtest came to."""

    ticks: int
    accepted: int
    rejected: int
    alerts_opened: int
    models: tuple[str, str, str]
    reasons: dict[Reason, int]  # how many were rejected, by reason
    first_rule: str  # that a row broke; empty where none did
    replaced: bool = False  # the results of an earlier backtest were in the folder


class Refusal(NamedTuple):
    """A row of the file that is no tick, or was refused."""

    offset: int
    reason: Reason
    rule: str
    raw: bytes


def run(
    file: Path,
    out: Path,
    models: Path | None = None,
    settings: Settings | None = None,
    chunk_ticks: int | None = None,
    *,
    quiet: bool = False,
) -> Summary:
    """Run the pipeline over `file` and write its answers into the folder `out`.

    Parameters
    ----------
    file
        Parquet or CSV, see `feeds.files`.
    out
        Folder; made if it does not exist. Files of an earlier run in it are replaced, and others left alone.
    models
        Folder of bundles; that of the settings if None.
    settings
        Rules; the defaults if None.
    chunk_ticks
        Ticks a chunk; changes nothing but speed and memory.
    quiet
        Show no progress.

    Raises
    ------
    BadFile
        If the file cannot be read, the folder not be written, or none of the ticks be used; or if something that no
        backtest wrote has the name of one of our files.
    ModelMismatch
        If a bundle is missing or does not fit.
    """
    settings = settings or Settings()
    ticks = open_ticks(file)
    replaced = _earlier(out)
    loaded = inference.load(models or Path(settings.worker.models), signatures.trust(settings.models))
    backtest = Backtest(Pipeline(settings, loaded, 0), loaded)
    with _progress(quiet) as progress, Writers(out, loaded.names) as writers:
        task = progress.add_task(file.name, total=ticks.rows)
        for batch in ticks:
            for first in range(0, len(batch), chunk_ticks or CHUNK_TICKS):
                rows = slice(first, first + (chunk_ticks or CHUNK_TICKS))
                answers, refusals = backtest.chunk(batch, rows)
                writers.write(answers, refusals, backtest.pipeline.instruments.names)
                progress.advance(task, len(batch.price[rows]))
    found = writers.summary()._replace(replaced=replaced)
    if not found.accepted:
        rejected = out / "rejected.parquet"
        raise BadFile(f"none of the {found.ticks:,} ticks of {file} can be used, see {rejected}; {found.first_rule}")
    return found


def _earlier(out: Path) -> bool:
    """Whether an earlier backtest has written into the folder; raises BadFile where our names are somebody else's."""
    there = [name for name in SCHEMAS if (out / f"{name}.parquet").exists()]
    for name in there:
        file = out / f"{name}.parquet"
        try:
            ours = pq.read_schema(file).names == SCHEMAS[name].names
        except (pa.ArrowException, OSError):
            ours = False
        if not ours:
            raise BadFile(
                f"{file} holds no {name} of a backtest and would be lost: name another folder with --out, or delete it"
            )
    return bool(there)


class Backtest:
    """A pipeline whose ticks come from a file."""

    def __init__(self, pipeline: Pipeline, models: Models) -> None:
        self.pipeline = pipeline
        self.models = models
        self._slots = np.array([-1], np.int32)  # of the file's instruments; -1 where refused, and behind the last one
        self._refused: dict[int, BadMessage] = {}

    def chunk(self, batch: TickBatch, rows: slice) -> tuple[Answers, list[Refusal]]:
        """Answer the rows of a batch."""
        self._meet(batch.instruments)
        slot = self._slots[batch.instrument[rows]]
        problems = self._problems(batch, rows, slot)
        good = np.ones(len(slot), np.bool_)
        good[[row - rows.start for row in problems]] = False
        index = np.flatnonzero(good) + rows.start
        answers = self.pipeline.answer(_columns(batch, index, slot[good]))
        refused = problems | {int(index[row]): (reason, rule) for row, reason, rule in answers.refused}
        refusals = [Refusal(batch.first_row + row, *refused[row], batch.raw(row)) for row in sorted(refused)]
        return answers, refusals

    def _meet(self, instruments: list[tuple[str, str]]) -> None:
        """Give slots to the file's instruments that are new since the last batch."""
        known = len(self._slots) - 1
        if known == len(instruments):
            return
        new = [self._slot(code, *instruments[code]) for code in range(known, len(instruments))]
        self._slots = np.concatenate([self._slots[:known], np.array([*new, -1], np.int32)])

    def _slot(self, code: int, symbol: str, venue: str) -> int:
        try:
            return self.pipeline.instruments.add(symbol, venue)
        except BadMessage as error:
            self._refused[code] = error
            return -1

    def _problems(self, batch: TickBatch, rows: slice, slot: NDArray[np.int32]) -> dict[int, tuple[Reason, str]]:
        """Rows of the batch that are no ticks, with reason and rule."""
        found = {row: why for row, why in batch.problems.items() if rows.start <= row < rows.stop}
        for row in (np.flatnonzero(slot < 0) + rows.start).tolist():
            if row not in found:
                error = self._refused[int(batch.instrument[row])]
                found[row] = error.reason, error.rule
        return found


class Writers:
    """The five Parquet files of a backtest; groups of rows do not depend on how the ticks came in chunks."""

    def __init__(self, out: Path, models: tuple[str, str, str]) -> None:
        self._out = out
        self._models = models
        self._files: dict[str, pq.ParquetWriter] = {}
        self._names: list[tuple[str, str]] = []
        self._results: list[Results] = []
        self._alerts: list[dict[str, Any]] = []
        self._rejected: list[dict[str, Any]] = []
        self._waiting = 0  # results not written yet
        self._accepted = self._opened = 0
        self._reasons: Counter[Reason] = Counter()
        self._first_rule = ""

    def __enter__(self) -> Self:
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            for name, schema in SCHEMAS.items():
                self._files[name] = pq.ParquetWriter(self._out / f"{name}.parquet", schema)
        except OSError as error:
            raise BadFile(f"cannot write to {self._out}: {error.strerror}; name another folder with --out") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(least=1)
        for file in self._files.values():
            file.close()

    def write(self, answers: Answers, refusals: list[Refusal], names: list[tuple[str, str]]) -> None:
        """Append the answers of a chunk; `names` are the instruments by slot."""
        self._names = names
        self._results.append(answers.results)
        self._alerts += map(_alert_row, answers.alerts)
        self._rejected += [refusal._asdict() for refusal in refusals]
        count = len(answers.results.slot)
        self._waiting += count
        self._accepted += count
        self._reasons.update(refusal.reason for refusal in refusals)
        if refusals and not self._first_rule:
            self._first_rule = f"row {refusals[0].offset}: {refusals[0].rule}"
        self._opened += sum(alert.state == "opened" for alert in answers.alerts)
        self._flush(least=ROWS_A_GROUP)

    def summary(self) -> Summary:
        """Counts of all that was written."""
        refused = self._reasons.total()
        return Summary(
            self._accepted + refused,
            self._accepted,
            refused,
            self._opened,
            self._models,
            dict(self._reasons),
            self._first_rule,
        )

    def _flush(self, least: int) -> None:
        """Write groups of ROWS_A_GROUP rows while at least `least` wait."""
        while self._waiting >= least:
            results = concatenate(self._results)
            group = results.rows(slice(ROWS_A_GROUP))
            self._results = [results.rows(slice(ROWS_A_GROUP, None))]
            self._waiting -= len(group.slot)
            for name, table in _tables(group, self._names, self._models).items():
                self._files[name].write_table(table)
        for name, waiting in (("alerts", self._alerts), ("rejected", self._rejected)):
            while len(waiting) >= least:
                table = pa.Table.from_pylist(waiting[:ROWS_A_GROUP], SCHEMAS[name])
                del waiting[:ROWS_A_GROUP]
                self._files[name].write_table(table)


def _tables(group: Results, names: list[tuple[str, str]], models: tuple[str, str, str]) -> dict[str, pa.Table]:
    """Results as the tables of predictions, risk and actions."""
    count = len(group.slot)
    tick = {
        "symbol": _named([symbol for symbol, _ in names], group.slot),
        "venue": _named([venue for _, venue in names], group.slot),
        "offset": group.offset,
        "exchange_ns": group.exchange_ns,
        "price": group.price,
        "warming": group.warming,
    }
    columns = {
        "predictions": dict(zip(FORECAST_COLUMNS, group.forecast.T, strict=True)),
        "risk": dict(zip(RISK_COLUMNS, group.risk.T, strict=True)) | {"level": _named(LEVELS, group.level)},
        "actions": {
            "action": _named(ACTIONS, group.action),
            "target_position": group.target_position,
            **{f"action_value_{action}": column for action, column in zip(ACTIONS, group.action_values.T, strict=True)},
            "expected_reward": group.expected_reward,
            "gated_by": _named(GATES, group.gate),
        },
    }
    return {
        name: pa.table({**tick, **columns[name], "model": _named([model], np.zeros(count, np.int8))}, SCHEMAS[name])
        for name, model in zip(columns, models, strict=True)
    }


def _named(names: Sequence[str | None], code: NDArray[Any]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(code))


def _alert_row(alert: Alert) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(alert)
    del row["partition"]  # a file has none
    return row


def _columns(batch: TickBatch, index: NDArray[np.int64], slot: NDArray[np.int32]) -> TickColumns:
    return TickColumns(
        slot,
        batch.exchange_ns[index],
        batch.price[index],
        batch.size[index],
        batch.side[index],
        batch.trade_id[index],
        batch.first_row + index,
    )


def _progress(quiet: bool) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)
