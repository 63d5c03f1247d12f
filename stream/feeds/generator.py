"""Trades of an instrument that does not exist, from the generator of a GAN instead of a model by hand.

A generator makes a window of 32 trades of noise and of an instrument's recent scale. Here the scale is made: volatility
and activity follow the same random course as in `market`, so they cluster over minutes, and each window is asked for
with what they are when it begins. Windows know nothing of each other, so what lasts longer than one and is no scale,
such as a trend or one taker's long programme, is not in these trades. Each window is mirrored, bought for sold and up
for down, with a chance of one half: a market knows no direction, and a generator's slight lean would become a trend.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.random import Generator as Chance
from numpy.typing import NDArray

from stream import inference
from stream.core.features import FEATURES, WINDOW
from stream.errors import ModelMismatch
from stream.feeds.market import (
    ACTIVITY_POWER,
    SECOND_NS,
    TIME_STEP_NS,
    Floats,
    Instrument,
    Trades,
    price_step,
    usual_volatility,
    whole_steps,
)
from stream.inference import NOISE, OUTPUTS, Card, Trust, named, new_session
from stream.roles import version_key

LEAST_GAP: Final = 1e-3  # seconds that features add to a gap before they take its logarithm
MOST_GAP_SECONDS: Final = 60.0
MOST_RETURN: Final = 0.05  # log, of one trade: half the band beyond which a worker refuses a tick
MOST_LOG_SIZE: Final = 9.0  # 8,000 times the mean size
TEMPO_WINDOWS: Final = 512
RETURN, GAP, SIZE = range(3)
_AT: Final = {name: column for column, name in enumerate(FEATURES)}


class Generator:
    """The generator of a bundle, in a session of its own.

    Raises
    ------
    ModelMismatch
        If the bundle is no generator, is not trusted, is damaged, or does not fit.
    """

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        bundle = inference.load_bundle(folder, trust)
        if bundle.card.family != "generator":
            raise ModelMismatch(f"{folder} is a {bundle.card.family}: only a generator makes trades")
        self.card: Final[Card] = bundle.card
        self._session: Final = new_session(bundle.graph.SerializeToString())

    @property
    def name(self) -> str:
        """name@version."""
        return named(self.card)

    def windows(self, features: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Trades as the features know them.

        Parameters
        ----------
        features : float32[n, len(FEATURES)]
            Of which the recent scale is looked at.
        noise : float32[n, WINDOW, NOISE]
            Standard normal.

        Returns
        -------
        float32[n, WINDOW, 3]
            Log return, log time gap and signed log size of each trade.
        """
        (trades,) = self._session.run(OUTPUTS["generator"], {"features": features, "noise": noise})
        made: NDArray[np.float32] = trades
        return made


def newest(models: Path) -> Path:
    """The folder of the generator of the highest version in a folder of models.

    Raises
    ------
    ModelMismatch
        If there is none, or a card cannot be read.
    """
    cards = [inference.read_card(file) for file in sorted(models.glob("*/*/card.json"))]
    found = sorted((card for card in cards if card.family == "generator"), key=lambda card: version_key(card.version))
    if not found:
        raise ModelMismatch(f"models folder {models} holds no generator: run `tapewatch train gan`, or name another")
    return models / found[-1].name / found[-1].version


def trade(rng: Chance, instrument: Instrument, generator: Generator, seconds: int, volatility: float = 1.0) -> Trades:
    """Draw the trades of an instrument.

    Parameters
    ----------
    rng
        All randomness; the same state gives the same trades.
    instrument
        Price, size, volatility and activity in usual times.
    generator
        Makes the windows.
    seconds
        Of event time.
    volatility
        Times the usual one, for stress; activity goes with it.
    """
    factor = usual_volatility(rng, seconds) * volatility
    scale = _scales(generator.card, instrument, factor)
    wanted = float((1.0 / (instrument.orders_per_second * factor**ACTIVITY_POWER)).mean())
    tempo = wanted / _mean_gap(rng, generator, scale)
    made: list[Floats] = []
    begun = 0.0
    while begun < seconds:
        noise = rng.standard_normal((1, WINDOW, NOISE)).astype(np.float32)
        window = generator.windows(scale[[int(begun)]], noise)[0].astype(np.float64)
        if rng.random() < 0.5:
            window[:, (RETURN, SIZE)] *= -1.0
        window[:, GAP] = tempo * _gaps(window)
        made.append(window)
        begun += max(float(window[:, GAP].sum()), LEAST_GAP)  # never for ever
    return _trades(np.concatenate(made), instrument, seconds)


