"""From a dataset to the bundles that ship: train with several seeds, measure on the test part, export, write cards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from stream import roles
from stream.core.features import FEATURES, WINDOW, WINDOW_COLUMNS
from stream.core.results import FORECAST_COLUMNS
from stream.errors import TapewatchError
from stream.inference import ACTION_COLUMNS, OPSET, Calibration, Card, Family, in_front, load_bundle, read_card
from stream.messages import HORIZONS
from training import (
    checkpoints,
    data,
    detection,
    direction,
    evaluation,
    export,
    forecaster,
    gan,
    generator,
    histograms,
    walk_forward,
)
from training.device import Device, libraries
from training.forecasters.contract import ONLY_FOR, Kind
from training.forecasters.contract import Settings as ForecasterSettings
from training.gan import Settings as GanSettings
from training.generator import Settings as GeneratorSettings
from training.policy import selection, tape
from training.policy.selection import Settings as PolicySettings

SPLIT: Final = (
    "by time in each file: first 60 % of its ticks training, 15 % validation, 25 % test (where ticks name an event, "
    "the borders are the starts of the next events); the last 60 s before a border are left out"
)
Announce = Callable[[str], forecaster.Progress]
"""Starts the progress of a named task."""


class Plan(msgspec.Struct, frozen=True):
    """What to train, and how much."""

    forecaster: ForecasterSettings = ForecasterSettings()
    gan: GanSettings = GanSettings()
    generator: GeneratorSettings = GeneratorSettings()
    policy: PolicySettings = PolicySettings()
    seeds: int = 3  # the policy has its own number
    folds: int = 0  # of walk-forward cross-validation of the forecaster; 0: none
    device: Device = "cpu"  # to train on

    def with_kind(self, kind: Kind) -> "Plan":
        """The same with another kind of forecaster."""
        return msgspec.structs.replace(self, forecaster=forecaster.SETTINGS[kind])

    def with_seeds(self, seeds: int) -> "Plan":
        """The same with so many seeds."""
        return msgspec.structs.replace(self, seeds=seeds, policy=msgspec.structs.replace(self.policy, seeds=seeds))

    def quick(self) -> "Plan":
        """The same with a few rounds: to see that everything runs, not to ship."""
        replace = msgspec.structs.replace
        return Plan(
            replace(self.forecaster, rounds=2, lanes=16, segment=1024, burn_in=32),
            replace(self.gan, rounds=60, regime_rounds=200, train_windows=20_000, calibration_windows=20_000),
            replace(
                self.generator, rounds=20, adversarial_rounds=1, critic_warm=1, train_windows=20_000, test_windows=500
            ),
            self.policy.quick(),
            seeds=1,
            folds=self.folds,
            device=self.device,
        )


def train_forecaster(dataset: data.Dataset, plan: Plan, seed: int, out: Path, announce: Announce) -> Path:
    """Bundle named as its kind: the seed that is best on validation ships; the card holds the spread of all.

    Seeds that an interrupted training has done are not trained again (training/checkpoints.py).
    """
    settings = plan.forecaster
    keep_champion(out, settings.kind)  # first, so that a folder that cannot be used costs no training
    tried = []
    for number in range(seed, seed + plan.seeds):
        told = announce(f"{settings.kind}, seed {number}")
        net, history = checkpoints.train(dataset, settings, number, out, told, plan.device)
        tried.append((min(history), net))
    order = sorted(range(len(tried)), key=lambda k: tried[k][0])
    reports, fits = [], []
    for k in order:
        fits.append(direction.calibrate(tried[k][1], dataset.series))
        content = export.to_onnx(tried[k][1], "forecaster")
        predicted = evaluation.forecasts(content, dataset.series, tried[k][1].state_width)
        reports.append(evaluation.evaluate(dataset.series, predicted))
    metrics: dict[str, Any] = {
        "log_odds_of_a_rise": {f"{h}s": one._asdict() for h, one in zip(HORIZONS, fits[0].scalings, strict=True)},
        "calibration_error_as_trained": evaluation.calibration_errors(dataset.series, fits[0].before),
        "validation_loss": [tried[k][0] for k in order],
        "qlike_not_below_ewma": evaluation.worse_than_ewma(reports[0]),
        "test": evaluation.summarise(reports),
    }
    if plan.folds:
        told = announce(f"{settings.kind}, walk-forward")
        metrics["walk_forward_loss"] = walk_forward.losses(dataset, settings, seed, plan.folds, told, plan.device)
    card = _card(
        dataset,
        "forecaster",
        settings.kind,
        list(FORECAST_COLUMNS),
        version=FORECASTER_VERSION,
        hidden_size=tried[order[0]][1].state_width,
        histograms=histograms.of(dataset),
        seeds=[seed + k for k in order],
        hyperparameters={
            name: value
            for name, value in data.describe(settings).items()
            if ONLY_FOR.get(name, settings.kind) == settings.kind
        },
        metrics=metrics,
        notes=FORECASTER_NOTES,
        libraries=libraries(plan.device),
    )
    written = export.write_bundle(tried[order[0]][1], card, out)
    checkpoints.remove(out, f"{settings.kind}-*")
    return written


def keep_champion(models: Path, kind: str) -> None:
    """Whoever is champion stays it when a forecaster of another name comes into the folder: see `stream.roles`."""
    held = roles.read(models)
    there = [read_card(file) for file in sorted(models.glob("*/*/card.json"))]
    ranked = roles.champions([card for card in there if card.family == "forecaster"], held)
    if not held.champion and ranked and ranked[0].name != kind and roles.rival(ranked[0], ranked) is None:
        roles.write(models, msgspec.structs.replace(held, champion=ranked[0].name))


FORECASTER_VERSION: Final = "3"  # 1 had no expected shortfall of its own, 2 no fit of the probability of a rise
FORECASTER_NOTES: Final = [
    "volatility is the root of the realised variance over the horizon: of the squared log returns of steps of one "
    "second. Where prices bounce between bid and ask it exceeds the standard deviation of the return over the "
    "horizon; the quantiles are those of that return.",
    "probability_up counts an unchanged price as half. Its log odds are stretched and shifted for each horizon "
    "(log_odds_of_a_rise) as fits the validation parts of all files together (Platt 1999); "
    "calibration_error_as_trained is the error on the test parts without that.",
    "Ticks are weighted so that every second in which an instrument trades counts the same; files are drawn by the "
    "root of their number of ticks.",
    "qlike is log s^2 + rv / s^2, lower is better, with variances of at least (0.1 bp)^2; qlike_ewma is RiskMetrics on "
    "the 1 s grid with the time constant that is best on the validation part of the same file. pinball is the sum "
    "over the five levels over the mean absolute return; pinball_normal_ewma scales normal quantiles by that EWMA. "
    "accuracy is over ticks after which the price differs; the calibration error of probability_up over all: its mean "
    "distance from the share of rises, in ten bins of as many ticks each.",
    "fissler_ziegel is the FZ0 loss of VaR and ES 97.5 % (Patton, Ziegel and Chen 2019, eq. 6), lower is better, with "
    "an ES of at least 0.1 bp: of the forecaster's own ES, and, with the same VaR, of the one that an exponential tail "
    "beyond its quantiles of 5 and 1 % has.",
    "walk_forward_loss, where it was asked for: a fold each, trained with the first seed; the validation loss of ticks "
    "behind the fold's training and validation, the test part never among them.",
    "qlike_not_below_ewma names the data sets and horizons on which the forecaster does not beat EWMA.",
    "Ticks follow each other closely and share their horizons, so these means are far less certain than the number "
    "of ticks suggests.",
]


def train_gan(dataset: data.Dataset, plan: Plan, seed: int, out: Path, announce: Announce) -> Path:
    """Bundles `wgan`, the critic, calibrated on normal ticks of the validation part, and `wgan-generator`: two GANs."""
    settings = plan.gan
    rng = np.random.default_rng(seed)
    windows = gan.sample_windows(dataset, data.TRAIN, settings.train_windows, rng)
    critic, adversary, distances = gan.train(
        forecaster.fit_normalise(dataset), windows, settings, seed, announce("gan"), plan.device
    )
    held_out = gan.sample_windows(dataset, data.VALIDATION, settings.calibration_windows, rng)
    table = Calibration(*gan.calibrate(gan.scores(critic, held_out)))
    test = gan.sample_windows(dataset, data.TEST, settings.calibration_windows, rng)
    metrics = {
        "wasserstein_distance": float(np.mean(distances[-50:])),
        "share_above_0.99": _shares(dataset, critic, test, table),
        "real_against_generated_auc": _against_generated(critic, adversary, _first(test, 20_000)),
    } | _detection(critic, windows, held_out, test, seed)
    card = _card(
        dataset,
        "critic",
        "wgan",
        ["critic_score"],
        version=CRITIC_VERSION,
        window=WINDOW,
        window_columns=list(WINDOW_COLUMNS),
        calibration=table,
        seeds=[seed],
        hyperparameters=data.describe(settings),
        metrics=metrics,
        notes=CRITIC_NOTES,
        libraries=libraries(plan.device),
    )
    export.write_bundle(critic, card, out)
    train_generator(dataset, plan, seed, out, announce)
    return out / card.name / card.version


def train_generator(dataset: data.Dataset, plan: Plan, seed: int, out: Path, announce: Announce) -> Path:
    """Bundle `wgan-generator`; `python -m training.generated` measures what its windows are worth."""
    settings = plan.generator
    rng = np.random.default_rng(seed)
    windows = gan.sample_windows(dataset, data.TRAIN, settings.train_windows, rng)
    trained = generator.train(
        forecaster.fit_normalise(dataset), windows, settings, seed, announce("generator"), plan.device
    )
    test = gan.sample_windows(dataset, data.TEST, settings.test_windows, rng)
    card = _card(
        dataset,
        "generator",
        "wgan-generator",
        list(WINDOW_COLUMNS),
        window=WINDOW,
        window_columns=list(WINDOW_COLUMNS),
        seeds=[seed],
        hyperparameters=data.describe(settings),
        metrics={
            "real_against_generated_auc": generator.against_drawn(trained, test, seed),
            "negative_log_likelihood": generator.likelihood(trained.generator, test),
            "wasserstein_distance": float(np.mean(trained.distances[-50:])),
        },
        notes=GENERATOR_NOTES,
        libraries=libraries(plan.device),
    )
    return export.write_bundle(
        generator.InDouble(trained.generator), msgspec.structs.replace(card, version=GENERATOR_VERSION), out
    )


GENERATOR_VERSION: Final = "3"  # 1 was the half of the critic's GAN; 2 was trained in two processes
GENERATOR_NOTES: Final = [
    "Noise and the recent scale of an instrument (variances, trade rates, spread and price impact among the features) "
    "-> the log return, log time gap and signed log size of each of 32 trades. No worker "
    "runs it.",
    "Trades are drawn one by one from distributions over bins, given the trades before: trained by likelihood on real "
    "windows, then against a Wasserstein critic of its own, the likelihood still in the loss. So it is a GAN by its "
    "second phase only; the critic that ships as wgan was trained apart, with another generator.",
    "The second phase was not seen to help: on 5,000 windows of the validation part the discriminative score was 0.046 "
    "and seven facts of ten in their bands after the first phase alone, 0.053 and three after a second one three times "
    "as fast (two seeds of the score).",
    "No return exceeds the largest of the training part, in volatilities of the instrument. In training, scales are "
    "varied, and windows mirrored, bought for sold.",
    "Windows know nothing of each other: what lasts longer than 32 trades is in the condition, which "
    "`tapewatch simulate --generator` lets follow a made volatility. Nor do they know the venue's steps of price and "
    "size; the simulator rounds prices to six digits.",
]

CRITIC_VERSION: Final = "2"  # 1 was trained by older code, with the same settings
CRITIC_NOTES: Final = [
    "Higher is more anomalous: the score is the negative of the Wasserstein critic, less its median in the regime, in "
    "units of the way from there to its 99 % quantile in the regime. The critic's anomaly is the score put through "
    "the calibration table, fitted on normal ticks of the validation part: on those 0.99 is exceeded by 1 %. What the "
    "worker publishes as anomaly is that, held to each instrument's own tape.",
    "Normal ticks are all but those from 10 min before to 2 h after an event that a file names.",
    "share_above_0.99 is measured per instrument on normal ticks of the test part; 0.01 is the aim.",
    "A share of the false windows in training are real ones with an injected fault (hyperparameter faults), of the "
    "same kinds that `detection` reports, but for wash, which it never saw. The isolation forest and the z-score saw "
    "no faults.",
]


def _score_at(table: Calibration, probability: float) -> float:
    return float(np.interp(probability, table.probability, table.score))


def _shares(dataset: data.Dataset, critic: gan.Critic, windows: gan.Windows, table: Calibration) -> dict[str, float]:
    """Share of each instrument's normal ticks whose anomaly exceeds 0.99, and of all."""
    above = gan.scores(critic, windows) > _score_at(table, 0.99)
    shares = {"all": float(above.mean())}
    for k, one in enumerate(dataset.series):
        mine = windows.series == k
        if mine.sum() >= 1000:  # fewer leave the share of 1 % with less than 10 ticks
            shares[one.symbol] = float(above[mine].mean())
    return shares


