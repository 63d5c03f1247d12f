"""Every error that Tapewatch raises on purpose.

A message names the thing, its value and the rule; where the user can mend it, it says how. The command line
prints it as one line and exits with 1; a traceback is a bug of ours.
"""

from stream.messages import Reason


class TapewatchError(Exception):
    """Anything that a user can cause and mend."""


class ConfigError(TapewatchError):
    """A setting is unknown or impossible."""


class BadMessage(TapewatchError):
    """A message on `ticks` cannot be used; `reason` is one of `messages.Reason`."""

    def __init__(self, reason: Reason, rule: str) -> None:
        super().__init__(f"{reason}: {rule}")
        self.reason = reason
        self.rule = rule


class BadFile(TapewatchError):
    """A file of ticks cannot be read, or lacks a column."""


class ModelMismatch(TapewatchError):
    """A model bundle is missing, damaged, or made for other features or shapes."""


class BrokerUnreachable(TapewatchError):
    """No Kafka broker answers at the address."""


class NotAdmitted(TapewatchError):
    """The broker does not prove who it is, or does not let us in: TLS, user or password."""


class MissingTopic(TapewatchError):
    """The broker has no such topic, and may not make it by itself."""


class PublishFailed(TapewatchError):
    """Results could not be put on a topic: the worker stops, for going on would lose them."""


class WorkerFailed(TapewatchError):
    """The worker met something it must not pass over, and stopped; ticks from there on are not committed."""


class DamagedSnapshot(TapewatchError):
    """The state of an instrument cannot be read: the worker stops, for starting cold would go unseen."""
