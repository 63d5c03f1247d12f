"""Signatures of model bundles: Ed25519 over card.json, which holds the graph's sha256, in card.json.sig beside it.

Whoever may write into the folder of models decides what a worker answers. With `models.public_key` set, a bundle counts
only if the holder of the private key has signed its card: at a start, while the worker runs, and for every command that
loads models; and so does roles.toml, which says whose forecasts are published. The signature is the 64 bytes
themselves, as `openssl pkeyutl -verify -rawin` takes them.

cryptography (the extra `signatures`) is imported only where a key is used: it takes a tenth of a second.
"""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream import roles
from stream.config import Models
from stream.errors import ConfigError, ModelMismatch, TapewatchError
from stream.inference import Trust, load_bundle

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUFFIX: Final = ".sig"
CARD: Final = "card.json"


def trust(settings: Models) -> Trust | None:
    """What cards must pass by the settings: None where no key is set.

    Raises
    ------
    ConfigError
        If the key cannot be read, is no public Ed25519 key in PEM, or the extra `signatures` is not installed.
    """
    return of_key(Path(settings.public_key)) if settings.public_key else None


def of_key(file: Path) -> Trust:
    """What cards and roles must pass that were signed with the key of this public half; raises as `trust`."""
    key = _public(file)
    from cryptography.exceptions import InvalidSignature

    def check(signed_file: Path, content: bytes) -> None:
        signature_file = signature_of(signed_file)
        is_card = signed_file.name == CARD
        subject, what = (signed_file.parent, "the card") if is_card else (signed_file, "it")
        try:
            signature = signature_file.read_bytes()
        except FileNotFoundError:
            raise ModelMismatch(
                f"{subject} is not signed: {signature_file.name} is missing, and {file} wants one: "
                f"`tapewatch models sign{'' if is_card else f' {signed_file.name}'}`"
            ) from None
        except OSError as error:
            raise ModelMismatch(f"cannot read {signature_file}: {error.strerror}") from None
        try:
            key.verify(signature, content)
        except InvalidSignature:
            raise ModelMismatch(
                f"{subject}: {signature_file.name} is no signature of this {signed_file.name} by the key of {file}: "
                f"{what} was changed after it was signed, or somebody else signed it"
            ) from None

    return check


def signature_of(file: Path) -> Path:
    """Where the signature of a card, or of the roles, lies."""
    return file.with_name(file.name + SUFFIX)


def keygen(file: Path) -> Path:
    """Make a pair of keys: the private one into `file`, for its owner's eyes, the public one beside it as FILE.pub.

    Raises
    ------
    TapewatchError
        If one of them is there already, or cannot be written.
    """
    _needs_extra()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem, key = serialization.Encoding.PEM, Ed25519PrivateKey.generate()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = file.with_name(file.name + ".pub")
    _write_new(beside, public, 0o644)
    try:
        _write_new(file, private, 0o600)
    except TapewatchError:
        beside.unlink()
        raise
    return beside


def sign(bundle: Path, key_file: Path) -> Path:
    """Sign a bundle that loads; gives the file of its signature.

    Raises
    ------
    ModelMismatch
        If the bundle is damaged or does not fit: what nobody could run is not signed.
    TapewatchError
        If the key cannot be used, or the signature not be written.
    """
    key = _private(key_file)
    cards: list[bytes] = []
    load_bundle(bundle, lambda _, content: cards.append(content))  # signed is what was checked
    return _write_signature(bundle / CARD, key.sign(cards[0]))


def sign_roles(models: Path, key_file: Path) -> Path:
    """Sign the roles.toml of a folder of models; gives the file of its signature.

    Raises
    ------
    ModelMismatch
        If there is none, or it says nothing clear.
    TapewatchError
        If the key cannot be used, or the signature not be written.
    """
    key = _private(key_file)
    contents: list[bytes] = []
    roles.read(models, lambda _, content: contents.append(content))
    if not contents:
        raise ModelMismatch(f"{models} has no {roles.FILE}: `tapewatch models promote` and `challenge` write it")
    return _write_signature(models / roles.FILE, key.sign(contents[0]))


def _write_signature(signed_file: Path, signature: bytes) -> Path:
    file = signature_of(signed_file)
    waiting = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        waiting.write_bytes(signature)
        waiting.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            waiting.unlink()
        raise TapewatchError(f"cannot write {file}: {error.strerror}") from None
    return file


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(content)
    except FileExistsError:
        raise TapewatchError(f"{file} is there already: a key is never written over") from None
    except OSError as error:
        raise TapewatchError(f"cannot write {file}: {error.strerror}") from None


def _public(file: Path) -> "Ed25519PublicKey":
    content = _read(file)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{file} holds no public Ed25519 key in PEM: `tapewatch models keygen` writes one, FILE.pub")
    return key


def _private(file: Path) -> "Ed25519PrivateKey":
    content = _read(file)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise ConfigError(f"{file} is protected by a password, which this command does not take") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{file} holds no private Ed25519 key in PEM: `tapewatch models keygen FILE` writes one")
    return key


def _read(file: Path) -> bytes:
    _needs_extra()
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key {file}: {error.strerror}") from None


def _needs_extra() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(
            "signatures of models need the extra `signatures` (cryptography is missing): "
            "pip install 'tapewatch[signatures]', or `make setup-dev`"
        ) from None
