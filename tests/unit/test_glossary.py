"""The glossary names every word that the code puts on a topic, in a file or behind an alert."""

import re
from typing import get_args

import msgspec
import pytest

from stream.config import ROOT, Settings
from stream.core.features import FEATURES
from stream.core.results import FORECAST_COLUMNS, RISK_COLUMNS
from stream.messages import ALERT_KINDS, Action, AlertKind, Gate, Reason

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def words(section: str) -> set[str]:
    """The words in the first column of the tables of a section."""
    body = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    first = [row.split("|")[1] for row in body.splitlines() if row.startswith("| `")]
    return {word for cell in first for word in re.findall(r"`([^`]+)`", cell)}


def test_every_feature_is_explained_and_no_other() -> None:
    assert words("Features") == set(FEATURES)


def test_every_forecast_column_is_explained_and_no_other() -> None:
    assert words("Forecast") == set(FORECAST_COLUMNS)


def test_every_risk_column_is_explained() -> None:
    assert words("Risk") == {*RISK_COLUMNS, "level"}


def test_every_own_field_of_an_action_is_explained() -> None:
    shared = {"symbol", "venue", "partition", "offset", "exchange_ns", "warming", "model", "ticks"}
    assert words("Action") == {field.name for field in msgspec.structs.fields(Action)} - shared


def test_every_alert_kind_is_explained_and_no_other() -> None:
    assert words("Alerts") == {*ALERT_KINDS, "alert_id"}
    assert set(ALERT_KINDS) == set(get_args(AlertKind))


def test_every_reason_of_a_rejection_is_explained() -> None:
    assert words("Reasons of a rejection") == set(get_args(Reason))


@pytest.mark.parametrize("gate", get_args(Gate))
def test_every_gate_is_named(gate: str) -> None:
    assert f"`{gate}`" in TEXT


def test_settings_that_the_glossary_names_exist() -> None:
    settings = msgspec.to_builtins(Settings())
    named = re.findall(r"`(features|worker|risk|alerts|conformal|rarity)\.(\w+)`", TEXT)
    assert len(named) > 10
    assert [f"{section}.{key}" for section, key in named if key not in settings[section]] == []


def test_every_paper_that_is_cited_stands_among_the_sources() -> None:
    body, sources = TEXT.split("\n## Sources\n")
    cited = set(re.findall(r"([A-Z][a-z]+)(?: et al\.| and [A-Z]\w+)? \(?(?:\d{4})\)", body))
    assert len(cited) > 8
    listed = sources.replace("RiskMetrics,", "RiskMetrics ")
    assert [name for name in cited if name not in listed] == []
