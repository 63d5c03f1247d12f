"""Snapshots as bytes: complete, checked, and readable later."""

from typing import cast

import numpy as np
import pytest

from stream import snapshots
from stream.config import Features, Settings
from stream.core import actions, alerts, conformal, features, rarity, risk
from stream.errors import DamagedSnapshot, WorkerFailed
from stream.inference import Models
from stream.pipeline import Pipeline
from stream.sealed import SEAL_BYTES, Stored, seal
from tests.fakes import FakeModels
from tests.golden import snapshot as golden
from tests.ticks import SECOND, START_NS, chunk, message

SETTINGS = Settings(features=Features(warm_ticks=5, warm_seconds=2.0))
STATES = {
    "features": features.STATE,
    "conformal": conformal.STATE,
    "rarity": rarity.STATE,
    "risk": risk.STATE,
    "actions": actions.STATE,
    "alerts": alerts.STATE,
}


class OtherForecaster(FakeModels):
    names = ("fake@2", "fake@1", "fake@1")


class WiderForecaster(FakeModels):
    hidden_size = 8


def pipeline(models: FakeModels | None = None, settings: Settings = SETTINGS) -> Pipeline:
    return Pipeline(settings, cast(Models, models or FakeModels()), 3)


def symbols(names: list[str], first: int = 0, count: int = 20) -> list[tuple[bytes, bytes]]:
    """`count` ticks of each instrument, a second apart."""
    return [
        (name.encode(), message(symbol=name, exchange_ns=START_NS + (first + k) * SECOND, price=100.0 + k % 3))
        for k in range(count)
        for name in names
    ]


def stored(one: Pipeline, next_offset: int = 20) -> list[Stored]:
    records = snapshots.write(one.capture(next_offset), "g")
    return [Stored(key, value, 50 + at) for at, (key, value) in enumerate(records)]


def fed(names: list[str]) -> Pipeline:
    one = pipeline()
    keys, values = zip(*symbols(names), strict=True)
    one.process(chunk(values, keys)._replace(partition=3), 1)
    return one


def test_the_newest_layout_holds_every_field_of_the_state_in_its_shape() -> None:
    kind = snapshots.layout(snapshots.VERSION, 4)
    assert kind.fields is not None
    for part, state in STATES.items():
        assert state.fields is not None
        for name in state.names or ():
            shape = kind.fields[f"{part}.{name}"][0].shape
            if name == "window":
                shape = (2 * shape[0], *shape[1:])
            assert shape == state.fields[name][0].shape, f"{part}.{name}: add a layout, keep the old ones readable"


def test_only_instruments_with_new_ticks_are_captured() -> None:
    one = fed(["A", "B"])
    assert sorted(one.capture(20).names) == [("A", ""), ("B", "")]
    one.process(chunk([message(exchange_ns=START_NS + 99 * SECOND)], first=40)._replace(partition=3), 1)
    captured = one.capture(41)
    assert captured.names == [("A", "")]
    assert one.capture(41).names == []


def test_a_capture_does_not_follow_the_state() -> None:
    one = fed(["A"])
    captured = one.capture(20)
    before = snapshots.write(captured, "g")
    one.process(chunk([message(exchange_ns=START_NS + 99 * SECOND)], first=20)._replace(partition=3), 1)
    assert snapshots.write(captured, "g") == before


def test_pieces_are_the_whole() -> None:
    captured = fed(["A", "B", "C", "D", "E"]).capture(100)
    pieces = [record for piece in snapshots.pieces(captured, "g", 2) for record in piece]
    assert pieces == snapshots.write(captured, "g")


def test_symbol_and_venue_come_back() -> None:
    one = pipeline()
    one.process(chunk([message(symbol="Ä", venue="X")], ["Ä".encode()])._replace(partition=3), 1)
    two = pipeline()
    assert two.restore(stored(one), "state") == (1, 0, 20)
    assert two.instruments.names == [("Ä", "X")]


@pytest.mark.parametrize("at", [0, 2, 100, -1])
def test_a_damaged_snapshot_is_named(at: int) -> None:
    (good,) = stored(fed(["A"]))
    value = bytearray(good.value)
    value[at] ^= 1
    with pytest.raises(DamagedSnapshot, match=r"of A in topic state, partition 3, offset 50"):
        pipeline().restore([good._replace(value=bytes(value))], "state")


@pytest.mark.parametrize("value", [b"", b"TS", b"not a snapshot at all"])
def test_what_is_no_snapshot_is_named(value: bytes) -> None:
    with pytest.raises(DamagedSnapshot, match="this is no snapshot"):
        pipeline().restore([Stored(b"g\0A\0", value, 7)], "state")


def test_a_layout_of_a_later_release_is_refused() -> None:
    (good,) = stored(fed(["A"]))
    later = bytearray(good.value)
    later[2] = 99
    sealed = seal(bytes(later[:-SEAL_BYTES]))
    with pytest.raises(DamagedSnapshot, match="layout 99 is newer"):
        pipeline().restore([good._replace(value=sealed)], "state")


@pytest.mark.parametrize("models", [OtherForecaster(), WiderForecaster()])
def test_the_hidden_state_of_another_forecaster_is_left_out(models: FakeModels) -> None:
    one, two = fed(["A", "B"]), pipeline(models)
    assert two.restore(stored(one), "state") == (2, 2, 20)
    np.testing.assert_array_equal(two.state.features[:2], one.state.features[:2])
    two.process(chunk([message(exchange_ns=START_NS + 99 * SECOND)], first=40)._replace(partition=3), 1)
    assert two.state.hidden[0].tolist() == [1.0, *[0.0] * (models.hidden_size - 1)]  # it has seen one tick


def test_more_instruments_than_allowed_are_refused() -> None:
    worker = SETTINGS.worker.__class__(max_symbols=1)
    with pytest.raises(WorkerFailed, match=r"topic state, partition 3 holds 2 instruments: .*max_symbols is 1"):
        pipeline(settings=Settings(worker=worker)).restore(stored(fed(["A", "B"])), "state")


@pytest.mark.parametrize("version", range(1, snapshots.VERSION + 1))
def test_snapshots_of_every_layout_can_be_read_for_ever(version: int) -> None:
    one = pipeline()
    assert one.restore(golden.read(golden.file(version)), "state") == (2, 0, golden.TICKS)
    assert one.instruments.names == [("A", ""), ("B", "VENUE")]
    state = one.state.features[:2]
    assert state["ticks"].tolist() == [golden.TICKS // 2] * 2
    assert state["price"].tolist() == [100.5, 201.0]
    assert state["last_ns"].tolist() == [START_NS + 98 * SECOND, START_NS + 99 * SECOND]
    assert state["window"].shape[1] == 2 * features.WINDOW
    np.testing.assert_array_equal(state["window"][:, : features.WINDOW], state["window"][:, features.WINDOW :])
    assert one.state.hidden[:2, 0].tolist() == [golden.TICKS // 2] * 2
    # The first layout knows no scales, the second no rarity: they start anew.
    assert one.state.conformal["started"][:2].tolist() == [version >= 2] * 2
    assert (one.state.rarity["log_factor"][:2] != 0.0).tolist() == [version >= 3] * 2
    output = one.process(chunk([message(exchange_ns=START_NS + 100 * SECOND, price=101.0)], first=golden.TICKS), 1)
    assert output.results.warming.tolist() == [False]
    assert (one.state.conformal["scale"][0] == 1.0).all() == (version < 3)  # before 3 they were still warming
