"""Conflation over any stream, however it is cut: at most one result an instrument and interval, and every tick counted.

What `verify` makes of such topics is held against them as well, with swaps of models and restarts in between.
"""

from collections import Counter
from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream import snapshots
from stream.core.conflation import Chosen, Names, Newest
from stream.core.features import TickColumns
from stream.encoding import values
from stream.pipeline import Output, Pipeline
from stream.sealed import Stored
from stream.spans import uncounted
from stream.succession import Reign, Succession
from stream.verify import Comparison, Expected, Named, Tally, fingerprint, runs
from tests.property.test_pipeline_properties import EAGER, messages
from tests.property.test_swap_properties import DECODERS, SWAPS, fresh, load
from tests.results import draw_results
from tests.ticks import _stream, chunk, streams

ONE: Names = ("f@1", "c@1", "p@1")
CONFLATING = msgspec.structs.replace(EAGER, worker=msgspec.structs.replace(EAGER.worker, conflate_ms=100))
Published = list[tuple[str, bytes, bytes]]  # topic, key, value

cuts = st.lists(st.integers(1, 200), max_size=12)


def edges(stops: list[int], count: int) -> list[int]:
    return sorted({0, count, *(stop for stop in stops if stop < count)})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), cuts, cuts)
def test_at_most_one_an_instrument_and_interval_and_their_ticks_are_all_ticks(
    slots: list[int], moments: list[int], borders: list[int]
) -> None:
    results = draw_results(len(slots), 1)._replace(slot=np.array(slots, np.int32))

    def chosen(cut: list[int]) -> list[list[Chosen]]:
        newest, found = Newest(), []
        for first, last in pairwise(edges([*cut, *moments], len(slots))):
            newest.add(ONE, results.rows(slice(first, last)))
            if last in moments or last == len(slots):
                found.append(newest.take())
        return found

    counted: Counter[int] = Counter()
    for number, moment in enumerate(chosen(borders)):
        (answered,) = moment
        offsets = answered.results.offset.tolist()
        assert offsets == sorted(offsets)
        behind = slice(1 if number == 0 else 0, None)  # the very first result comes beside the newest
        assert max(Counter(answered.results.slot[behind].tolist()).values(), default=1) == 1
        for slot, ticks in zip(answered.results.slot.tolist(), answered.ticks.tolist(), strict=True):
            counted[slot] += ticks
        rows = answered.results.offset - results.offset[0]
        assert answered.results.forecast.tolist() == results.forecast[rows].tolist()
    assert counted == Counter(slots)
    other, plain = chosen([]), chosen(borders)
    assert [[(each.results.offset.tolist(), each.ticks.tolist()) for each in moment] for moment in other] == [
        [(each.results.offset.tolist(), each.ticks.tolist()) for each in moment] for moment in plain
    ]


def answered(pipeline: Pipeline, stream: list[tuple[bytes, bytes]], first: int) -> Output:
    keys, raw = zip(*stream, strict=True)
    return pipeline.process(chunk(raw, keys, first)._replace(partition=3), 1)


def worked(
    stream: list[tuple[bytes, bytes]], changes: list[tuple[int, Names]], moments: list[int], stops: list[int]
) -> Published:
    """What a worker publishes at some moments that stops behind some others, and is told of all swaps."""
    reigns = Succession((Reign(0, ONE, ("", "", "")),))
    for first, names in changes:
        reigns = reigns.followed(Reign(first, names, ("", "", "")), first)
    topic: dict[bytes, Stored] = {}
    records: Published = []
    for begin, end in pairwise(edges(stops, len(stream))):
        pipeline, newest = Pipeline(CONFLATING, load(ONE), 3), Newest()
        pipeline.succeed(begin, [(max(begin, each.first), load(each.models)) for each in reigns.since(begin)])
        pipeline.restore(list(topic.values()), "state")
        for first, last in pairwise(edges([at for at in moments if begin < at < end], end)):
            if last > begin:
                output = answered(pipeline, stream[max(begin, first) : last], max(begin, first))
                assert output.batches == []
                for names, results in output.answered:
                    newest.add(names, results)
                for batch in pipeline.encode_newest(newest.take(), 1):
                    records += [(batch.topic, b"", value) for value in values(batch)]
        for key, value in snapshots.write(pipeline.capture(end), "g"):
            topic[key] = Stored(key, value, len(topic))
    return records


def verified(stream: list[tuple[bytes, bytes]], published: Published) -> dict[str, Tally]:
    """As `verify` does it."""
    heads = {topic: Named(len(stream)) for topic in DECODERS}
    for topic, _, value in published:
        result = DECODERS[topic](value)
        heads[topic].add(result.offset, result.model)
    pipeline, expected = fresh(), Expected(0, len(stream), list(DECODERS))
    pipeline.succeed(0, [(first, load(names)) for first, names in runs(*heads.values())])
    for offset, tick in enumerate(stream):
        output = answered(pipeline, [tick], offset)
        expected.add(chunk([tick[1]], [tick[0]], offset), output)
    tallies = {}
    for topic in DECODERS:
        tallies[topic] = Tally()
        comparison = Comparison(expected.results[topic], 0, tallies[topic], expected.spans())
        for _, _, value in (each for each in published if each[0] == topic):
            plain, ticks = uncounted(value)
            result = DECODERS[topic](plain)
            comparison.add(result.offset, fingerprint(result.symbol.encode(), plain), value, ticks)
        comparison.end()
    return tallies


# Stopped while a wider forecaster is in force for one instrument's tick: what the other carries waits for the first's
# return.
@example(_stream([(0.0, 0.0, 0.01, -1, 0, int(number == 1)) for number in range(9)]), [(1, 2, 1), (2, 1, 1)], [], [1])
@settings(max_examples=60)
@given(streams(), SWAPS, cuts, st.lists(st.integers(1, 60), max_size=3))
def test_verify_understands_what_is_published_whatever_was_swapped_and_stopped(
    ticks: TickColumns, changes: list[tuple[int, int, int]], moments: list[int], stops: list[int]
) -> None:
    stream = messages(ticks)
    in_order = [(first, load((f"f@{f}", f"c@{c}", "p@1")).names) for first, f, c in sorted(changes)]
    published = worked(stream, in_order, moments, stops)
    for tally in verified(stream, published).values():
        assert (tally.wrong, tally.duplicated, tally.found) == (0, 0, tally.expected)
    for topic in DECODERS:
        own = [each for each in published if each[0] == topic]
        if own:
            assert verified(stream, [each for each in published if each is not own[-1]])[topic].missing > 0
            assert verified(stream, [*published, own[-1]])[topic].duplicated == 1
