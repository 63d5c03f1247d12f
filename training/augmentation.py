"""What the generator is worth as augmentation: a forecaster trained with and without generated ticks among real ones.

For each instrument a stream of ticks is made as `tapewatch simulate --generator` makes them, at the volatility and the
trade rate that the instrument has over its training part, and goes the way of a file of ticks: the same features, the
same targets. Some of the lanes that a round trains on are then taken from these streams. All else is the same: the seed
and so the first weights, the real lanes but those whose place is taken, the number of updates, the validation. So the
difference between two trainings of one seed is what the generated lanes do; its spread is taken over the seeds.

Twice: with every training tick, and where ticks are scarce, with the last tenth of each instrument's. What is measured
is the loss on lanes of the test part, the same for all.

`python -m training.augmentation DATA` measures it with the shipped generator and writes it into its card.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from stream.core.features import INDEX
from stream.feeds import generator as feed
from stream.feeds import simulator
from stream.feeds.generator import Generator
from stream.feeds.market import Instrument
from training import data, export, forecaster, measuring
from training.device import choose
from training.forecaster import Lanes
from training.forecasters.contract import Forecaster
from training.forecasters.contract import Settings as ForecasterSettings

METRIC: Final = "augmentation"
CONFIDENCE: Final = 0.95
MEASURED: Final = ("loss", "qlike", "pinball")


class Settings(msgspec.Struct, frozen=True):
    """What is trained, and on what."""

    forecaster: ForecasterSettings = ForecasterSettings(rounds=8, lanes=32)  # a fifth of the updates of what ships
    seeds: int = 5
    kept: tuple[float, ...] = (1.0, 0.1)  # of each instrument's training ticks, the last ones
    shares: tuple[float, ...] = (0.25, 0.5)  # of the lanes that are generated
    stream_ticks: int = 50_000  # generated for an instrument, at most about
    validation_lanes: int = 32  # a round would spend most of its time on as many as usual
    test_lanes: int = 128


def cut(dataset: data.Dataset, kept: float) -> data.Dataset:
    """The dataset with the last ticks of each instrument's training part, those before them in no part."""
    return dataset._replace(series=tuple(_cut(one, kept) for one in dataset.series))


def _cut(one: data.Series, kept: float) -> data.Series:
    rows = np.flatnonzero(one.part == data.TRAIN)
    part = one.part.copy()
    part[rows[: len(rows) - round(kept * len(rows))]] = data.EMBARGO
    return one._replace(part=part)


# --- Generated ticks --------------------------------------------------------------------------------------------------


class Condition(NamedTuple):
    """What a stream is made for."""

    instrument: Instrument
    seconds: float  # that the instrument traded


def condition(one: data.Series) -> Condition | None:
    """An instrument's usual scale over its training part, and how long that lasts; None where too little is left of it.

    No other tick is looked at.
    """
    rows = np.flatnonzero((one.part == data.TRAIN) & ~one.warming & one.normal)
    gaps = np.diff(one.clock_ns[rows])[np.diff(one.session[rows]) == 0]
    traded = float(gaps.sum()) / data.SECOND
    if traded < 1.0:
        return None
    log_variance = float(np.median(one.features[rows, INDEX["log_grid_variance_1800s"]]))
    usual = Instrument(
        price=float(np.exp(one.log_price[rows[-1]])),
        orders_per_second=len(gaps) / traded,
        volatility=float(np.exp(0.5 * log_variance)),
        size=1.0,  # features know sizes by their mean only
    )
    return Condition(usual, traded)


def generate(
    dataset: data.Dataset, generator: Generator, times: float, most_ticks: int, seed: int
) -> tuple[data.Series, ...]:
    """A stream for each instrument of the training part, all of it training, with the file's name of the real one.

    It lasts so many times as long as the part, or until about `most_ticks`.
    """
    made: list[data.Series] = []
    for name, mine in groupby(enumerate(dataset.series), lambda of: of[1].file):
        streams: list[pa.Table] = []
        for number, one in mine:
            wanted = condition(one)
            if wanted is not None:
                seconds = min(times * wanted.seconds, most_ticks / wanted.instrument.orders_per_second)
                rng = np.random.default_rng([seed, number])
                trades = feed.trade(rng, wanted.instrument, generator, int(np.ceil(seconds)))
                streams.append(simulator.table_of(one.symbol, trades, simulator.START_NS))
        made.extend(_series(name, streams))
    return tuple(made)


def _series(name: str, streams: list[pa.Table]) -> list[data.Series]:
    """Ticks as if read from a file, and all of them training."""
    if not any(len(stream) for stream in streams):
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        pq.write_table(pa.concat_tables(streams), path)
        series, _ = data.load_file(path, lambda line: None)
    return [one._replace(part=np.full(len(one.part), data.TRAIN, np.int8)) for one in series]


def mixed(generated: tuple[data.Series, ...], share: float, seed: int) -> forecaster.Draw:
    """Draws real lanes as ever, and puts generated ones in the place of a share of them.

    The real ones are drawn from the same state of randomness whatever the share: the generated ones have their own.
    """
    own = np.random.default_rng([seed, 1])

    def draw(series: tuple[data.Series, ...], part: int, lanes: int, segment: int, rng: np.random.Generator) -> Lanes:
        real = forecaster.draw_lanes(series, part, lanes, segment, rng)
        count = round(share * lanes)
        made = forecaster.draw_lanes(generated, data.TRAIN, count, segment, own)
        return Lanes(*(torch.cat((a[:, count:], b), 1) for a, b in zip(real, made, strict=True)))

    return draw


