"""Settings: one frozen struct from a TOML file and `TAPEWATCH_*` variables. The only reader of either.

A file names sections and keys as the structs below do; a variable joins section and key with two underscores:
`TAPEWATCH_BROKER`, `TAPEWATCH_WORKER__CHUNK_TICKS`. Later wins: defaults, file, variables, command line.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from stream.errors import ConfigError
from stream.messages import Format
from stream.suggestions import did_you_mean

ENV_PREFIX: Final = "TAPEWATCH_"
ENV_FILE: Final = "TAPEWATCH_CONFIG"
ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT_MODELS: Final = str(ROOT / "models")

KINDS: Final = {"int": "whole number", "float": "number", "bool": "true or false", "array": 'list such as ["A", "B"]'}
"""What a setting holds, for people, by msgspec's name of it."""

LARGEST: Final = 1e12  # keeps infinity out; TOML can write it

Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
TopicName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the settings: unknown keys are refused."""


class Topics(_Section, frozen=True):
    """Names of the topics, and how `tapewatch topics create` makes them."""

    ticks: TopicName = "ticks"
    predictions: TopicName = "predictions"
    risk: TopicName = "risk"
    actions: TopicName = "actions"
    alerts: TopicName = "alerts"
    rejected: TopicName = "ticks.rejected"
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 4
    replication: Annotated[int, Meta(ge=1, le=32)] = 1
    retention_hours: Positive = 24.0
    state: TopicName = "state"  # snapshots; compacted, kept for as long as the topic is
    truth: TopicName = "truth"  # what `tapewatch simulate` injects; no worker needs it
    audit: TopicName = "audit"  # who halted and resumed the agent's actions, and when each partition took it


class Worker(_Section, frozen=True):
    """The stream processor: group, chunks, commits, and where it serves /metrics and /health."""

    group: Annotated[str, Meta(min_length=1, max_length=200)] = "tapewatch"
    models: str = DEFAULT_MODELS
    models_poll_seconds: Positive = 5.0  # how often the folder of models is looked at for new versions
    chunk_ticks: Annotated[int, Meta(ge=1, le=8192)] = 1024  # most ticks a chunk; less is taken when less is there
    fetch_max_wait_ms: Annotated[int, Meta(ge=1, le=5000)] = 5
    fetch_max_bytes: Annotated[int, Meta(ge=1024)] = 524_288  # a partition and fetch
    message_max_bytes: Annotated[int, Meta(ge=256)] = 65_536  # a longer message is refused undecoded
    # On their way to the broker, of a partition; bounds memory when it is slow. Four times as many with exactly_once.
    chunks_in_flight: Annotated[int, Meta(ge=1, le=64)] = 4
    # At most one prediction, risk and action an instrument in so many ms, the newest; 0: one for every tick.
    conflate_ms: Annotated[int, Meta(ge=0, le=5000)] = 0
    commit_interval_seconds: Positive = 1.0
    # The first commit after so long has snapshots; where commits are rarer, each has. After a crash the ticks since the
    # last snapshots are computed again, and nothing of them is published.
    snapshot_interval_seconds: Positive = 5.0
    stall_seconds: Positive = 30.0  # lag without progress for so long turns /health bad
    max_symbols: Annotated[int, Meta(ge=1, le=1_048_576)] = 65_536  # instruments a partition
    host: str = "127.0.0.1"
    port: Port = 6066
    watch: list[str] = []  # symbols with gauges of their own in /metrics; empty: the first `watch_limit` seen
    watch_limit: Annotated[int, Meta(ge=0, le=1000)] = 32
    # What repeats after a crash: results of at most one commit interval with the same bytes, or none for consumers
    # that read committed records only, which then see results once in each commit interval.
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    snapshots: bool = True  # state survives a restart; never on the embedded broker


class Models(_Section, frozen=True):
    """Whose models may answer; the folder that holds them is worker.models."""

    # PEM, Ed25519: bundles count only if they are signed with its other half; needs the extra `signatures`
    public_key: str = ""


class Web(_Section, frozen=True):
    """The board in the browser, served at worker.host and worker.port beside /metrics and /health."""

    refresh_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 1.0  # between two pictures of the board
    viewers: Annotated[int, Meta(ge=0, le=1000)] = 32  # at one time
    courses: Annotated[int, Meta(ge=0, le=4096)] = 256  # instruments whose last minutes are kept, 34 kB each
    connections: Annotated[int, Meta(ge=8, le=10_000)] = 256  # at one time, viewers included
    password_file: str = ""  # one line, NAME:PASSWORD; needed with the next two where worker.host is not loopback
    token_file: str = ""  # one line; a token for machines, beside the password or instead of it
    certificate_file: str = ""  # PEM, for https
    key_file: str = ""
    # Whether the board halts and resumes the agent's actions; auto: where it is on loopback or asks who one is.
    kill_switch: Literal["auto", "on", "off"] = "auto"
    unprotected: bool = False  # true: serve other machines without password and TLS, for something else protects them


class Features(_Section, frozen=True):
    """Rules for ticks that are not plain, and how much history an instrument needs."""

    session_gap_seconds: Positive = 1800.0  # a longer pause starts a new session: no return across it
    warm_ticks: Count = 200
    warm_seconds: Positive = 60.0
    band: Annotated[float, Meta(gt=0, lt=10)] = 0.10  # |log price / last price| above it is refused ...
    band_agree: Count = 3  # ... until so many in a row agree on the new level
    clock_agree: Count = 3  # so many in a row that are a session late and agree set the clock back


class Risk(_Section, frozen=True):
    """Weights of the score's components, and the levels with their hysteresis."""

    weight_volatility: NonNegative = 0.30
    weight_anomaly: NonNegative = 0.20
    weight_flow: NonNegative = 0.15
    weight_liquidity: NonNegative = 0.15
    weight_tail: NonNegative = 0.20
    elevated: Annotated[float, Meta(gt=0, lt=100)] = 40.0
    high: Annotated[float, Meta(gt=0, lt=100)] = 60.0
    critical: Annotated[float, Meta(gt=0, lt=100)] = 80.0
    hysteresis: Annotated[float, Meta(ge=0, lt=50)] = 5.0  # score points below a level's border before it is left
    score_seconds: Positive = 2.0  # the score is smoothed over so much event time
    es_limit: Positive = 0.02  # ES 97.5 % of one unit over 60 s above which the agent must be flat

    def __post_init__(self) -> None:
        if not self.elevated < self.high < self.critical:
            raise ValueError(f"elevated < high < critical must hold: {self.elevated}, {self.high}, {self.critical}")
        if (
            self.weight_volatility + self.weight_anomaly + self.weight_flow + self.weight_liquidity + self.weight_tail
            <= 0
        ):
            raise ValueError("at least one weight must be positive")


