"""`tapewatch train` and `tapewatch evaluate`: bundles and reports from files of ticks, with progress."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream import catalogue, inference
from stream.config import DEFAULT_MODELS, Cluster, load
from stream.errors import TapewatchError
from stream.feeds import topic as ticks_of_topic
from stream.help import Command
from training import augmentation, bundles, data, device, evaluation, forecaster, whole
from training.forecasters.contract import Kind
from training.samples import Forecasts

TRAINERS: Final[dict[str, whole.Trainer]] = {
    "forecaster": bundles.train_forecaster,
    "gan": bundles.train_gan,
    "policy": bundles.train_policy,
}


MOST_NS: Final = 2**63 - 1


def _time(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A time as ns since the Unix epoch; one without a zone is UTC."""
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time as 2026-01-31T09:30 or 2026-01-31T09:30:00+01:00") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1e6) * 1000


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("what", type=click.Choice([*TRAINERS, "all"]))
@click.argument("files", nargs=-1, metavar="[DATA]...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_MODELS,
    metavar="DIR",
    help="Folder for the bundles.  [default: the models that ship]",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="First seed.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    help="How many, of the policy of each algorithm; the best on validation data ships.  [default: 3, policy 10]",
)
@click.option(
    "--kind",
    type=click.Choice(list(forecaster.KINDS)),
    help="Kind of forecaster: recurrent (gru, lstm), convolutional (cnn), or of a window (mlp).  [default: gru]",
)
@click.option(
    "--folds",
    type=click.IntRange(0, 20),
    default=0,
    show_default=True,
    help="Folds of a walk-forward cross-validation of the forecaster, each a training more.",
)
@click.option("--from-kafka", "topic", metavar="TOPIC", help="Train on the ticks of a topic, kept as a file in --out.")
@click.option("--broker", metavar="HOST:PORT", help="Kafka broker for --from-kafka; else that of the settings.")
@click.option(
    "--since", metavar="TIME", callback=_time, help="First time of ticks from Kafka, UTC, as 2026-01-31T09:30."
)
@click.option("--until", metavar="TIME", callback=_time, help="Time that ticks from Kafka must be before.")
@click.option(
    "--device",
    "on",
    type=click.Choice(device.WANTED),
    default="auto",
    show_default=True,
    help="Where networks are trained: auto is cuda, an NVIDIA GPU, where there is one, else cpu.",
)
@click.option("--quick", is_flag=True, help="A few rounds, to see that all runs; the models are poor.")
@click.pass_context
def train(
    context: click.Context,
    what: str,
    files: tuple[Path, ...],
    out: Path,
    seed: int,
    seeds: int | None,
    kind: Kind | None,
    folds: int,
    topic: str | None,
    broker: str | None,
    since: int | None,
    until: int | None,
    on: device.Wanted,
    quick: bool,
) -> None:
    """Train a forecaster, the GAN's critic and generator, the policy (upon the champion among the forecasters in DIR),
    or all: every kind of forecaster, the champion chosen by validation loss, then critic, generator and policy.

    DATA are Parquet or CSV files of ticks, or folders of Parquet files; without any, ../shared/data beside the
    project, or the bundled samples. One processor core is used, and a GPU where there is one. What was interrupted goes
    on where it was when it is called again with the same settings and data.
    """
    torch.set_num_threads(1)  # the same sums on every machine, and the small products gain nothing from more
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if kind is not None and what != "forecaster":
        raise click.UsageError(f"--kind is for `train forecaster`: {what} takes no kind, and all trains every one")
    if topic is None and (since, until) != (None, None):
        raise click.UsageError("--since and --until are for --from-kafka: files are taken whole")
    chosen = device.choose(on)
    if chosen != "cpu":
        say(f"trained on the {device.name(chosen)}")
    if topic is not None:
        cluster = load(context.obj, overrides={"broker": broker}).cluster
        files = (*files, _from_kafka(cluster, topic, since or 0, MOST_NS if until is None else until, out, say))
    paths = data.files_of(files)
    dataset = data.load(paths, say)

    def plan(of: Kind) -> bundles.Plan:
        full = msgspec.structs.replace(bundles.Plan().with_kind(of), folds=folds, device=chosen)
        full = full.quick() if quick else full
        return full.with_seeds(seeds) if seeds else full

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        announce = _announcer(progress)
        if what == "all":
            forecasters = [whole.Part(of, bundles.train_forecaster, plan(of)) for of in forecaster.KINDS]
            rest = [whole.Part(name, TRAINERS[name], plan("gru")) for name in ("gan", "policy")]
            written = whole.train(forecasters, rest, dataset, seed, out, announce)
            if not quick:
                on_device = partial(augmentation.add, settings=augmentation.Settings(), device=chosen)
                whole.measure(paths, out, announce, whole.MEASURES | {augmentation.METRIC: on_device})
        else:
            written = [TRAINERS[what](dataset, plan(kind or "gru"), seed, out, announce)]
    for folder in written:
        click.echo(folder)


