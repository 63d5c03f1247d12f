"""How well the critic finds injected faults, beside an isolation forest and a z-score on the same windows.

The forest (Liu, Ting and Zhou 2008) sees what the critic sees: the standardised window, tails tamed, and the recent
scale. The z-score is the largest absolute entry of the standardised window, untamed. All three are fitted on training
windows; each alerts above its own 99 % quantile on normal windows of the validation part, so that a comparison does not
depend on whose threshold is better chosen. AUC, precision and recall are on windows of the test part, each once as it
was and once with the fault: half of them are faulty.

`python -m training.detection DATA` measures it with the shipped critic and writes it into its card; its graph stays.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from stream import inference
from stream.inference import named
from training import attribution, data, export, gan, measuring
from training.gan import Critic, Windows

FALSE_ALARMS: Final = 0.01  # of normal windows: where each detector's threshold is put

Scores = NDArray[np.float64]
Detector = Callable[[Windows], Scores]
"""Higher is more anomalous: float64[k]."""


class Settings(msgspec.Struct, frozen=True):
    """How much is measured, and the isolation forest."""

    windows: int = 20_000  # of each part
    trees: int = 200
    tree_windows: int = 256  # that a tree is grown on, as in the paper


def detectors(critic: Critic, seen: Windows, settings: Settings, seed: int) -> dict[str, Detector]:
    """The critic and what it is held against, fitted on windows of the training part."""
    # Here, since it takes a second that no other training should wait.
    from sklearn.ensemble import IsolationForest

    def inputs(windows: Windows) -> NDArray[np.float32]:
        with torch.no_grad():
            window = critic.standard(windows.features, windows.window)
            entries: NDArray[np.float32] = torch.cat((window, critic.condition(windows.features)), 1).numpy()
        return entries

    def largest(windows: Windows) -> Scores:
        with torch.no_grad():
            entry: Scores = critic.units(windows.features, windows.window).abs().max(1).values.double().numpy()
        return entry

    forest = IsolationForest(n_estimators=settings.trees, max_samples=settings.tree_windows, random_state=seed)
    forest.fit(inputs(seen))
    return {
        "critic": lambda windows: gan.scores(critic, windows),
        "isolation_forest": lambda windows: -forest.score_samples(inputs(windows)),
        "z_score": largest,
    }


def compare(
    critic: Critic, seen: Windows, validation: Windows, test: Windows, settings: Settings, seed: int
) -> dict[str, Any]:
    """Each fault by each detector, as the card holds it.

    Returns
    -------
    dict
        `detection`: fault -> detector -> `auc`, `precision`, `recall`; `false_alarms`: detector -> share of the normal
        windows of the test part that exceed its threshold; `detection_windows`: how many they are.
    """
    found: dict[str, dict[str, dict[str, float]]] = {fault: {} for fault in gan.EVERY_FAULT}
    false_alarms = {}
    for name, score in detectors(critic, seen, settings, seed).items():
        threshold = float(np.quantile(score(validation), 1.0 - FALSE_ALARMS))
        plain = score(test)
        false_alarms[name] = float((plain > threshold).mean())
        for fault, faulty in _broken(test, seed):
            found[fault][name] = figures(plain, score(faulty), threshold)
    return {"detection": found, "false_alarms": false_alarms, "detection_windows": len(test.series)}


def _broken(windows: Windows, seed: int) -> Iterator[tuple[str, Windows]]:
    """The same windows with each fault, the same for every detector."""
    chance = torch.Generator().manual_seed(seed)
    for fault in gan.EVERY_FAULT:
        yield fault, windows._replace(window=gan.inject(fault, windows.features, windows.window, chance))


def figures(plain: Scores, faulty: Scores, threshold: float) -> dict[str, float]:
    """Of scores of normal windows and of faulty ones: AUC, and precision and recall above the threshold."""
    right, wrong = int((faulty > threshold).sum()), int((plain > threshold).sum())
    return {
        "auc": gan.area_under_curve(plain, faulty),
        "precision": right / max(right + wrong, 1),
        "recall": right / len(faulty),
    }


def add(folder: Path, files: list[Path], settings: Settings, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """Measure, and write it into the card of the critic in a folder of models; gives its name and the figures."""
    card = inference.load(folder).cards[1]
    bundle = inference.load_bundle(folder / card.name / card.version)
    dataset, rng = data.load(files, data.quiet), np.random.default_rng(seed)
    seen, validation, test = (
        gan.sample_windows(dataset, part, settings.windows, rng) for part in (data.TRAIN, data.VALIDATION, data.TEST)
    )
    found = compare(attribution.critic_of(bundle), seen, validation, test, settings, seed)
    export.write_card(msgspec.structs.replace(card, metrics=card.metrics | found), bundle.folder)
    return named(card), found


def main() -> int:
    """Write the comparison into the critic's card."""
    description = "Hold the critic against an isolation forest and a z-score on injected faults."
    return measuring.run("training.detection", description, partial(add, settings=Settings()))


if __name__ == "__main__":
    sys.exit(main())
