"""Ticks from files -> the same features as live -> one series an instrument, with targets in clock time.

A series keeps the accepted ticks of one instrument of one file in order. Its targets look ahead from each tick by
the venue's clock: the log return to the last price at t + h, and the realised variance, the sum of the squared
log returns of the h one-second steps that start at the tick. A target that would cross a pause of a session or the
end of the data is absent. Nothing here is fitted on data; what is fitted (scales, thresholds, calibration) is
fitted on the training or validation part by those who use it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray

from stream import config, messages
from stream.core import features as kernel
from stream.errors import BadFile, TapewatchError
from stream.feeds.files import REQUIRED, open_ticks
from stream.inference import DataFile
from stream.pipeline import feature_rules

SECOND: Final = 1_000_000_000
CHUNK: Final = 65_536
TRAIN, VALIDATION, TEST, EMBARGO = range(4)
TRAIN_SHARE: Final = 0.60
VALIDATION_SHARE: Final = 0.15
EMBARGO_NS: Final = max(messages.HORIZONS) * SECOND
LEAST_TICKS: Final = 5_000
"""Ticks past warming that a training needs at least, over all files: below it the parts hold too few horizons."""

SHARED_SHARE: Final = 0.01
"""Two files may share so much of the smaller one's trades of an instrument: what an exchange's daily files repeat."""
REFUSALS: Final = {kernel.DUPLICATE: "duplicate", kernel.BAND: "band"}
ODD: Final = -7046029254386353131  # 2^64 over the golden ratio: spreads neighbouring times over all 64 bits


class Series(NamedTuple):
    """The accepted ticks of one instrument of one file, in order."""

    file: str
    symbol: str
    features: NDArray[np.float32]  # [n, len(FEATURES)]
    clock_ns: NDArray[np.int64]  # [n] venue clock, late ticks clamped: never falls within a session
    session: NDArray[np.int64]  # [n] number of the session
    log_price: NDArray[np.float64]  # [n]
    warming: NDArray[np.bool_]  # [n]
    log_return: NDArray[np.float32]  # [n, horizons]; NaN where absent
    realized_variance: NDArray[np.float32]  # [n, horizons]; NaN where absent
    weight: NDArray[np.float32]  # [n] every second in which the instrument trades counts as one
    part: NDArray[np.int8]  # [n] TRAIN, VALIDATION, TEST or EMBARGO
    normal: NDArray[np.bool_]  # [n] not around an event that the file names


class Dataset(NamedTuple):
    """Series of all files, and what a card says about them."""

    series: tuple[Series, ...]
    files: tuple[DataFile, ...]


def quiet(line: str) -> None:
    """For `load`, where nobody is told."""


def load(paths: Sequence[Path], report: Callable[[str], None] = print) -> Dataset:
    """Read files of ticks and compute features, targets and parts; `report` gets one line a file.

    Raises
    ------
    BadFile
        If a file is not one of ticks.
    TapewatchError
        If two files hold the same trades, all together hold too little to train on, or no price ever moves.
    """
    series: list[Series] = []
    files: list[DataFile] = []
    for path in paths:
        part, described = load_file(path, report)
        _refuse_same_trades(series, part)
        series.extend(part)
        files.append(described)
    _refuse_too_little(series, paths)
    return Dataset(tuple(series), tuple(files))


def files_of(given: Sequence[Path]) -> list[Path]:
    """Files as given, folders as the Parquet files of ticks in them.

    Where none is given: those of ../shared/data beside the project, or the samples.
    """
    if not given:
        shared = config.ROOT.parent / "shared" / "data"
        given = [shared if shared.is_dir() else config.ROOT / "stream" / "feeds" / "samples"]
    return [file for path in given for file in (_ticks_in(path) if path.is_dir() else [path])]


def _ticks_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.parquet")) if _is_ticks(path)]


def sample_rows(dataset: Dataset, part: int, most: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of each series, random normal ticks of a part past warming; about `most` in all.

    Files are drawn by the root of their ticks, so that long ones do not rule.
    """
    rows = [np.flatnonzero((one.part == part) & ~one.warming & one.normal) for one in dataset.series]
    chance = file_chances(dataset.series, np.array([float(len(r)) for r in rows]))
    counts = np.minimum((most * chance).astype(int) + 1, [len(r) for r in rows])
    return [rng.choice(row, count, replace=False) for row, count in zip(rows, counts, strict=True)]