# --- The ablation -----------------------------------------------------------------------------------------------------


def measure(net: Forecaster, lanes: Lanes, settings: ForecasterSettings) -> tuple[float, ...]:
    """The whole loss, QLIKE and pinball: the columns MEASURED."""
    parts = forecaster.mean_losses(net, lanes, settings)
    return float(forecaster.total_loss(parts, settings)), float(parts["qlike"]), float(parts["pinball"])


def compare(
    dataset: data.Dataset,
    generator: Generator,
    settings: Settings,
    report: Callable[[str], None] = print,
    device: str = "cpu",
) -> dict[str, Any]:
    """The ablation as the card holds it; `report` gets a line a training.

    Returns
    -------
    dict
        What was trained; `ticks`: share of the training ticks kept -> real and generated ones with targets;
        `trained`: share kept -> see `summary`.
    """
    test = forecaster.draw_lanes(
        dataset.series, data.TEST, settings.test_lanes, settings.forecaster.segment, np.random.default_rng(0)
    )
    trained: dict[str, Any] = {}
    ticks: dict[str, Any] = {}
    for kept in settings.kept:
        some = cut(dataset, kept)
        generated = generate(some, generator, 1.0 / kept, settings.stream_ticks, 0)
        ticks[f"{kept:g}"] = {"real": _to_train_on(some.series), "generated": _to_train_on(generated)}
        report(f"{kept:.0%} of the training ticks: {ticks[f'{kept:g}']}")
        rows = list(_trainings(some, generated, test, settings, report, device))
        trained[f"{kept:g}"] = summary(rows, settings)
    plan = settings.forecaster
    return {
        "seeds": settings.seeds,
        "updates": plan.rounds * (plan.segment // plan.unroll),
        "lanes": plan.lanes,
        "test_lanes": settings.test_lanes,
        "ticks": ticks,
        "trained": trained,
    }


def _to_train_on(series: tuple[data.Series, ...]) -> int:
    return sum(int(((one.part == data.TRAIN) & data.usable_rows(one)).sum()) for one in series)


def _trainings(
    dataset: data.Dataset,
    generated: tuple[data.Series, ...],
    test: Lanes,
    settings: Settings,
    report: Callable[[str], None],
    device: str,
) -> Iterator[tuple[float, ...]]:
    """Seed by seed, by rising share."""
    for seed in range(settings.seeds):
        for share in (0.0, *settings.shares):
            draw = mixed(generated, share, seed)
            net, history = forecaster.train(
                dataset,
                settings.forecaster,
                seed,
                draw=draw,
                validation_lanes=settings.validation_lanes,
                device=device,
            )
            found = measure(net, test, settings.forecaster)
            figures = ", ".join(f"{name} {value:.4f}" for name, value in zip(MEASURED, found, strict=True))
            report(f"seed {seed}, {share:.0%} generated: {figures}; validation loss {min(history):.4f}")
            yield found


def summary(rows: Sequence[tuple[float, ...]], settings: Settings) -> dict[str, Any]:
    """Of what `_trainings` gave: share of generated lanes -> column of MEASURED -> `spread`, and `paired` with none."""
    found = np.array(rows).reshape(settings.seeds, 1 + len(settings.shares), len(MEASURED))
    by_share: dict[str, Any] = {"0": {name: spread(found[:, 0, k]) for k, name in enumerate(MEASURED)}}
    for column, share in enumerate(settings.shares, 1):
        by_share[f"{share:g}"] = {
            name: spread(found[:, column, k]) | paired(found[:, column, k] - found[:, 0, k])
            for k, name in enumerate(MEASURED)
        }
    return by_share


def spread(values: NDArray[np.float64]) -> dict[str, float]:
    """Over seeds."""
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}


def paired(differences: NDArray[np.float64]) -> dict[str, float]:
    """Of differences seed by seed, below 0 for better: mean, its standard error, and bounds with CONFIDENCE.

    The bounds `low` and `high` are by Student's t over the seeds: they know the luck of a training, not that of the
    ticks that the test part happens to hold.
    """
    # Here, since it takes a second that no other training should wait.
    from scipy import stats

    middle, error = float(differences.mean()), float(stats.sem(differences))
    reach = float(stats.t.ppf(0.5 + 0.5 * CONFIDENCE, len(differences) - 1)) * error
    return {"difference": middle, "standard_error": error, "low": middle - reach, "high": middle + reach}


def add(folder: Path, files: list[Path], settings: Settings, device: str = "cpu") -> tuple[str, dict[str, Any]]:
    """Measure, and write it into the card of the generator in a folder of models; gives its name and the figures."""
    bundle = feed.newest(folder)
    generator = Generator(bundle)
    found = compare(data.load(files, data.quiet), generator, settings, device=device)
    export.write_card(msgspec.structs.replace(generator.card, metrics=generator.card.metrics | {METRIC: found}), bundle)
    return generator.name, found


def main() -> int:
    """Write the ablation into the generator's card."""
    description = "Train the forecaster with and without generated ticks."
    measure = partial(add, settings=Settings(), device=choose("auto"))
    return measuring.run("training.augmentation", description, measure)


if __name__ == "__main__":
    sys.exit(main())
