"""The board over TLS with a password, with real certificates: who gets in, and what the others are told."""

import logging
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from playwright.sync_api import Error, expect

from stream.config import Web
from stream.errors import ConfigError
from stream.web import certificate
from tests.browser import chromium
from tests.browser.served import REFRESH_SECONDS, Served
from tests.certificates import DAY, Authority, Files
from tests.unit.test_desk import named, output
from tests.unit.test_history import answers

NAME, PASSWORD = "ada", "correct horse"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whom the clients trust."""
    return Authority(tmp_path)


@contextmanager
def board(folder: Path, files: Files) -> Iterator[Served]:
    """A board with one symbol, under a certificate."""
    secret = folder / "password"
    secret.write_text(f"{NAME}:{PASSWORD}")
    web = Web(
        refresh_seconds=REFRESH_SECONDS,
        password_file=str(secret),
        certificate_file=str(files.certificate),
        key_file=str(files.key),
    )
    with Served(web) as served:
        served.do(lambda: served.desk.open(0, named("ACME")))
        served.do(lambda: served.desk.note(0, output(answers([1.0])), 5))
        yield served


def ask(served: Served, authority: Authority, password: str = PASSWORD) -> int:
    """Status of the page for a client that trusts the authority and checks the host; raises URLError if it does not."""
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    passwords.add_password(None, served.url, NAME, password, is_authenticated=True)
    trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(authority.file)))
    opener = urllib.request.build_opener(trust, urllib.request.HTTPBasicAuthHandler(passwords))
    try:
        with opener.open(served.url, timeout=60) as page:
            assert b"Symbols by score" in page.read()
            return int(page.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code if b"name or password is missing or wrong" in error.read() else 0


def refusal(served: Served, authority: Authority) -> str:
    """Why a client does not trust the board."""
    with pytest.raises(urllib.error.URLError) as refused:
        ask(served, authority)
    assert isinstance(refused.value.reason, ssl.SSLCertVerificationError)
    return str(refused.value.reason.verify_message)


def test_password_over_tls_opens_and_a_wrong_one_does_not(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with board(tmp_path, authority.issue("board", days=365)) as served:
        assert served.url.startswith("https://127.0.0.1:")
        assert ask(served, authority) == 200
        assert ask(served, authority, "wrong horse") == 401
        with pytest.raises((urllib.error.URLError, ConnectionError)):  # no TLS
            urllib.request.urlopen(served.url.replace("https", "http"), timeout=60)
        assert ask(served, authority) == 200
    assert caplog.records == []


def test_clients_are_told_of_an_expired_certificate_and_so_is_the_log(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), board(tmp_path, authority.issue("board", expired=True)) as served:
        assert refusal(served, authority) == "certificate has expired"
    (line,) = caplog.messages
    assert re.search(r"web.certificate_file: .*board.certificate.pem has expired: renew it", line)
    assert PASSWORD not in line


def test_clients_refuse_a_certificate_of_another_host_or_of_a_stranger(tmp_path: Path, authority: Authority) -> None:
    with board(tmp_path, authority.issue("board", "board.example.org")) as served:
        assert "IP address mismatch" in refusal(served, authority)
    stranger = Authority(tmp_path, "Stranger")
    with board(tmp_path, stranger.issue("board")) as served:
        assert "unable to get local issuer" in refusal(served, authority)


def test_log_tells_of_a_certificate_that_ends_soon_or_has_not_begun(tmp_path: Path, authority: Authority) -> None:
    def said(files: Files, after: float = 0.0) -> str | None:
        end = x509.load_pem_x509_certificate(files.certificate.read_bytes()).not_valid_after_utc.timestamp()
        context = certificate.encryption(Web(certificate_file=str(files.certificate), key_file=str(files.key)))
        assert context is not None
        return certificate.complaint(context, str(files.certificate), end - after)

    month = authority.issue("month", days=30)
    assert said(month, 30 * DAY.total_seconds()) is None
    assert (
        said(month, 3 * DAY.total_seconds())
        == f"{month.certificate} expires in 3.0 days: renew it, and start the worker again"
    )
    assert " is not valid yet: " in (said(authority.issue("unborn", begin=DAY / 2)) or "")


CANNOT: dict[str, tuple[Callable[[Authority], Files], str]] = {
    "key of another": (lambda it: it.issue("a")._replace(key=it.issue("b").key), "the key is that of another"),
    "encrypted key": (lambda it: it.issue("a", password=b"secret"), "the key is encrypted"),
    "missing": (lambda it: it.issue("a")._replace(key=Path("missing.key")), "No such file"),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_cannot_be_used_is_named_at_the_start(tmp_path: Path, authority: Authority, what: str) -> None:
    make, said = CANNOT[what]
    with pytest.raises(ConfigError, match=said), board(tmp_path, make(authority)):
        pass


@pytest.mark.skipif(chromium.program() is None, reason=chromium.MISSING)
def test_a_browser_gets_in_with_the_password_and_is_told_of_the_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    with board(tmp_path, authority.issue("board")) as served, chromium.browser() as browser:
        with chromium.page(browser) as page, pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
            page.goto(served.url)
        with chromium.page(browser, login=(NAME, PASSWORD)) as page:
            page.goto(served.url)
            expect(page.locator("#rows th a")).to_have_text("ACME")
            expect(page.locator("#link-text")).to_have_text("live")
        with chromium.page(browser, login=(NAME, "wrong horse")) as page:
            answer = page.goto(served.url)
            assert answer is not None
            assert (answer.status, "name or password is missing or wrong" in page.content()) == (401, True)