def _mean_gap(rng: Chance, generator: Generator, scale: NDArray[np.float32]) -> float:
    """Seconds between two trades that the generator makes at these scales, drawn: it is learnt in logarithms, whose
    tails rule the mean, so the mean is not what the scale asks for.
    """
    rows = np.linspace(0, len(scale) - 1, TEMPO_WINDOWS).astype(np.int64)
    noise = rng.standard_normal((TEMPO_WINDOWS, WINDOW, NOISE)).astype(np.float32)
    return max(float(_gaps(generator.windows(scale[rows], noise).reshape(-1, 3).astype(np.float64)).mean()), LEAST_GAP)


def _gaps(window: Floats) -> Floats:
    gaps: Floats = np.clip(np.exp(window[:, GAP]) - LEAST_GAP, 0.0, MOST_GAP_SECONDS)
    return gaps


def _scales(card: Card, instrument: Instrument, factor: Floats) -> NDArray[np.float32]:
    """The features at each second, at their medians in training but for the scale: float32[seconds, len(FEATURES)]."""
    features = np.tile(np.array(card.normal), (len(factor), 1))
    usual = _AT["log_grid_variance_1800s"]
    step = 2.0 * np.log(instrument.volatility) - card.normal[usual]
    for name in FEATURES:
        if "variance" in name:
            features[:, _AT[name]] += step
        elif "trade_rate" in name:
            activity = _average(factor**ACTIVITY_POWER, _seconds(name))
            features[:, _AT[name]] = np.log(instrument.orders_per_second * activity + LEAST_GAP)
    for name in ("log_grid_variance_60s", "log_grid_variance_300s", "log_grid_variance_1800s"):
        now = np.log(instrument.volatility**2 * _average(factor**2, _seconds(name)))
        features[:, _AT[name]] = now
    for name in ("log_price_impact_1800s", "log_roll_spread_300s"):  # of a variance: a volatility
        features[:, _AT[name]] = card.normal[_AT[name]] + 0.5 * (features[:, usual] - card.normal[usual])
    features[:, _AT["log_coarse_variance_1800s"]] = features[:, usual] + (
        card.normal[_AT["log_coarse_variance_1800s"]] - card.normal[usual]
    )
    return features.astype(np.float32)


def _seconds(name: str) -> float:
    return float(name.rpartition("_")[2].removesuffix("s"))


def _average(values: Floats, seconds: float) -> Floats:
    """Average over so long, as features take it: weighted exponentially, over the weight seen so far."""
    keep = np.exp(-1.0 / seconds)
    averages = np.empty(len(values))
    total = weight = 0.0
    for second, value in enumerate(values.tolist()):
        total, weight = keep * total + value, keep * weight + 1.0
        averages[second] = total / weight
    return averages


def _trades(made: Floats, instrument: Instrument, seconds: int) -> Trades:
    at = np.cumsum(made[:, GAP])
    made, at = made[at < seconds], at[at < seconds]
    log_price = np.cumsum(np.clip(made[:, RETURN], -MOST_RETURN, MOST_RETURN))
    step = price_step(instrument.price)
    size = instrument.size * np.expm1(np.minimum(np.abs(made[:, SIZE]), MOST_LOG_SIZE))
    least = size_step(instrument.size)
    return Trades(
        np.round(at * (SECOND_NS / TIME_STEP_NS)).astype(np.int64) * TIME_STEP_NS,
        whole_steps(instrument.price * np.exp(log_price), step),
        whole_steps(size, least),
        np.where(made[:, SIZE] < 0.0, -1, 1).astype(np.int8),
    )


def size_step(size: float) -> float:
    """The smallest size that is traded: a ten thousandth of the usual, in a power of ten."""
    step: float = 10.0 ** (np.floor(np.log10(size)) - 4)
    return step
