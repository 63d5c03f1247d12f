"""Are the reasons of an anomaly alert what the critic looked at? Occlusion held against integrated gradients.

The worker explains an anomaly by occlusion: how far -log10(1 - anomaly) falls with one feature at a time put back to
the instrument's normal. Integrated gradients (Sundararajan, Taly and Yan 2017) share out the whole fall from the tick
to that normal along the straight line between the two, in PyTorch, and add up to it. Where features act together the
two differ. Their rank correlation over the features, tick by tick, goes into the critic's card.

`python -m training.attribution DATA` measures it on anomalous ticks of the test part and writes card.json and CARD.md
again; graph and hash stay. Twenty lines of our own: Captum would be a dependency for them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy import stats
from torch import Tensor

from stream import inference
from stream.backtest import Backtest
from stream.config import Settings
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.results import RISK_COLUMNS
from stream.errors import BadFile, TapewatchError
from stream.explanations import anomaly_contributions
from stream.feeds.files import open_ticks
from stream.inference import Bundle, Calibration, Models, named
from stream.pipeline import Pipeline
from training import export, gan, measuring

LEAST_ANOMALY: Final = Settings().alerts.anomaly  # ticks that an alert could be about
CHUNK_TICKS: Final = 128  # what is normal is known at the end of each
LEAD_NS: Final = 2 * 3600 * 1_000_000_000  # in which features and what is normal warm up
STEPS: Final = 256  # of the line that is integrated over, by midpoints
TICKS_A_FILE: Final = 100
METRIC: Final = "occlusion_against_integrated_gradients"
FIRST: Final = 5  # reasons that an alert shows
_ANOMALY: Final = RISK_COLUMNS.index("anomaly")


class Ticks(NamedTuple):
    """Anomalous ticks, with what is normal for their instruments."""

    features: NDArray[np.float32]  # [k, len(FEATURES)]
    window: NDArray[np.float32]  # [k, WINDOW, 3]
    normal: NDArray[np.float64]  # [k, len(FEATURES)]

    def some(self, rows: slice) -> "Ticks":
        """Those of them."""
        return Ticks(self.features[rows], self.window[rows], self.normal[rows])


def critic_of(bundle: Bundle) -> gan.Critic:
    """The network of a critic's bundle, from the weights in its graph.

    Raises
    ------
    TapewatchError
        If the graph does not hold them by the names of `gan.Critic`, or does not answer as the network.
    """
    held = {
        value.name: torch.from_numpy(numpy_helper.to_array(value).copy()) for value in bundle.graph.graph.initializer
    }
    critic = gan.Critic(msgspec.convert(bundle.card.hyperparameters, gan.Settings))
    # The exporter has folded the choice of the regime's inputs into the weights behind it.
    width = critic.regime_first.weight.shape[0], critic.regimes.shape[0]
    folded = next((value for value in held.values() if tuple(value.shape) == width), None)
    weights = {name: held.get(name, value) for name, value in critic.state_dict().items()}
    if folded is not None:
        weights["regime_first.weight"] = folded @ critic.regimes
    critic.load_state_dict(weights)
    error = export.difference(critic.eval(), bundle.graph.SerializeToString(), "critic")
    if error > export.TOLERANCE:
        raise TapewatchError(f"{bundle.folder}: its graph differs by {error:.1e} from a critic with its weights")
    return critic


def anomalous(models: Models, file: Path, first_ns: int, most: int, rng: np.random.Generator) -> Ticks:
    """Some ticks of a file from a time on whose anomaly could open an alert, one of each instrument and chunk."""
    backtest = Backtest(Pipeline(Settings(), models, 0), models)
    found: list[tuple[Any, Any, Any]] = []
    for batch in open_ticks(file):
        for first in range(0, len(batch), CHUNK_TICKS):
            rows = slice(first, first + CHUNK_TICKS)
            if batch.exchange_ns[rows].max() < first_ns - LEAD_NS:
                continue  # so long before, it changes nothing any more
            answers, _ = backtest.chunk(batch, rows)
            results, columns = answers.results, answers.features
            last = {slot: row for row, slot in enumerate(results.slot.tolist())}
            for slot, row in last.items():
                anomaly = results.risk[row, _ANOMALY]
                if results.exchange_ns[row] >= first_ns and not results.warming[row] and anomaly >= LEAST_ANOMALY:
                    normal = backtest.pipeline.state.alerts["normal"][slot]
                    found.append((columns.features[row].copy(), columns.window[row].copy(), normal.copy()))
    return _stacked([found[row] for row in rng.permutation(len(found))[:most]])


def _stacked(ticks: list[tuple[Any, Any, Any]]) -> Ticks:
    count, width = len(ticks), len(FEATURES)
    features, window, normal = zip(*ticks, strict=True) if ticks else ((), (), ())
    return Ticks(
        np.array(features, np.float32).reshape(count, width),
        np.array(window, np.float32).reshape(count, WINDOW, len(WINDOW_COLUMNS)),
        np.array(normal, np.float64).reshape(count, width),
    )


def powers_of_ten(score: Tensor, table: Calibration) -> Tensor:
    """-log10(1 - anomaly) of scores, as the worker interpolates the table; has a gradient."""
    scores, probabilities = (torch.tensor(of, dtype=torch.float64) for of in (table.score, table.probability))
    at = torch.clamp(torch.searchsorted(scores, score.detach()), 1, len(scores) - 1)
    low, high = scores[at - 1], scores[at]
    share = torch.clamp((score - low) / (high - low), 0.0, 1.0)
    anomaly = probabilities[at - 1] + share * (probabilities[at] - probabilities[at - 1])
    return -torch.log10(1.0 - anomaly)


def integrated(critic: gan.Critic, table: Calibration, tick: Ticks) -> tuple[NDArray[np.float64], float]:
    """Contributions of one tick's features, a window's channel counted with its feature, and the fall they share out.

    Parameters
    ----------
    critic
        In double precision.
    table
        Of its card.
    tick
        One row.

    Returns
    -------
    contributions : float64[len(FEATURES)]
        In powers of ten of the tail probability.
    fall
        What they should add up to.
    """
    here = torch.from_numpy(tick.features).double(), torch.from_numpy(tick.window).double()
    normal = torch.from_numpy(tick.normal)
    there = normal, normal[:, _CHANNELS][:, None].expand_as(here[1])
    part = (torch.arange(STEPS).double() + 0.5) / STEPS
    features = (there[0] + part[:, None] * (here[0] - there[0])).requires_grad_()
    window = (there[1] + part[:, None, None] * (here[1] - there[1])).requires_grad_()
    height = powers_of_ten(critic(features, window)[:, 0], table)
    slopes = torch.autograd.grad(height.sum(), (features, window))
    shares = (slopes[0].mean(0) * (here[0] - there[0])[0]).numpy().copy()
    of_window = (slopes[1].mean(0) * (here[1] - there[1])[0]).sum(0).numpy()
    shares[_CHANNELS] += of_window
    with torch.no_grad():
        ends = powers_of_ten(critic(torch.cat((here[0], there[0])), torch.cat((here[1], there[1])))[:, 0], table)
    return shares, float(ends[0] - ends[1])


_CHANNELS: Final = [list(FEATURES).index(name) for name in WINDOW_COLUMNS]


def compare(bundle: Bundle, models: Models, ticks: Ticks) -> dict[str, float]:
    """How occlusion and integrated gradients agree, as the card holds it.

    Raises
    ------
    TapewatchError
        If there is no tick.
    """
    if not len(ticks.features):
        raise TapewatchError(f"no tick of the test part has an anomaly of {LEAST_ANOMALY} or more: nothing to explain")
    critic, table = critic_of(bundle).double(), bundle.card.calibration
    assert table is not None  # a critic's bundle has one
    rank, top, first, missed = [], [], [], []
    for row in range(len(ticks.features)):
        tick = ticks.some(slice(row, row + 1))
        occluded = anomaly_contributions(tick.features[0], tick.window[0], tick.normal[0], models)
        shares, fall = integrated(critic, table, tick)
        rank.append(float(stats.spearmanr(occluded, shares).statistic))
        most = [np.argsort(-np.abs(values), kind="stable")[:FIRST].tolist() for values in (occluded, shares)]
        first.append(most[0][0] == most[1][0])
        top.append(len({*most[0]} & {*most[1]}))
        missed.append(abs(shares.sum() - fall) / max(abs(fall), 1e-3))
    return {
        "ticks": len(rank),
        "rank_correlation_median": float(np.median(rank)),
        "rank_correlation_mean": float(np.mean(rank)),
        "rank_correlation_lowest_tenth": float(np.quantile(rank, 0.1)),
        "same_first_reason": float(np.mean(first)),
        "shared_of_first_five": float(np.mean(top)),
        "gradients_miss_the_sum_by": float(np.median(missed)),
    }


def add(folder: Path, files: list[Path]) -> tuple[str, dict[str, float]]:
    """Measure, and write it into the card of the critic in a folder of models; gives its name and the figures.

    Raises
    ------
    TapewatchError
        If no file is one that the critic was trained on, or there is nothing to explain.
    """
    models = inference.load(folder)
    card = models.cards[1]
    bundle = inference.load_bundle(folder / card.name / card.version)
    rng = np.random.default_rng(0)
    parts = [anomalous(models, file, first_ns, TICKS_A_FILE, rng) for file, first_ns in _test_parts(card.data, files)]
    ticks = Ticks(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    found = compare(bundle, models, ticks)
    export.write_card(msgspec.structs.replace(card, metrics=card.metrics | {METRIC: found}), bundle.folder)
    return named(card), found


def _test_parts(known: list[inference.DataFile], files: list[Path]) -> Iterator[tuple[Path, int]]:
    """Each file with the time from which on nothing was trained or validated on it."""
    starts = {one.name: one.test_ns for one in known}
    for file in files:
        if file.name not in starts:
            raise BadFile(f"{file} is none of the files that the critic was trained on: {', '.join(starts)}")
        yield file, starts[file.name]


def main() -> int:
    """Write the agreement into the critic's card."""
    return measuring.run("training.attribution", "Hold occlusion against integrated gradients.", add)


if __name__ == "__main__":
    sys.exit(main())
