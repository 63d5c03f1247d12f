"""The commit point, whatever the order in which spans are finished."""

from hypothesis import given
from hypothesis import strategies as st

from stream.ledger import Ledger


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], list[int]]:
    """A start, spans with gaps between them, and the order in which they are done."""
    start = draw(st.integers(0, 1000))
    spans, at = [], start
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12)):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    return start, spans, draw(st.permutations(range(len(spans))))


@given(histories())
def test_point_is_the_end_of_the_done_prefix(history: tuple[int, list[tuple[int, int]], list[int]]) -> None:
    start, spans, order = history
    ledger = Ledger(start)
    opened = [ledger.open(first, end) for first, end in spans]
    finished: set[int] = set()
    last = start
    for index in order:
        ledger.done(opened[index])
        finished.add(index)
        prefix = next((i for i in range(len(spans)) if i not in finished), len(spans))
        assert ledger.point == (spans[prefix - 1][1] if prefix else start)
        assert ledger.point >= last
        last = ledger.point
    assert last == (spans[-1][1] if spans else start)
    assert len(ledger) == 0


@given(histories(), st.integers(0, 12), st.integers(0, 1000))
def test_spans_of_before_a_reset_never_move_the_point(
    history: tuple[int, list[tuple[int, int]], list[int]], cut: int, position: int
) -> None:
    start, spans, order = history
    ledger = Ledger(start)
    opened = [ledger.open(first, end) for first, end in spans]
    for index in order[:cut]:
        ledger.done(opened[index])
    ledger.reset(position)
    kept = ledger.open(position, position + 1)
    for index in order[cut:]:
        ledger.done(opened[index])
    assert ledger.point == position
    ledger.done(kept)
    assert ledger.point == position + 1
