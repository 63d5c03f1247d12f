"""Histograms of the features for a forecaster's card, by which a running worker tells drift.

`python -m training.histograms` adds them to the forecasters in a folder, from the ticks that they were
trained on, without training: graph and hash stay.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from stream import catalogue
from stream.config import DEFAULT_MODELS
from stream.core import drift
from stream.core.features import FEATURES
from stream.errors import TapewatchError
from stream.inference import Histogram, named
from training import data, export

BINS: Final = 10


def of(dataset: data.Dataset) -> list[Histogram]:
    """One a feature, over the normal ticks of each file's training part that are not warming."""
    files = [
        np.concatenate([_trained_on(one) for one in dataset.series if one.file == file.name]) for file in dataset.files
    ]
    return [Histogram(*drift.histogram([rows[:, column] for rows in files], BINS)) for column in range(len(FEATURES))]


def _trained_on(one: data.Series) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rows: np.ndarray[tuple[int, int], np.dtype[np.float32]] = one.features[
        (one.part == data.TRAIN) & ~one.warming & one.normal
    ]
    return rows


def add(models: Path, dataset: data.Dataset) -> list[str]:
    """Write the histograms into every forecaster's card in a folder; gives the bundles.

    Raises
    ------
    TapewatchError
        If a bundle was trained on other files.
    """
    made, here = of(dataset), sorted(file.sha256 for file in dataset.files)
    entries = [entry for entry in catalogue.entries(models) if entry.card.family == "forecaster"]
    for folder, card in entries:
        if sorted(file.sha256 for file in card.data) != here:
            raise TapewatchError(f"{folder} was trained on other ticks than these {len(here)} files: see its card")
    for folder, card in entries:
        export.write_card(msgspec.structs.replace(card, histograms=made), folder)
    return [named(card) for _, card in entries]


def main() -> int:
    """Add histograms to the cards of a folder."""
    parser = argparse.ArgumentParser(prog="python -m training.histograms", description="Add histograms to cards.")
    parser.add_argument("files", nargs="*", type=Path, metavar="DATA", help="what the models were trained on")
    parser.add_argument("--models", type=Path, default=Path(DEFAULT_MODELS), metavar="DIR")
    options = parser.parse_args()
    try:
        written = add(options.models, data.load(data.files_of(options.files)))
    except TapewatchError as error:
        print(f"training.histograms: {error}", file=sys.stderr)
        return 1
    print(f"histograms in the cards of {', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