def _first(windows: gan.Windows, most: int) -> gan.Windows:
    rows = np.random.default_rng(0).permutation(len(windows.series))[:most]
    return gan.Windows(windows.features[rows], windows.window[rows], windows.series[rows])


def _detection(
    critic: gan.Critic, seen: gan.Windows, validation: gan.Windows, test: gan.Windows, seed: int
) -> dict[str, Any]:
    settings = detection.Settings()
    seen, validation, test = (_first(windows, settings.windows) for windows in (seen, validation, test))
    return detection.compare(critic, seen, validation, test, settings, seed)


def _against_generated(critic: gan.Critic, adversary: torch.nn.Module, windows: gan.Windows) -> float:
    with torch.no_grad():
        condition = critic.condition(windows.features)
        real = critic.judge(critic.standard(windows.features, windows.window), condition)
        fake = critic.judge(adversary(condition), condition)
    return gan.area_under_curve(fake.double().numpy(), real.double().numpy())


def train_policy(dataset: data.Dataset, plan: Plan, seed: int, out: Path, announce: Announce) -> Path:
    """Bundle `dqn` or `ppo`, whichever is best on validation, upon the champion among the forecasters in `out`.

    Raises
    ------
    TapewatchError
        If there is no forecaster in `out` yet, or too little to train on.
    """
    settings = plan.policy
    steps = all_steps(dataset, _champion(out), settings.market.latency_ticks)
    least = max(settings.q_learning.batch, settings.ppo.length + 1)
    if len(steps[data.TRAIN].executed) < least:
        raise TapewatchError(
            f"{len(steps[data.TRAIN].executed)} decisions (one a second) to train the policy on, {least} are needed"
        )
    found = selection.tries(
        forecaster.fit_normalise(dataset),
        steps[data.TRAIN],
        steps[data.VALIDATION],
        settings,
        seed,
        announce,
        plan.device,
    )
    best = found[0]
    name = selection.NAMES[best.algorithm]
    card = _card(
        dataset,
        "policy",
        name,
        [*(f"value_{c}" for c in ACTION_COLUMNS), *(f"reward_{c}" for c in ACTION_COLUMNS)],
        version=_version(out, name),
        seeds=[one.seed for one in found if one.algorithm == best.algorithm],
        hyperparameters=settings.describe(best.algorithm),
        metrics=selection.report(found, steps[data.TEST], settings, seed),
        notes=POLICY_NOTES,
        libraries=libraries(plan.device),
    )
    return export.write_bundle(best.net, card, out)


