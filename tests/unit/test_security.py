"""The section `[security]`: what it refuses, what it becomes for each client, and that no secret shows."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from stream import security
from stream.config import Security, Settings, load
from stream.errors import ConfigError
from stream.toml import to_toml
from stream.transport import Options
from tests.certificates import Authority

SECRET = "correct horse"
ENVIRON = {
    "TAPEWATCH_SECURITY__PROTOCOL": "SASL_SSL",
    "TAPEWATCH_SECURITY__USERNAME": "desk",
    "TAPEWATCH_SECURITY__PASSWORD": SECRET,
}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"protocol": "TLS"}, "setting security.protocol = 'TLS': must be PLAINTEXT or SSL or "),
        ({"protocol": "SASL_SSL"}, "protocol = SASL_SSL needs username, and password or password_file"),
        ({"protocol": "SASL_SSL", "username": "a", "password": SECRET, "password_file": "b"}, "both set: keep one"),
        ({"username": "a", "protocol": "SSL"}, "username is set, but protocol = SSL is without SASL"),
        ({"ca_file": "ca.pem"}, "ca_file is set, but protocol = PLAINTEXT is without TLS"),
        ({"protocol": "SSL", "key_file": "key.pem"}, "key_file is set, but not the certificate_file"),
        (
            {"pasword": SECRET},
            "setting security.pasword = ***: no such key; did you mean security.password? security knows protocol, "
            "mechanism",
        ),
        ({"password": [SECRET]}, "setting security.password = ***: Expected `str`"),
    ],
)
def test_mistake_names_key_and_rule_but_no_secret(values: dict[str, Any], said: str) -> None:
    overrides = {f"security.{key}": value for key, value in values.items()}
    with pytest.raises(ConfigError, match=re.escape(said)) as refused:
        load(None, {}, overrides)
    assert SECRET not in str(refused.value)


def test_a_password_that_looks_like_toml_is_taken_as_it_is() -> None:
    assert load(None, ENVIRON | {"TAPEWATCH_SECURITY__PASSWORD": '["a"]'}).security.password == '["a"]'


def test_no_secret_is_printed() -> None:
    settings = load(None, ENVIRON)
    for shown in (repr(settings), str(settings.security), repr(settings.cluster), to_toml(settings)):
        assert SECRET not in shown
        assert "desk" in shown
    assert "# password is set, and not shown\n" in to_toml(settings)


def test_without_a_section_connections_are_plain() -> None:
    assert security.python_options(Security()) == {"security_protocol": "PLAINTEXT"}
    assert security.librdkafka_options(Security()) == {"security.protocol": "PLAINTEXT"}
    assert Options().access == {}


def test_each_client_gets_the_same_in_its_own_words(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("desk")
    (tmp_path / "password").write_text(f"{SECRET}\n")
    settings = Security(
        "SASL_SSL",
        "SCRAM-SHA-256",
        "desk",
        password_file=str(tmp_path / "password"),
        ca_file=str(authority.file),
        certificate_file=str(files.both),
    )
    python = security.python_options(settings)
    context = python.pop("ssl_context")
    assert python == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "desk",
        "sasl_plain_password": SECRET,
    }
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    assert security.librdkafka_options(settings) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "desk",
        "sasl.password": SECRET,
        "ssl.ca.location": str(authority.file),
        "ssl.certificate.location": str(files.both),
        "ssl.key.location": str(files.both),
    }


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("absent", "cannot read security.ca_file .*absent.pem: No such file"),
        ("key", "security.ca_file .* holds no certificates as PEM"),
        ("binary", "security.ca_file .* is not text: PEM is"),
    ],
)
def test_a_file_of_authorities_that_is_none_is_named(tmp_path: Path, key: str, said: str) -> None:
    (tmp_path / "key.pem").write_bytes(Authority(tmp_path).issue("desk").key.read_bytes())
    (tmp_path / "binary.pem").write_bytes(b"\x30\x82\xff\xfe")
    with pytest.raises(ConfigError, match=said):
        security.tls_context(Security("SSL", ca_file=str(tmp_path / f"{key}.pem")))


@pytest.mark.parametrize("password", ["", "wrong"])
def test_an_encrypted_key_asks_nobody_at_a_terminal(tmp_path: Path, password: str) -> None:
    files = Authority(tmp_path).issue("desk", password=SECRET.encode())
    settings = Security("SSL", certificate_file=str(files.certificate), key_file=str(files.key), key_password=password)
    with pytest.raises(ConfigError, match="the key is encrypted"):
        security.tls_context(settings)


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine, other = authority.issue("mine"), authority.issue("other")
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        security.tls_context(Security("SSL", certificate_file=str(mine.certificate), key_file=str(other.key)))


def test_an_empty_password_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    with pytest.raises(ConfigError, match="password is empty"):
        security.password(Security("SASL_SSL", username="desk", password_file=str(tmp_path / "password")))


def test_settings_hold_the_way_in() -> None:
    assert Settings(broker="a:1", security=Security("SSL")).cluster == ("a:1", Security("SSL"))
