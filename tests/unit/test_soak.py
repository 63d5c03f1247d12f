"""The verdict of a soak: what grows, what is missing."""

from itertools import islice
from typing import Any

import pytest

from stream.messages import decode_tick
from tests.soak import verdict
from tests.soak.feed import ticks
from tests.soak.reader import Window
from tests.soak.verdict import MIB, Sample, Verdict


def made(growth_mib: float = 0.0, late_ms: float = 0.0, more_files: int = 0, **changed: Any) -> Verdict:
    """An hour, looked at every minute; all of `growth_mib` an hour, `late_ms` and `more_files` come bit by bit."""
    minutes = range(61)
    fields: dict[str, Any] = {
        "command": "",
        "machine": {},
        "load": [],
        "seconds": 3600.0,
        "rate": 5000.0,
        "instruments": 1000,
        "sent": 100,
        "answered": 100,
        "unexpected": [],
        "status": 0,
        "samples": [
            Sample(60.0 * k, 200 * MIB + int(growth_mib * MIB * k / 60), 20 + more_files * k // 60, 10, 4)
            for k in minutes
        ],
        "windows": [Window(60.0 * k, 1000, 5.0, 10.0 + late_ms * k / 60) for k in minutes],
    }
    return Verdict(**fields | changed)


def test_a_flat_run_passes() -> None:
    assert made().problems == []
    assert "PASSED" in verdict.show(made())


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (made(growth_mib=2.0), "memory grows by 2.00 MiB an hour, more than 1.00"),
        (made(growth_mib=2.0, instruments=1500), "more than 1.50"),
        (made(late_ms=30.0), "at the start"),
        (made(more_files=10), "30 files at the end, 25 in the middle"),
        (made(answered=99), "1 of 100 ticks have no answer"),
        (made(unexpected=["partition 0: offset 5 instead of 4"]), "1 answers out of place"),
        (made(status=1), "the worker ended with 1"),
    ],
)
def test_one_thing_wrong_fails(run: Verdict, problem: str) -> None:
    assert len(run.problems) == 1
    assert problem in run.problems[0]
    assert "FAILED" in verdict.show(run)


def test_memory_and_latency_of_a_short_run_are_not_judged() -> None:
    assert made(growth_mib=50.0, seconds=60.0).problems == []


def test_the_ticks_of_a_soak_stay_within_a_tenth_of_their_price() -> None:
    found = [decode_tick(value) for _, _, value in islice(ticks(2), 50_000)]
    assert {tick.symbol for tick in found} == {"S0", "S1"}
    assert all(90.0 <= tick.price <= 110.0 for tick in found)
