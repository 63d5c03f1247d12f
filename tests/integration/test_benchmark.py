"""The benchmark counts rightly: every tick answered by each subject, and the subjects agree. Times are not judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream import config, inference
from stream.config import ROOT, Settings
from stream.decoding import Chunk
from stream.encoding import values
from stream.library import Library
from stream.pipeline import Pipeline
from tests.benchmark import checkpoints, drain, edges, findings, report, tape
from tests.benchmark.peers.naive import Scorer
from tests.benchmark.stand import environment

TICKS = 3000
MACHINE = {"date": "2026-11-24 10:00 UTC", "commit": "1234567", "load": "0.10", "processor": "one", "command": "it"}
TAKEN = {"drain": MACHINE}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`tapewatch bench` until it ends."""
    command = [sys.executable, "-m", "stream.cli", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
def test_drain_counts_three_results_for_each_tick_and_subject(tmp_path: Path) -> None:
    file = tmp_path / "drain.json"
    done = bench("drain", "--runs", "1", "--ticks", str(TICKS), "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_bytes())
    counted = {
        (each["subject"], each["partitions"]): [run["results"] for run in each["runs"]] for each in found["drain"]
    }
    assert counted == {
        ("worker", 1): [[TICKS] * 3],
        ("raw loop", 1): [[TICKS] * 3],
        ("naive", 1): [[1000] * 3],
        ("worker", 4): [[TICKS] * 3],
    }
    assert "Draining a filled topic" in done.stdout
    assert set(found["taken"]) == {"drain"}
    assert {"date", "commit", "processor", "cores", "load"} <= set(found["taken"]["drain"])


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_every_part_measures_something(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    done = bench("--runs", "1", "--ticks", str(TICKS), "--seconds", "1", "--warm-up", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = findings.read(file)
    assert set(found.taken) == set(findings.PARTS)
    report.tables(found)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_checkpoints_and_recovery_count_what_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    parts, size = ["checkpoints", "recovery"], ["--instruments", "40", "--runs", "1", "--ticks", str(TICKS)]
    done = bench(*parts, *size, "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_bytes())
    assert [(each["way"], each["instruments"], each["ticks"]) for each in found["checkpoints"]] == [
        (way.name, 40, TICKS) for way in checkpoints.WAYS
    ]
    plain, at_least_once, exactly_once = ([run["results"] for run in each["runs"]] for each in found["checkpoints"])
    assert plain == at_least_once == [[TICKS] * 3]
    assert min(exactly_once[0]) >= TICKS  # with the markers of transactions
    assert [(each["instruments"], len(each["seconds"])) for each in found["recovery"]] == [(40, 1)]


def test_checkpoints_are_told_as_a_share_of_the_same_run_without() -> None:
    plain, kept = drain.Run(1000.0, 2000.0, []), drain.Run(900.0, 1500.0, [])
    found = [checkpoints.Kept(checkpoints.PLAIN.name, 16, 10, [plain]), checkpoints.Kept("kept", 16, 10, [kept])]
    (table,) = report.tables(findings.Findings(checkpoints=found))
    assert [row[-3:] for row in table.rows] == [["1,000", "1.00", "1.00"], ["900", "0.90", "0.75"]]


def test_each_instrument_has_a_tick_on_the_tape_of_checkpoints() -> None:
    recorded = tape.made(50, 20)
    assert len(recorded.values) == 50
    assert len(set(recorded.keys[:20])) == 20


def test_no_tick_of_the_tape_is_late_or_refused_in_any_round() -> None:
    recorded = tape.record(300_000)
    assert recorded.keys[:100] == tape.record(100).keys
    settings = Settings()
    pipeline = Pipeline(settings, inference.load(Path(settings.worker.models)), 0)
    offsets = range(len(recorded.values))
    for first in offsets[::4096]:
        part = slice(first, first + 4096)
        found = pipeline.process(Chunk(0, offsets[part], recorded.keys[part], recorded.values[part]), 0)
        assert (found.rejected, found.late) == ([], 0)


def test_the_naive_agent_says_what_the_pipeline_says() -> None:
    settings, recorded = Settings(), tape.record(1000)
    pipeline = Pipeline(settings, inference.load(Path(settings.worker.models)), 0)
    batches = pipeline.process(Chunk(0, range(1000), recorded.keys, recorded.values), 0).batches
    scorer = Scorer(settings)
    plain = [scorer.score(0, offset, json.loads(value)) for offset, value in enumerate(recorded.values)]
    for topic, batch in enumerate(batches):
        for ours, theirs in zip(values(batch), plain, strict=True):
            assert theirs is not None
            assert _rounded(json.loads(ours)) == _rounded(theirs[topic])


def test_all_that_lies_around_the_pipeline_is_measured_for_each_chunk() -> None:
    settings, library = Settings(), Library(Path(Settings().worker.models))
    found = edges.measure(settings, library, tape.record(40), 4, 40)
    assert set(found) == set(edges.EDGES)
    assert all(len(seconds) == 10 and min(seconds) >= 0.0 for seconds in found.values())
    assert min(found["fetch"] + found["metrics"] + found["send"]) > 0.0


def _rounded(record: Any) -> Any:
    """Numbers of three digits: a model's session by itself may round the seventh otherwise than the joined one."""
    if isinstance(record, dict):
        return {name: _rounded(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_rounded(value) for value in record]
    return pytest.approx(record, rel=1e-3, abs=1e-7) if isinstance(record, float) else record


def test_a_subject_gets_the_settings_and_nothing_else_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEWATCH_WORKER__CHUNK_TICKS", "8")
    wanted = msgspec.structs.replace(Settings(), broker="127.0.0.1:1234")
    assert config.load(environ=environment(wanted)) == wanted


def test_tables_go_between_the_markers_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.START}\nold\n{report.END}\nafter\n")
    report.write_page(findings.Findings(TAKEN), page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| processor | one |" in text
    assert "old" not in text
    assert report.START in report.PAGE.read_text(encoding="utf-8")
