"""A short soak on a real Kafka: everything is answered in order, and the figures are taken."""

import threading
from pathlib import Path

import msgspec
import pytest

from stream.config import Settings, Worker
from tests.soak import stage, verdict


@pytest.mark.timeout(300)
def test_a_steady_load_is_answered_in_order_and_leaves_no_file_open(kafka_settings: Settings, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(kafka_settings, worker=Worker(group=kafka_settings.topics.ticks, port=0))
    options = stage.Options("short", 6.0, 1000.0, 50)
    found = stage.run(options, settings, tmp_path, threading.Event())
    assert found.problems == []
    assert not found.judged
    assert found.answered == found.sent >= 3000
    assert len(found.windows) >= 1
    assert all(sample.rss_bytes > 50 * verdict.MIB for sample in found.samples)
    verdict.write_json(found, tmp_path / "soak.json")
    assert msgspec.json.decode((tmp_path / "soak.json").read_bytes())["ok"]
