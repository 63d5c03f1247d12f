"""What the generator's windows are worth on held-out ticks: two scores after TimeGAN, and the stylised facts.

- Discriminative (Yoon, Jarrett and van der Schaar 2019): a GRU of its own learns to tell real windows of the test part
  from generated ones at the same conditions; the score is its accuracy on windows that it did not see, above one half.
- Predictive: a GRU learns the next trade from those before it, once on generated windows and once on real ones; both
  are asked about real windows that neither saw. The error is absolute, in standard deviations.
- Stylised facts (Cont 2001) within the windows: of real ones with the 95 % band of a bootstrap over windows, and of
  generated ones. Returns are in the instrument's own volatilities, gaps over its usual gap.

`python -m training.generated DATA` measures them with the shipped graph and writes them into the generator's card.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.core.features import WINDOW, WINDOW_COLUMNS
from stream.feeds.generator import Generator, newest
from stream.inference import NOISE
from training import data, export, gan, measuring
from training.normalise import USUAL_RATE, inverse_volatility, signed_root

Floats = NDArray[np.float64]
RETURN, GAP, SIZE = gan.RETURN, gan.GAP, gan.SIZE
HELD_OUT: Final = 0.3  # of the windows, for accuracy and errors
LAGS: Final = 8
RESAMPLES: Final = 300
BAND: Final = (0.025, 0.975)
FAR: Final = 5.0  # interquartile ranges: what counts as a tail


class Settings(msgspec.Struct, frozen=True):
    """How much is measured."""

    windows: int = 5000
    seeds: int = 3
    rounds: int = 300
    batch: int = 128
    hidden: int = 24
    learning_rate: float = 5e-3


class Windows(NamedTuple):
    """In the instruments' own units: float64[k, WINDOW, 3]."""

    real: Floats  # of the test part
    generated: Floats  # at the same conditions
    learnt: Floats  # real ones of the training part: what a generator could at best know


def sample(generator: Generator, dataset: data.Dataset, most: int, seed: int) -> Windows:
    """Normal ticks of the test part, what the generator makes of their scale, and normal ticks of the training part."""
    rng = np.random.default_rng(seed)
    windows = gan.sample_windows(dataset, data.TEST, most, rng)
    noise = rng.standard_normal((len(windows.features), WINDOW, NOISE)).astype(np.float32)
    made = torch.from_numpy(generator.windows(windows.features.numpy(), noise))
    learnt = gan.sample_windows(dataset, data.TRAIN, most, rng)
    return Windows(
        _own_units(windows.features, windows.window),
        _own_units(windows.features, made),
        _own_units(learnt.features, learnt.window),
    )


def _own_units(features: Tensor, window: Tensor) -> Floats:
    units = window.double().numpy().copy()
    units[:, :, RETURN] *= inverse_volatility(features).numpy()
    units[:, :, GAP] += features[:, USUAL_RATE : USUAL_RATE + 1].numpy()
    return np.asarray(units, np.float64)


# --- Scores -----------------------------------------------------------------------------------------------------------


def scores(windows: Windows, settings: Settings) -> dict[str, dict[str, float]]:
    """Mean and deviation over seeds of the discriminative score and of both predictive errors."""
    real, generated = _standard(windows)
    found: dict[str, list[float]] = {"discriminative": [], "predictive": [], "predictive_trained_on_real": []}
    for seed in range(settings.seeds):
        order = np.random.default_rng(seed).permutation(len(real))
        held, seen = order[: int(HELD_OUT * len(real))], order[int(HELD_OUT * len(real)) :]
        found["discriminative"].append(_discriminative(real, generated, seen, held, settings, seed))
        for name, learnt in (("predictive", generated), ("predictive_trained_on_real", real)):
            found[name].append(_predictive(learnt[seen], real[held], settings, seed))
    return {name: {"mean": float(np.mean(of)), "sd": float(np.std(of, ddof=1))} for name, of in found.items()}


def _standard(windows: Windows) -> tuple[Tensor, Tensor]:
    """Real and generated ones by mean and deviation of the real ones, tails tamed as the critic sees them."""
    tamed = [signed_root(torch.from_numpy(one)) for one in (windows.real, windows.generated)]
    mean, deviation = tamed[0].mean((0, 1)), tamed[0].std((0, 1))
    return tuple(torch.clamp((one - mean) / deviation, -gan.CLIP, gan.CLIP).float() for one in tamed)  # type: ignore[return-value]


