"""Which models are in force from which offset on, and the record of it."""

import pytest

from stream import snapshots, succession
from stream.errors import DamagedSnapshot
from stream.sealed import SEAL_BYTES, Stored, seal
from stream.succession import KEPT, Reign, Succession
from tests.golden import snapshot as golden


def reign(first: int, version: int) -> Reign:
    return Reign(first, (f"gru@{version}", "gan@1", "dqn@1"), (f"d{version}", "e", "f"))


ONE, TWO, THREE = reign(0, 1), reign(500, 2), reign(900, 3)


def test_the_reign_in_force_and_those_to_come_are_told() -> None:
    reigns = Succession((ONE, TWO, THREE))
    assert reigns.since(0) == [ONE, TWO, THREE]
    assert reigns.since(499) == [ONE, TWO, THREE]
    assert reigns.since(500) == [TWO, THREE]
    assert reigns.since(10_000) == [THREE]


def test_of_two_reigns_that_begin_at_one_tick_the_second_is_in_force() -> None:
    assert Succession((ONE, reign(0, 2))).since(0) == [reign(0, 2)]


def test_a_reign_that_has_not_begun_is_replaced() -> None:
    assert Succession((ONE, TWO)).followed(reign(300, 3), 200) == Succession((ONE, reign(300, 3)))


def test_a_reign_that_has_begun_stays() -> None:
    assert Succession((ONE, TWO)).followed(THREE, 600) == Succession((ONE, TWO, THREE))


def test_going_back_before_the_change_takes_the_change_away() -> None:
    assert Succession((ONE, TWO)).followed(reign(300, 1), 200) == Succession((ONE,))


def test_a_record_does_not_grow_for_ever() -> None:
    long = Succession((ONE,))
    for number in range(2 * KEPT):
        long = long.followed(reign(number, number), number)
    assert len(long.reigns) == KEPT
    assert long.last == reign(2 * KEPT - 1, 2 * KEPT - 1)


def test_a_record_comes_back() -> None:
    reigns = Succession((ONE, TWO))
    assert succession.read(Stored(succession.key("g"), succession.write(reigns), 7), "state", 3) == reigns


@pytest.mark.parametrize("version", range(1, succession.FORM.version + 1))
def test_records_of_every_form_can_be_read_for_ever(version: int) -> None:
    (stored,) = golden.read(golden.file(version, "models"))
    assert succession.part([stored], "g") == (stored, [])
    assert succession.read(stored, "state", 3) == Succession(
        (
            Reign(0, ("gru@1", "gan@1", "dqn@1"), ("d1" * 16, "e1" * 16, "f1" * 16)),
            Reign(5_000_000_000, ("tcn@12", "gan@1", "dqn@2"), ("d2" * 16, "e1" * 16, "f2" * 16)),
        )
    )


def test_what_is_written_has_the_bytes_of_the_newest_form() -> None:
    assert golden.pack(golden.models()) == golden.file(succession.FORM.version, "models").read_bytes()


@pytest.mark.parametrize("at", [0, 2, 10, -1])
def test_a_damaged_record_is_named(at: int) -> None:
    value = bytearray(golden.read(golden.file(1, "models"))[0].value)
    value[at] ^= 1
    with pytest.raises(
        DamagedSnapshot,
        match="models in force in topic state, partition 3, offset 7 cannot be used: its checksum does not match",
    ):
        succession.read(Stored(b"", bytes(value), 7), "state", 3)


def test_a_record_of_a_later_form_is_refused_with_both_numbers() -> None:
    value = bytearray(golden.read(golden.file(1, "models"))[0].value)
    value[2] = succession.FORM.version + 1
    later = Stored(b"", seal(bytes(value[:-SEAL_BYTES])), 7)
    with pytest.raises(
        DamagedSnapshot,
        match="models in force in topic state, partition 3, offset 7 cannot be used: its form 2 is newer than 1, the "
        "newest known here",
    ):
        succession.read(later, "state", 3)


def test_no_instrument_has_the_key_of_the_record() -> None:
    record = Stored(succession.key("g"), b"", 1)
    snapshot = Stored(snapshots.key("g", "A", "models"), b"", 2)
    assert succession.part([snapshot, record], "g") == (record, [snapshot])
    assert succession.part([snapshot], "g") == (None, [snapshot])