def _version(out: Path, name: str) -> str:
    """Version of a policy: ours, or above those of policies of other names in the folder, so that this one answers."""
    cards = [read_card(file) for file in sorted(out.glob("*/*/card.json"))]
    others = [int(card.version) for card in cards if card.family == "policy" and card.name != name]
    return str(max(POLICY_VERSION, 1 + max(others, default=0)))


POLICY_VERSION: Final = 3  # 1 was trained upon gru@1, 2 upon gru@2

POLICY_NOTES: Final = [
    "Decided once a second in which the instrument trades, executed one tick later, 2 bp fee and half the Roll spread "
    "for each unit of change. The reward is the profit after these costs less a penalty on the forecast ES for "
    "holding. The worker asks at every tick, and knows no drawdown limit of a session.",
    "test: basis points of one unit; turnover is units changed in 1,000 decisions. flat earns 0 by doing nothing: a "
    "policy that stays flat found nothing that earns its costs.",
    "sharpe is mean over standard deviation of the profit of a decision, after costs, not scaled to any other period; "
    "its 95 % interval is by the stationary bootstrap over 1,000 resamples. Instruments that trade at the same time "
    "stand one behind the other in it, so it is too narrow by what they have in common.",
    "deflated_sharpe is the probability that the true ratio exceeds what the best of so many tries shows by luck "
    "(Bailey and Lopez de Prado 2014); tries are the seeds of both algorithms, the plain ways to act, and the seeds of "
    "an earlier choice; the variance is that of the seeds.",
    "A first choice of risk_aversion, 0.01, held positions most of the time and lost 0.06 bp a decision on the test "
    "part (validation: +0.01); 0.1 was taken after that was seen, so the test part is not untouched by this choice.",
    "action_values count on from the decision, discounted; those of ppo tell only which action is better. rewards are "
    "the expected log return over 10 decisions after the cost of the change.",
]