class Reader(nn.Module):
    """A GRU with a linear answer at each trade."""

    def __init__(self, hidden: int, answers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(len(WINDOW_COLUMNS), hidden, batch_first=True)
        self.out = nn.Linear(hidden, answers)

    def forward(self, window: Tensor) -> Tensor:
        steps, _ = self.gru(window)
        answers: Tensor = self.out(steps)
        return answers


def _fitted(answers: int, loss: Callable[[Reader, Tensor], Tensor], rows: int, settings: Settings, seed: int) -> Reader:
    torch.manual_seed(seed)
    net = Reader(settings.hidden, answers)
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate)
    for _ in range(settings.rounds):
        optimizer.zero_grad()
        loss(net, torch.randint(rows, (settings.batch,))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval()


def _discriminative(
    real: Tensor, generated: Tensor, seen: NDArray[np.int64], held: NDArray[np.int64], settings: Settings, seed: int
) -> float:
    def loss(net: Reader, rows: Tensor) -> Tensor:
        at = torch.from_numpy(seen)[rows]
        told = net(torch.cat((real[at], generated[at])))[:, -1, 0]
        truth = torch.cat((torch.ones(len(at)), torch.zeros(len(at))))
        return nn.functional.binary_cross_entropy_with_logits(told, truth)

    net = _fitted(1, loss, len(seen), settings, seed)
    with torch.no_grad():
        right = [(net(real[held])[:, -1, 0] > 0), (net(generated[held])[:, -1, 0] <= 0)]
    return abs(float(torch.cat(right).float().mean()) - 0.5)


def _predictive(learnt: Tensor, real: Tensor, settings: Settings, seed: int) -> float:
    def error(net: Reader, windows: Tensor) -> Tensor:
        return torch.abs(net(windows[:, :-1]) - windows[:, 1:]).mean()

    net = _fitted(len(WINDOW_COLUMNS), lambda net, rows: error(net, learnt[rows]), len(learnt), settings, seed)
    with torch.no_grad():
        return float(error(net, real))


# --- Stylised facts ---------------------------------------------------------------------------------------------------


def _correlation(first: Floats, second: Floats) -> Callable[[NDArray[np.int64]], float]:
    """Of pairs float64[windows, pairs], pooled over chosen windows: sums of each window are made once."""
    sums = np.stack([x.sum(1) for x in (first, second, first * first, second * second, first * second)])
    pairs = first.shape[1]

    def of(rows: NDArray[np.int64]) -> float:
        a, b, aa, bb, ab = sums[:, rows].sum(1) / (pairs * len(rows))
        return float((ab - a * b) / np.sqrt(max((aa - a * a) * (bb - b * b), 1e-300)))

    return of


def _mean(values: Floats) -> Callable[[NDArray[np.int64]], float]:
    """Of float64[windows], over chosen ones."""
    return lambda rows: float(values[rows].mean())


def facts_of(windows: Floats, unit: float) -> dict[str, Callable[[NDArray[np.int64]], float]]:
    """Each fact as a function of the windows that are looked at.

    Parameters
    ----------
    windows : float64[k, WINDOW, 3]
    unit
        Interquartile range of the real returns.
    """
    # One jump must not rule a correlation: beyond 20 units a return counts as 20.
    returns = np.clip(windows[:, :, RETURN] / unit, -20.0, 20.0)
    moves, size = np.abs(returns), np.abs(windows[:, :, SIZE])

    def lagged(first: Floats, second: Floats, lags: range) -> Callable[[NDArray[np.int64]], float]:
        earlier = np.concatenate([first[:, :-lag] for lag in lags], 1)
        return _correlation(earlier, np.concatenate([second[:, lag:] for lag in lags], 1))

    beyond = range(2, LAGS + 1)
    return {
        "share_of_returns_in_the_tails": _mean((moves > FAR).mean(1)),
        "share_of_unchanged_prices": _mean((windows[:, :, RETURN] == 0.0).mean(1)),
        "autocorrelation_of_returns_lag_1": lagged(returns, returns, range(1, 2)),
        "autocorrelation_of_returns_lags_2_to_8": lagged(returns, returns, beyond),
        "clustering_of_moves_lag_1": lagged(moves, moves, range(1, 2)),
        "clustering_of_moves_lags_2_to_8": lagged(moves, moves, beyond),
        "leverage_lags_1_to_8": lagged(returns, moves, range(1, LAGS + 1)),
        "size_and_move": _correlation(size, moves),
        "clustering_of_time_gaps_lag_1": lagged(windows[:, :, GAP], windows[:, :, GAP], range(1, 2)),
        "clustering_of_sides_lag_1": lagged(np.sign(windows[:, :, SIZE]), np.sign(windows[:, :, SIZE]), range(1, 2)),
    }


def stylised_facts(windows: Windows, seed: int) -> dict[str, dict[str, float]]:
    """Of each fact the real value, the band of it by bootstrap, the generated value, and that of the training part."""
    rng = np.random.default_rng(seed)
    returns = windows.real[:, :, RETURN]
    unit = float(max(np.subtract(*np.quantile(returns[returns != 0.0], (0.75, 0.25))), 1e-12))
    everything = np.arange(len(windows.real))
    real, generated, learnt = (facts_of(of, unit) for of in (windows.real, windows.generated, windows.learnt))
    drawn = [rng.integers(len(everything), size=len(everything)) for _ in range(RESAMPLES)]
    found = {}
    for name, of in real.items():
        low, high = np.quantile([of(rows) for rows in drawn], BAND)
        found[name] = {
            "real": of(everything),
            "low": float(low),
            "high": float(high),
            "generated": generated[name](everything),
            "learnt": learnt[name](np.arange(len(windows.learnt))),
        }
    return found


def report(generator: Generator, dataset: data.Dataset, settings: Settings, seed: int = 0) -> dict[str, Any]:
    """All of it, as the card holds it."""
    windows = sample(generator, dataset, settings.windows, seed)
    return {
        "held_out_windows": len(windows.real),
        "scores": scores(windows, settings),
        "stylised_facts": stylised_facts(windows, seed),
    }


def add(folder: Path, files: list[Path]) -> tuple[str, dict[str, Any]]:
    """Measure, and write it into the card of the generator in a folder of models; gives its name and the figures."""
    bundle = newest(folder)
    generator = Generator(bundle)
    found = report(generator, data.load(files, data.quiet), Settings())
    export.write_card(msgspec.structs.replace(generator.card, metrics=generator.card.metrics | found), bundle)
    return generator.name, found


def main() -> int:
    """Write the report into the generator's card."""
    return measuring.run("training.generated", "Measure the generator on held-out ticks.", add)


if __name__ == "__main__":
    sys.exit(main())
