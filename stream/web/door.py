"""Who may see the worker's pages: on this machine everybody, elsewhere whoever has the password, over TLS.

Too many connections, and those that say nothing, are sent away with an answer before they cost anything.
"""

import asyncio
import base64
import binascii
import hmac
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from stream.config import Settings, Web
from stream.errors import ConfigError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SILENT_SECONDS: Final = 10.0
"""A connection that has asked nothing for so long is closed."""
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
    if is_loopback(host) or rules.unprotected or (rules.password_file and rules.certificate_file):
        return
    raise ConfigError(
        f"setting worker.host = {host!r}: other machines could reach the pages there, so web.password_file, "
        "web.certificate_file and web.key_file must be set; or web.unprotected = true if something else protects them"
    )


def encryption(rules: Web) -> ssl.SSLContext | None:
    """TLS as the settings want it; None for none.

    Raises
    ------
    ConfigError
        If certificate or key cannot be used.
    """
    if not rules.certificate_file:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(rules.certificate_file, rules.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"settings web.certificate_file = {rules.certificate_file!r}, web.key_file = {rules.key_file!r}: "
            f"cannot be used for TLS ({error.strerror or error})"
        ) from None
    return context


def _credentials(file: str) -> bytes | None:
    """NAME:PASSWORD as the file holds it; None where no password is asked for."""
    if not file:
        return None
    try:
        line = Path(file).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"setting web.password_file = {file!r}: cannot be read ({error})") from None
    name, colon, password = line.partition(":")
    if not (name and colon and password) or "\n" in line:
        raise ConfigError(f"setting web.password_file = {file!r}: it must hold one line, NAME:PASSWORD")
    return line.encode()


class Door:
    """Lets requests in, or says why not.

    Raises
    ------
    ConfigError
        If the password cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self._wanted = _credentials(settings.web.password_file)
        self._most = settings.web.connections
        # Without a password a page of another site, under a name that it lets point here, must not read the board.
        self._own_names_only = self._wanted is None and is_loopback(settings.worker.host)
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
                text="name or password is missing or wrong\n",
                headers={"WWW-Authenticate": 'Basic realm="tapewatch", charset="UTF-8"'},
            )
        return await handler(request)

    @staticmethod
    async def dress(_request: web.Request, response: web.StreamResponse) -> None:
        """A signal of aiohttp's, `on_response_prepare`."""
        for name, value in HEADERS.items():
            response.headers[name] = value

    def _knows(self, authorization: str) -> bool:
        if self._wanted is None:
            return True
        scheme, _, text = authorization.partition(" ")
        try:
            given = base64.b64decode(text, validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        return hmac.compare_digest(given, self._wanted)

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
