"""Certificates for tests, signed by an authority that lives as long as the test run."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Files(NamedTuple):
    """A certificate and its key, PEM, and both in one file as Kafka's keystores want them."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """A CA that signs for hosts and for clients."""

    def __init__(self, folder: Path, name: str = "Tapewatch test CA") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key.public_key(), datetime.now(UTC) + DAY)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        host: str = "127.0.0.1",
        *,
        expired: bool = False,
        password: bytes = b"",
        begin: timedelta = -10 * DAY,
        days: int = 1,
    ) -> Files:
        """A certificate for `name` and `host`, valid from `begin` from now to so many days from now, or yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        end = datetime.now(UTC) + (-DAY if expired else days * DAY)
        alternative: x509.GeneralName = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        builder = _builder(subject, self._name, key.public_key(), end, begin)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        files = Files(*(self._folder / f"{name}.{end}.pem" for end in ("certificate", "key", "both")))
        for file, content in zip(files, (signed, private, private + signed), strict=True):
            file.write_bytes(content)
        return files


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime, begin: timedelta = -10 * DAY
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) + begin)
        .not_valid_after(end)
    )
