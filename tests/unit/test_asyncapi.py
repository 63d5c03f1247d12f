"""asyncapi.yaml: up to date, valid AsyncAPI 3.0, and true of the bytes that the structs encode and decode."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from stream import asyncapi
from stream.config import Settings, Topics
from stream.messages import Action, Alert, Contribution, Horizon, Injection, Prediction, Risk, Tick, encode

# AsyncAPI's own schema: schemas/3.0.0-without-$id.json of the npm package @asyncapi/specs 6.11.1 (Apache-2.0),
# without its white space.
SCHEMA = Path(__file__).parent.parent / "golden" / "asyncapi-3.0.0.schema.json"

HEADER: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "venue": "binance",
    "partition": 0,
    "offset": 41,
    "exchange_ns": 1_723_161_300_000_000_000,
}
EXAMPLES: list[msgspec.Struct] = [
    Tick("BTCUSDT", 1_723_161_300_000_000_000, 61_234.5, 0.25),
    Tick("BTCUSDT", 1_723_161_300_000_000_000, 61_234.5, 0.25, "buy", 17, "binance", "a"),
    Tick("BTCUSDT", 1_723_161_300_000_000_000, 61_234.5, 0.25, "sell", "x17"),
    Prediction(
        **HEADER,
        warming=False,
        horizons=[Horizon(10, 1e-5, 2e-4, 0.5, [-1e-3, -5e-4, 0.0, 5e-4, 1e-3])],
        model="gru@1",
    ),
    Risk(
        **HEADER,
        warming=True,
        anomaly=0.5,
        var_99=1e-3,
        es_975=1.1e-3,
        volatility_ratio=1.0,
        flow=0.0,
        liquidity=1.0,
        score=12.5,
        level="normal",
        model="gan@1",
    ),
    Action(
        **HEADER,
        warming=False,
        action="long",
        target_position=1.0,
        action_values=[0.0, 0.1, 0.2],
        expected_reward=1e-6,
        gated_by=None,
        model="dqn@1",
    ),
    Alert(
        "a1",
        "BTCUSDT",
        "binance",
        "pump",
        "warning",
        "opened",
        0,
        41,
        1_723_161_300_000_000_000,
        1.5,
        1.0,
        [Contribution("log_return", 0.01, 0.5)],
    ),
    Injection("BTCUSDT", "simulator", "pump", 1_723_161_300_000_000_000, 1_723_161_390_000_000_000, "pump", 0),
]


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(asyncapi.DOCUMENT.read_text(encoding="utf-8"))
    return document


def test_committed_file_is_the_generated_one() -> None:
    assert asyncapi.DOCUMENT.read_text(encoding="utf-8") == asyncapi.render(), "out of date: run `make docs`"
    assert asyncapi.PAGE.read_text(encoding="utf-8") == asyncapi.page(), "out of date: run `make docs`"


def test_document_is_valid_asyncapi_3(committed: dict[str, Any]) -> None:
    validator = Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(committed)] == []


def test_document_without_a_title_is_not_valid(committed: dict[str, Any]) -> None:
    validator = Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert not validator.is_valid({**committed, "info": {"version": "1"}})


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for child in node.values() for found in references(child)]
    if isinstance(node, list):
        return [found for child in node for found in references(child)]
    return []


def test_every_reference_leads_somewhere(committed: dict[str, Any]) -> None:
    found = references(committed)
    assert len(found) >= len(asyncapi.TOPICS) * 4
    for reference in found:
        node: Any = committed
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def schema_of(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_what_a_struct_encodes_fits_its_schema(committed: dict[str, Any], example: msgspec.Struct) -> None:
    value = json.loads(encode(example))
    assert list(schema_of(committed, type(example).__name__).iter_errors(value)) == []
    assert msgspec.json.decode(encode(example), type=type(example)) == example


@pytest.mark.parametrize(
    "fault",
    [{"price": 0}, {"price": -1}, {"size": 0}, {"exchange_ns": 1_723_161_300_000}, {"side": "both"}, {"symbol": ""}],
)
def test_schema_refuses_what_the_decoder_refuses(committed: dict[str, Any], fault: dict[str, Any]) -> None:
    value = json.loads(encode(EXAMPLES[0])) | fault
    assert not schema_of(committed, "Tick").is_valid(value)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, Tick)


def test_channels_follow_the_topics_in_the_settings() -> None:
    channels = asyncapi.document(Settings(topics=Topics(ticks="trades", rejected="dead")))["channels"]
    assert channels["ticks"]["address"] == "trades"
    assert channels["rejected"]["address"] == "dead"


def test_every_topic_of_the_settings_is_described() -> None:
    names = {field for field in Topics.__struct_fields__ if isinstance(getattr(Topics(), field), str)}
    # The snapshots on `state` are the workers' own, in a binary form that is no contract.
    assert {topic.role for topic in asyncapi.TOPICS} == names - {"state"}


def test_worker_receives_ticks_and_sends_the_rest(committed: dict[str, Any]) -> None:
    actions = {operation["channel"]["$ref"]: operation["action"] for operation in committed["operations"].values()}
    assert actions.pop("#/channels/ticks") == "receive"
    assert set(actions.values()) == {"send"}
