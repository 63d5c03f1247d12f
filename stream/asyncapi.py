"""The wire contract as an AsyncAPI 3.0 document. `python -m stream.asyncapi` writes asyncapi.yaml again.

Everything comes from code: payloads from the structs of `messages`, names and sizes of topics from the settings'
defaults, descriptions from docstrings and `Meta`. Needs PyYAML, of the extra `dev`; no worker imports this module.
"""

from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec
import yaml

from stream import __version__
from stream.config import ROOT, Settings
from stream.messages import Action, Alert, Audit, Control, Injection, Prediction, Reason, Risk, Tick

DOCUMENT: Final = ROOT / "asyncapi.yaml"
PAGE: Final = ROOT / "docs" / "topics.md"
KAFKA_BINDING: Final = "0.5.0"

KEY: Final = {"type": "string", "description": "The symbol, UTF-8: a symbol lives in one partition, in order."}
OTHER_KEYS: Final = {
    "control": {
        "type": "string",
        "description": "A zero byte and `control`, which is no symbol's.",
        "const": "\0control",
    },
    "audit": {"type": "string", "description": "The control's id."},
}

REJECTED_HEADERS: Final = {
    "type": "object",
    "description": "Header values are UTF-8 text, the numbers in decimal.",
    "required": ["reason", "rule", "partition", "offset"],
    "properties": {
        "reason": {"type": "string", "enum": sorted(get_args(Reason))},
        "rule": {"type": "string", "description": "What was found, and what must hold."},
        "partition": {"type": "string", "pattern": "^[0-9]+$", "description": "Partition of the message on ticks."},
        "offset": {"type": "string", "pattern": "^[0-9]+$", "description": "Offset of the message on ticks."},
        "bytes": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "Only where the value is cut because it is longer than the topic takes: its full length.",
        },
    },
}


class Topic(NamedTuple):
    """A topic as the worker sees it."""

    role: str  # the field of `config.Topics` that holds its name
    action: Literal["receive", "send"]
    struct: type[msgspec.Struct] | None  # None: raw bytes
    summary: str
    beside: "tuple[Message, ...]" = ()  # what else may stand there


class Message(NamedTuple):
    """A record of another kind than the topic's own."""

    role: str
    struct: type[msgspec.Struct]
    summary: str


TOPICS: Final = (
    Topic(
        "ticks",
        "receive",
        Tick,
        "Trades to watch.",
        (
            Message(
                "control", Control, "Halts or resumes the agent's actions; `tapewatch halt` puts it in all partitions."
            ),
        ),
    ),
    Topic("predictions", "send", Prediction, "The forecast distribution, for each accepted tick."),
    Topic("risk", "send", Risk, "Anomaly, tail risk, score and level, for each accepted tick."),
    Topic("actions", "send", Action, "The agent's action after the risk rules, for each accepted tick."),
    Topic("alerts", "send", Alert, "Each change of an alert's state."),
    Topic("rejected", "send", None, "Refused messages, byte for byte as they came, with the reason as headers."),
    Topic("truth", "send", Injection, "What the simulator does to a symbol; put there by `tapewatch simulate` alone."),
    Topic("audit", "send", Audit, "Who halted and resumed the agent's actions, and that each partition has taken it."),
)


def document(settings: Settings | None = None) -> dict[str, Any]:
    """The contract with the topics' names in `settings`, by default those that nobody has changed."""
    settings = settings or Settings()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tapewatch",
            "version": __version__,
            "description": (
                "Trade ticks in; for each accepted tick a forecast, a risk and an action out, and alerts. Written as "
                'JSON, or with the setting format = "msgpack" as MessagePack maps with the same fields; ticks may '
                "come as either, message by message. With the setting worker.conflate_ms not every accepted tick has a "
                "forecast, a risk and an action of its own: each instrument has at most one in the interval, and its "
                "field `ticks` says how many ticks it stands for."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": {"host": settings.broker, "protocol": "kafka", "description": "The setting `broker`."}},
        "channels": {topic.role: _channel(topic, settings) for topic in TOPICS},
        "operations": {_operation_name(topic): _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {each.role: _message(each) for topic in TOPICS for each in _records(topic)},
            "schemas": _schemas(),
        },
    }


