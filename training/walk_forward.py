"""Walk-forward cross-validation: train on the past, stop on the next block, measure on the one after it.

Everything in a file before its test part is cut into blocks of as many ticks each. Fold k trains on the first k blocks,
chooses its weights on the next and is measured on the one behind that; an embargo of the longest horizon lies between.
What comes later, the test part with it, no fold ever sees.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from stream.errors import TapewatchError
from training import data, forecaster
from training.data import Dataset, Series
from training.forecasters.contract import Settings

LANES: Final = 64
"""Stretches of ticks that a fold is measured on."""


def folds(dataset: Dataset, count: int) -> Iterator[Dataset]:
    """The dataset `count` times, its parts those of each fold, later ticks in none.

    Raises
    ------
    TapewatchError
        If a block of a fold holds no tick with targets in any file.
    """
    for fold in range(1, count + 1):
        series = [_refold(one, _borders(dataset, one.file, fold, count)) for one in dataset.series]
        for part, what in ((data.TRAIN, "train"), (data.VALIDATION, "choose"), (data.TEST, "measure")):
            if not any(((one.part == part) & data.usable_rows(one)).any() for one in series):
                raise TapewatchError(f"fold {fold} of {count} has no tick to {what} on: take fewer folds or more ticks")
        yield dataset._replace(series=tuple(series))


def _borders(dataset: Dataset, file: str, fold: int, count: int) -> tuple[int, int, int]:
    """Where the fold's validation and test begin in a file, and where its test ends."""
    mine = [one for one in dataset.series if one.file == file]
    clock = np.sort(np.concatenate([one.clock_ns[np.isin(one.part, (data.TRAIN, data.VALIDATION))] for one in mine]))
    if len(clock) == 0:
        return (0, 0, 0)
    ends = (np.arange(1, count + 3) * len(clock) // (count + 2)).clip(max=len(clock) - 1)
    first, second, third = clock[ends[fold - 1 : fold + 2]].tolist()
    return first, second, third


def _refold(one: Series, borders: tuple[int, int, int]) -> Series:
    part = data.parts(one.clock_ns, borders[:2])
    unseen = (one.part == data.TEST) | (one.part == data.EMBARGO) | (one.clock_ns >= borders[2])
    part[unseen] = data.EMBARGO
    return one._replace(part=part)


def losses(
    dataset: Dataset, settings: Settings, seed: int, count: int, progress: forecaster.Progress, device: str = "cpu"
) -> list[float]:
    """Loss of a forecaster trained in each fold on what followed its training and validation: see forecaster.validate.

    `progress` is told of all rounds of all folds.
    """
    found = []
    for fold, parted in enumerate(folds(dataset, count)):

        def told(done: int, of: int, note: str, fold: int = fold) -> None:
            progress(fold * of + done, count * of, f"fold {fold + 1}, {note}")

        net, _ = forecaster.train(parted, settings, seed, told, device=device)
        lanes = forecaster.draw_lanes(parted.series, data.TEST, LANES, settings.segment, np.random.default_rng(0))
        found.append(forecaster.validate(net, lanes, settings))
    return found
