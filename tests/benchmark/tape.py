"""The ticks of the benchmark: real trades of seven instruments, as often repeated as it takes, and made ones.

The real ones are from the samples that ship with Tapewatch: the last day of the six instruments from Binance, and the
first trades of LTCUSDT. A later round has later times and other trade ids, so no tick is late or a duplicate, and as
the day holds no jump of the price, none is refused: every tick has its three results, which is what the runs count.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.feeds import replay
from stream.feeds.files import TickBatch, open_ticks
from stream.messages import Tick
from stream.messages import encode as encode_tick

SAMPLES: Final = Path(replay.__file__).parent / "samples"
LAST_DAY_NS: Final = 1_723_160_000_000_000_000  # the sample holds three days; 2024-08-09 is in all six instruments
LTC_TICKS: Final = 30_000  # of 149,766: about as many as the busiest of the six has
PAUSE_NS: Final = 1_000_000_000  # between rounds
MADE_FROM_NS: Final = 1_700_000_000_000_000_000
MADE_EVERY_NS: Final = 100_000  # so many instruments as there may be, the market as a whole trades as fast


class Tape(NamedTuple):
    """Messages in the order in which they are sent."""

    keys: list[bytes]
    values: list[bytes]
    instrument: NDArray[np.int64]  # [n] number of the instrument

    def partition(self, partitions: int) -> NDArray[np.int64]:
        """Partition of each message: instruments are dealt out in turn, so that no partition is much the fullest."""
        return self.instrument % partitions

    def offset(self, partitions: int) -> NDArray[np.int64]:
        """Offset that each message has in its partition when all are sent in their order to an empty topic."""
        partition = self.partition(partitions)
        offset = np.empty(len(partition), np.int64)
        for number in range(partitions):
            here = partition == number
            offset[here] = np.arange(np.count_nonzero(here))
        return offset


class _Part(NamedTuple):
    """The chosen rows of one batch of a file, and where they stand in the round, 0 to 1."""

    batch: TickBatch
    rows: NDArray[np.intp]
    place: NDArray[np.float64]
    width_ns: int  # from the first to the last of the file's chosen ticks, and a pause
    width_id: int
    first_instrument: int


def record(ticks: int) -> Tape:
    """The first `ticks` messages, whatever their number: a longer tape begins as a shorter one does."""
    parts = [*_parts("binance_sample.parquet", 0, since_ns=LAST_DAY_NS)]
    parts += _parts("binance_ltcusdt.parquet", 6, rows=LTC_TICKS)
    order = np.argsort(np.concatenate([part.place for part in parts]), kind="stable")
    instrument = np.concatenate([part.first_instrument + part.batch.instrument[part.rows] for part in parts])[order]
    keys: list[bytes] = []
    values: list[bytes] = []
    while len(values) < ticks:
        number = len(values) // len(order)
        keys_of_round, values_of_round = _round(parts, number)
        chosen = order[: ticks - len(values)].tolist()
        keys += [keys_of_round[index] for index in chosen]
        values += [values_of_round[index] for index in chosen]
    return Tape(keys, values, np.resize(instrument, ticks).astype(np.int64))


def made(ticks: int, instruments: int, hot_share: float = 0.0) -> Tape:
    """Ticks of `instruments` made symbols; each has one among the first.

    Parameters
    ----------
    ticks
        At least `instruments`.
    instruments
        All trade alike, but for the first.
    hot_share
        Of the ticks that belong to the first instrument, besides its even share of the rest.
    """
    random = np.random.default_rng(instruments)
    drawn = random.integers(0, instruments, ticks - instruments)
    drawn[random.random(len(drawn)) < hot_share] = 0
    chosen = np.concatenate([np.arange(instruments), drawn])
    names = [f"S{number}" for number in range(instruments)]
    prices = np.round(100.0 + 0.01 * random.integers(-50, 50, ticks), 2).tolist()
    values = [
        encode_tick(Tick(names[at], MADE_FROM_NS + number * MADE_EVERY_NS, price, 1.0, trade_id=number + 1))
        for number, (at, price) in enumerate(zip(chosen.tolist(), prices, strict=True))
    ]
    return Tape([names[at].encode() for at in chosen.tolist()], values, chosen)


def _parts(name: str, first_instrument: int, since_ns: int = 0, rows: int | None = None) -> Iterator[_Part]:
    batches = list(open_ticks(SAMPLES / name))
    chosen = [np.flatnonzero(batch.exchange_ns >= since_ns)[:rows] for batch in batches]
    if rows is not None:
        batches, chosen = batches[:1], [chosen[0][:rows]]
    times = np.concatenate([batch.exchange_ns[at] for batch, at in zip(batches, chosen, strict=True)])
    ids = np.concatenate([batch.trade_id[at] for batch, at in zip(batches, chosen, strict=True)])
    place = np.linspace(0.0, 1.0, len(times), endpoint=False)
    first = 0
    for batch, at in zip(batches, chosen, strict=True):
        part = place[first : first + len(at)]
        yield _Part(batch, at, part, int(np.ptp(times)) + PAUSE_NS, int(np.ptp(ids)) + 1, first_instrument)
        first += len(at)


def _round(parts: list[_Part], number: int) -> tuple[list[bytes], list[bytes]]:
    keys: list[bytes] = []
    values: list[bytes] = []
    for part in parts:
        found = replay.encode(part.batch, part.rows, number * part.width_ns, number * part.width_id)
        keys += [key for key in found[0] if key is not None]
        values += found[1]
    return keys, values