def file_chances(series: Sequence[Series], ticks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance of each series: of its file by the root of the file's ticks, within the file by ticks."""
    totals: dict[str, float] = {}
    for one, count in zip(series, ticks, strict=True):
        totals[one.file] = totals.get(one.file, 0.0) + count
    weight = np.array([count / max(totals[one.file], 1.0) ** 0.5 for one, count in zip(series, ticks, strict=True)])
    chance: NDArray[np.float64] = weight / max(weight.sum(), 1e-12)
    return chance


def windows(series: Series, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The critic's windows that end at `rows`, as the kernel makes them: float32[k, WINDOW, 3]."""
    columns = len(kernel.WINDOW_COLUMNS)
    padded = np.zeros((len(series.features) + kernel.WINDOW - 1, columns), np.float32)
    padded[kernel.WINDOW - 1 :] = series.features[:, :columns]
    window: NDArray[np.float32] = padded[rows[:, None] + np.arange(kernel.WINDOW)]
    return window


def _is_ticks(path: Path) -> bool:
    return set(REQUIRED) <= set(pq.read_schema(path).names)


def instrument_name(symbol: str, venue: str) -> str:
    """What a series is called by."""
    return f"{symbol}@{venue}" if venue else symbol


def load_file(path: Path, report: Callable[[str], None]) -> tuple[list[Series], DataFile]:
    """The series of one file, and what a card says about it; raises BadFile if it is not one of ticks."""
    ticks, instruments, rows, problems = _read(path)
    event = _events(path, ticks.offset)
    borders = _borders(ticks.exchange_ns, event)
    normal = _normal(ticks.exchange_ns, event)
    computed = _compute(ticks, len(instruments))
    names = [instrument_name(*instrument) for instrument in instruments]
    series = [_series(path.name, name, k, ticks, computed, borders, normal) for k, name in enumerate(names)]
    series = [one for one in series if len(one.features) > 1]
    pauses = np.concatenate([_pauses(one) for one in series]) if series else np.zeros(0)
    report(
        f"{path.name}: {rows:,} rows, {rows - len(ticks.slot):,} are no ticks{_by_reason(problems)}, "
        f"{len(ticks.slot) - len(computed.row):,} refused as a worker would{_by_reason(computed.refused)}, "
        f"{int(computed.warming.sum()):,} warming, {len(series)} instruments, {len(pauses)} pauses of a session"
        + (f", the longest {pauses.max() / 3600:.1f} h" if len(pauses) else "")
    )
    first, last = int(ticks.exchange_ns.min()), int(ticks.exchange_ns.max())
    symbols = sorted({symbol for symbol, _ in instruments})
    return series, DataFile(path.name, _sha256(path), rows, symbols, first, last, *borders)


def _by_reason(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{reason} {count:,}' for reason, count in counts.most_common())})" if counts else ""


def _pauses(series: Series) -> NDArray[np.float64]:
    """Seconds of each gap between two sessions."""
    found: NDArray[np.float64] = np.diff(series.clock_ns)[np.diff(series.session) > 0] / SECOND
    return found


def _read(path: Path) -> tuple[kernel.TickColumns, list[tuple[str, str]], int, Counter[str]]:
    """The ticks of a file by time, its instruments (symbol, venue), its rows, and how many are no ticks by reason."""
    parts = []
    rows = 0
    problems: Counter[str] = Counter()
    instruments: list[tuple[str, str]] = []
    for batch in open_ticks(path):
        good = np.delete(np.arange(len(batch)), list(batch.problems))
        columns = (batch.instrument, batch.exchange_ns, batch.price, batch.size, batch.side, batch.trade_id)
        parts.append((*(column[good] for column in columns), batch.first_row + good))
        rows += len(batch)
        problems.update(reason for reason, _ in batch.problems.values())
        instruments = batch.instruments
    ticks = kernel.TickColumns(*_joined(parts))
    if len(ticks.slot) == 0:
        raise BadFile(f"{path}: none of its {rows:,} rows is a tick")
    order = np.argsort(ticks.exchange_ns, kind="stable")
    by_time: list[Any] = [column[order] for column in ticks]
    return kernel.TickColumns(*by_time), instruments, rows, problems


def _joined(parts: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Rows of columns, end to end."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _events(path: Path, rows: NDArray[np.int64]) -> NDArray[np.object_] | None:
    """Column `event` of a Parquet file at so many rows; None without one."""
    if path.suffix != ".parquet" or "event" not in pq.read_schema(path).names:
        return None
    column: NDArray[np.object_] = pq.read_table(path, columns=["event"])["event"].to_numpy()
    return column[rows]


class _Computed(NamedTuple):
    row: NDArray[np.int64]
    features: NDArray[np.float32]
    warming: NDArray[np.bool_]
    refused: Counter[str]  # ticks by reason


def _compute(ticks: kernel.TickColumns, instruments: int) -> _Computed:
    """Features of all accepted ticks, chunk by chunk: windows are too many to keep and come from the features."""
    state = kernel.new_state(instruments)
    rules = feature_rules(config.Settings())
    parts: list[tuple[NDArray[Any], ...]] = []
    refused: Counter[str] = Counter()
    for start in range(0, len(ticks.slot), CHUNK):
        columns: list[Any] = [column[start : start + CHUNK] for column in ticks]
        out = kernel.compute(state, kernel.TickColumns(*columns), rules)
        parts.append((out.row + start, out.features, out.context[:, kernel.WARMING] > 0))
        refused.update({what: int((out.verdict == verdict).sum()) for verdict, what in REFUSALS.items()})
    row, features, warming = _joined(parts)
    return _Computed(row, features, warming, +refused)


def _borders(exchange_ns: NDArray[np.int64], event: NDArray[np.object_] | None) -> tuple[int, int]:
    """Times at which validation and test begin; where the file names events, the start of the next event."""
    ordered = np.sort(exchange_ns)
    n = len(ordered)
    shares = (TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE)
    borders = [int(ordered[min(int(share * n), n - 1)]) for share in shares]
    if event is not None:
        starts = np.sort(np.array([exchange_ns[event == name].min() for name in set(event)]))
        borders = [int(starts[min(int(np.searchsorted(starts, border)), len(starts) - 1)]) for border in borders]
    return borders[0], borders[1]


def _normal(exchange_ns: NDArray[np.int64], event: NDArray[np.object_] | None) -> NDArray[np.bool_]:
    """False from 10 min before to 2 h after the event that a tick's file names, as in SYMBOL_2020-11-18_1800."""
    normal = np.ones(len(exchange_ns), np.bool_)
    for name in set() if event is None else set(event):
        stamp = re.search(r"(\d{4}-\d{2}-\d{2})_(\d{2})(\d{2})$", str(name))
        if stamp:
            start = np.datetime64(f"{stamp[1]}T{stamp[2]}:{stamp[3]}", "ns").astype(np.int64)
            since = exchange_ns - start
            normal &= (event != name) | (since < -600 * SECOND) | (since > 7200 * SECOND)
    return normal


def parts(clock_ns: NDArray[np.int64], borders: tuple[int, int]) -> NDArray[np.int8]:
    """Part of each tick: int8[n]; the last ones before a border are an embargo, for their horizons reach across it."""
    part = np.full(len(clock_ns), TRAIN, np.int8)
    for number, border in zip((VALIDATION, TEST), borders, strict=True):
        part[clock_ns >= border] = number
    for border in borders:
        part[(clock_ns < border) & (clock_ns >= border - EMBARGO_NS)] = EMBARGO
    return part


def _series(
    file: str,
    symbol: str,
    slot: int,
    ticks: kernel.TickColumns,
    computed: _Computed,
    borders: tuple[int, int],
    normal: NDArray[np.bool_],
) -> Series:
    mine = np.flatnonzero(ticks.slot[computed.row] == slot)
    row = computed.row[mine]
    clock_ns = np.maximum.accumulate(ticks.exchange_ns[row]) if len(row) else ticks.exchange_ns[row]
    gap = np.diff(clock_ns, prepend=clock_ns[:1])
    session = np.cumsum((gap > feature_rules(config.Settings()).session_gap_ns).astype(np.int64))
    log_price = np.log(ticks.price[row])
    log_return, variance = targets(clock_ns, session, log_price)
    return Series(
        file,
        symbol,
        computed.features[mine],
        clock_ns,
        session,
        log_price,
        computed.warming[mine],
        log_return,
        variance,
        _weights(clock_ns),
        parts(clock_ns, borders),
        normal[row],
    )


def _weights(clock_ns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Ticks of one second share a weight of 1, so that a burst counts no more than a second with one trade."""
    _, inverse, count = np.unique(clock_ns // SECOND, return_inverse=True, return_counts=True)
    return (1.0 / count[inverse]).astype(np.float32)


def targets(
    clock_ns: NDArray[np.int64], session: NDArray[np.int64], log_price: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What comes after each tick of one instrument.

    Parameters
    ----------
    clock_ns, session : int64[n]
        Venue clock, never falling, and number of the session.
    log_price : float64[n]

    Returns
    -------
    log_return, realized_variance : float32[n, horizons]
        From the tick's price to the last price at or before t + h; sum of the squared log returns of the h steps of
        one second between. NaN where t + h lies behind the last tick of the session.
    """
    horizons = np.array(messages.HORIZONS, np.int64)
    log_return = np.full((len(clock_ns), len(horizons)), np.nan, np.float32)
    variance = np.full((len(clock_ns), len(horizons)), np.nan, np.float32)
    for start, stop in _sessions(session):
        _look_ahead(clock_ns[start:stop], log_price[start:stop], horizons, log_return[start:stop], variance[start:stop])
    return log_return, variance


def _sessions(session: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(session)) + 1
    yield from zip([0, *edges.tolist()], [*edges.tolist(), len(session)], strict=True)


@njit(cache=True)
def _look_ahead(clock_ns, log_price, horizons, log_return, variance):  # type: ignore[no-untyped-def]
    n = clock_ns.shape[0]
    base = clock_ns[0] // SECOND
    first = np.zeros(clock_ns[n - 1] // SECOND - base + 2, np.int64)  # ticks before each second
    for i in range(n):
        first[clock_ns[i] // SECOND - base + 1] = i + 1
    for s in range(1, first.shape[0]):
        first[s] = max(first[s], first[s - 1])
    for i in range(n):
        before = log_price[i]
        total = 0.0
        k = 0
        for h in range(horizons.shape[0]):
            if clock_ns[i] + horizons[h] * SECOND > clock_ns[n - 1]:
                break
            while k < horizons[h]:
                k += 1
                time = clock_ns[i] + k * SECOND
                low = first[time // SECOND - base]
                high = first[time // SECOND - base + 1]
                while low < high:  # ticks at or before `time`
                    middle = (low + high) // 2
                    if clock_ns[middle] <= time:
                        low = middle + 1
                    else:
                        high = middle
                step = log_price[low - 1] - before
                total += step * step
                before = log_price[low - 1]
            log_return[i, h] = before - log_price[i]
            variance[i, h] = total


def _refuse_same_trades(known: Sequence[Series], more: Sequence[Series]) -> None:
    """Trades that are trained on must not be tested on in another file; a border that two files share may be."""
    for one in more:
        for other in known:
            if other.symbol != one.symbol or len(overlap := _within(one, other)) == 0:
                continue
            shared = int(np.isin(overlap, _within(other, one)).sum())
            if shared > SHARED_SHARE * min(len(one.clock_ns), len(other.clock_ns)):
                raise TapewatchError(
                    f"{other.file} and {one.file} hold the same trades: {shared:,} of {one.symbol}, by time and price; "
                    "give each trade once, so that none that is trained on is tested on"
                )


def _within(one: Series, other: Series) -> NDArray[np.int64]:
    """A number for time and price of each tick of `one` while `other` goes on; equal by chance once in 2^64 pairs."""
    first, last = int(other.clock_ns[0]), int(other.clock_ns[-1])
    at = (one.clock_ns >= first) & (one.clock_ns <= last)
    mixed: NDArray[np.int64] = one.clock_ns[at] * ODD + one.log_price[at].view(np.int64)  # wraps around
    return mixed


def _refuse_too_little(series: Sequence[Series], paths: Sequence[Path]) -> None:
    names = ", ".join(path.name for path in paths)
    for part, what in ((TRAIN, "training"), (VALIDATION, "validation"), (TEST, "test")):
        usable = sum(int(((one.part == part) & usable_rows(one)).sum()) for one in series)
        if part == TRAIN and usable < LEAST_TICKS:
            raise TapewatchError(
                f"{names}: {usable:,} ticks to train on, {LEAST_TICKS:,} are needed: past each instrument's first "
                f"{config.Features().warm_ticks} ticks and {config.Features().warm_seconds:.0f} s, in the first "
                f"{TRAIN_SHARE:.0%} of each file, with {max(messages.HORIZONS)} s of the same session to follow"
            )
        if usable == 0:
            raise TapewatchError(f"{names}: no tick is left for the {what} part: the files span too little time")
    if not any((one.log_return[usable_rows(one)] != 0).any() for one in series):
        raise TapewatchError(f"{names}: the price never changes, so there is nothing to learn")


def usable_rows(series: Series) -> NDArray[np.bool_]:
    """Ticks past warming that have every target: bool[n]."""
    return ~series.warming & np.isfinite(series.log_return).all(axis=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(settings: Any) -> dict[str, Any]:
    """A hyperparameter struct as a card holds it."""
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
