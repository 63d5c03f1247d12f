"""What a take-over computes again: from the offset of the snapshots, as they say it, to the committed one."""

from typing import cast

import pytest

from stream import recomputation
from stream.challenger import Shadow
from stream.config import Settings
from stream.decoding import Chunk
from stream.errors import DamagedSnapshot
from stream.inference import Models
from stream.lanes import Lane
from stream.ledger import Span
from stream.pipeline import Pipeline
from stream.sealed import SEAL_BYTES, Stored, seal
from stream.telemetry import Scores
from stream.transport import Delivery
from tests.fakes import FakeModels
from tests.golden import snapshot as golden


@pytest.mark.parametrize("version", range(1, recomputation.FORM.version + 1))
def test_records_of_every_form_can_be_read_for_ever(version: int) -> None:
    (stored,) = golden.read(golden.file(version, "offset"))
    assert recomputation.part([stored], "g") == (stored, [])
    assert recomputation.read(stored, "state", 0) == 0x0102_0304_0506_0708


def test_what_is_written_has_the_bytes_of_the_newest_form() -> None:
    assert golden.pack(golden.offset()) == golden.file(recomputation.FORM.version, "offset").read_bytes()


@pytest.mark.parametrize("at", range(16))
def test_a_damaged_record_is_named(at: int) -> None:
    value = bytearray(golden.read(golden.file(1, "offset"))[0].value)
    value[at] ^= 1
    with pytest.raises(
        DamagedSnapshot,
        match="of the offset of the snapshots in topic state, partition 3, offset 5 cannot be used: its checksum does "
        "not match its content",
    ):
        recomputation.read(Stored(b"", bytes(value), 5), "state", 3)


def test_a_record_of_a_later_form_is_refused_with_both_numbers() -> None:
    value = bytearray(golden.read(golden.file(1, "offset"))[0].value)
    value[2] = recomputation.FORM.version + 1
    later = Stored(b"", seal(bytes(value[:-SEAL_BYTES])), 5)
    with pytest.raises(
        DamagedSnapshot,
        match="of the offset of the snapshots in topic state, partition 3, offset 5 cannot be used: its form 2 is "
        "newer than 1, the newest known here",
    ):
        recomputation.read(later, "state", 3)


def test_the_record_is_told_from_those_beside_it() -> None:
    own, other = Stored(recomputation.key("g"), b"", 1), Stored(b"g\0A\0", b"", 2)
    assert recomputation.part([other, own], "g") == (own, [other])
    assert recomputation.part([other], "g") == (None, [other])


@pytest.mark.parametrize(
    ("first", "end", "begins"),
    [
        (0, 200, 60),  # all are there
        (70, 200, 70),  # some were deleted
        (150, 200, 100),  # all of them, and more
        (0, 90, 100),  # the topic is shorter than what was committed of it: these are other ticks
    ],
)
def test_reading_begins_where_the_snapshots_end_if_the_ticks_are_there(first: int, end: int, begins: int) -> None:
    assert recomputation.begin(60, 100, first, end) == begins


def test_snapshots_that_are_ahead_do_not_lead_back() -> None:
    assert recomputation.begin(100, 100, 0, 200) == 100
    assert recomputation.begin(101, 100, 0, 200) == 100


def delivery(*offsets: int) -> Delivery:
    values = [b"%d" % offset for offset in offsets]
    timestamps = [10 * offset for offset in offsets]
    return Delivery(Chunk(2, offsets, values, values), timestamps, Span(offsets[0], offsets[-1] + 1), 0.0)


@pytest.mark.parametrize(
    ("committed", "again", "left"),
    [(0, (), (5, 6, 9)), (5, (), (5, 6, 9)), (6, (5,), (6, 9)), (8, (5, 6), (9,)), (10, (5, 6, 9), ())],
)
def test_a_chunk_is_cut_at_the_committed_offset(committed: int, again: tuple[int, ...], left: tuple[int, ...]) -> None:
    whole = delivery(5, 6, 9)
    chunk, rest = recomputation.cut(whole, committed)
    assert (chunk.offsets if chunk else ()) == again
    assert (rest.chunk.offsets if rest else ()) == left
    if chunk is not None:
        assert chunk == delivery(*again).chunk
    if rest is not None:
        assert rest == delivery(*left)._replace(span=whole.span)


class OtherModels(FakeModels):
    names = ("fake@2", "fake@1", "fake@1")


def lane(models: FakeModels | None = None) -> Lane:
    settings = Settings()
    return Lane(Pipeline(settings, cast(Models, models or FakeModels()), 0), Scores(0), 0, 4, Shadow(settings))


def test_the_first_checkpoint_has_snapshots() -> None:
    assert lane().must_keep(0, everything=False, now=0.0)


def kept(*, recorded: bool = True) -> Lane:
    """A lane with snapshots at offset 100, due again at 5 s."""
    one = lane()
    one.kept_models = one.pipeline.models
    one.note_kept(100, recorded=recorded, keep_at=5.0)
    return one


def test_then_they_come_once_in_their_interval_where_there_were_ticks() -> None:
    assert not kept().must_keep(110, everything=False, now=4.9)
    assert kept().must_keep(110, everything=False, now=5.0)
    assert not kept().must_keep(100, everything=False, now=50.0)


def test_a_hand_over_leaves_nothing_to_compute_and_no_record() -> None:
    assert kept().must_keep(110, everything=True, now=1.0)
    assert kept().must_keep(100, everything=True, now=1.0)
    assert not kept(recorded=False).must_keep(100, everything=True, now=1.0)


def test_without_a_record_no_offset_is_committed_alone() -> None:
    assert kept(recorded=False).must_keep(110, everything=False, now=1.0)
    assert not kept(recorded=False).must_keep(100, everything=False, now=9.0)


def test_behind_a_swap_they_are_due() -> None:
    one = kept()
    one.pipeline = lane(OtherModels()).pipeline
    assert one.must_keep(110, everything=False, now=1.0)


def test_a_lane_recomputes_until_it_is_where_it_was() -> None:
    one = lane()
    found = []
    for one.next_offset, one.publish_from in ((0, 0), (0, 10), (9, 10), (10, 10)):
        found.append(one.recomputing)
    assert found == [False, True, True, False]
