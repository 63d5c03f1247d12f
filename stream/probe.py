"""Who answers at an address, and whether it lets us in, so that a refusal is one clear line.

The clients try again when TLS or a password is refused, each in its own words and some for ever. So each command first
asks by itself: the TLS handshake, which calls the broker knows, which SASL it wants, and whether it takes our password.
"""

import socket
import struct
from io import BufferedRWPair
from typing import Any, Final, NamedTuple

from kafka.net.sasl import get_sasl_mechanism

from stream import security
from stream.config import Cluster, Security
from stream.errors import BrokerUnreachable, NotAdmitted

PROBE_SECONDS: Final = 5.0
_SASL_HANDSHAKE: Final = 17
_API_VERSIONS: Final = 18
_SASL_AUTHENTICATE: Final = 36
_UNSUPPORTED_SASL_MECHANISM: Final = 33
_ILLEGAL_SASL_STATE: Final = 34
_TLS_ALERT: Final = b"\x15\x03"  # what a listener with TLS answers to anything else


class Call(NamedTuple):
    """The oldest and the newest version of a call that the broker knows."""

    oldest: int
    newest: int


class _WantsTls(Exception):
    """It answers in TLS, and we have not begun any."""


def calls(cluster: Cluster, seconds: float = PROBE_SECONDS) -> dict[int, Call]:
    """What the first broker that answers knows, by Kafka's number of the call.

    Raises
    ------
    BrokerUnreachable
        If nothing that speaks the Kafka protocol answers at any address of the cluster.
    NotAdmitted
        If TLS or SASL fails: what is wrong, and what to do.
    """
    problem: OSError | struct.error | None = None
    for address in cluster.broker.split(","):
        try:
            return _ask(address, cluster.security, seconds)
        except _WantsTls:
            raise NotAdmitted(
                f"the broker at {address} wants TLS: set security.protocol to SSL, or to SASL_SSL with a user"
            ) from None
        except (OSError, struct.error) as error:
            if isinstance(error, OSError) and (why := security.explain(error, address, cluster.security)):
                raise NotAdmitted(why) from None
            problem = error
    raise BrokerUnreachable(unreachable(cluster.broker, str(problem)))


def unreachable(broker: str, why: str) -> str:
    """One line for a person: what does not answer, and what to do."""
    return (
        f"no Kafka broker answers at {broker} ({why}); start one with `tapewatch broker`, or name yours with "
        "--broker HOST:PORT"
    )


def _ask(address: str, settings: Security, seconds: float) -> dict[int, Call]:
    host, _, port = address.rpartition(":")
    context = security.tls_context(settings) if settings.tls else None
    with socket.create_connection((host, int(port)), timeout=seconds) as plain:
        connection = context.wrap_socket(plain, server_hostname=host) if context else plain
        with connection, connection.makefile("rwb") as stream:
            known = _api_versions(stream)
            if _SASL_HANDSHAKE in known:
                _authenticate(stream, address, settings)
            elif settings.sasl:
                raise NotAdmitted(f"the broker at {address} knows no SASL: set security.protocol to PLAINTEXT or SSL")
            return known


def _api_versions(stream: "BufferedRWPair[Any, Any]") -> dict[int, Call]:
    """An ApiVersions request v0, whose layout every version of Kafka answers."""
    answer = _call(stream, _API_VERSIONS, 0, b"")
    error, count = struct.unpack_from(">hi", answer)
    if error or not 0 < count < 1000:
        raise struct.error(f"ApiVersions answered with error {error}")
    entries = (struct.unpack_from(">hhh", answer, 6 + 6 * i) for i in range(count))
    return {key: Call(oldest, newest) for key, oldest, newest in entries}


def _authenticate(stream: "BufferedRWPair[Any, Any]", address: str, settings: Security) -> None:
    """Log in, or see that nobody asks for it."""
    answer = _call(stream, _SASL_HANDSHAKE, 1, _text(settings.mechanism))
    (error,) = struct.unpack_from(">h", answer)
    if not settings.sasl:
        if error != _ILLEGAL_SASL_STATE:
            raise NotAdmitted(
                f"the broker at {address} wants SASL ({_listed(answer)}): set security.protocol to SASL_"
                f"{'SSL' if settings.tls else 'PLAINTEXT'}, security.username and security.password_file"
            )
        return
    if error == _ILLEGAL_SASL_STATE:
        raise NotAdmitted(
            f"the broker at {address} wants no SASL at this port: set security.protocol to "
            f"{'SSL' if settings.tls else 'PLAINTEXT'}, or name the port of its SASL listener"
        )
    if error == _UNSUPPORTED_SASL_MECHANISM:
        raise NotAdmitted(
            f"the broker at {address} does not offer security.mechanism = {settings.mechanism}, but {_listed(answer)}"
        )
    _log_in(stream, address, settings)


def _log_in(stream: "BufferedRWPair[Any, Any]", address: str, settings: Security) -> None:
    options = security.python_options(settings)
    dialogue: Any = get_sasl_mechanism(settings.mechanism)(host=address.rpartition(":")[0], **options)
    try:
        while not dialogue.is_done():
            answer = _call(stream, _SASL_AUTHENTICATE, 0, _bytes(dialogue.auth_bytes()))
            error, message, token = _outcome(answer)
            if error:
                raise ValueError(message)
            dialogue.receive(token)
    except (ValueError, KeyError) as error:  # as the broker says it, or as what it says does not fit together
        where = f"the file {settings.password_file}" if settings.password_file else "security.password"
        raise NotAdmitted(
            f"the broker at {address} refused user {settings.username} by {settings.mechanism}: the name or the "
            f"password is wrong (security.username, {where}), or the user has none for this mechanism ({error})"
        ) from None


def _outcome(answer: bytes) -> tuple[int, str, bytes]:
    """Error, message and token of a SaslAuthenticate response v0."""
    error, length = struct.unpack_from(">hh", answer)
    length = max(0, length)
    message = answer[4 : 4 + length].decode("utf-8", "backslashreplace")
    (size,) = struct.unpack_from(">i", answer, 4 + length)
    return error, message, answer[8 + length : 8 + length + max(0, size)]


def _listed(answer: bytes) -> str:
    """The mechanisms of a SaslHandshake response."""
    (count,) = struct.unpack_from(">i", answer, 2)
    names, at = [], 6
    for _ in range(max(0, count)):
        (length,) = struct.unpack_from(">h", answer, at)
        names.append(answer[at + 2 : at + 2 + length].decode("ascii", "backslashreplace"))
        at += 2 + length
    return ", ".join(names) or "none"


def _call(stream: "BufferedRWPair[Any, Any]", key: int, version: int, body: bytes) -> bytes:
    """The body of the answer to a request without a client's name."""
    request = struct.pack(">hhih", key, version, 1, -1) + body
    stream.write(struct.pack(">i", len(request)) + request)
    stream.flush()
    head = stream.read(4)
    if head.startswith(_TLS_ALERT):
        raise _WantsTls
    if len(head) < 4:
        raise struct.error("it hangs up without an answer")
    (length,) = struct.unpack(">i", head)
    return bytes(stream.read(min(length, 65_536))[4:])


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _bytes(raw: bytes) -> bytes:
    return struct.pack(">i", len(raw)) + raw
