"""Reference pages that are made from code: commands from their parser, settings from their structs, alerts from their
rules."""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec
import yaml
from msgspec import inspect as types

from stream.cli import commands
from stream.config import DEFAULT_MODELS, ROOT, Settings
from stream.help import examples_of
from stream.toml import value_text
from tests.benchmark.__main__ import bench
from training import cli as training

RULES: Final = ROOT / "prometheus" / "rules" / "alerts.yml"
HANDED_OVER: Final = {"train": training.train, "evaluate": training.evaluate, "bench": bench}
"""Commands whose options stand in `training` and in the benchmark, which are imported only where they are."""


def pages() -> dict[str, str]:
    """Text of each page by its name in reference/."""
    return {"commands.md": command_page(), "settings.md": settings_page(), "prometheus.md": rules_page()}


def command_page() -> str:
    """Every command, with its options and examples."""
    parts = [
        "# Commands\n",
        f"{commands.help}\n" if commands.help else "",
        "`--config FILE` stands before the command. Exit codes: 0, 1 for what you can mend, told in one line, 2 for a "
        "wrong use, 130 for Ctrl-C.\n",
    ]
    for name, command in walk(commands, "tapewatch"):
        context = click.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## {name}\n", f"```text\n{name} {usage}\n```\n", f"{_paragraphs(command.help)}\n"]
        parts += [_options(command, context), _examples(name)]
    return "\n".join(part for part in parts if part)


def walk(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its whole name."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from walk(command, f"{above} {name}")
        else:
            yield f"{above} {name}", HANDED_OVER.get(name, command)


def _paragraphs(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("\b\n", "")


def _options(command: click.Command, context: click.Context) -> str:
    found = [record for option in command.params if (record := option.get_help_record(context))]
    rows = [f"| {_code(names)} | {_cell(what)} |\n" for names, what in found if "--help" not in names]
    return "".join(["| option | |\n|---|---|\n", *rows]) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _code(text: str) -> str:
    # Markdown readers do not agree on how a bar is written in the code of a table.
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _examples(name: str) -> str:
    lines = examples_of(name)
    return "\n".join(["```sh", *lines, "```", ""]) if lines else ""


def rules_page() -> str:
    """Every alert rule of Prometheus, with the page that says what to do."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rows = [
        f"| [{rule['alert']}](../{rule['annotations']['runbook'].removeprefix('docs/')}) | {rule['labels']['team']} | "
        f"{rule['labels']['severity']} | {rule.get('for', 'at once')} | {_said(rule['annotations']['summary'])} |\n"
        for group in groups
        for rule in group["rules"]
    ]
    head = "# Prometheus alerts\n\nEach leads to its runbook. How they are loaded: [dashboards](../dashboards.md).\n"
    return "".join([head, "\n| alert | for whom | severity | after | says |\n|---|---|---|---|---|\n", *rows])


def _said(summary: str) -> str:
    return _cell(re.sub(r"{{.*?}}", "…", summary).removeprefix("…: "))


def settings_page() -> str:
    """Every setting with its default, what it may be, and what it is for."""
    parts = [
        "# Settings\n\nHow they are set: [Change a setting](../how-to/settings.md). The variable of `worker.port` is "
        "`TAPEWATCH_WORKER__PORT`, and so on.\n"
    ]
    sections = {field.name: field for field in types.type_info(Settings).fields}  # type: ignore[attr-defined]
    parts.append(_section("", Settings, {name: f for name, f in sections.items() if not _is_section(f)}))
    for name, field in sections.items():
        if _is_section(field):
            parts.append(f"\n## {name}\n\n{inspect.cleandoc(field.type.cls.__doc__)}\n")
            parts.append(_section(f"{name}.", field.type.cls, {each.name: each for each in field.type.fields}))
    return "".join(parts)


def _is_section(field: types.Field) -> bool:
    return isinstance(field.type, types.StructType)


def _section(prefix: str, struct: type[msgspec.Struct], fields: dict[str, types.Field]) -> str:
    notes = comments(struct)
    rows = [
        f"| `{prefix}{name}` | {_default(field.default)} | {_rule(field.type)} | {_cell(notes.get(name, ''))} |\n"
        for name, field in fields.items()
    ]
    return "".join(["\n| setting | default | may be | |\n|---|---|---|---|\n", *rows])


def _default(value: Any) -> str:
    if value == DEFAULT_MODELS:
        return "the models that ship"
    return f"`{value_text(value if value is not msgspec.NODEFAULT else [])}`"


def _rule(kind: types.Type) -> str:
    """What a value may be, in words."""
    match kind:
        case types.BoolType():
            return "true, false"
        case types.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case types.ListType():
            return f"list of {_rule(kind.item_type)}"
        case types.StrType():
            length = f", at most {kind.max_length} characters" if kind.max_length else ""
            return f"text{', not empty' if kind.min_length else ''}{length}"
        case types.IntType() | types.FloatType():
            signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
            bounds = [
                f"{sign} {_number(bound)}" for key, sign in signs.items() if (bound := getattr(kind, key)) is not None
            ]
            return " ".join(["whole number" if isinstance(kind, types.IntType) else "number", *bounds])
    raise TypeError(f"no words for {kind}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What the comments of a struct say of each field: those on its line, and those on lines of their own above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    source = inspect.getsource(struct)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text = token.string.lstrip("# ")
        if field := re.match(r"    (\w+): ", token.line):
            found[field[1]] = " ".join([*above, text])
            above = []
        else:
            above.append(text)
            if field := re.match(r"    (\w+): ", source.splitlines()[token.start[0]]):
                found[field[1]] = " ".join(above)
                above = []
    return found
