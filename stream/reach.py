"""What a worker's log says while its broker is away: a line of ours when it goes and when it is back.

And few of the client libraries', which say the same again and again.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from aiokafka.errors import NotEnoughReplicasError

AWAY_SECONDS: Final = 3.0  # a client that connects anew, or a leader that moves, is no news
log = logging.getLogger("tapewatch.worker")


class Reach:
    """Whether any broker has a connection with us, and that it has none told once.

    Parameters
    ----------
    broker
        Where they are, for the line.
    connected
        Whether one has a connection now.
    now
        A clock, in seconds.
    """

    def __init__(self, broker: str, connected: Callable[[], bool], now: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._connected = connected
        self._now = now
        self._last = now()
        self._told = False

    async def look(self) -> None:
        """To be called once a second or so."""
        away = self._now() - self._last
        if self._connected():
            self._last = self._now()
            if self._told:
                self._told = False
                log.info("broker at %s is back after %.0f s", self._broker, away)
        elif away >= AWAY_SECONDS and not self._told:
            self._told = True
            log.warning("no broker at %s: waiting", self._broker)


class Repeats(logging.Filter):
    """Lets a line of a client library through once in `seconds`: while a broker is away they say the same each turn."""

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Ours pass always; another's only if its text, less the details, was not said just now."""
        if _is_verification(record):
            return False
        key = record.name, str(record.msg)
        if record.name.startswith("tapewatch") or record.created - self._last.get(key, 0.0) >= self._seconds:
            self._last[key] = record.created
            return True
        return False


def _is_verification(record: logging.LogRecord) -> bool:
    """Kafka verifies a transaction at its first batch: the client is told to try again, and warns of it each time."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return record.name == "aiokafka.producer.sender" and NotEnoughReplicasError in arguments
