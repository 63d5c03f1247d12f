"""The wire contract against the one that was published before: old and new processes must be able to share a topic.

tests/golden/contract-VERSION.yaml is the asyncapi.yaml of that version, as it was. Until 0.1.0 is released its contract
may be copied again with a line in the changelog; from then on only a new version adds a file.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream import asyncapi
from stream.config import ROOT

CONTRACTS = sorted((ROOT / "tests" / "golden").glob("contract-*.yaml"))
Tree = dict[str, Any]


def breaks(old: Tree, new: Tree) -> Iterator[str]:
    """What a program written for `old` would trip over in `new`."""
    for role, channel in old["channels"].items():
        if new["channels"].get(role, {}).get("address") != channel["address"]:
            yield f"topic {channel['address']} is gone or has another name"
    for name, schema in old["components"]["schemas"].items():
        if name not in new["components"]["schemas"]:
            yield f"{name} is gone"
            continue
        yield from _breaks_of(name, schema, new["components"]["schemas"][name])


def _breaks_of(name: str, old: Tree, new: Tree) -> Iterator[str]:
    fields, known = new["properties"], old["properties"]
    for field, schema in known.items():
        if field not in fields:
            yield f"{name}.{field} is gone"
        elif _type(fields[field]) != _type(schema):
            yield f"{name}.{field} was {_type(schema)} and is {_type(fields[field])}"
        elif gone := set(schema.get("enum", ())) - set(fields[field].get("enum", ())):
            yield f"{name}.{field} is never {', '.join(sorted(map(str, gone)))} any more"
        elif (field in old["required"]) != (field in new["required"]):
            yield f"{name}.{field} was {'needed' if field in old['required'] else 'optional'}, and is no more"
    for field in fields.keys() - known.keys():
        if field in new["required"]:
            yield f"{name}.{field} is new and has no default: a record from before has none"
    if list(fields)[: len(known)] != list(known) and known.keys() <= fields.keys():
        yield f"{name}: new fields go last"


def _type(schema: Tree) -> str:
    """What a value is, without bounds and descriptions; values of an enumeration may be added, not taken away."""
    if "anyOf" in schema:
        return " or ".join(sorted(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return "text" if any(isinstance(value, str) for value in schema["enum"]) else "enumeration"
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    kind = {"string": "text"}.get(schema.get("type", ""), str(schema.get("type")))
    return f"{kind} of {_type(schema['items'])}" if "items" in schema else kind


@pytest.fixture
def published() -> Tree:
    """The newest contract before this one."""
    tree: Tree = yaml.safe_load(CONTRACTS[-1].read_text(encoding="utf-8"))
    return tree


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.stem)
def test_programs_written_for_an_earlier_contract_still_work(file: Path) -> None:
    assert list(breaks(yaml.safe_load(file.read_text(encoding="utf-8")), asyncapi.document())) == []


def _remove(risk: Tree) -> None:
    del risk["properties"]["score"]
    risk["required"].remove("score")


def _rename(risk: Tree) -> None:
    risk["properties"] = {{"score": "points"}.get(key, key): value for key, value in risk["properties"].items()}


def _append(risk: Tree, **schema: Any) -> None:
    risk["properties"]["depth"] = {"type": "number", "default": 0.0} | schema


def _need_more(risk: Tree) -> None:
    _append(risk)
    risk["required"].append("depth")


def _insert(risk: Tree) -> None:
    risk["properties"] = {"depth": {"type": "number", "default": 0.0}, **risk["properties"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_remove, ["Risk.score is gone"]),
        (_rename, ["Risk.score is gone"]),
        (lambda risk: risk["properties"]["score"].update(type="string"), ["Risk.score was number and is text"]),
        (lambda risk: risk["properties"]["offset"].update(type="number"), ["Risk.offset was integer and is number"]),
        (lambda risk: risk["required"].remove("score"), ["Risk.score was needed, and is no more"]),
        (_need_more, ["Risk.depth is new and has no default"]),
        (lambda risk: risk["properties"]["level"]["enum"].remove("high"), ["Risk.level is never high any more"]),
        (_insert, ["Risk: new fields go last"]),
        (_append, []),
        (lambda risk: risk["properties"]["score"].update(description="other words"), []),
    ],
)
def test_what_breaks_a_consumer_is_found_and_what_does_not_passes(
    published: Tree, change: Callable[[Tree], None], said: list[str]
) -> None:
    new = copy.deepcopy(published)
    change(new["components"]["schemas"]["Risk"])
    found = list(breaks(published, new))
    assert len(found) == len(said)
    assert all(text in line for text, line in zip(said, found, strict=True))


def test_a_topic_that_is_gone_or_renamed_is_found(published: Tree) -> None:
    new = copy.deepcopy(published)
    new["channels"]["alerts"]["address"] = "alarms"
    del new["channels"]["risk"]
    assert list(breaks(published, new)) == [
        "topic risk is gone or has another name",
        "topic alerts is gone or has another name",
    ]
