"""docker/ against the code: no engine runs here, so what can be checked without one is checked here."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from grafana import panels
from stream import config
from stream.cli import commands
from stream.config import ROOT, Settings
from stream.feeds.venues import VENUES
from tests.documents import TEXTS
from tests.unit.test_prometheus import alerts

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
ENV_EXAMPLE = dict(
    line.split("=", 1) for line in (DOCKER / ".env.example").read_text().splitlines() if not line.startswith("#")
)
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}")
COMPOSE_TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")


def _filled(value: Any) -> Any:
    """As docker compose fills in the variables when nothing is set."""
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return VARIABLE.sub(lambda found: found[2] or "", value) if isinstance(value, str) else value


COMPOSE: dict[str, Any] = _filled(yaml.safe_load(COMPOSE_TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


def _parse(arguments: list[str]) -> click.Context:
    """The innermost context of a command line; raises what `tapewatch` would show."""
    context = commands.make_context("tapewatch", list(arguments))
    command: click.Command = commands
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(found.name, rest, parent=context)
    return context


def _words(command: str | list[str]) -> list[str]:
    """A command as docker compose hands it over: text is split as a shell would."""
    return shlex.split(command) if isinstance(command, str) else [str(part) for part in command]


def test_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_compose_file_is_of_the_compose_specification() -> None:
    specification = pytest.importorskip("compose_spec").ComposeSpecification
    tree = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    assert set(specification.model_validate(json.loads(json.dumps(tree))).services) == set(SERVICES)


def test_every_variable_of_the_compose_file_stands_in_the_example_with_its_default() -> None:
    used = dict(VARIABLE.findall(COMPOSE_TEXT))
    assert used == ENV_EXAMPLE


def test_every_image_has_a_version_and_ours_are_built_of_stages_that_exist() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    for image, _ in stages:
        assert image in {stage for _, stage in stages} or re.search(r":[0-9]+\.[0-9]+", image), image
    for name, service in SERVICES.items():
        assert re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+$", service["image"]), name
    for name in OURS:
        build = SERVICES[name]["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"
        assert build["target"] in {stage for _, stage in stages}


def test_versions_are_those_that_the_tests_run() -> None:
    pom = (DOCKER / "kafka" / "pom.xml").read_text(encoding="utf-8")
    kafka = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([0-9.]+)</version>", pom)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    grafana = re.search(r"grafana-foundation-sdk==\d+!([0-9.]+)", project)
    assert kafka is not None
    assert grafana is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka[1]}"
    assert SERVICES["grafana"]["image"] == f"grafana/grafana:{grafana[1]}"
    assert f"python:{sys.version_info[0]}.{sys.version_info[1]}." in DOCKERFILE
    assert ENV_EXAMPLE["TAPEWATCH_VERSION"] in project


@pytest.mark.parametrize("name", OURS)
def test_commands_and_settings_of_our_services_are_the_code_s(name: str) -> None:
    service = SERVICES[name]
    context = _parse(_words(service["command"]))
    environ = {key: str(value) for key, value in service["environment"].items()}
    settings = config.load(None, environ)
    assert settings.broker.split(":")[0] in SERVICES
    assert settings.broker.endswith(":9092")
    if isinstance(file := context.params.get("file"), Path):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("name", OURS)
def test_ours_run_without_rights_on_a_read_only_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    cache = re.search(r"NUMBA_CACHE_DIR=(\S+)", DOCKERFILE)
    assert cache is not None
    assert service["volumes"] == [f"kernels:{cache[1]}"]  # the one folder that must be writable


def test_what_is_published_listens_on_this_machine_only() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_files_that_are_mounted_or_copied_exist_and_are_not_ignored() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DOCKER / source).resolve().exists(), volume
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line]
    sources = {source for line in copied for source in shlex.split(line)[1:-1]}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("stage", ["worker", "trainer"])
def test_images_are_not_root_and_their_commands_exist(stage: str) -> None:
    text = DOCKERFILE.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
    assert "\nUSER 10001:10001\n" in text
    assert 'ENTRYPOINT ["tapewatch"]' in text
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    (name, *_) = json.loads(command)
    assert name in commands.commands


def test_health_and_metrics_are_where_the_settings_put_them() -> None:
    port = Settings().worker.port
    assert f"http://127.0.0.1:{port}/health" in DOCKERFILE
    assert f"EXPOSE {port}" in DOCKERFILE
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    theirs = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    feed_port = _words(SERVICES["feed"]["command"])[-1]
    ports = {"tapewatch": str(port), "tapewatch_feed": feed_port}
    for job, their_job in zip(scrape["scrape_configs"], theirs["scrape_configs"], strict=True):
        wanted = ports.pop(job["job_name"])
        (found,), (their_target,) = job["dns_sd_configs"], their_job["static_configs"][0]["targets"]
        assert job["job_name"] == their_job["job_name"]
        assert (str(found["port"]), their_target) == (wanted, f"127.0.0.1:{wanted}")
        assert set(found["names"]) <= set(SERVICES)
    assert ports == {}
    assert scrape["rule_files"] == theirs["rule_files"]
    assert f"--port {feed_port}" in TEXTS["docs/how-to/own-ticks.md"]


def test_feed_is_started_only_where_it_is_asked_for() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["feed"]
    context = _parse(_words(SERVICES["feed"]["command"]))
    assert context.params["venue"] in VENUES
    assert context.params["symbols"]
    assert context.params["host"] == "0.0.0.0"


def test_prometheus_tells_alertmanager_which_knows_all_alerts_and_their_teams() -> None:
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (target,) = scrape["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in SERVICES
    told = yaml.safe_load((DOCKER / "alertmanager.yml").read_text())
    receivers = {receiver["name"] for receiver in told["receivers"]}
    assert {told["route"]["receiver"], *(route["receiver"] for route in told["route"]["routes"])} == receivers
    named = set(re.findall(r"\bTapewatch\w+", (DOCKER / "alertmanager.yml").read_text()))
    assert named <= {alert["alert"] for alert in alerts()}
    teams = set(re.findall(r'team="(\w+)"', (DOCKER / "alertmanager.yml").read_text()))
    assert teams <= {alert["labels"]["team"] for alert in alerts()}


def test_grafana_finds_its_prometheus_its_alertmanager_and_its_dashboards() -> None:
    grafana = SERVICES["grafana"]
    for name, port in {"prometheus": 9090, "alertmanager": 9093}.items():
        source = (ROOT / "grafana" / "provisioning" / "datasources" / f"{name}.yaml").read_text()
        (variable,) = re.findall(r"url: \$(\w+)", source)
        assert grafana["environment"][variable] == f"http://{name}:{port}"
        assert yaml.safe_load(source)["datasources"][0]["type"] == name
    provider = yaml.safe_load((ROOT / "grafana" / "provisioning" / "dashboards" / "tapewatch.yaml").read_text())
    path = provider["providers"][0]["options"]["path"]
    assert f"../grafana/dashboards:{path}:ro" in grafana["volumes"]
    assert f"../docs/runbooks:/usr/share/grafana{panels.RUNBOOKS}:ro" in grafana["volumes"]