class Conformal(_Section, frozen=True):
    """How quantiles, VaR and ES follow their own exceptions; the model's numbers times a scale of each instrument."""

    step: Annotated[float, Meta(ge=0, le=1)] = 0.05  # of the scale's logarithm at an exception; 0: as the model says
    bound: Annotated[float, Meta(ge=1, le=100)] = 4.0  # scales stay between 1 / bound and bound


class Rarity(_Section, frozen=True):
    """How the published anomaly follows each instrument's own tape: what a tail probability of 1 % is multiplied by."""

    step: Annotated[float, Meta(ge=0, le=1)] = 0.1  # of the factor's logarithm at a rare tick; 0: as the critic says
    bound: Annotated[float, Meta(ge=1, le=50)] = 6.0  # factors stay between 1 / bound and bound


class Alerts(_Section, frozen=True):
    """Thresholds at which alerts open; each closes below `close_ratio` of it, held for `hold_seconds`."""

    volatility: Positive = 4.0  # volatility over 60 s against the instrument's own over 30 min
    price_jump: Positive = 8.0  # move over 1 s in standard deviations
    anomaly: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95  # mean anomaly of the recent ticks
    pump_return: Positive = 0.05  # price above its average over 60 s, log ...
    pump_volume: Positive = 30.0  # ... volume over 10 s so many times that of the last four hours ...
    pump_rushes: Positive = 3.5  # ... and so many buying rush orders in 10 s
    flow: Fraction = 0.9  # |order-flow imbalance| over 60 s ...
    flow_volume: Positive = 3.0  # ... at so many times the usual volume
    liquidity: Positive = 5.0  # price impact against the instrument's normal
    gap_seconds: Positive = 60.0  # a pause is a gap when longer than this ...
    gap_ratio: Positive = 50.0  # ... and so many times the usual gap
    faults: Count = 5  # late, duplicated or out-of-band ticks, decaying over 60 s
    stale_seconds: Positive = 60.0  # no tick received for so long, and gap_ratio times the usual gap
    close_ratio: Fraction = 0.7
    hold_seconds: Positive = 10.0
    update_ratio: Annotated[float, Meta(gt=1)] = 1.5  # an open alert is published again when its value grew so much


