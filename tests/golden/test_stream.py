"""The recorded stream gives the committed outputs."""

from typing import Any

import pytest

from tests.golden.stream import read, replay

# Bits are promised for one machine and one version of ONNX Runtime; other processors round other last bits.
RELATIVE = 2e-4
ABSOLUTE = 1e-7


def close(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE))
    return bool(found == expected)


@pytest.mark.parametrize("chunk_ticks", [1, 7, 512])
def test_recorded_stream_gives_the_committed_outputs(chunk_ticks: int) -> None:
    found = replay([(key, value) for key, value in read("ticks")], chunk_ticks)
    for topic, records in found.items():
        expected = read(topic)
        assert len(records) == len(expected), topic
        for record, golden in zip(records, expected, strict=True):
            assert close(record, golden), (topic, record, golden)


def test_golden_stream_shows_every_kind_of_record() -> None:
    assert len(read("predictions")) == 300
    assert {row["reason"] for row in read("rejected")} == {"json", "range", "duplicate"}
    assert {row["state"] for row in read("alerts")} >= {"opened", "closed"}
    assert {row["warming"] for row in read("risk")} == {True, False}
