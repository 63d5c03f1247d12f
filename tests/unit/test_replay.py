"""Replay: what is sent, and when, with a clock that only the test moves."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from stream.errors import BadFile
from stream.feeds import files, replay
from stream.feeds.files import open_ticks
from stream.feeds.replay import Block, Constant, Pace, Progressed, Recorded, Rounds, pace_of, play
from stream.messages import Tick, decode_tick

SECOND = 1_000_000_000
NS = 1_723_161_257 * SECOND


class FakeClock:
    """Stands still but for waiting, and stops when told or after so many seconds."""

    def __init__(self, until: float = float("inf")) -> None:
        self._now = 0.0
        self._until = until

    def now(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self._now += seconds

    @property
    def stopped(self) -> bool:
        return self._now >= self._until


class FakeSink:
    """Keeps what it gets and when."""

    def __init__(self, clock: FakeClock) -> None:
        self.sent: list[tuple[float, bytes | None, bytes]] = []
        self._clock = clock

    def send(self, key: bytes | None, value: bytes) -> None:
        self.sent.append((self._clock.now(), key, value))

    @property
    def seconds(self) -> list[float]:
        return [round(second, 6) for second, _, _ in self.sent]


def ticks_file(tmp_path: Path, seconds: list[float], **columns: Any) -> Path:
    rows = len(seconds)
    plain: dict[str, Any] = {
        "symbol": ["BTCUSDT"] * rows,
        "exchange_ns": [NS + round(second * SECOND) for second in seconds],
        "price": [100.0 + row for row in range(rows)],
        "size": [0.5] * rows,
    }
    path = tmp_path / "ticks.parquet"
    pyarrow.parquet.write_table(pa.table(plain | columns), path)
    return path


def played(path: Path, pace: Pace, until: float = float("inf"), **options: Any) -> tuple[FakeSink, list[Progressed]]:
    clock = FakeClock(until)
    sink = FakeSink(clock)
    return sink, list(play(Rounds(open_ticks(path), **options), pace, sink, clock))


def test_messages_are_ticks_keyed_by_symbol(tmp_path: Path) -> None:
    path = ticks_file(
        tmp_path, [0, 1], symbol=["BTCUSDT", "ETHUSDT"], side=["sell", None], venue=["x", None], trade_id=["77", None]
    )
    sink, _ = played(path, Constant(float("inf")))
    assert [key for _, key, _ in sink.sent] == [b"BTCUSDT", b"ETHUSDT"]
    assert decode_tick(sink.sent[0][2]) == Tick("BTCUSDT", NS, 100.0, 0.5, "sell", 77, "x")
    assert sink.sent[1][2] == b'{"symbol":"ETHUSDT","exchange_ns":%d,"price":101.0,"size":0.5}' % (NS + SECOND)


def test_recorded_timing_is_kept(tmp_path: Path) -> None:
    sink, progress = played(ticks_file(tmp_path, [0, 0.5, 0.5, 30]), Recorded())
    assert sink.seconds == [0, 0.5, 0.5, 30]
    assert progress[-1] == Progressed(4, 30.0, 0.0, NS + 30 * SECOND)


def test_speed_scales_the_timing(tmp_path: Path) -> None:
    sink, _ = played(ticks_file(tmp_path, [0, 4, 40]), Recorded(8.0))
    assert sink.seconds == [0, 0.5, 5]


def test_constant_rate_ignores_the_timing(tmp_path: Path) -> None:
    sink, _ = played(ticks_file(tmp_path, [0, 100, 100, 7000]), Constant(4.0))
    assert sink.seconds == [0, 0.25, 0.5, 0.75]


def test_at_most_speed_nothing_waits(tmp_path: Path) -> None:
    sink, _ = played(ticks_file(tmp_path, [0, 100, 7000]), pace_of("max", None))
    assert sink.seconds == [0, 0, 0]


def test_timing_goes_on_across_blocks_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 5)
    monkeypatch.setattr(replay, "BLOCK_TICKS", 2)
    seconds = [float(second) for second in range(12)]
    path = ticks_file(tmp_path, seconds)
    assert played(path, Recorded())[0].seconds == seconds
    assert played(path, Constant(1.0))[0].seconds == seconds


def test_a_late_tick_is_sent_at_once_and_holds_nothing_up(tmp_path: Path) -> None:
    sink, _ = played(ticks_file(tmp_path, [0, 10, 3, 11]), Recorded())
    assert sink.seconds == [0, 10, 10, 11]
    assert decode_tick(sink.sent[2][2]).exchange_ns == NS + 3 * SECOND


def test_rows_that_are_no_ticks_are_sent_as_they_are(tmp_path: Path) -> None:
    path = ticks_file(tmp_path, [0, 1, 2], exchange_ns=[NS, NS // SECOND, NS + 2 * SECOND], symbol=["A", "A", "\n"])
    sink, _ = played(path, Recorded())
    assert sink.seconds == [0, 0, 0]
    assert b'"exchange_ns":%d,' % (NS // SECOND) in sink.sent[1][2]
    assert sink.sent[2][1] is None


def test_one_symbol_can_be_chosen(tmp_path: Path) -> None:
    path = ticks_file(tmp_path, [0, 5, 6], symbol=["A", "B", "B"])
    sink, _ = played(path, Recorded(), symbol="B")
    assert sink.seconds == [0, 1]
    assert {key for _, key, _ in sink.sent} == {b"B"}


def test_an_absent_symbol_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no tick of symbol 'DOGE'"):
        played(ticks_file(tmp_path, [0]), Recorded(), symbol="DOGE")


def test_a_loop_lets_time_and_trade_ids_go_on(tmp_path: Path) -> None:
    path = ticks_file(tmp_path, [0, 1, 2], trade_id=[7, 8, 9])
    sink, _ = played(path, Recorded(), until=7.9, loop=True)
    ticks = [decode_tick(value) for _, _, value in sink.sent]
    times = [tick.exchange_ns for tick in ticks]
    assert times == sorted(set(times))
    assert [(time - NS) // SECOND for time in times] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]
    assert [tick.trade_id for tick in ticks] == list(range(7, 18))


def test_hashed_trade_ids_stay_64_bit_numbers_in_a_loop(tmp_path: Path) -> None:
    path = ticks_file(tmp_path, [0, 1, 2], trade_id=["a", "b", "c"])
    sink, _ = played(path, Recorded(), until=7.9, loop=True)
    ids = [decode_tick(value).trade_id for _, _, value in sink.sent]
    assert len(set(ids[:6])) == 6


def test_a_stop_ends_it_between_two_messages(tmp_path: Path) -> None:
    sink, progress = played(ticks_file(tmp_path, [0, 1, 2, 3]), Recorded(), until=1.5)
    assert sink.seconds == [0, 1]
    assert progress[-1].sent == 2


def test_falling_behind_is_told() -> None:
    clock = FakeClock()

    class Slow(FakeSink):
        def send(self, key: bytes | None, value: bytes) -> None:
            super().send(key, value)
            clock.wait(3.0)

    block = Block([b"A"] * 3, [b"{}"] * 3, np.array([NS, NS + SECOND, NS + 2 * SECOND]))
    last = list(play([block], Recorded(), Slow(clock), clock))[-1]
    assert last.sent == 3
    assert last.behind_seconds == pytest.approx(7.0)
    assert "7.0 s behind" in replay.describe(last)


def test_progress_comes_while_it_waits(tmp_path: Path) -> None:
    _, progress = played(ticks_file(tmp_path, [0, 10]), Recorded())
    assert len(progress) > 20
    assert all(later.sent >= earlier.sent for earlier, later in itertools.pairwise(progress))


def test_progress_reads_as_a_line() -> None:
    assert replay.describe(Progressed(1500, 3.0, 0.0, NS)) == "1,500 ticks, 500 a second, at 2024-08-08 23:54:17 UTC"


def test_a_symbol_that_the_file_lacks_is_answered_with_those_that_it_has(tmp_path: Path) -> None:
    path = ticks_file(tmp_path, [0, 1, 2], symbol=["ETHUSDT", "BTCUSDT", "ETHUSDT"])
    with pytest.raises(BadFile, match=r"has no tick of symbol 'BTCUSD'; it has those of BTCUSDT, ETHUSDT$"):
        played(path, Constant(float("inf")), symbol="BTCUSD")