class Security(_Section, frozen=True):
    """How the brokers are spoken to: TLS, SASL, both or neither. Files are read when a client is made."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    username: str = ""
    password: str = ""  # better the variable TAPEWATCH_SECURITY__PASSWORD, or a file:
    password_file: str = ""
    ca_file: str = ""  # PEM, who may sign a broker's certificate; empty: whom the system trusts
    certificate_file: str = ""  # PEM, ours, where brokers want one (mTLS)
    key_file: str = ""  # PEM, its private key; empty: it is in certificate_file
    key_password: str = ""

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        """Whether a name and a password are asked for."""
        return self.protocol.startswith("SASL_")

    def __post_init__(self) -> None:
        if self.password and self.password_file:
            raise ValueError("password and password_file are both set: keep one")
        if self.sasl and not (self.username and (self.password or self.password_file)):
            raise ValueError(f"protocol = {self.protocol} needs username, and password or password_file")
        if self.username and not self.sasl:
            raise ValueError(f"username is set, but protocol = {self.protocol} is without SASL: SASL_SSL is with it")
        if not self.tls and (unused := [key for key in TLS_FILES if getattr(self, key)]):
            raise ValueError(f"{unused[0]} is set, but protocol = {self.protocol} is without TLS: SSL is with it")
        if self.key_file and not self.certificate_file:
            raise ValueError("key_file is set, but not the certificate_file that it belongs to")

    def __repr__(self) -> str:
        return f"Security({', '.join(f'{key}={value!r}' for key, value in masked(self).items())})"


TLS_FILES: Final = ("ca_file", "certificate_file", "key_file")
SECRETS: Final = ("password", "key_password")
HIDDEN: Final = "***"


def masked(security: Security) -> dict[str, str]:
    """The section for people to read: of a secret only whether it is set."""
    values = msgspec.structs.asdict(security)
    return {key: HIDDEN if key in SECRETS and value else value for key, value in values.items()}


class Cluster(NamedTuple):
    """Where the brokers are and how they are spoken to: all that a client needs."""

    broker: str
    security: Security = Security()


class Settings(_Section, frozen=True):
    """All settings of a process."""

    broker: str = "127.0.0.1:9092"  # HOST:PORT, or several with commas between
    format: Format = "json"  # of what is written, msgpack is shorter; what is read may be either
    topics: Topics = Topics()
    worker: Worker = Worker()
    models: Models = Models()
    web: Web = Web()
    features: Features = Features()
    risk: Risk = Risk()
    alerts: Alerts = Alerts()
    conformal: Conformal = Conformal()
    rarity: Rarity = Rarity()
    security: Security = Security()

    @property
    def cluster(self) -> Cluster:
        """The brokers, for a client."""
        return Cluster(self.broker, self.security)

    def __post_init__(self) -> None:
        if self.worker.delivery == "exactly_once" and not self.worker.snapshots:
            raise ValueError("worker.delivery = exactly_once needs worker.snapshots = true")
        if bool(self.web.certificate_file) != bool(self.web.key_file):
            raise ValueError("web.certificate_file and web.key_file go together")
        if not all(_is_address(address) for address in self.broker.split(",")):
            raise ValueError(f"broker = {self.broker!r} must be HOST:PORT[,HOST:PORT...] with ports from 1 to 65535")


def _is_address(text: str) -> bool:
    found = re.fullmatch(r"[^\s,:]+:([0-9]{1,5})", text)
    return found is not None and 1 <= int(found[1]) <= 65535


def load(
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings in force.

    Parameters
    ----------
    file
        TOML file; if None, the one named by TAPEWATCH_CONFIG, if any.
    environ
        Environment; os.environ if None.
    overrides
        Dotted keys set on the command line, such as {"worker.port": 0}; None values are left out.

    Raises
    ------
    ConfigError
        Naming the key, the value and the rule.
    """
    environ = os.environ if environ is None else environ
    file = file or environ.get(ENV_FILE)
    tree: dict[str, Any] = _read_toml(Path(file)) if file else {}
    variables: dict[str, str] = {}  # by the key that each sets
    for name, text in environ.items():
        if name.startswith(ENV_PREFIX) and name != ENV_FILE:
            path = name.removeprefix(ENV_PREFIX).lower().split("__")
            _put(tree, path, text if path[-1] in SECRETS else _parse(text), name)
            variables[".".join(path)] = name
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key.split("."), value, key)
            variables.pop(key, None)
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(error, tree, variables)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from None


