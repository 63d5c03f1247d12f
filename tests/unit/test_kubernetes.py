"""docker/kubernetes against Kubernetes' own schemas and against the code; KEDA's kinds against the code only."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stream import config
from stream.cli import commands
from stream.config import ROOT, Settings

FOLDER = ROOT / "docker" / "kubernetes"
OURS: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "tapewatch.yaml").read_text()))
KEDA: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "keda.yaml").read_text()))


def _one(kind: str) -> dict[str, Any]:
    (found,) = [each for each in OURS + KEDA if each["kind"] == kind]
    return found


def _settings(tmp_path: Path) -> Settings:
    file = tmp_path / "tapewatch.toml"
    file.write_text(_one("ConfigMap")["data"]["tapewatch.toml"])
    return config.load(file, {})


@pytest.mark.parametrize("manifest", OURS, ids=lambda manifest: manifest["kind"])
def test_manifest_is_of_kubernetes_schema(manifest: dict[str, Any]) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    validation.validate(manifest, "1.34", strict=True)


def test_worker_gets_its_settings_its_secrets_and_the_folder_it_writes(tmp_path: Path) -> None:
    settings, pod = _settings(tmp_path), _one("Deployment")["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    mounts = {each["name"]: each["mountPath"] for each in worker["volumeMounts"]}
    assert set(mounts) == {each["name"] for each in pod["volumes"]}
    assert worker["args"][0] in commands.commands
    assert {each["name"]: each["value"] for each in worker["env"]} == {
        config.ENV_FILE: f"{mounts['settings']}/tapewatch.toml"
    }
    for file in (settings.security.password_file, settings.security.ca_file):
        assert Path(file).parent == Path(mounts["kafka"])
    assert f"NUMBA_CACHE_DIR={mounts['kernels']}\n" in (ROOT / "docker" / "Dockerfile").read_text()
    assert worker["ports"][0]["containerPort"] == settings.worker.port
    assert settings.worker.host == "0.0.0.0"  # a pod's probes come from outside it
    assert {worker[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "/health"
    }


def test_keda_looks_at_the_group_and_topic_of_the_workers(tmp_path: Path) -> None:
    settings, scaled = _settings(tmp_path), _one("ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    asked = trigger["metadata"]
    assert scaled["scaleTargetRef"]["name"] == _one("Deployment")["metadata"]["name"]
    assert scaled["maxReplicaCount"] == settings.topics.partitions
    assert asked["bootstrapServers"] == settings.broker
    assert asked["consumerGroup"] == settings.worker.group
    assert asked["topic"] == settings.topics.ticks
    assert asked["username"] == settings.security.username
    assert asked["sasl"] == settings.security.mechanism.lower().replace("sha-", "sha").replace("-", "_")
    secret = {each["name"] for each in _one("TriggerAuthentication")["spec"]["secretTargetRef"]}
    (volume,) = [v for v in _one("Deployment")["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert secret == {volume["secret"]["secretName"]}
