"""Commands of the group `models`, and those of the extra `training`."""

import sys
from pathlib import Path
from typing import Any

import click

from stream import completion as completions
from stream.commands.options import Decorated, existing_file, settings_of
from stream.errors import TapewatchError
from stream.help import Command, Group


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.Path())
def train(arguments: tuple[str, ...]) -> None:
    """Train models and export them (needs the extra `training`)."""
    _training("train", arguments)


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.Path())
def evaluate(arguments: tuple[str, ...]) -> None:
    """Compare a forecaster with plain baselines (needs the extra `training`)."""
    _training("evaluate", arguments)


def _training(name: str, arguments: tuple[str, ...]) -> None:
    root = click.get_current_context().find_root()
    try:
        from training import cli as training

        command: click.Command = getattr(training, name)
        # Within, for a command imports some packages itself, which an environment of an earlier release may not have.
        command.main(list(arguments), prog_name=name, standalone_mode=False, parent=root)
    except ModuleNotFoundError as error:
        raise TapewatchError(
            f"{name} needs the extra `training` ({error.name} is missing): run `make setup-dev`, "
            "or pip install 'tapewatch[training]'"
        ) from None


@click.group(cls=Group)
def models() -> None:
    """Model bundles: what there is, and whether it runs here."""


def _models_option(command: Decorated) -> Decorated:
    return click.option("--models", "folder", type=existing_file, metavar="DIR", help="Folder of model bundles.")(
        command
    )


@models.command("list")
@_models_option
@click.pass_context
def list_models(context: click.Context, folder: Path | None) -> None:
    """List all bundles, a line each."""
    models_in, console = _catalogue(context, folder)
    from stream.catalogue import show_list

    show_list(models_in, console)


@models.command("show")
@click.argument("name", metavar="NAME[@VERSION]", shell_complete=completions.models)
@_models_option
@click.pass_context
def show_model(context: click.Context, name: str, folder: Path | None) -> None:
    """Print a bundle's card; of the newest version unless told otherwise."""
    models_in, console = _catalogue(context, folder)
    from stream.catalogue import show_card

    show_card(models_in, name, console)


@models.command("verify")
@click.option("--key", type=existing_file, metavar="FILE", help="Public key of who must have signed.")
@_models_option
@click.pass_context
def verify_models(context: click.Context, key: Path | None, folder: Path | None) -> None:
    """Check every bundle, and run it in ONNX Runtime.

    Held against each other are the graph's hash, features and shapes, and what its card says; with a key, by
    --key or models.public_key, the card against its signature too.
    """
    models_in, console = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import run_verify

    trust = signatures.of_key(key) if key is not None else signatures.trust(settings_of(context).models)
    run_verify(models_in, console, trust)


@models.command("keygen")
@click.argument("file", type=existing_file)
def make_keys(file: Path) -> None:
    """Make a pair of keys to sign bundles with: FILE, which stays secret, and FILE.pub."""
    from stream import signatures

    click.echo(f"public key, for models.public_key of the workers: {signatures.keygen(file)}")


@models.command("sign")
@click.argument("name", metavar="NAME[@VERSION]|roles.toml", shell_complete=completions.models)
@click.option("--key", type=existing_file, required=True, metavar="FILE", help="Private key, from `models keygen`.")
@_models_option
@click.pass_context
def sign_model(context: click.Context, name: str, key: Path, folder: Path | None) -> None:
    """Sign a bundle that loads, or the roles, so that workers with the public key take it."""
    models_in, _ = _catalogue(context, folder)
    from stream import roles, signatures
    from stream.catalogue import find

    if name == roles.FILE:
        click.echo(signatures.sign_roles(models_in, key))
    else:
        click.echo(signatures.sign(find(models_in, name).folder, key))


def _role_key_option(command: Decorated) -> Decorated:
    text = "Private key: sign roles.toml too, for workers that ask for it."
    return click.option("--key", type=existing_file, metavar="FILE", help=text)(command)


@models.command("promote")
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@_role_key_option
@_models_option
@click.pass_context
def promote_model(context: click.Context, name: str | None, key: Path | None, folder: Path | None) -> None:
    """Make a forecaster the champion, whose forecasts are published; the challenger unless told otherwise.

    NAME stands for its highest version. Workers that run take it up as they take up a new version.
    """
    models_in, _ = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import promote

    trust = signatures.trust(settings_of(context).models)
    _tell_roles(promote(models_in, name, trust), key, trust is not None)


@models.command("challenge")
@click.argument("name", metavar="[NAME[@VERSION]]", required=False)
@click.option("--none", "nobody", is_flag=True, help="Score nobody any more.")
@_role_key_option
@_models_option
@click.pass_context
def challenge_model(
    context: click.Context, name: str | None, nobody: bool, key: Path | None, folder: Path | None
) -> None:
    """Score a forecaster in the champion's shadow: on every tick, and never published."""
    if (name is None) != nobody:
        raise click.UsageError("whom? NAME, NAME@VERSION, or --none")
    models_in, _ = _catalogue(context, folder)
    from stream import signatures
    from stream.catalogue import challenge

    trust = signatures.trust(settings_of(context).models)
    _tell_roles(challenge(models_in, name, trust), key, trust is not None)


def _tell_roles(file: Path, key: Path | None, wanted: bool) -> None:
    """Sign the roles where there is a key, and print them."""
    from stream import signatures

    if key is not None:
        signatures.sign_roles(file.parent, key)
    elif wanted:
        click.echo(f"workers take {file} once it is signed: `tapewatch models sign {file.name}`", err=True)
    click.echo(file.read_text(encoding="utf-8"), nl=False)


def _catalogue(context: click.Context, folder: Path | None) -> tuple[Path, Any]:
    """Folder of bundles, and a console that does not wrap a table when it is piped."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200)
    return folder or Path(settings_of(context).worker.models), console
