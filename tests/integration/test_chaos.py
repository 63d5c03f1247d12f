"""The short form of `make chaos`: one fault of each kind under load, from a fixed seed, for each delivery."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stream.config import ROOT

FAULTS = 5  # one of each kind; with these seeds within 17 s
RATE = 1000  # messages a second: enough to have some in every worker's hands, and left over for the other tests


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("delivery", "seed"), [("at_least_once", 605), ("exactly_once", 124)])
def test_nothing_is_lost_or_wrong_whatever_is_killed(delivery: str, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    options = ["--kills", str(FAULTS), "--rate", str(RATE), "--delivery", delivery, "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options, "--json", str(file), "--keep", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    found = json.loads(file.read_bytes())
    assert found["ok"]
    assert len(found["faults"]) == FAULTS
    assert found["kept"]["acknowledged"] == found["sent"] > 10 * RATE
    tallies = found["report"]["topics"]
    assert tallies["predictions"]["found"] + tallies["rejected"]["found"] == found["sent"]
    assert tallies["rejected"]["found"] >= found["sent"] // 60
