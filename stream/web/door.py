"""Who may see the worker's pages: on this machine everybody, elsewhere whoever has password or token, over TLS.

Too many connections, and those that say nothing, are sent away with an answer before they cost anything.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from stream.config import Settings
from stream.errors import ConfigError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SILENT_SECONDS: Final = 10.0
"""A connection that has asked nothing for so long is closed."""
SHORTEST_TOKEN: Final = 16
OPEN_PATHS: Final = frozenset({"/health"})
"""Asked by whoever restarts workers, which has no password; it tells offsets, no market data."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "tapewatch",
}
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other can reach."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: Settings) -> None:
    """See that the pages may be served where they are to be.

    Raises
    ------
    ConfigError
        If other machines could read them without a password, or read the password on its way.
    """
    host, rules = settings.worker.host, settings.web
    known = rules.password_file or rules.token_file
    if is_loopback(host) or rules.unprotected or (known and rules.certificate_file):
        return
    raise ConfigError(
        f"setting worker.host = {host!r}: other machines could reach the pages there, so web.password_file, "
        "web.certificate_file and web.key_file must be set, or web.token_file for the first; or "
        "web.unprotected = true if something else protects them"
    )


def _password(file: str) -> bytes | None:
    """NAME:PASSWORD as the file holds it; None where no password is asked for."""
    if not file:
        return None
    line = _line(file, "web.password_file")
    name, colon, password = line.partition(":")
    if not (name and colon and password) or "\n" in line:
        raise ConfigError(f"setting web.password_file = {file!r}: it must hold one line, NAME:PASSWORD")
    return line.encode()


def _token(file: str) -> bytes | None:
    """The token as the file holds it; None where there is none."""
    if not file:
        return None
    line = _line(file, "web.token_file")
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", line) or len(line) < SHORTEST_TOKEN:
        raise ConfigError(
            f"setting web.token_file = {file!r}: it must hold one line of at least {SHORTEST_TOKEN} letters, digits "
            "and ._~+/=-; say, what `openssl rand -hex 32` prints"
        )
    return line.encode()


def _line(file: str, setting: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"setting {setting} = {file!r}: cannot be read ({error})") from None


class Door:
    """Lets requests in, or says why not.

    Raises
    ------
    ConfigError
        If password or token cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self._password = _password(settings.web.password_file)
        self._token = _token(settings.web.token_file)
        self._most = settings.web.connections
        self._asks = self._password is not None or self._token is not None
        # Where it asks for nothing, a page of another site, under a name that it lets point here, must not read it.
        self._own_names_only = not self._asks and is_loopback(settings.worker.host)
        self._open: dict[RequestHandler, float] = {}  # with the time at which each came
        self.refused = 0

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request comes through here; every answer leaves with the headers of HEADERS."""
        if self._own_names_only and not is_loopback(_name(request.headers.get("Host", "localhost"))):
            return web.Response(status=403, text="this worker answers under the names of its own machine only\n")
        if request.path not in OPEN_PATHS and not self._knows(request.headers.get("Authorization", "")):
            return web.Response(
                status=401,
                text="name or password is missing or wrong, or the token\n",
                headers={"WWW-Authenticate": 'Basic realm="tapewatch", charset="UTF-8"'},
            )
        return await handler(request)

    @staticmethod
    async def dress(_request: web.Request, response: web.StreamResponse) -> None:
        """A signal of aiohttp's, `on_response_prepare`."""
        for name, value in HEADERS.items():
            response.headers[name] = value

    def _knows(self, authorization: str) -> bool:
        """Whether the header holds the password, the token, or the token as the password of any name."""
        if not self._asks:
            return True
        scheme, _, text = authorization.partition(" ")
        login, bearer = b"", b""
        match scheme.lower():
            case "basic":
                with contextlib.suppress(binascii.Error, ValueError):
                    login = base64.b64decode(text, validate=True)
                bearer = login.partition(b":")[2]
            case "bearer":
                bearer = text.strip().encode()
        return _same(login, self._password) | _same(bearer, self._token)

    def who(self, authorization: str) -> str | None:
        """The name that somebody who was let in signed in with; None where nothing is asked for.

        A machine that has the token may give any name, and is told as such.
        """
        if not self._asks:
            return None
        scheme, _, text = authorization.partition(" ")
        login = b""
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                login = base64.b64decode(text, validate=True)
        return (
            self._password.partition(b":")[0].decode() if _same(login, self._password) and self._password else "token"
        )

    def protocol(self, server: web.Server) -> asyncio.Protocol:
        """What answers a new connection."""
        loop = asyncio.get_running_loop()
        if len(self._open) >= self._most:
            self._open = {each: came for each, came in self._open.items() if _is_there(each, loop.time() - came)}
        if len(self._open) >= self._most:
            self.refused += 1
            return _Full(self._most)
        handler: RequestHandler = server()
        self._open[handler] = loop.time()
        loop.call_later(SILENT_SECONDS, _close_if_silent, handler)
        return handler


def _same(given: bytes, wanted: bytes | None) -> bool:
    """In a time that tells nothing of what is wanted."""
    return wanted is not None and hmac.compare_digest(given, wanted)


class _Full(asyncio.Protocol):
    """Says that there are too many, and hangs up."""

    def __init__(self, most: int) -> None:
        self._text = f"the worker has its {most} connections (web.connections); try later\n".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FULL % (len(self._text), self._text))
        transport.close()


def _is_there(handler: RequestHandler, seconds: float) -> bool:
    """Whether a connection that came so long ago is still there, or may still be shaking hands for TLS."""
    return handler._manager is not None and (handler.transport is not None or seconds < SILENT_SECONDS)


def _close_if_silent(handler: RequestHandler) -> None:
    """aiohttp waits for ever for the first request of a connection."""
    if handler._manager is not None and not handler._request_count:
        handler.force_close()


def _name(host: str) -> str:
    """The name in a Host header, less the port and the brackets of IPv6."""
    return host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
