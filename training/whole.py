"""`tapewatch train all`: every kind of forecaster, the champion among them, then the critic and the policy."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from stream.inference import read_card
from training import bundles, champion, checkpoints, data

Trainer = Callable[[data.Dataset, bundles.Plan, int, Path, bundles.Announce], Path]


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
