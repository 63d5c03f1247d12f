"""Which forecaster of a folder answers: by validation loss, and of those not told apart the one with the least state.

The loss is of all heads together, on the same stretches of the same files for every kind (training/forecaster.py), and
the mean over the seeds: the best of several is flattered by chance. Kinds within one standard error of the best count
as good as it (Breiman, Friedman, Olshen and Stone 1984), and then the one that carries least for each instrument is
the cheapest to run, to keep and to move. The test part is for the reports: a champion chosen on it would look better
there than it is.

`python -m training.champion MODELS` chooses among all forecasters of a folder, each at its newest version.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stream import catalogue, roles
from stream.errors import TapewatchError
from stream.inference import Card, named, read_card

SHARED: Final = ("segment", "unroll", "burn_in", "pinball", "shortfall", "squared_error", "cross_entropy")
"""Hyperparameters that the validation loss itself depends on."""


def pick(forecasters: Sequence[Card]) -> Card:
    """Of those whose validation loss is within one standard error of the lowest, the one that carries least.

    Raises
    ------
    TapewatchError
        If there is none, a card has no validation loss, or the losses are of other files or of another loss.
    """
    if not forecasters:
        raise TapewatchError("there is no forecaster to choose the champion from: train one")
    first = forecasters[0]
    for card in forecasters:
        if _measured_on(card) != _measured_on(first):
            raise TapewatchError(
                f"validation losses of {named(first)} and {named(card)} do not compare: they were validated on other "
                f"files or with another {', '.join(SHARED)}; train both on the same, or say who is champion with "
                "`tapewatch models promote`"
            )
    losses = {card.name: _validation_loss(card) for card in forecasters}
    least = min(losses.values())
    good = [card for card in forecasters if losses[card.name].mean <= least.mean + least.error]
    return min(good, key=lambda card: (card.hidden_size, losses[card.name], card.name))


def _measured_on(card: Card) -> tuple[Any, ...]:
    return (*(file.sha256 for file in card.data), *(card.hyperparameters.get(name) for name in SHARED))


class Loss(NamedTuple):
    """Over the seeds."""

    mean: float
    error: float  # standard error of the mean; 0 of a single seed


def _validation_loss(card: Card) -> Loss:
    try:
        losses = [float(loss) for loss in card.metrics["validation_loss"]]
        error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
        return Loss(statistics.fmean(losses), error)
    except (KeyError, TypeError, ValueError):
        raise TapewatchError(f"the card of {named(card)} holds no validation_loss") from None


def crown(models: Path, card: Card) -> Path:
    """Make a forecaster of the folder the champion, by name if no newer version of it is there; gives roles.toml.

    A challenger that is named stays it, unless it is who was chosen.

    Raises
    ------
    ModelMismatch
        If the roles there cannot be read, or not be written.
    """
    held = roles.read(models)
    versions = [read_card(file).version for file in models.glob(f"{card.name}/*/card.json")]
    newest = max(versions, key=roles.version_key) == card.version
    champion = card.name if newest else named(card)
    challenger = "" if held.challenger in (card.name, named(card)) else held.challenger
    return roles.write(models, msgspec.structs.replace(held, champion=champion, challenger=challenger))


def choose(models: Path) -> Card:
    """Pick and crown among the forecasters of a folder, each name at its newest version.

    Raises
    ------
    TapewatchError
        See `pick` and `crown`.
    """
    newest = {e.card.name: e.card for e in catalogue.entries(models) if e.card.family == "forecaster"}
    chosen = pick(list(newest.values()))  # entries are sorted by version
    crown(models, chosen)
    return chosen


def main() -> int:
    """Choose the champion of the folder that is named."""
    try:
        (folder,) = sys.argv[1:]
    except ValueError:
        print("usage: python -m training.champion MODELS", file=sys.stderr)
        return 2
    try:
        card = choose(Path(folder))
    except TapewatchError as error:
        print(f"training.champion: {error}", file=sys.stderr)
        return 1
    loss = _validation_loss(card)
    print(f"champion: {named(card)}, validation loss {loss.mean:g}, standard error {loss.error:.2g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
