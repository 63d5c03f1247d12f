"""A Kafka with TLS, SASL and rights, and the users of the tests."""

from pathlib import Path
from typing import Final

from stream.broker import HOST, KafkaBroker, free_ports
from stream.config import Security
from tests.certificates import Authority, Files

PASSWORD: Final = "correct horse battery"
USERS: Final = ("admin", "worker", "producer", "simulator", "reader", "operator")
LISTENERS: Final = ("SASL", "MTLS", "EXPIRED", "OTHERHOST", "CLEAR")
_PROPERTIES: Final = """\
listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller_port}},{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},{listeners}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL,EXPIRED:SSL,\
OTHERHOST:SSL,CLEAR:SASL_PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
ssl.keystore.type=PEM
ssl.keystore.location={broker}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={expired}
listener.name.otherhost.ssl.keystore.location={other}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:admin
ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
"""
_SCRAM: Final = (
    "listener.name.{}.{}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
)
_PLAIN: Final = (
    "listener.name.{}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {};\n"
)


class SecuredKafka:
    """A broker with a port for each way in; ANONYMOUS, on the plain one, and `admin` may do everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self.kafka = KafkaBroker(properties=self._properties(), formatting=_users())

    def address(self, listener: str) -> str:
        """Where a listener is."""
        return f"{HOST}:{self.ports[listener]}"

    def security(self, user: str, mechanism: str = "SCRAM-SHA-512", password: str = PASSWORD) -> Security:
        """A user's way in by password, over TLS."""
        return Security("SASL_SSL", mechanism, user, password, ca_file=str(self.authority.file))  # type: ignore[arg-type]

    def certified(self, files: Files, key_password: str = "") -> Security:
        """A way in by certificate."""
        return Security(
            "SSL",
            ca_file=str(self.authority.file),
            certificate_file=str(files.certificate),
            key_file=str(files.key),
            key_password=key_password,
        )

    def _properties(self) -> str:
        issue = self.authority.issue
        text = _PROPERTIES.format(
            listeners=",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items()),
            broker=issue("broker").both,
            expired=issue("expired", expired=True).both,
            other=issue("other", "kafka.example.org").both,
            ca=self.authority.file,
        )
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
        for name in ("sasl", "clear"):
            text += _SCRAM.format(name, "scram-sha-256") + _SCRAM.format(name, "scram-sha-512")
            text += _PLAIN.format(name, users)
        return text


def _users() -> list[str]:
    return [
        argument
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for user in USERS
        for argument in ("--add-scram", f'{mechanism}=[name="{user}",password="{PASSWORD}"]')
    ]
