"""The section `[security]` of the settings as each Kafka client wants it: TLS contexts, certificates, passwords.

Nothing here may show a password: errors name the setting or the file that holds it.
"""

import ssl
from pathlib import Path
from typing import Any, Final

from stream.config import Security
from stream.errors import ConfigError

EXPIRED: Final = 10  # OpenSSL's X509_V_ERR_*, as `ssl.SSLCertVerificationError.verify_code` gives them
NOT_YET_VALID: Final = 9
OTHER_HOST: Final = (62, 64)  # by name, by address


def python_options(security: Security) -> dict[str, Any]:
    """For aiokafka and kafka-python, which name their options alike.

    Raises
    ------
    ConfigError
        If a file cannot be read, or holds something else.
    """
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.tls:
        options["ssl_context"] = tls_context(security)
    if security.sasl:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": password(security),
        }
    return options


def librdkafka_options(security: Security) -> dict[str, str]:
    """For confluent-kafka; raises as `python_options`."""
    options: dict[str, str] = {"security.protocol": security.protocol}
    if security.tls:
        tls_context(security)  # OpenSSL's own words for a bad file are worse
        files = {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file or security.certificate_file,
            "ssl.key.password": security.key_password,
        }
        options |= {name: value for name, value in files.items() if value}
    if security.sasl:
        options |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": password(security),
        }
    return options


def password(security: Security) -> str:
    """The password, from the settings or from its file, of which the line's end is no part."""
    if not security.password_file:
        return security.password
    text = _read(security.password_file, "password_file").rstrip("\r\n")
    if not text:
        raise ConfigError(f"security.password_file {security.password_file} is empty: it must hold the password")
    return text


def tls_context(security: Security) -> ssl.SSLContext:
    """A context that verifies the broker's certificate and its host, and shows ours where we have one."""
    if security.ca_file:
        _read(security.ca_file, "ca_file")
    try:
        context = ssl.create_default_context(cafile=security.ca_file or None)
    except ssl.SSLError as error:
        raise ConfigError(
            f"security.ca_file {security.ca_file} holds no certificates as PEM ({error.reason})"
        ) from None
    if security.certificate_file:
        _load_certificate(context, security)
    return context


def _load_certificate(context: ssl.SSLContext, security: Security) -> None:
    certificate, key = security.certificate_file, security.key_file or security.certificate_file
    _read(certificate, "certificate_file")
    _read(key, "key_file")
    try:
        # An empty password for an encrypted key is an error; none at all would ask at the terminal.
        context.load_cert_chain(certificate, key, security.key_password)
    except ssl.SSLError as error:
        why = error.reason or "the key is encrypted, and security.key_password is not its password"
        raise ConfigError(
            f"security.certificate_file {certificate} and its key {key} cannot be used as PEM ({why})"
        ) from None


def _read(path: str, key: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read security.{key} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"security.{key} {path} is not text: PEM is, DER and PKCS#12 must be converted") from None


def explain(error: OSError, address: str, security: Security) -> str | None:
    """What a failed TLS handshake means and what to do; None if it was something else that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, address, security)
    if not security.tls or not isinstance(error, ssl.SSLError | ConnectionError):
        return None
    reason = str(getattr(error, "reason", None) or "it hung up")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "HANDSHAKE_FAILURE" in reason):
        mine = security.certificate_file
        return f"the broker at {address} refused " + (
            f"our certificate {mine} ({reason}): is it expired, and signed by a CA that the broker trusts?"
            if mine
            else f"us without a certificate ({reason}): set security.certificate_file and security.key_file"
        )
    return (
        f"no TLS at {address} ({reason}): security.protocol = {security.protocol} needs the port of a listener with "
        "TLS; or it "
        + ("refuses our certificate" if security.certificate_file else "wants one of ours: security.certificate_file")
    )


def _explain_certificate(error: ssl.SSLCertVerificationError, address: str, security: Security) -> str:
    code = error.verify_code
    if code == EXPIRED:
        return (
            f"the certificate of the broker at {address} has expired: renew it there (and see that our clock is right)"
        )
    if code == NOT_YET_VALID:
        return f"the certificate of the broker at {address} is not valid yet: see that both clocks are right"
    if code in OTHER_HOST:
        return (
            f"the certificate of the broker at {address} is for another host ({error.verify_message}): name the broker "
            "as its certificate does, or give it a certificate for this name"
        )
    trusted = f"security.ca_file {security.ca_file}" if security.ca_file else "the system"
    return (
        f"the certificate of the broker at {address} is signed by nobody whom {trusted} trusts "
        f"({error.verify_message}): set security.ca_file to the CA's certificate, PEM"
    )