def _parse(text: str) -> Any:
    """A list as TOML reads it; else the text itself, for msgspec turns it into the number that the key wants."""
    if not text.startswith("["):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tree: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    *sections, key = path
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{name}: {section} is a value, not a section")
    if isinstance(tree.get(key), dict):
        raise ConfigError(f"{name}: {key} is a section, not a value")
    tree[key] = value


def _explain(error: msgspec.ValidationError, tree: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Name key or variable, value and rule: msgspec's text holds the rule and the path, the tree holds the value."""
    rule, _, path = str(error).partition(" - at `$")
    key = re.split(r"[\[`]", path)[0].lstrip(".")  # of a list, the whole
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", rule)
    if unknown:
        return _explain_unknown(f"{key}.{unknown[1]}".lstrip("."), key, tree, variables)
    if rule.startswith("Invalid enum value"):
        rule = f"must be {' or '.join(_choices(key))}"
    value = _get(tree, key)
    if key in variables:
        return f"{variables[key]}={_shown(key, value)}: {_rule_for_text(rule, key, value)}"
    where = (
        f"setting {key} = {_shown(key, value)}" if key and not isinstance(value, Mapping) else f"settings {key}".strip()
    )
    return f"{where}: {rule}"


def _rule_for_text(rule: str, key: str, value: Any) -> str:
    """The rule that a variable breaks: each holds text, so that it is text cannot be what is wrong."""
    found = re.fullmatch(r"Expected `(\w+)`, got `str`", rule)
    if found is None:
        return rule
    if found[1] == "object":
        return f"{key} is a section, not a value"
    return f"{_shown(key, value)} is no {KINDS.get(found[1], found[1])}"


def _choices(key: str) -> Sequence[str]:
    """What a setting that is one of a few words may be."""
    kind: Any = Settings
    for part in key.split("."):
        kind = get_type_hints(kind)[part]
    return get_args(kind)


def _explain_unknown(key: str, section: str, tree: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    fields = msgspec.structs.asdict(getattr(Settings(), section) if section else Settings())
    known = f"{section or 'the top'} knows {', '.join(fields)}"
    for path, variable in variables.items():
        if path == key or path.startswith(f"{key}."):  # or the whole section is unknown
            meant = _meant_variable(path)
            return f"{variable}={_shown(path, _get(tree, path))}: no such key; {meant}{known}"
    return f"setting {key} = {_shown(key, _get(tree, key))}: no such key; {_meant(key, section)}{known}"


def _sections() -> dict[str, tuple[str, ...]]:
    """The keys of each section; a key at the top has none."""
    tree = msgspec.structs.asdict(Settings())
    return {name: value.__struct_fields__ if isinstance(value, _Section) else () for name, value in tree.items()}


def _elsewhere(key: str) -> str:
    """A key of another section that has this very name; empty if there is none."""
    name = key.rpartition(".")[2]
    return next((f"{section}.{name}" for section, keys in _sections().items() if name in keys), "")


def _meant(key: str, section: str) -> str:
    """The key that was meant: one of another section by this name, or the one of this section that is most like it."""
    if there := _elsewhere(key):
        return f"did you mean {there}? "
    sections = _sections()
    return did_you_mean(key.rpartition(".")[2], sections.get(section, sections), f"{section}." if section else "")


def _meant_variable(key: str) -> str:
    """The variable that was meant: `TAPEWATCH_WORKER_PORT` lacks an underscore."""
    names = [f"{section}__{each}" for section, keys in _sections().items() for each in keys]
    wrong = key.replace(".", "__").upper()
    likely = did_you_mean(wrong, [name.upper() for name in names], ENV_PREFIX)
    there = _elsewhere(key).replace(".", "__").upper()
    return likely or (f"did you mean {ENV_PREFIX}{there}? " if there else "")


def _shown(key: str, value: Any) -> str:
    """A value as it was set, but of a secret, or of what may be one with its key misspelt, only that it was."""
    if isinstance(value, Mapping):
        return repr({name: HIDDEN if name.endswith(SECRETS) else each for name, each in value.items()})
    known = key.removeprefix("security.") in Security.__struct_fields__
    return HIDDEN if key.endswith(SECRETS) or (key.startswith("security") and not known) else repr(value)


def _get(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split(".") if key else ():
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value