def _champion(out: Path) -> Path:
    cards = [read_card(file) for file in sorted(out.glob("*/*/card.json"))]
    if not any(card.family == "forecaster" for card in cards):
        raise TapewatchError(f"the policy reads forecasts, and {out} holds none: train the forecaster first")
    front = in_front(out, "forecaster", cards)
    return out / front.name / front.version


def all_steps(dataset: data.Dataset, folder: Path, latency_ticks: int) -> dict[int, tape.Steps]:
    """The decisions of all series, part by part, upon the forecaster bundle in `folder`."""
    bundle = load_bundle(folder)
    predicted = evaluation.forecasts(bundle.graph.SerializeToString(), dataset.series, bundle.card.hidden_size)
    series = list(zip(dataset.series, predicted, strict=True))
    return {
        part: tape.join([tape.decisions(one, said.forecast, part, latency_ticks) for one, said in series])
        for part in (data.TRAIN, data.VALIDATION, data.TEST)
    }


def _card(
    dataset: data.Dataset,
    family: Family,
    name: str,
    outputs: list[str],
    version: str = "1",
    **rest: Any,
) -> Card:
    return Card(
        family=family,
        name=name,
        version=version,
        features=list(FEATURES),
        outputs=outputs,
        opset=OPSET,
        sha256="",
        normal=_normal(dataset),
        data=list(dataset.files),
        split=SPLIT,
        **rest,
    )


def _normal(dataset: data.Dataset) -> list[float]:
    """Median of each feature over the normal ticks of the training part."""
    rows = [one.features[(one.part == data.TRAIN) & ~one.warming & one.normal] for one in dataset.series]
    return [float(value) for value in np.median(np.concatenate(rows), axis=0)]
