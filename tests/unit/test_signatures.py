"""Signed bundles: what is taken, what is refused and with which words, at a start and while a worker runs."""

import hashlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from stream import backtest, catalogue, cli, inference, roles, signatures
from stream.config import DEFAULT_MODELS, ROOT, Models, Settings, load
from stream.errors import ConfigError, ModelMismatch, TapewatchError
from stream.library import Library
from tests.bundles import DQN, GRU, NEXT, NEXT_GRU, WGAN, add_kind, add_version, shipped

OLD = (GRU, WGAN, DQN)
BUNDLES = sorted(str(card.parent.relative_to(DEFAULT_MODELS)) for card in Path(DEFAULT_MODELS).glob("*/*/card.json"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; the public one is beside it."""
    file = tmp_path_factory.mktemp("keys") / "desk.key"
    assert signatures.keygen(file) == public(file)
    return file


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


@pytest.fixture
def folder(tmp_path: Path, key: Path) -> Path:
    """A copy of the models that ship, signed."""
    models = Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))
    for bundle in BUNDLES:
        signatures.sign(models / bundle, key)
    return models


def test_signed_bundles_are_taken_by_all_that_load_them(folder: Path, key: Path) -> None:
    trust = signatures.of_key(public(key))
    assert Library(folder, trust).newest.names == OLD
    assert inference.load(folder, trust).names == OLD
    assert inference.load_named(folder, OLD, trust).names == OLD


def test_without_a_key_nobody_asks_for_a_signature() -> None:
    assert signatures.trust(Models()) is None


def refusal(folder: Path, key: Path, name: str = "gru") -> str:
    """Why a worker does not start with these models; one line."""
    trust = signatures.of_key(public(key))
    with pytest.raises(ModelMismatch) as caught:
        Library(folder, trust)
    with pytest.raises(ModelMismatch) as also:
        inference.load_named(folder, OLD, trust)
    assert str(also.value) == str(caught.value)
    assert str(folder / name) in str(caught.value)
    return str(caught.value)


def test_a_missing_signature_is_refused_with_what_to_do(folder: Path, key: Path) -> None:
    (shipped(folder, "gru") / "card.json.sig").unlink()
    assert "is not signed: card.json.sig is missing" in refusal(folder, key)
    assert "`tapewatch models sign`" in refusal(folder, key)


@pytest.mark.parametrize("wrong", [b"", b"x", bytes(64), b"\xff" * 65])
def test_what_is_no_signature_is_refused(folder: Path, key: Path, wrong: bytes) -> None:
    (shipped(folder, "gru") / "card.json.sig").write_bytes(wrong)
    assert "card.json.sig is no signature of this card.json" in refusal(folder, key)


def test_another_bundle_s_signature_is_refused(folder: Path, key: Path) -> None:
    shutil.copyfile(shipped(folder, "dqn") / "card.json.sig", shipped(folder, "gru") / "card.json.sig")
    assert "is no signature of this card.json" in refusal(folder, key)


def test_another_key_s_signature_is_refused(folder: Path, key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    signatures.keygen(other)
    signatures.sign(shipped(folder, "gru"), other)
    assert f"by the key of {public(key)}" in refusal(folder, key)


def test_a_changed_card_is_refused(folder: Path, key: Path) -> None:
    card = shipped(folder, "gru") / "card.json"
    card.write_text(card.read_text(encoding="utf-8").replace('"git_commit": "', '"git_commit": "x'), encoding="utf-8")
    assert "the card was changed after it was signed" in refusal(folder, key)


def test_a_changed_graph_is_refused_by_the_hash_in_the_signed_card(folder: Path, key: Path) -> None:
    graph = shipped(folder, "gru") / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    assert "its card says" in refusal(folder, key)


def test_a_changed_graph_with_its_hash_in_the_card_is_refused_by_the_signature(folder: Path, key: Path) -> None:
    graph, card = shipped(folder, "gru") / "model.onnx", shipped(folder, "gru") / "card.json"
    old = hashlib.sha256(graph.read_bytes()).hexdigest()
    graph.write_bytes(graph.read_bytes() + b"\0")
    text = card.read_text(encoding="utf-8").replace(old, hashlib.sha256(graph.read_bytes()).hexdigest())
    card.write_text(text, encoding="utf-8")
    assert "is no signature of this card.json" in refusal(folder, key)


def test_while_it_runs_an_unsigned_version_is_refused_until_it_is_signed(folder: Path, key: Path) -> None:
    library = Library(folder, signatures.of_key(public(key)))
    added = add_version(folder, "gru", NEXT)
    library.look()
    assert library.newest.names == OLD
    assert "is not signed" in library.refused[added]
    signatures.sign(added, key)
    library.look()
    assert library.newest.names == (NEXT_GRU, *OLD[1:])
    assert library.refused == {}


def test_at_a_start_the_highest_signed_version_is_taken(folder: Path, key: Path) -> None:
    added = add_version(folder, "gru", NEXT)
    library = Library(folder, signatures.of_key(public(key)))
    assert library.newest.names == OLD
    assert list(library.refused) == [added]


def test_the_setting_is_what_commands_go_by(folder: Path, key: Path, tmp_path: Path) -> None:
    file = tmp_path / "tapewatch.toml"
    file.write_text(f'[models]\npublic_key = "{public(key)}"\n', encoding="utf-8")
    settings: Settings = load(file, {})
    sample = ROOT / "stream" / "feeds" / "samples" / "binance_sample.parquet"
    with pytest.raises(ModelMismatch, match="is not signed"):
        backtest.run(sample, tmp_path / "out", None, settings, quiet=True)
    arguments = ["--config", str(file), "models", "verify", "--models", str(folder)]
    done = CliRunner().invoke(cli.commands, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.count("ok: signature, hash, features, shapes") == len(BUNDLES)
    (shipped(folder, "gru") / "card.json.sig").unlink()
    done = CliRunner().invoke(cli.commands, arguments)
    assert isinstance(done.exception, ModelMismatch)
    assert GRU in str(done.exception)
    assert "is not signed" in done.output


def test_keys_and_signatures_by_command(tmp_path: Path) -> None:
    models = Path(shutil.copytree(DEFAULT_MODELS, tmp_path / "models"))
    key = tmp_path / "desk.key"

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli.commands, ["models", *arguments])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    assert str(public(key)) in run("keygen", str(key))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for bundle in BUNDLES:
        assert "card.json.sig" in run("sign", bundle.split("/")[0], "--key", str(key), "--models", str(models))
    assert run("verify", "--key", str(public(key)), "--models", str(models)).count("ok: signature") == len(BUNDLES)


def run(*arguments: str) -> str:
    """What a command under `tapewatch models` prints."""
    done = CliRunner().invoke(cli.commands, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_roles_that_are_not_signed_or_were_changed_are_refused_and_what_is_in_force_stays(
    folder: Path, key: Path
) -> None:
    trust = signatures.of_key(public(key))
    add_kind(folder, "lstm")
    signatures.sign(shipped(folder, "lstm"), key)
    catalogue.promote(folder, "gru", trust)
    file = folder / roles.FILE
    signatures.sign_roles(folder, key)
    library = Library(folder, trust)
    assert library.newest.names == OLD
    file.write_text('champion = "lstm"\n', encoding="utf-8")
    library.look()
    assert library.newest.names == OLD
    assert f"{file}: roles.toml.sig is no signature of this roles.toml" in library.refused[folder]
    for load_all in (inference.load, Library):
        with pytest.raises(ModelMismatch, match=r"roles.toml.sig is no signature .* it was changed after"):
            load_all(folder, trust)
    signatures.signature_of(file).unlink()
    library.look()
    assert library.newest.names == OLD
    assert f"{file} is not signed: roles.toml.sig is missing" in library.refused[folder]
    assert "`tapewatch models sign roles.toml`" in library.refused[folder]
    signatures.sign_roles(folder, key)
    library.look()
    assert library.newest.names == (GRU.replace("gru", "lstm"), *OLD[1:])
    assert library.refused == {}


def test_roles_are_signed_by_command_and_where_they_are_written(folder: Path, key: Path, tmp_path: Path) -> None:
    trust = signatures.of_key(public(key))
    add_kind(folder, "lstm")
    signatures.sign(shipped(folder, "lstm"), key)
    file = tmp_path / "tapewatch.toml"
    file.write_text(f'[models]\npublic_key = "{public(key)}"\n', encoding="utf-8")
    ours = ["--models", str(folder)]
    models = ["--config", str(file), "models"]
    said = run(*models, "promote", "gru", *ours)
    assert f"workers take {folder / roles.FILE} once it is signed" in said
    with pytest.raises(ModelMismatch, match=r"roles\.toml is not signed"):
        catalogue.challenge(folder, "lstm", trust)
    assert "roles.toml.sig" in run(*models, "sign", "roles.toml", "--key", str(key), *ours)
    assert run(*models, "challenge", "lstm", "--key", str(key), *ours) == 'champion = "gru"\nchallenger = "lstm"\n'
    assert roles.read(folder, trust) == roles.Roles("gru", "lstm")
    assert run(*models, "verify", *ours).count("ok: signature") == len(BUNDLES) + 1
    (folder / roles.FILE).write_text('champion = "lstm"\n', encoding="utf-8")
    done = CliRunner().invoke(cli.commands, [*models, "verify", *ours])
    assert "is no signature of this roles.toml" in str(done.exception)


def test_roles_that_are_not_there_cannot_be_signed(folder: Path, key: Path) -> None:
    with pytest.raises(ModelMismatch, match=r"has no roles.toml: `tapewatch models promote`"):
        signatures.sign_roles(folder, key)


def test_the_simulator_takes_only_a_signed_generator(folder: Path, key: Path, tmp_path: Path) -> None:
    file = tmp_path / "tapewatch.toml"
    file.write_text(f'[models]\npublic_key = "{public(key)}"\n', encoding="utf-8")
    simulate = ["--config", str(file), "simulate", "--generator", "--models", str(folder), "--seconds", "400"]
    simulate += ["--symbol", "MADE", "--out", str(tmp_path / "made.csv")]
    run(*simulate)
    assert (tmp_path / "made.csv").stat().st_size > 0
    (shipped(folder, "wgan-generator") / "card.json.sig").unlink()
    done = CliRunner().invoke(cli.commands, simulate)
    assert isinstance(done.exception, ModelMismatch)
    assert "wgan-generator" in str(done.exception)
    assert "is not signed" in str(done.exception)


def test_a_key_is_never_written_over(key: Path, tmp_path: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(TapewatchError, match="is there already"):
        signatures.keygen(key)
    assert key.read_bytes() == before
    (tmp_path / "half.key").write_text("mine")
    with pytest.raises(TapewatchError, match="is there already"):
        signatures.keygen(tmp_path / "half.key")
    assert not (tmp_path / "half.key.pub").exists()


def test_what_does_not_load_is_not_signed(folder: Path, key: Path) -> None:
    added = add_version(folder, "gru", NEXT)
    (added / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelMismatch, match="its card says"):
        signatures.sign(added, key)
    assert not (added / "card.json.sig").exists()


def test_other_keys_and_files_are_one_line(key: Path, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    wrong = tmp_path / "rsa.pem"
    wrong.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    wrong_public = tmp_path / "rsa.pub"
    wrong_public.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for file in (wrong_public, key, shipped(Path(DEFAULT_MODELS), "gru") / "model.onnx"):
        with pytest.raises(ConfigError, match="holds no public Ed25519 key in PEM"):
            signatures.of_key(file)
    for file in (wrong, public(key)):
        with pytest.raises(ConfigError, match="holds no private Ed25519 key in PEM"):
            signatures.sign(shipped(Path(DEFAULT_MODELS), "gru"), file)
    with pytest.raises(ConfigError, match=r"cannot read the key .*absent: No such file"):
        signatures.trust(Models(public_key=str(tmp_path / "absent")))


def test_openssl_agrees(folder: Path, key: Path) -> None:
    bundle = shipped(folder, "gru")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public(key)), "-rawin"]
    files = ["-in", str(bundle / "card.json"), "-sigfile", str(bundle / "card.json.sig")]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    assert subprocess.run([*command, *files], capture_output=True, check=False).returncode == 0


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from stream import signatures; from stream.config import Models\n"
        "assert signatures.trust(Models()) is None\n"
        "signatures.trust(Models(public_key='x'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "pip install 'tapewatch[signatures]'" in done.stderr.splitlines()[-1]


def test_nothing_is_imported_where_no_key_is_set() -> None:
    program = (
        "import sys; from stream import app, verify, backtest, signatures; from stream.config import Models\n"
        "signatures.trust(Models()); assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
