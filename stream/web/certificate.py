"""The certificate under which the board is served: whether it can be used, and what browsers will say of it."""

import ssl
from typing import Final

from stream.config import Web
from stream.errors import ConfigError
from stream.security import EXPIRED, NOT_YET_VALID

SOON_SECONDS: Final = 14 * 86_400.0
"""So long before its end it is time to renew it."""


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
        # A password for a key that has none does no harm; none at all would ask at the terminal where it has one.
        context.load_cert_chain(rules.certificate_file, rules.key_file or None, "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"settings web.certificate_file = {rules.certificate_file!r}, web.key_file = {rules.key_file!r}: "
            f"cannot be used for TLS ({_why(error)})"
        ) from None
    return context


def _why(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is that of another certificate"
    return error.reason or "no PEM, or the key is encrypted: the worker has no password for it"


def complaint(context: ssl.SSLContext, file: str, now: float) -> str | None:
    """What browsers will refuse it for, or soon will; None for nothing. Who signed it is theirs to judge.

    Parameters
    ----------
    context
        Of the server, with the certificate loaded.
    file
        From which it was loaded, PEM.
    now
        Seconds since the Unix epoch.
    """
    try:
        end = ssl.cert_time_to_seconds(_shaken(context, file))
    except ssl.SSLCertVerificationError as error:
        what = {EXPIRED: "has expired", NOT_YET_VALID: "is not valid yet"}.get(error.verify_code)
        return f"{file} {what or f'is refused ({error.verify_message})'}: renew it, and start the worker again"
    except ssl.SSLError as error:
        return f"{file} cannot be agreed upon ({error.reason}): take another kind of key"
    if end - now > SOON_SECONDS:
        return None
    return f"{file} expires in {(end - now) / 86_400:.1f} days: renew it, and start the worker again"


def _shaken(context: ssl.SSLContext, file: str) -> str:
    """The end of the certificate's time, as a client that trusts it is told in a handshake within memory."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(file)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there)
    server = context.wrap_bio(there, back, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = client.getpeercert()
    assert found is not None
    return str(found["notAfter"])
