"""`tapewatch train`: bundles from files of ticks, with progress."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stream.config import DEFAULT_MODELS
from training import bundles, data

Trainer = Callable[[data.Dataset, bundles.Plan, int, Path, bundles.Announce], Path]
TRAINERS: Final[dict[str, Trainer]] = {
    "forecaster": bundles.train_forecaster,
    "gan": bundles.train_gan,
    "policy": bundles.train_policy,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--seeds", type=click.IntRange(1, 100), help="How many; the best on validation data ships.")
@click.option("--quick", is_flag=True, help="A few rounds, to see that all runs; the models are poor.")
def train(what: str, files: tuple[Path, ...], out: Path, seed: int, seeds: int | None, quick: bool) -> None:
    """Train the forecaster, the GAN's critic, the policy (upon the forecaster in DIR) or all of them.

    DATA are Parquet or CSV files of ticks, or folders of Parquet files; without any, ../shared/data beside the
    project, or the bundled samples. One processor core is used.
    """
    torch.set_num_threads(1)  # the same sums on every machine, and the small products gain nothing from more
    console = Console(stderr=True)
    dataset = data.load(_expand(files), lambda line: console.print(line, highlight=False, soft_wrap=True))
    plan = bundles.Plan().quick() if quick else bundles.Plan()
    plan = plan.with_seeds(seeds) if seeds else plan
    names = list(TRAINERS) if what == "all" else [what]
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        written = [TRAINERS[name](dataset, plan, seed, out, _announcer(progress)) for name in names]
    for folder in written:
        click.echo(folder)


def _expand(files: tuple[Path, ...]) -> list[Path]:
    """Files as given, folders as the Parquet files of ticks in them."""
    if not files:
        return data.default_files()
    return [path for given in files for path in (data.default_files(given) if given.is_dir() else [given])]


def _announcer(progress: Progress) -> bundles.Announce:
    def announce(name: str) -> bundles.Progress:
        task = progress.add_task(name, total=None, note="")
        return lambda done, of, note: progress.update(task, completed=done, total=of, note=note)

    return announce
