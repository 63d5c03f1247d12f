"""How often the worker calls a normal tick rare, an instrument: the published anomaly on the test part.

The critic's table is fitted over all instruments together. What is published is held to each instrument's own tape from
its first tick on (stream.core.rarity), so the share of ticks above 0.99 is measured over the whole pipeline, with the
settings as they are by default.

`python -m training.rarity DATA` measures it and writes card.json and CARD.md of the critic again; graph and hash stay.
"""

import sys
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream import inference
from stream.backtest import CHUNK_TICKS, Backtest
from stream.config import Settings
from stream.core.rarity import RARE
from stream.core.results import RISK_COLUMNS
from stream.errors import TapewatchError
from stream.feeds.files import open_ticks
from stream.inference import Models, named
from stream.pipeline import Pipeline
from training import cards, data, export, measuring

LEAST_TICKS: Final = 1_000
"""Fewer leave a share of 1 % with less than 10 ticks."""
_ANOMALY: Final = RISK_COLUMNS.index("anomaly")


def published(models: Models, file: Path) -> dict[str, NDArray[np.float64]]:
    """The anomalies that a worker publishes of a file's accepted ticks, in order, by instrument."""
    backtest = Backtest(Pipeline(Settings(), models, 0), models)
    slots, anomalies = [], []
    for batch in open_ticks(file):
        for first in range(0, len(batch), CHUNK_TICKS):
            answers, _ = backtest.chunk(batch, slice(first, first + CHUNK_TICKS))
            slots.append(answers.results.slot)
            anomalies.append(answers.results.risk[:, _ANOMALY])
    slot, anomaly = np.concatenate(slots), np.concatenate(anomalies)
    names = backtest.pipeline.instruments.names
    return {data.instrument_name(*name): anomaly[slot == k] for k, name in enumerate(names)}


def shares(models: Models, files: list[Path]) -> dict[str, float]:
    """Of the normal ticks of the test parts, past warming: the share above 1 - RARE, of all and of each instrument.

    Raises
    ------
    TapewatchError
        If no instrument has LEAST_TICKS of them.
    """
    rare = {}
    dataset = data.load(files, data.quiet)
    for file in files:
        anomaly = published(models, file)
        for one in dataset.series:
            rows = (one.part == data.TEST) & ~one.warming & one.normal
            if one.file == file.name and rows.sum() >= LEAST_TICKS:
                rare[one.symbol] = anomaly[one.symbol][rows] > 1.0 - RARE
    if not rare:
        raise TapewatchError(f"no instrument has {LEAST_TICKS:,} normal ticks in the test part of its file")
    every = np.concatenate(list(rare.values()))
    return {"all": float(every.mean())} | {name: float(of.mean()) for name, of in rare.items()}


def add(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
    """Measure, and write it into the card of the critic in a folder of models; gives its name and the shares."""
    models = inference.load(folder)
    card = models.cards[1]
    found = shares(models, files)
    bundle = folder / card.name / card.version
    export.write_card(msgspec.structs.replace(card, metrics=card.metrics | {cards.PUBLISHED: found}), bundle)
    return named(card), found


def main() -> int:
    """Write the shares into the critic's card."""
    return measuring.run("training.rarity", "How often normal ticks are called rare.", add)


if __name__ == "__main__":
    sys.exit(main())
