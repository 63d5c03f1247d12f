"""CARD.md and calibration.svg of a bundle, made from its card.json alone.

`python -m training.cards` writes those of the models that ship again; export.write_bundle writes them with a bundle.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from stream.config import DEFAULT_MODELS
from stream.inference import Card, read_card

PURPOSE: Final = {
    "forecaster": "Answers every tick with the expected log return, the volatility, the probability that the price "
    "rises, five quantiles of the log return and its expected shortfall, each over the next 10 s and 60 s. The worker "
    "makes VaR 99 % and ES 97.5 % of them, once they follow the exceptions of the instrument at hand; what this card "
    "says of them is before that. It is meant to tell how much a price may move, not where to.",
    "critic": "Answers every tick with a score of the last 32 trades; the table in the card turns it into the "
    "share of normal ticks that score less. The worker's alerts of an anomaly go by that; its `anomaly` is the same, "
    "held to each instrument's own tape. It is meant to draw a human's eye to a tape that behaves as it seldom "
    "does; it does not say why, and an anomaly is no proof of misconduct.",
    "generator": "Makes windows of 32 trades that do not exist, from noise and the recent scale of an instrument: "
    "synthetic "
    "ticks for load and stress, by `tapewatch simulate --generator`. It answers no tick, and knows of no news, no "
    "book and "
    "no instrument but by its scale.",
    "policy": "Answers every tick with the value and the expected reward of being short, flat or long, for each "
    "position held. It is a second opinion for a desk that has rules of its own; nothing trades by it.",
}
SHARE_WANTED: Final = (0.005, 0.02)  # where 1 % is promised: half to twice as much passes
PUBLISHED: Final = "published_share_above_0.99"
MISCALIBRATED: Final = 0.1
"""A larger calibration error of the probability of a rise is listed among what fails."""
WORSE_CALIBRATED: Final = 0.01
"""A calibration error that its fit raised by more is listed among what fails."""
TOO_SELDOM: Final = 0.5
"""A fault found less often than this is listed among what fails."""


def write(folder: Path) -> list[Path]:
    """CARD.md and, where the card holds a calibration, calibration.svg beside card.json."""
    card = read_card(folder / "card.json")
    (folder / "CARD.md").write_text(markdown(card), encoding="utf-8")
    written = [folder / "CARD.md"]
    picture = svg(card)
    if picture:
        (folder / "calibration.svg").write_text(picture, encoding="utf-8")
        written.append(folder / "calibration.svg")
    return written


def markdown(card: Card) -> str:
    """The card for people."""
    measured, fails = _FAMILY[card.family]
    failures = list(fails(card))
    parts = [
        f"# {card.name}@{card.version}",
        f"A {card.family}. Made from card.json by `python -m training.cards`; do not edit.",
        "## What it is for",
        PURPOSE[card.family],
        "## How it does",
        *measured(card),
        "## Where it fails",
        "\n".join(f"- {line}" for line in failures) if failures else "Nothing measured for this card says so.",
        *(["## Calibration", _CAPTION[card.family]] if svg(card) else []),
        "## Data",
        _table(
            ("file", "rows", "instruments", "training from", "validation from", "test from", "to (UTC)"), _data(card)
        ),
        f"Split {card.split}.",
        "## Training",
        _table(("", ""), _training(card)),
        "## Notes",
        "\n".join(f"- {note}" for note in card.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _data(card: Card) -> list[list[str]]:
    return [
        [
            file.name,
            f"{file.rows:,}",
            ", ".join(file.symbols),
            *(_utc(ns) for ns in (file.first_ns, file.validation_ns, file.test_ns, file.last_ns)),
        ]
        for file in card.data
    ]


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def _training(card: Card) -> list[list[str]]:
    return [
        ["seeds, best on validation first", ", ".join(map(str, card.seeds))],
        ["hyperparameters", ", ".join(f"{key} {value}" for key, value in card.hyperparameters.items())],
        ["ONNX against PyTorch", f"differs by at most {card.metrics.get('onnx_against_pytorch', float('nan')):.1e}"],
        ["ONNX opset", str(card.opset)],
        ["sha256 of model.onnx", card.sha256],
        ["git commit", card.git_commit],
        ["libraries", ", ".join(f"{name} {version}" for name, version in card.libraries.items())],
    ]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shipped(value: Any) -> float:
    return float(value["shipped"] if isinstance(value, dict) else value)


def _spread(value: Any, digits: str = ".4f") -> str:
    """The shipped seed, and in brackets mean and standard deviation over the seeds."""
    if not isinstance(value, dict):
        return format(value, digits)
    return f"{value['shipped']:{digits}} ({value['mean']:{digits}} ± {value['sd']:{digits}})"


def _horizons(card: Card) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file, horizons in card.metrics.get("test", {}).items():
        for horizon, numbers in horizons.items():
            yield file, horizon, numbers


def _forecaster(card: Card) -> Iterator[str]:
    yield (
        "On the test part of each file, beside plain baselines. The first number is of the seed that ships, in "
        f"brackets mean and standard deviation over {len(card.seeds)} seeds. Lower is better for QLIKE and pinball. "
        "Bold is the better of the two. A fuller comparison, with HAR, GARCH and gradient boosting, is what "
        "`tapewatch evaluate` writes; see docs/models."
    )
    rows = [
        [
            *(file, horizon, f"{n['ticks']:,}"),
            *_better(n["qlike"], n["qlike_ewma"]),
            f"{n['qlike_last_value']:.4g}",
            *_better(n["pinball"], n["pinball_normal_ewma"]),
            f"{_spread(n['accuracy'], '.3f')} / {n['accuracy_majority']:.3f}",
            _calibrated(card, file, horizon, n["calibration_error"]),
        ]
        for file, horizon, n in _horizons(card)
    ]
    head = (
        *("file", "horizon", "ticks", "QLIKE", "EWMA's", "last value's", "pinball", "EWMA's"),
        *("accuracy / majority", "calibration error / before its fit"),
    )
    yield _table(head, rows)
    yield (
        "Expected shortfall: FZ0 of VaR and ES 97.5 % (Patton, Ziegel and Chen 2019), lower is better, of the "
        "forecaster's own ES, and of the one that an exponential tail beyond its quantiles of 5 and 1 % has, with the "
        "same VaR."
    )
    tails = [
        [file, horizon, *_better(n["fissler_ziegel"], n["fissler_ziegel_exponential_tail"])]
        for file, horizon, n in _horizons(card)
    ]
    yield _table(("file", "horizon", "FZ0", "exponential tail's"), tails)


def _before_the_fit(card: Card, file: str, horizon: str) -> float | None:
    before: float | None = card.metrics.get("calibration_error_as_trained", {}).get(file, {}).get(horizon)
    return before


def _calibrated(card: Card, file: str, horizon: str, error: Any) -> str:
    before = _before_the_fit(card, file, horizon)
    return _spread(error, ".3f") + (f" / {before:.3f}" if before is not None else "")


def _better(ours: Any, other: Any) -> tuple[str, str]:
    """Both as text, the lower one bold."""
    mine, theirs = _spread(ours), _spread(other)
    return (f"**{mine}**", theirs) if _shipped(ours) < _shipped(other) else (mine, f"**{theirs}**")


def _forecaster_fails(card: Card) -> Iterator[str]:
    for file, horizon, n in _horizons(card):
        where = f"{file}, {horizon}"
        if _shipped(n["qlike"]) >= n["qlike_ewma"]:
            yield f"{where}: QLIKE {_shipped(n['qlike']):.4f} is not below EWMA's {n['qlike_ewma']:.4f}."
        if _shipped(n["pinball"]) >= n["pinball_normal_ewma"]:
            yield f"{where}: pinball {_shipped(n['pinball']):.4f} is not below {n['pinball_normal_ewma']:.4f}, EWMA's."
        own, exponential = _shipped(n["fissler_ziegel"]), _shipped(n["fissler_ziegel_exponential_tail"])
        if own >= exponential:
            yield f"{where}: FZ0 of its ES, {own:.4f}, is not below {exponential:.4f}, that of an exponential tail."
        if _shipped(n["accuracy"]) <= n["accuracy_majority"]:
            yield (
                f"{where}: direction right in {_shipped(n['accuracy']):.1%}, always saying the more frequent one in "
                f"{n['accuracy_majority']:.1%}."
            )
        off = _shipped(n.get("calibration_error", 0.0))
        if off > MISCALIBRATED:
            yield f"{where}: probabilities of a rise are off by {off:.3f} on average."
        before = _before_the_fit(card, file, horizon)
        if before is not None and off > before + WORSE_CALIBRATED:
            yield f"{where}: the calibration of the probability of a rise made its error {off:.3f} of {before:.3f}."
        low = _shipped(n["coverage"]["0.01"])
        if not SHARE_WANTED[0] <= low <= SHARE_WANTED[1]:
            yield f"{where}: {low:.2%} of returns are below the 1 % quantile, so VaR 99 % is off there."


def _critic(card: Card) -> Iterator[str]:
    m = card.metrics
    yield from _faults(m)
    yield f"Real against generated windows: AUC {m['real_against_generated_auc']:.3f}; 0.5 is a perfect generator."
    explained = m.get("occlusion_against_integrated_gradients")
    if explained:
        yield (
            f"The reasons of its alerts, by occlusion, against integrated gradients in PyTorch "
            f"(`python -m training.attribution`), on {explained['ticks']:,} ticks of the test part with an anomaly "
            f"of 0.95 or "
            f"more: rank correlation over the features {explained['rank_correlation_median']:.2f} (median; mean "
            f"{explained['rank_correlation_mean']:.2f}, lowest tenth below "
            f"{explained['rank_correlation_lowest_tenth']:.2f}), "
            f"the same first reason in {explained['same_first_reason']:.0%}, {explained['shared_of_first_five']:.1f} "
            f"of the "
            "first five reasons in common."
        )
    yield from _rarity(m)


def _rarity(metrics: dict[str, Any]) -> Iterator[str]:
    as_trained, published = metrics["share_above_0.99"], metrics.get(PUBLISHED)
    if not published:
        yield "Normal ticks of the test part above 0.99; 1 % is the aim:"
        yield _table(("instrument", "share"), [[name, f"{share:.2%}"] for name, share in as_trained.items()])
        return
    yield (
        "Normal ticks of the test part above 0.99; 1 % is the aim. As trained is by the card's table, on a sample of "
        "the ticks; as published by the worker, which holds each instrument to its own tape (`python -m "
        "training.rarity`), on all of them:"
    )
    yield _table(
        ("instrument", "as trained", "as published"),
        [
            [name, f"{as_trained[name]:.2%}" if name in as_trained else "", f"{share:.2%}"]
            for name, share in published.items()
        ],
    )


def _faults(metrics: dict[str, Any]) -> Iterator[str]:
    detectors = list(metrics["false_alarms"])
    yield (
        f"Faults injected into {metrics['detection_windows']:,} real windows of the test part (`python -m "
        f"training.detection`), by the critic and by what it is held against, on the same windows: AUC (0.5 is "
        f"guessing), precision and recall. Each alerts above its own 99 % quantile on normal windows of the validation "
        f"part; half of the windows are faulty. The best AUC is bold."
    )
    rows = []
    for fault, of in metrics["detection"].items():
        best = max(n["auc"] for n in of.values())
        rows.append([fault.replace("_", " "), *(_detected(of[name], best) for name in detectors)])
    yield _table(("fault", *(name.replace("_", " ") for name in detectors)), rows)
    false_alarms = ", ".join(f"{name.replace('_', ' ')} {n:.2%}" for name, n in metrics["false_alarms"].items())
    yield f"Share of the normal windows of the test part that exceed the threshold: {false_alarms}."


def _detected(n: dict[str, float], best: float) -> str:
    area = f"**{n['auc']:.3f}**" if n["auc"] == best else f"{n['auc']:.3f}"
    return f"{area}, {n['precision']:.1%}, {n['recall']:.1%}"


def _critic_fails(card: Card) -> Iterator[str]:
    for name, share in card.metrics.get(PUBLISHED, card.metrics["share_above_0.99"]).items():
        if not SHARE_WANTED[0] <= share <= SHARE_WANTED[1]:
            wanted = f"{SHARE_WANTED[0]:.1%} to {SHARE_WANTED[1]:.0%}"
            yield f"{name}: {share:.2%} of normal ticks exceed 0.99, wanted {wanted}."
    for fault, of in card.metrics["detection"].items():
        name, ours = fault.replace("_", " "), of["critic"]
        if ours["recall"] < TOO_SELDOM:
            yield f"{name}: found in {ours['recall']:.1%} of the cases only."
        for other, n in of.items():
            if n["auc"] > ours["auc"]:
                yield f"{name}: AUC {ours['auc']:.3f}, below {n['auc']:.3f} of the {other.replace('_', ' ')}."
    if len(card.seeds) < 2:
        yield "Trained with one seed, so nobody knows how much of this is luck."


_POLICY: Final = {
    "mean_reward": ("reward a decision", ".5f"),
    "profit": ("profit", ",.1f"),
    "turnover": ("turnover, 1,000 decisions", ".3f"),
    "drawdown": ("drawdown", ",.1f"),
    "share_flat": ("share flat", ".4f"),
    "sharpe": ("Sharpe ratio a decision", ".5f"),
}
LEAST_DEFLATED: Final = 0.95


def _policy(card: Card) -> Iterator[str]:
    m, ways = card.metrics, card.metrics["test"]
    learned = m["validation_mean_reward"] if "tries" in m else {}
    seeds = max(map(len, learned.values()), default=len(card.seeds))
    yield (
        f"On the test part, basis points of one unit after costs; in brackets mean and standard deviation over "
        f"{seeds} seeds, before them the seed that is best on validation. Flat earns 0 by doing nothing."
    )
    columns = [name for name in _POLICY if all(name in numbers for numbers in ways.values())]
    rows = [
        [way.replace("_", " "), *(_spread(numbers[name], _POLICY[name][1]) for name in columns)]
        for way, numbers in ways.items()
    ]
    yield _table(("way to act", *(_POLICY[name][0] for name in columns)), rows)
    if "tries" not in m:
        return
    yield (
        f"How sure the Sharpe ratios are. Deflated: the probability that the true ratio is above "
        f"{m['luckiest_sharpe']:.5f}, what the best of {m['tries']} tries shows by luck (Bailey and Lopez de Prado "
        "2014); 0.95 is usually asked for."
    )
    certainty = [
        [
            way.replace("_", " "),
            f"{_shipped(numbers['sharpe']):.5f}",
            f"{numbers['sharpe_low']:.5f} to {numbers['sharpe_high']:.5f}",
            f"{numbers['deflated_sharpe']:.3f}",
        ]
        for way, numbers in ways.items()
    ]
    yield _table(("way to act", "Sharpe ratio a decision", "95 % interval", "deflated"), certainty)
    chosen = [
        f"{way.replace('_', ' ')} {', '.join(f'{reward:.5f}' for reward in rewards)}"
        for way, rewards in learned.items()
    ]
    yield f"Reward a decision on the validation part, by which the choice was made: {'; '.join(chosen)}."
    if "newcomer" in m:
        new, ours = m["newcomer"], m["way"]
        yield (
            f"The best newcomer on validation, of {new['way'].replace('_', ' ')}, earned {new['difference']:.5f} bp a "
            f"decision more there than {ours}; the Sharpe ratio of the difference lies with 95 % between "
            f"{new['sharpe_low']:.5f} and {new['sharpe_high']:.5f}. They are not told apart, so {ours} stays."
        )


def _policy_fails(card: Card) -> Iterator[str]:
    ours = card.metrics["test"][card.metrics.get("way", "q_learning")]
    reward = ours["mean_reward"]
    if isinstance(reward, dict) and reward["mean"] <= 2.0 * reward["sd"]:
        yield (
            f"Its reward, {reward['mean']:.5f} bp a decision over the seeds, is within two deviations "
            f"({reward['sd']:.5f}) of 0 or below: it cannot be told apart from doing nothing."
        )
    profit = _shipped(ours["profit"])
    if profit < 0.0:
        yield f"It lost {-profit:.1f} bp of one unit on the test part, in {card.metrics['decisions']:,} decisions."
    if ours.get("deflated_sharpe", 1.0) < LEAST_DEFLATED:
        yield (
            f"Its Sharpe ratio, {_shipped(ours['sharpe']):.5f} a decision, lies with 95 % between "
            f"{ours['sharpe_low']:.5f} and {ours['sharpe_high']:.5f}; that it is more than the luck of "
            f"{card.metrics['tries']} tries has a probability of {ours['deflated_sharpe']:.3f}."
        )
    sure = {way: n["deflated_sharpe"] for way, n in card.metrics["test"].items() if "deflated_sharpe" in n}
    best = max(sure, key=sure.__getitem__, default="")
    if best and sure[best] < LEAST_DEFLATED:
        yield (
            "Nothing that was tried is known to earn its costs: the largest deflated Sharpe ratio is "
            f"{sure[best]:.3f}, of {best.replace('_', ' ')}, where {LEAST_DEFLATED:.2f} is asked for."
        )
    if _shipped(ours["share_flat"]) > 0.99:
        flat = f"{_shipped(ours['share_flat']):.2%}"
        yield f"It is flat in {flat} of its decisions: it found next to nothing that earns its costs."


def _generator(card: Card) -> Iterator[str]:
    yield (
        f"Critic of the same training on real against generated windows: AUC {_auc(card):.3f}; 0.5 is a perfect "
        f"generator."
    )
    scores = card.metrics.get("scores", {})
    if scores:
        yield (
            "Networks of their own on windows of the test part, after TimeGAN (Yoon 2019), mean and standard "
            "deviation over "
            "seeds. Discriminative: accuracy above one half at telling real from generated windows. Predictive: mean "
            "absolute "
            "error at the next trade, in standard deviations, of a network that was trained on generated windows, "
            "and of one "
            "that was trained on real ones."
        )
        rows = [[name.replace("_", " "), f"{n['mean']:.3f} ± {n['sd']:.3f}"] for name, n in scores.items()]
        yield _table(("score", "value"), rows)
    facts = card.metrics.get("stylised_facts", {})
    if facts:
        yield (
            "Stylised facts (Cont 2001) within windows of the test part: of real ones with the 95 % band of a "
            "bootstrap over windows, of generated ones at the same conditions, and of real ones of the training part, "
            "from which it learnt: what those miss no generator can be blamed for. Bold is inside the band."
        )
        sources = ("generated", "learnt")
        yield _table(
            ("fact", "real", "band", "generated", "real, training part"),
            [
                [
                    name.replace("_", " "),
                    f"{n['real']:.3f}",
                    f"{n['low']:.3f} to {n['high']:.3f}",
                    *(f"**{n[of]:.3f}**" if _inside(n, of) else f"{n[of]:.3f}" for of in sources),
                ]
                for name, n in facts.items()
            ],
        )
        ours, theirs = (sum(_inside(n, of) for n in facts.values()) for of in sources)
        yield f"Inside: {ours} of {len(facts)} generated, {theirs} of {len(facts)} real ones of the training part."

    if "augmentation" in card.metrics:
        yield from _augmentation(card.metrics["augmentation"])


def _inside(fact: dict[str, float], of: str) -> bool:
    return fact["low"] <= fact[of] <= fact["high"]


def _augmentation(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"As augmentation (`python -m training.augmentation`): the forecaster trained on real ticks alone, and with "
        f"generated ones in a share of its lanes, {found['seeds']} seeds each, {found['updates']} updates of "
        f"{found['lanes']} lanes, all else the same; measured on {found['test_lanes']} stretches of the test part. "
        f"Mean and standard deviation over the seeds; lower is better. The difference is to no generated lanes, paired "
        f"by seed, with its 95 % interval over the seeds. The generator learnt from every training tick, "
        f"also where the forecaster gets the last of them only."
    )
    rows = [
        [
            *(_kept(kept), f"{found['ticks'][kept]['real']:,}", f"{float(share):.0%}"),
            *(f"{n[name]['mean']:.4f} ± {n[name]['sd']:.4f}" for name in ("loss", "qlike", "pinball")),
            *(_difference(n["loss"]), _effect(n["loss"])),
        ]
        for kept, by_share in found["trained"].items()
        for share, n in by_share.items()
    ]
    head = ("trained on", "real ticks", "generated lanes", "loss", "QLIKE", "pinball", "difference of loss", "verdict")
    yield _table(head, rows)
    yield augmentation_in_words(found["trained"])


def _kept(kept: str) -> str:
    return "all training ticks" if float(kept) == 1.0 else f"the last {float(kept):.0%} of the training ticks"


def _difference(loss: dict[str, float]) -> str:
    return f"{loss['difference']:+.4f} ({loss['low']:+.4f} to {loss['high']:+.4f})" if "difference" in loss else ""


def _effect(loss: dict[str, float]) -> str:
    """A word of what generated lanes do; none where there are none."""
    if "difference" not in loss:
        return ""
    return "helps" if loss["high"] < 0.0 else "harms" if loss["low"] > 0.0 else "is not told apart"


def augmentation_in_words(trained: dict[str, Any]) -> str:
    """Whether generated lanes help, by how much, and how far seeds lie apart without them."""
    found: dict[str, list[str]] = {"": [], "helps": [], "harms": [], "is not told apart": []}
    for kept, by_share in trained.items():
        apart = by_share["0"]["loss"]["sd"]
        for share, n in by_share.items():
            by = f"{n['loss'].get('difference', 0.0):+.4f}, where seeds deviate by {apart:.4f}"
            found[_effect(n["loss"])].append(f"{float(share):.0%} of the lanes with {_kept(kept)} ({by})")
    lines = [f"It helps: {'; '.join(found['helps'])}." if found["helps"] else "It does not help."]
    for effect, words in (("harms", "It harms"), ("is not told apart", "Not told apart from none")):
        if found[effect]:
            lines.append(f"{words}: {'; '.join(found[effect])}.")
    return " ".join(lines)


def _auc(card: Card) -> float:
    return float(card.metrics["real_against_generated_auc"])


DISCRIMINATIVE_WANTED: Final = 0.10


def _generator_fails(card: Card) -> Iterator[str]:
    scores = card.metrics.get("scores", {})
    if scores and scores["discriminative"]["mean"] > DISCRIMINATIVE_WANTED:
        yield (
            f"A network tells its windows from real ones: discriminative score "
            f"{scores['discriminative']['mean']:.3f}, wanted "
            f"at most {DISCRIMINATIVE_WANTED:.2f}."
        )
    for name, n in card.metrics.get("stylised_facts", {}).items():
        if not _inside(n, "generated"):
            yield (
                f"{name.replace('_', ' ')}: {n['generated']:.3f}, outside the band of real windows, {n['low']:.3f} to "
                f"{n['high']:.3f}{'' if _inside(n, 'learnt') else ', as those of the training part are'}."
            )
    trained = card.metrics.get("augmentation", {}).get("trained", {})
    if trained and not any(_effect(n["loss"]) == "helps" for by_share in trained.values() for n in by_share.values()):
        yield "Its ticks among those that a forecaster is trained on do not lower that one's loss on held-out ticks."
    if len(card.seeds) < 2:
        yield "Trained with one seed, so nobody knows how much of this is luck."


_FAMILY: Final[dict[str, tuple[Callable[[Card], Iterator[str]], Callable[[Card], Iterator[str]]]]] = {
    "forecaster": (_forecaster, _forecaster_fails),
    "critic": (_critic, _critic_fails),
    "policy": (_policy, _policy_fails),
    "generator": (_generator, _generator_fails),
}
_CAPTION: Final = {
    "forecaster": "![Calibration](calibration.svg)\n\nA column a file and horizon: the share of test returns below the "
    "quantile less what was promised, in percentage points, for 1, 5, 50, 95 and 99 %.",
    "critic": "![Calibration](calibration.svg)\n\nThe table of the card: score to the share of normal ticks below it, "
    "from the validation part.",
}

WIDTH: Final = 640
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 20, 60
BLUES: Final = ("#08306b", "#2171b5", "#6baed6", "#fd8d3c", "#a63603")


def svg(card: Card) -> str:
    """Calibration as a picture; empty where the card holds none."""
    if card.family == "forecaster" and card.metrics.get("test"):
        return _coverage_picture(card)
    return _table_picture(card) if card.calibration else ""


def _coverage_picture(card: Card) -> str:
    columns = [
        (f"{file.removesuffix('.parquet')} {horizon}", {level: _shipped(v) for level, v in n["coverage"].items()})
        for file, horizon, n in _horizons(card)
    ]
    most = max(abs(share - float(level)) for _, c in columns for level, share in c.items()) * 100.0
    most = max(most, 1.0)
    step = (WIDTH - LEFT - RIGHT) / len(columns)
    shapes = [_line(LEFT, _middle(), WIDTH - RIGHT, _middle())]
    for number, (name, shares) in enumerate(columns):
        for k, (level, share) in enumerate(shares.items()):
            x = LEFT + step * (number + 0.2 + 0.15 * k)
            y = _middle() - 100.0 * (share - float(level)) / most * (_middle() - TOP)
            shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{BLUES[k % len(BLUES)]}"/>')
        shapes.append(_text(LEFT + step * (number + 0.5), HEIGHT - BOTTOM + 12, name, turn=20))
    for share in (-most, 0.0, most):
        y = _middle() - share / most * (_middle() - TOP)
        shapes.append(_text(LEFT - 6, y + 3, f"{share:+.1f}", anchor="end"))
    levels = list(columns[0][1])
    for k, level in enumerate(levels):
        shapes.append(_text(LEFT + 60.0 * k + 20, 12, f"{float(level):.0%}", colour=BLUES[k % len(BLUES)]))
    return _picture(shapes)


def _table_picture(card: Card) -> str:
    assert card.calibration is not None
    score, probability = card.calibration.score, card.calibration.probability
    low, high = score[0], score[-1]

    def at(s: float, p: float) -> str:
        x = LEFT + (s - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return f"{x:.1f},{HEIGHT - BOTTOM - p * (HEIGHT - BOTTOM - TOP):.1f}"

    points = " ".join(at(s, p) for s, p in zip(score, probability, strict=True))
    shapes = [
        _line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM),
        _line(LEFT, TOP, LEFT, HEIGHT - BOTTOM),
        f'<polyline points="{points}" fill="none" stroke="{BLUES[1]}" stroke-width="2"/>',
        *(_text(LEFT - 6, HEIGHT - BOTTOM - p * (HEIGHT - BOTTOM - TOP) + 3, f"{p:g}", "end") for p in (0.0, 0.5, 1.0)),
        _text(LEFT, HEIGHT - BOTTOM + 16, f"{low:.2f}"),
        _text(WIDTH - RIGHT, HEIGHT - BOTTOM + 16, f"{high:.2f}", anchor="end"),
        _text((LEFT + WIDTH) / 2, HEIGHT - BOTTOM + 36, "score", anchor="middle"),
    ]
    return _picture(shapes)


def _middle() -> float:
    return (TOP + HEIGHT - BOTTOM) / 2


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#888"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", turn: int = 0, colour: str = "#444") -> str:
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{turned}>{text}</text>'


def _picture(shapes: list[str]) -> str:
    style = 'font-family="sans-serif" font-size="9"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>'
    return "\n".join((head, '<rect width="100%" height="100%" fill="white"/>', *shapes, "</svg>")) + "\n"


def main(models: Path = Path(DEFAULT_MODELS)) -> None:
    """Write the cards of all bundles in a folder."""
    for file in sorted(models.glob("*/*/card.json")):
        for path in write(file.parent):
            print(path.relative_to(models))


if __name__ == "__main__":
    main()
