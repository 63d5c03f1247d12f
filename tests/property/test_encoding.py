from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from stream import messages
from stream.core.digits import FLUSH_BELOW, LARGEST, round_significant
from stream.core.results import Results
from stream.encoding import ResultEncoder, values
from tests.results import draw_results, structs

MODELS = ("gru@3", "critic@2", "dqn@1")
DECODERS: list[Any] = [messages.decode_prediction, messages.decode_risk, messages.decode_action]

names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=64)
magnitudes = st.floats(0.0, LARGEST, exclude_max=True) | st.floats(FLUSH_BELOW, 1e6)
numbers = st.builds(lambda magnitude, sign: sign * magnitude, magnitudes, st.sampled_from([1.0, -1.0]))
near_ties = st.builds(
    lambda mantissa, exponent: float(f"{mantissa}5e{exponent}"), st.integers(10**5, 10**6 - 1), st.integers(-17, 18)
)


def encoder_of(symbol: str, venue: str) -> ResultEncoder:
    encoder = ResultEncoder(MODELS)
    encoder.add(0, symbol, venue)
    return encoder


def with_expected_rewards(rewards: list[float]) -> Results:
    return draw_results(len(rewards), 1)._replace(expected_reward=np.array(rewards))


def written_rewards(results: Results) -> list[bytes]:
    actions = encoder_of("BTCUSDT", "").encode(results, 0, 0)[2]
    return [value.split(b'"expected_reward":')[1].split(b",")[0] for value in values(actions)]


@given(st.lists(numbers | near_ties, min_size=1, max_size=20))
def test_the_text_of_any_number_is_msgspecs_of_the_rounded_one(rewards: list[float]) -> None:
    rounded = round_significant(rewards)
    texts = written_rewards(with_expected_rewards(rewards))
    assert texts == [msgspec.json.encode(number) for number in rounded.tolist()]
    assert [float(text) for text in texts] == rounded.tolist()


@given(st.lists(numbers | near_ties, min_size=1, max_size=20))
def test_messagepack_has_any_number_that_json_has(rewards: list[float]) -> None:
    rounded = round_significant(rewards)
    assume((np.abs(rounded) < LARGEST).all())  # the largest of them round to a number that is none of ours any more
    results = with_expected_rewards(rounded.tolist())
    encoder = ResultEncoder(MODELS, form="msgpack")
    encoder.add(0, "BTCUSDT", "")
    for packed, batch in zip(
        encoder.encode(results, 0, 0), encoder_of("BTCUSDT", "").encode(results, 0, 0), strict=True
    ):
        assert list(map(messages.decode_any, values(packed))) == list(map(messages.decode_any, values(batch)))


@given(names, names | st.just(""), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_any_instrument_partition_and_offset_is_read_back(symbol: str, venue: str, partition: int, offset: int) -> None:
    results = draw_results(1, 1)._replace(offset=np.array([offset]))
    batches = encoder_of(symbol, venue).encode(results, partition, 0)
    expected = structs(results, [(symbol, venue)], partition, MODELS)
    assert [values(batch) for batch in batches] == [[messages.encode(topic[0])] for topic in expected]
    read = [decode(values(batch)[0]) for decode, batch in zip(DECODERS, batches, strict=True)]
    assert [(record.symbol, record.venue, record.offset) for record in read] == [(symbol, venue, offset)] * 3


@given(st.integers(1, 60), st.lists(st.integers(0, 60), max_size=5), st.integers(0, 2**32 - 1))
def test_how_results_are_cut_into_chunks_changes_no_value(rows: int, cuts: list[int], seed: int) -> None:
    results = draw_results(rows, 1, seed)
    encoder = encoder_of("BTCUSDT", "binance-usdm")
    edges = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    whole = [values(batch) for batch in encoder.encode(results, 0, 0)]
    parts: list[list[bytes]] = [[], [], []]
    for first, last in pairwise(edges):
        columns: list[Any] = [column[first:last] for column in results]
        for part, batch in zip(parts, encoder.encode(Results(*columns), 0, 0), strict=True):
            part += values(batch)
    assert parts == whole
