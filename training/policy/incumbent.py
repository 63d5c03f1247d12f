"""Whether a policy that was just trained should follow the one that answers so far.

`python -m training.policy.incumbent NEW [DATA]...` holds the bundle NEW against the policy in --models. It should
follow only if it earns more on the validation part by more than chance: if the 95 % interval of the Sharpe ratio of the
difference in reward lies above 0. Else the one that is there stays: graph, version and hash as they are, and its card
takes over what the training of NEW measured of all tries, with itself beside them. Its own training is one of those
tries, so their number stays.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from stream import inference
from stream.config import DEFAULT_MODELS
from stream.errors import TapewatchError
from stream.inference import Bundle, Card, named
from training import bundles, data, export, sharpe
from training.policy import selection
from training.policy.tape import Market, Steps, Walk, account, tape, walk

SEED = 0  # of the bootstrap


class Verdict(NamedTuple):
    """The newcomer's reward on the validation part less the incumbent's, basis points a decision."""

    difference: float
    sharpe: sharpe.Interval  # of the difference

    @property
    def follows(self) -> bool:
        """Whether it is better by more than chance."""
        return self.sharpe.low > 0.0


def judge(newcomer: Walk, incumbent: Walk) -> Verdict:
    """Compare walks over the validation part."""
    difference = newcomer.reward - incumbent.reward
    return Verdict(float(difference.mean()), sharpe.interval(difference, SEED))


def takeover(old: Card, new: Card, validation: Walk, test: Walk, verdict: Verdict) -> Card:
    """The incumbent's card with what the newcomer's training measured, and its own walks beside that."""
    measured, name = new.metrics, named(old)
    own = selection.numbers(test) | selection.certainty(test, measured["luckiest_sharpe"], SEED)
    metrics = measured | {
        "onnx_against_pytorch": old.metrics["onnx_against_pytorch"],
        "way": name,
        "newcomer": {
            "way": measured["way"],
            "difference": verdict.difference,
            "sharpe_low": verdict.sharpe.low,
            "sharpe_high": verdict.sharpe.high,
        },
        "test": {name: own} | measured["test"],
        "validation_mean_reward": {name: [account(validation).mean_reward]} | measured["validation_mean_reward"],
    }
    return msgspec.structs.replace(old, metrics=metrics, notes=new.notes)


def compare(models: Path, new: Path, files: Sequence[Path]) -> tuple[Card, Verdict]:
    """The card of the incumbent as it would be if it stayed, and the verdict.

    Raises
    ------
    TapewatchError
        If there is no policy to compare, or the newcomer was trained on other files.
    """
    cards = [inference.read_card(file) for file in sorted(models.glob("*/*/card.json"))]
    front = inference.in_front(models, "policy", cards)
    old, newcomer = inference.load_bundle(models / front.name / front.version), inference.load_bundle(new)
    dataset = data.load(files, data.quiet)
    if [file.sha256 for file in newcomer.card.data] != [file.sha256 for file in dataset.files]:
        raise TapewatchError(f"{new} was not trained on these files: {', '.join(path.name for path in files)}")
    market = Market()
    forecaster = inference.in_front(models, "forecaster", cards)
    steps = bundles.all_steps(dataset, models / forecaster.name / forecaster.version, market.latency_ticks)
    before, after = (_walk(bundle, steps[data.VALIDATION], market) for bundle in (old, newcomer))
    verdict = judge(after, before)
    return takeover(old.card, newcomer.card, before, _walk(old, steps[data.TEST], market), verdict), verdict


def _walk(bundle: Bundle, steps: Steps, market: Market) -> Walk:
    session = inference.new_session(bundle.graph.SerializeToString())
    rows = {"features": steps.features.numpy(), "forecast": steps.forecast.numpy()}
    (values,) = session.run(["action_values"], rows)
    table: NDArray[np.int8] = values.reshape(-1, 3, 3).argmax(2).astype(np.int8)
    return walk(table, tape(steps, market), market)


def main() -> int:
    """Say whether the newcomer should follow; if not, write the card of the one that stays."""
    parser = argparse.ArgumentParser(
        prog="python -m training.policy.incumbent", description="Hold a new policy against the one that answers."
    )
    parser.add_argument("new", type=Path, metavar="NEW", help="folder of its bundle")
    parser.add_argument("files", nargs="*", type=Path, metavar="DATA", help="what it was trained on")
    parser.add_argument("--models", type=Path, default=Path(DEFAULT_MODELS), metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        card, verdict = compare(options.models, options.new, data.files_of(options.files))
    except TapewatchError as error:
        print(f"training.policy.incumbent: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.new} less {named(card)} on the validation part: {verdict.difference:.6f} bp a decision, Sharpe "
        f"ratio with 95 % between {verdict.sharpe.low:.5f} and {verdict.sharpe.high:.5f}"
    )
    if verdict.follows:
        print("better by more than chance: give it the next version and put it beside the others")
    else:
        export.write_card(card, options.models / card.name / card.version)
        print(f"not told apart: {named(card)} stays, and its card tells of both")
    return 0


if __name__ == "__main__":
    sys.exit(main())
