"""The rules of Prometheus: they ask for what there is, each alert has its page and its test, and promtool agrees."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from stream.config import ROOT, Settings
from stream.metrics import FeedMetrics, Metrics

FOLDER = ROOT / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
MISSING = "promtool is not installed (Debian, Ubuntu: apt install prometheus)"


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def declared() -> set[str]:
    """Metrics of workers and of feeds."""
    return {metric.name for metric in (*Metrics().declared, *FeedMetrics("", ()).declared)}


def unit_tests() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((FOLDER / "tests" / "alerts.yml").read_text(encoding="utf-8"))["tests"]
    return tests


def test_rules_ask_only_for_metrics_and_records_that_exist() -> None:
    there = declared() | {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in re.findall(r"\btapewatch[_:][\w:]+", rule["expr"])}
    assert len(asked) > 20
    assert {name for name in asked if name not in there and SUFFIXES.sub("", name) not in there} == set()


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_alert_has_severity_team_summary_and_a_page(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["labels"]["team"] in {"desk", "operator"}
    assert alert["annotations"]["summary"]
    page = ROOT / alert["annotations"]["runbook"]
    assert page == RUNBOOKS / f"{alert['alert']}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert['alert']}\n\nFor: {alert['labels']['team']}, {alert['labels']['severity']}.\n")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["What it means", "What to look at", "What to do"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_alert_is_seen_to_fire_and_to_resolve(alert: dict[str, Any]) -> None:
    cases = [
        [case for case in test.get("alert_rule_test", []) if case["alertname"] == alert["alert"]]
        for test in unit_tests()
    ]
    fired = [[bool(case["exp_alerts"]) for case in each] for each in cases if any(case["exp_alerts"] for case in each)]
    assert [False, True, False] in [each[:3] for each in fired] or [False, False, True, False] in fired


def test_every_page_belongs_to_an_alert_and_every_link_leads_somewhere() -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in RUNBOOKS.glob("*.md")}
    assert pages.keys() - {"dashboards"} == {alert["alert"] for alert in alerts()}
    links = [link for text in pages.values() for link in re.findall(r"\]\(([^)#]+)", text)]
    assert len(links) > 5
    assert [link for link in links if not (RUNBOOKS / link).exists()] == []


def test_settings_that_the_pages_name_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in RUNBOOKS.glob("*.md"))
    named = re.findall(r"`(features|worker|risk|alerts)\.(\w+)`", text)
    assert len(named) > 5
    assert [f"{part}.{key}" for part, key in named if not hasattr(getattr(Settings(), part), key)] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason=MISSING)
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus/prometheus.yml"),
        ("check", "rules", *(str(path.relative_to(ROOT)) for path in RULES)),
        ("test", "rules", "prometheus/tests/alerts.yml"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_promtool_accepts(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
