"""Short forms of the fuzzer: inputs by chance in this process, and a few that atheris steers in one of its own."""

import random
import subprocess
import sys

import pytest

from stream.config import ROOT
from tests.fuzz.inputs import MOST, messages
from tests.fuzz.subject import Subject


def test_messages_by_chance_are_answered_or_refused() -> None:
    chance = random.Random(5)
    subject = Subject()
    for _ in range(1500):
        subject.feed(messages(chance.randbytes(chance.randrange(300))))
    counts = subject.counts
    assert counts.answered + counts.controls + sum(counts.refused.values()) == counts.messages
    assert counts.controls > 50
    assert counts.answered > 500
    assert set(counts.refused) >= {"json", "msgpack", "schema", "range", "symbol", "key", "band"}


def test_any_bytes_make_messages() -> None:
    assert len(messages(b"")) == 1
    assert len(messages(bytes(1000))) == MOST


@pytest.mark.timeout(240)
def test_the_fuzzer_counts_its_inputs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "300", "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 inputs, ")
    assert "PASSED" in done.stdout
