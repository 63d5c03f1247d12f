"""`tapewatch train all`: every kind of forecaster, the champion among them, then the critic and the policy.

And then what the cards tell beyond their training: each is a program of its own as well, `python -m training.NAME`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from stream.errors import TapewatchError
from stream.inference import read_card
from training import attribution, augmentation, bundles, champion, checkpoints, data, generated, rarity
from training.measuring import Measure

Trainer = Callable[[data.Dataset, bundles.Plan, int, Path, bundles.Announce], Path]


MEASURES: Final[dict[str, Measure]] = {
    "rarity": rarity.add,
    "attribution": attribution.add,
    "generated": generated.add,
    "augmentation": partial(augmentation.add, settings=augmentation.Settings()),
}
"""Name of the program -> what it measures of the bundles in a folder and writes into their cards."""


class Part(NamedTuple):
    """Of a whole training: what writes one bundle."""

    name: str
    trainer: Trainer
    plan: bundles.Plan


def train(
    forecasters: Iterable[Part],
    rest: Iterable[Part],
    dataset: data.Dataset,
    seed: int,
    out: Path,
    announce: bundles.Announce,
) -> list[Path]:
    """Every part in order, the champion chosen before the rest; the bundles.

    A part that an interrupted training of the same plan, ticks and code has done is not done again.
    """
    written = [_once(part, dataset, seed, out, announce) for part in forecasters]
    # Anew after an interruption too: it is the same answer.
    champion.crown(out, champion.pick([read_card(folder / "card.json") for folder in written]))
    written += [_once(part, dataset, seed, out, announce) for part in rest]
    checkpoints.remove(out, "*")
    return written


def _once(part: Part, dataset: data.Dataset, seed: int, out: Path, announce: bundles.Announce) -> Path:
    of = checkpoints.key(dataset, part.plan, seed)
    there = checkpoints.finished(out, part.name, of)
    if there is not None:
        announce(part.name)(1, 1, f"{checkpoints.TAKEN_UP}: {there}")
        return there
    written = part.trainer(dataset, part.plan, seed, out, announce)
    checkpoints.finish(out, part.name, of, written)
    return written


def measure(
    files: list[Path], out: Path, announce: bundles.Announce, measures: Mapping[str, Measure] = MEASURES
) -> None:
    """Into the cards of a whole training in `out`; what the ticks do not suffice for is said and left out."""
    for name, add in measures.items():
        progress = announce(f"measuring: {name}")
        progress(0, 1, "")
        try:
            add(out, files)
            note = ""
        except TapewatchError as error:
            note = f"left out: {error}"
        progress(1, 1, note)