def render(settings: Settings | None = None) -> str:
    """The document as YAML, the same text each time."""
    body = yaml.safe_dump(document(settings), sort_keys=False, width=110, allow_unicode=True)
    return "# Written by `make docs` from stream/messages.py; edit that.\n" + body


def _channel(topic: Topic, settings: Settings) -> dict[str, Any]:
    return {
        "address": getattr(settings.topics, topic.role),
        "description": topic.summary,
        "messages": {each.role: {"$ref": f"#/components/messages/{each.role}"} for each in _records(topic)},
        "bindings": {
            "kafka": {
                "partitions": settings.topics.partitions,
                "replicas": settings.topics.replication,
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _operation_name(topic: Topic) -> str:
    return topic.action + topic.role.capitalize()


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.role}"
    return {
        "action": topic.action,
        "channel": {"$ref": channel},
        "summary": topic.summary,
        "messages": [{"$ref": f"{channel}/messages/{each.role}"} for each in _records(topic)],
    }


def _records(topic: Topic) -> "list[Topic | Message]":
    """The topic's own, then what else may stand there."""
    return [topic, *topic.beside]


def _message(topic: Topic | Message) -> dict[str, Any]:
    # Written out in each message: AsyncAPI's own schema takes a reference here for two things at once.
    key = {"kafka": {"key": {**OTHER_KEYS.get(topic.role, KEY)}, "bindingVersion": KAFKA_BINDING}}
    if topic.struct is None:
        return {
            "name": topic.role,
            "summary": topic.summary,
            "contentType": "application/octet-stream",
            "headers": REJECTED_HEADERS,
            "payload": {"description": "Value and key are those of the refused message; too long a key is left out."},
        }
    return {
        "name": topic.struct.__name__,
        "summary": topic.summary,
        "payload": {"$ref": f"#/components/schemas/{topic.struct.__name__}"},
        "bindings": key,
    }


def _schemas() -> dict[str, Any]:
    structs = [each.struct for topic in TOPICS for each in _records(topic) if each.struct]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    return dict(sorted(components.items()))


def page(settings: Settings | None = None) -> str:
    """The same contract for people, as Markdown."""
    tree = document(settings)
    schemas, parts = tree["components"]["schemas"], ["# Topics and their records\n\nWritten by `make docs`.\n"]
    for topic in TOPICS:
        way = "in, yours" if topic.action == "receive" else "out"
        parts.append(f"\n## {tree['channels'][topic.role]['address']}\n\n{topic.summary} ({way})\n")
        if topic.struct is None:
            parts.append(_rows(REJECTED_HEADERS, "header"))
        else:
            parts.append(_rows(schemas[topic.struct.__name__], "field"))
        for each in topic.beside:
            parts.append(f"\nBeside them, under the key `\\0control`: {each.summary}\n")
            parts.append(_rows(schemas[each.struct.__name__], "field"))
    parts.append("\n# Parts of records\n")
    named = {each.struct.__name__ for topic in TOPICS for each in _records(topic) if each.struct}
    parts += [f"\n## {name}\n{_rows(schema, 'field')}" for name, schema in schemas.items() if name not in named]
    return "".join(parts)


def _rows(schema: dict[str, Any], heading: str) -> str:
    rows = [f"\n| {heading} | holds | always there | |\n|---|---|---|---|\n"]
    for name, value in schema["properties"].items():
        there = "yes" if name in schema["required"] else "no"
        rows.append(f"| `{name}` | {_kind(value)} | {there} | {value.get('description', '').replace('|', '/')} |\n")
    return "".join(rows)


def _kind(value: dict[str, Any]) -> str:
    """Type and bounds of a value in words."""
    if "anyOf" in value:
        return " or ".join(_kind(each) for each in value["anyOf"])
    if "enum" in value:
        return ", ".join("null" if each is None else f"`{each}`" for each in value["enum"])
    if "$ref" in value:
        return f"[{(name := value['$ref'].rsplit('/', 1)[1])}](#{name.lower()})"
    kind = f"list of {_kind(value['items'])}" if value.get("type") == "array" else str(value.get("type", "anything"))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([kind, *(f"{sign} {_number(value[key])}" for key, sign in signs.items() if key in value)])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def write(path: Path = DOCUMENT, readable: Path = PAGE) -> None:
    """Bring asyncapi.yaml and its page up to date."""
    path.write_text(render(), encoding="utf-8")
    readable.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
