"""Who is let in to the worker's pages: password, names, numbers; and that nothing sent there stops the others."""

import asyncio
import base64
from pathlib import Path

import msgspec
import pytest

from stream.config import Settings, Web, Worker, load
from stream.errors import ConfigError
from stream.web import certificate, door
from tests.unit.test_pages import QUICK, Site, first, run

SECRET = "ada:correct horse"


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    return str(file)


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "worker.example.com", ""])
def test_other_machines_need_password_and_tls(host: str, password_file: str) -> None:
    for web in (Web(), Web(password_file=password_file), Web(certificate_file="c", key_file="k")):
        with pytest.raises(ConfigError, match=r"web\.password_file, web\.certificate_file"):
            door.check(Settings(worker=Worker(host=host), web=web))
    door.check(Settings(worker=Worker(host=host), web=Web(unprotected=True)))
    for known in (Web(password_file=password_file), Web(token_file="t")):
        both = msgspec.structs.replace(known, certificate_file="c", key_file="k")
        door.check(Settings(worker=Worker(host=host), web=both))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_nothing(host: str) -> None:
    door.check(Settings(worker=Worker(host=host)))


def test_certificate_needs_its_key_and_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="go together"):
        load(None, {"TAPEWATCH_WEB__CERTIFICATE_FILE": "c.pem"})
    file = tmp_path / "c.pem"
    for text in (None, "no certificate"):
        if text:
            file.write_text(text)
        with pytest.raises(ConfigError, match="cannot be used for TLS"):
            certificate.encryption(Web(certificate_file=str(file), key_file=str(file)))


@pytest.mark.parametrize("content", ["", "ada", "ada:", ":secret", "ada:secret\nbob:secret"])
def test_file_of_the_password_is_checked_and_never_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "password"
    file.write_text(content)
    with pytest.raises(ConfigError, match="NAME:PASSWORD") as caught:
        door.Door(Settings(web=Web(password_file=str(file))))
    assert "secret" not in str(caught.value)


def test_password_opens_all_but_health(password_file: str) -> None:
    async def check(there: Site) -> None:
        for path in ("/", "/metrics", "/live", "/static/board.js", "/nothing"):
            for headers in ({}, basic("ada:wrong"), basic(SECRET + "x"), {"Authorization": "Basic %%%"}, basic("ü")):
                async with there.client.get(path, headers=headers) as response:
                    assert (response.status, response.headers["WWW-Authenticate"][:5]) == (401, "Basic"), path
                    assert "name or password" in await response.text()
        async with there.client.get("/metrics", headers=basic(SECRET)) as response:
            assert response.status == 200
            assert "correct horse" not in await response.text()
        async with there.client.get("/live", headers=basic(SECRET)) as response:
            assert (await first(response, "snapshot"))["symbols"] == 2
        async with there.client.get("/health") as response:
            assert response.status == 503  # it is starting, and says so to everybody

    run(check, msgspec.structs.replace(QUICK, password_file=password_file))


@pytest.mark.parametrize("beside_password", [False, True])
def test_token_opens_as_bearer_and_as_password_of_any_name(
    tmp_path: Path, password_file: str, beside_password: bool
) -> None:
    token = "0123456789abcdef"
    file = tmp_path / "token"
    file.write_text(token + "\n")

    async def check(there: Site) -> None:
        for wrong in (
            f"Bearer {token}x",
            "Bearer",
            f"Bearer {SECRET}",
            f"Token {token}",
            basic(f"{token}:")["Authorization"],
        ):
            async with there.client.get("/metrics", headers={"Authorization": wrong}) as response:
                assert response.status == 401, wrong
                assert token not in await response.text()
        for right in ({"Authorization": f"bearer {token}"}, basic(f"prometheus:{token}")):
            async with there.client.get("/metrics", headers=right) as response:
                assert response.status == 200
        async with there.client.get("/metrics", headers=basic(SECRET)) as response:
            assert response.status == (200 if beside_password else 401)

    password = password_file if beside_password else ""
    run(check, msgspec.structs.replace(QUICK, token_file=str(file), password_file=password))


@pytest.mark.parametrize(
    "content", ["", "tooshort", "0123456789abcdef with a blank", "0123456789abcdef\n0123456789abcdef"]
)
def test_file_of_the_token_is_checked_and_never_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="openssl rand") as caught:
        door.Door(Settings(web=Web(token_file=str(file))))
    assert "0123456789" not in str(caught.value)


def test_answers_carry_headers_that_keep_foreign_script_out() -> None:
    async def check(there: Site) -> None:
        for path in ("/", "/live", "/metrics", "/health", "/nothing"):
            async with there.client.get(path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Server"] == "tapewatch"
        async with there.client.get("/") as response:
            page = await response.text()
        assert "<script>" not in page
        assert "style=" not in page
        assert " on" + "click" not in page

    run(check)


def test_a_name_that_points_here_from_elsewhere_is_not_answered() -> None:
    async def check(there: Site) -> None:
        for host, status in (("evil.example", 403), ("evil.example:80", 403), ("localhost:9", 200), ("[::1]", 200)):
            async with there.client.get("/", headers={"Host": host}) as response:
                assert response.status == status, host

    run(check)


async def raw(there: Site, sent: bytes) -> bytes:
    """All that comes back for some bytes until the worker hangs up."""
    host, port = there.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


def test_junk_is_answered_and_the_others_go_on() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as viewer:
            await first(viewer, "snapshot")
            for junk in (
                b"\x00\xff" * 500 + b"\r\n\r\n",
                b"GET\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"\x16\x03\x01\r\n\r\n",
            ):
                assert b" 400 " in (await raw(there, junk)).split(b"\r\n")[0], junk[:20]
            assert b" 400 " in await raw(there, b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n")
            for method, path in (("POST", "/live"), ("DELETE", "/"), ("PUT", "/metrics")):
                async with there.client.request(method, path, data=b"x" * 1000) as response:
                    assert response.status == 405
            assert (await first(viewer, "snapshot"))["symbols"] == 2

    run(check)


def test_connections_beyond_the_limit_are_told_so_and_the_viewer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SILENT_SECONDS", 1.0)

    async def check(there: Site) -> None:
        async with there.client.get("/live") as viewer:
            await first(viewer, "snapshot")
            answers = await asyncio.gather(*(raw(there, b"") for _ in range(60)))
            told = [answer for answer in answers if b"8 connections (web.connections)" in answer]
            assert len(told) >= 52
            assert (await first(viewer, "snapshot"))["symbols"] == 2

    run(check, msgspec.structs.replace(QUICK, connections=8))


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SILENT_SECONDS", 0.1)

    async def check(there: Site) -> None:
        assert await raw(there, b"") == b""
        assert await raw(there, b"GET / HTTP/1.1\r\nHost: localh") == b""
        async with there.client.get("/live") as viewer:  # one that has asked stays
            for _ in range(4):
                await first(viewer, "snapshot")

    run(check)
