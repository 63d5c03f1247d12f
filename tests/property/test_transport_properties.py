"""Columns hold what aiokafka itself would hand over, and cutting them loses and moves nothing."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stream.ledger import Ledger
from stream.transport import Columns, cut, unpack
from tests.unit.test_transport import batch, fetched, marker

PRODUCER = 7


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, int]], int, int]:
    """Batches with gaps, committed and aborted transactions; the aborted ones; where to read from; the end."""
    batches, aborted, at = [], [], 0
    for kind in draw(st.lists(st.sampled_from(["plain", "commit", "abort"]), max_size=6)):
        relative = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True).map(sorted))
        at += draw(st.integers(0, 3))
        open_transaction = kind != "plain"
        batches.append(batch(at, relative, PRODUCER if open_transaction else -1, open_transaction))
        if kind == "abort":
            aborted.append((PRODUCER, at))
        at += relative[-1] + 1
        if open_transaction:
            batches.append(marker(at, PRODUCER, commit=kind == "commit"))
            at += 1
    return batches, aborted, draw(st.integers(0, max(0, at - 1))), at


@given(logs())
def test_unpack_reads_what_aiokafka_reads(log: tuple[list[bytes], list[tuple[int, int]], int, int]) -> None:
    batches, aborted, at, end = log
    theirs = list(fetched(*batches, at=at, aborted=aborted))
    ours = unpack(fetched(*batches, at=at, aborted=aborted))
    assert ours.offsets == [record.offset for record in theirs]
    assert ours.timestamps == [record.timestamp for record in theirs]
    assert ours.keys == [record.key for record in theirs]
    assert ours.values == [record.value for record in theirs]
    assert ours.next_offset == (end if batches else at)


@given(st.lists(st.integers(0, 500), unique=True).map(sorted), st.integers(1, 40), st.integers(1, 20))
def test_cutting_keeps_every_record_once_and_in_order(offsets: Sequence[int], ticks: int, tail: int) -> None:
    end = (offsets[-1] if offsets else 0) + tail
    columns = Columns(list(offsets), list(offsets), [None] * len(offsets), [b"%d" % each for each in offsets], end)
    ledger = Ledger(0)
    parts = list(cut(1, columns, ticks, ledger, 0.0))
    assert [offset for part in parts for offset in part.chunk.offsets] == list(offsets)
    assert [value for part in parts for value in part.chunk.values] == columns.values
    assert all(1 <= len(part.chunk.offsets) <= ticks for part in parts)
    for part in reversed(parts):
        ledger.done(part.span)
    assert ledger.point == end