def _from_kafka(cluster: Cluster, topic: str, since: int, until: int, out: Path, say: Callable[[str], None]) -> Path:
    file = out / f"{topic}.parquet"
    saved = ticks_of_topic.save(cluster, topic, since, until, file)
    say(
        f"topic {topic}: {saved.kept:,} ticks kept in {file}, {saved.outside:,} outside the range of time, "
        f"{saved.refused:,} messages are no ticks"
    )
    return file


def _announcer(progress: Progress) -> bundles.Announce:
    def announce(name: str) -> forecaster.Progress:
        task = progress.add_task(name, total=None, note="")
        return lambda done, of, note: progress.update(task, completed=done, total=of, note=note)

    return announce


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("paths", nargs=-1, required=True, metavar="[MODELS] DATA...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder for the reports, one folder a file.",
)
def evaluate(paths: tuple[Path, ...], out: Path) -> None:
    """Compare the forecasters in MODELS and plain baselines on the test part of each file of DATA.

    MODELS is a folder of bundles, or one forecaster's bundle; without it the models that ship. The champion is compared
    with all others, and its quantiles, VaR and ES are tested. DATA are Parquet or CSV files of ticks, or folders of
    Parquet files. Writes report.md, report.json and plots, and README.md about all files of the run. One processor core
    is used.
    """
    from training import comparison, report  # they load scipy and matplotlib, which training alone does not need

    models, given = _models_and_data(paths)
    console = Console(stderr=True)
    forecasters = _forecasters(models)
    files = data.files_of(given)
    _refuse_same_names(files)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    done = []
    for file in files:
        dataset = data.load([file], say)
        with console.status("forecasts") as status:
            compared = comparison.compare(dataset, _forecasts(forecasters, dataset), status.update)
            written = report.write(compared, out / file.stem)
        for line in report.summary(compared):
            say(f"  {line}")
        click.echo(written[0])
        done.append(compared)
    (out / "README.md").write_text(report.overview(done), encoding="utf-8")


def _forecasts(forecasters: list[inference.Bundle], dataset: data.Dataset) -> Forecasts:
    return {
        inference.named(one.card): evaluation.forecasts(
            one.graph.SerializeToString(), dataset.series, one.card.hidden_size
        )
        for one in forecasters
    }


def _models_and_data(paths: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
    """The first path is MODELS if it holds bundles or is one."""
    first = paths[0]
    if (first / "card.json").is_file() or any(first.glob("*/*/card.json")):
        if len(paths) == 1:
            raise TapewatchError(f"{first} holds models: name the files of ticks to evaluate them on, after it")
        return first, paths[1:]
    return Path(DEFAULT_MODELS), paths


def _forecasters(models: Path) -> list[inference.Bundle]:
    """The forecasters in a folder of bundles, the champion first and each name at its newest version; or one bundle."""
    if (models / "card.json").is_file():
        folders = [models]
    else:
        cards = [entry.card for entry in catalogue.entries(models)]
        if not any(card.family == "forecaster" for card in cards):
            raise TapewatchError(f"{models} holds no forecaster: train one, or name another folder")
        front = inference.in_front(models, "forecaster", cards)
        newest = {card.name: card for card in cards if card.family == "forecaster"}  # entries are sorted by version
        folders = [models / card.name / card.version for card in (front, *(c for c in newest.values() if c != front))]
    loaded = [inference.load_bundle(folder) for folder in folders]
    for folder, card, _ in loaded:
        if card.family != "forecaster":
            raise TapewatchError(f"{folder} is a {card.family}: only forecasters can be evaluated")
    return loaded


def _refuse_same_names(files: list[Path]) -> None:
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise TapewatchError(f"two files are named {stem}: their reports would be one; evaluate them one by one")
    if not files:
        raise TapewatchError("no file of ticks to evaluate on: the folder holds none")
