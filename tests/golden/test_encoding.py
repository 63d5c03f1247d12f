"""Three results, written by hand, and the bytes that they have always been.

`python -m tests.golden.test_encoding` writes encoding.json again; read its diff. A change is a change of the wire.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np

from stream.core.results import Results
from stream.encoding import ResultEncoder, values

GOLDEN: Final = Path(__file__).with_name("encoding.json")
RESULTS: Final = Results(
    slot=np.array([0, 1, 0], np.int32),
    offset=np.array([0, 41, 9_007_199_254_740_993]),  # the last is no double
    exchange_ns=np.array([1_723_161_257_679_000_000, 946_684_800_000_000_000, 4_102_444_800_000_000_000]),
    price=np.array([61_234.5, 1.0, 1e12]),
    warming=np.array([True, False, False]),
    forecast=np.array(
        [
            [0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0] * 2,
            [1.5e-6, 0.000123456, 0.512345, -0.000301, -0.0002, 1e-6, 0.0002, 0.0003] * 2,
            [-1.23456e-9, 0.01, 1.0, -12.5, -1.0, 1e-5, 1.0, 1234560.0] * 2,
        ]
    ),
    risk=np.array(
        [
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            [0.987654, 0.000698, 0.0008, 1.23457, 0.25, 0.125, 57.1],
            [1.0, 0.5, 0.75, 1e16, 1.0, 1.0, 100.0],
        ]
    ),
    level=np.array([0, 1, 3], np.int8),
    action=np.array([1, 2, 0], np.int8),
    target_position=np.array([0.0, 1.0, -0.25]),
    action_values=np.array([[0.0, 0.0, 0.0], [-1e-5, 0.0, 2.5e-5], [1e-12, -1e-12, 3.0]]),
    expected_reward=np.array([0.0, 2.5e-5, -1e-7]),
    gate=np.array([1, 0, 3], np.int8),
)


def render() -> str:
    """Each topic's values, and its batch in hexadecimal."""
    encoder = ResultEncoder(("forecaster@1", "critic@1", "policy@1"))
    encoder.add(0, "BTCUSDT", "binance-usdm")
    encoder.add(1, 'Ω"\\', "")
    batches = encoder.encode(RESULTS, 2, 1_723_161_257_700)
    topics = {
        batch.topic: {"values": [value.decode() for value in values(batch)], "batch": batch.to_bytes().hex()}
        for batch in batches
    }
    return json.dumps(topics, indent=1, ensure_ascii=False) + "\n"


def test_the_wire_is_what_it_was() -> None:
    assert render() == GOLDEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.write_text(render(), encoding="utf-8")
