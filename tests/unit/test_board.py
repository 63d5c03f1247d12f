"""The board fits its terminal, says what matters, and cannot be steered by what stands in a record."""

import io
import re
from collections import Counter, deque
from typing import Any

import pytest
from rich.console import Console

from stream import board
from stream.accounting import Latency
from stream.board import Instrument, View
from stream.messages import Action, Alert, Contribution, Horizon, Prediction, Risk

NS = 1_723_161_257_250_000_000
SECOND = 1_000_000_000
PLACE: dict[str, Any] = {"venue": "spot", "partition": 2, "offset": 41, "exchange_ns": NS}


def instrument(symbol: str, warming: bool = False) -> Instrument:
    place = PLACE | {"symbol": symbol, "warming": warming}
    horizons = [Horizon(seconds, 0.0, 0.0015, 0.53, [-0.004, -0.003, 0.0, 0.003, 0.005]) for seconds in (10, 60)]
    risk = Risk(
        **place,
        anomaly=0.991,
        var_99=0.0055,
        es_975=0.0057,
        volatility_ratio=3.2,
        flow=0.5,
        liquidity=0.25,
        score=83.0,
        level="critical",
        model="wgan@1",
    )
    action = Action(
        **place,
        action="flat",
        target_position=0.0,
        action_values=[0.0, 0.0, 0.0],
        expected_reward=0.0,
        gated_by="level",
        model="dqn@1",
    )
    found = Instrument(symbol, 61_602.02, NS)
    found.prices.extend([61_600.0, 61_601.0, 61_602.02])
    found.prediction = Prediction(**place, horizons=horizons, model="gru@1")
    found.risk, found.action = risk, action
    return found


def alert(number: int, state: Any = "opened", symbol: str = "LTCUSDT", value: float = 9.5) -> Alert:
    return Alert(
        f"a-{number}",
        **PLACE | {"symbol": symbol, "exchange_ns": NS + number * SECOND},
        kind="price_jump",
        severity="warning",
        state=state,
        value=value,
        threshold=8.0,
        reasons=[Contribution("momentum_1s", -0.00089, 8.13)] if state == "opened" else [],
    )


def view(symbols: int = 7, alerts: int = 3) -> View:
    shown = View("Binance trades at 10x", 60.0, elapsed=34.0, exchange_ns=NS)
    for number in range(symbols):
        shown.instruments[f"SYMBOL-{number}.SPOT"] = instrument(f"SYMBOL-{number}.SPOT")
    for number in range(alerts):
        shown.note(alert(number))
    shown.rejects = Counter(range=5, json=3)
    shown.open, shown.latency = 12, Latency(4.1, 9.8)
    shown.models = {"forecaster": "gru@1", "critic": "wgan@1", "policy": "dqn@1"}
    return shown


def drawn(shown: View, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    console.print(board.render(shown, width, height))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (140, 40), (240, 67)])
@pytest.mark.parametrize("alerts", [0, 3, 150])
def test_it_fits(width: int, height: int, alerts: int) -> None:
    lines = drawn(view(alerts=alerts), width, height)
    assert height - 2 <= len(lines) < height
    assert max(map(len, lines)) <= width


def test_a_row_says_price_volatility_var_score_level_and_action() -> None:
    (line,) = [line for line in drawn(view()) if "SYMBOL-3" in line]
    for cell in ("61,602.02", "15.0 bp", "55.0 bp", "83", "critical", "flat!"):
        assert cell in line


def test_there_is_room_for_more_in_a_wide_terminal() -> None:
    lines = drawn(view(), 140, 40)
    (line,) = [line for line in lines if "SYMBOL-3" in line]
    for cell in ("53%", "57.0 bp", "0.991", "0.50", "0.25"):
        assert cell in line


def test_an_instrument_without_results_yet_has_a_price() -> None:
    shown = view(0, 0)
    shown.instruments["NEW"] = Instrument("NEW", 1.5, NS)
    assert any("NEW" in line and "1.5" in line for line in drawn(shown))


def test_prices_have_one_number_of_decimals_and_no_noise_of_binary_fractions() -> None:
    shown = view(0, 0)
    shown.instruments["A"] = Instrument("A", 61762.0, NS, deque([61739.7, 61762.0]))
    shown.instruments["B"] = Instrument("B", 483.92400000000004, NS)
    shown.instruments["C"] = Instrument("C", 2e-7, NS)
    lines = {line.split()[0]: line.split()[1] for line in drawn(shown) if line.split()[:1] in (["A"], ["B"], ["C"])}
    assert lines == {"A": "61,762.0", "B": "483.924", "C": "0.0000002"}


@pytest.mark.parametrize("width", [80, 100, 110, 120, 140])
def test_no_column_is_cut(width: int) -> None:
    shown = view(alerts=0)
    shown.instruments["SYMBOL-3.SPOT"].price = 128_607.25
    (head,) = [line for line in drawn(shown, width) if "price" in line]
    (row,) = [line for line in drawn(shown, width) if "SYMBOL-3" in line]
    assert head.rstrip().endswith("action")
    assert "…" not in head + row


def test_a_warming_instrument_has_no_level() -> None:
    shown = view(0, 0)
    shown.instruments["NEW"] = instrument("NEW", warming=True)
    (line,) = [line for line in drawn(shown) if "NEW" in line]
    assert "warming" in line
    assert "critical" not in line


def test_a_silent_instrument_has_no_level() -> None:
    shown = view(1, 0)
    shown.exchange_ns = NS + 90 * SECOND
    (line,) = [line for line in drawn(shown) if "SYMBOL-0" in line]
    assert "silent 90 s" in line
    assert "critical" not in line


def test_the_newest_alert_is_on_top_with_its_reason() -> None:
    lines = drawn(view(alerts=40), 140, 40)
    at = next(place for place, line in enumerate(lines) if "alerts: 40 opened, 40 open" in line)
    assert lines[at + 1].split()[:6] == ["23:54:56", "LTCUSDT", "price_jump", "warning", "9.5", ">"]
    assert "momentum_1s -0.00089 (+8.13)" in lines[at + 1]


def test_a_closed_alert_stays_with_the_reason_it_was_opened_for() -> None:
    shown = view(alerts=2)
    shown.note(alert(0, "closed", value=0.3))
    (line,) = [line for line in drawn(shown, 140) if " closed " in line]
    assert "9.5 > 8" in line
    assert "momentum_1s" in line
    assert any("alerts: 2 opened, 1 open" in line for line in drawn(shown))


def test_an_updated_alert_shows_its_new_value_and_the_old_reason() -> None:
    shown = view(alerts=2)
    shown.note(alert(0, "updated", value=14.5))
    (line,) = [line for line in drawn(shown, 140) if "14.5 > 8" in line]
    assert "momentum_1s" in line
    assert shown.alerts_opened == 2


def test_the_list_of_alerts_is_bounded() -> None:
    shown = view(alerts=0)
    for number in range(3 * board.MOST_ALERTS):
        shown.note(alert(number))
        shown.note(alert(number, "closed"))
    assert len(shown.alerts) == board.MOST_ALERTS
    assert shown.closed == set(shown.alerts)
    assert shown.alerts_opened == 3 * board.MOST_ALERTS


def test_rates_rejects_lag_and_latency_are_at_the_foot() -> None:
    shown = view()
    shown.ticks_a_second, shown.results_a_second = 1290.0, 3870.0
    *_, rates, health = drawn(shown)
    assert rates.strip() == "in 1,290/s  out 3,870/s  8 rejected (json 3, range 5)"
    assert health.strip() == "lag 12 ticks  latency p50 4.1 ms  p99 9.8 ms  gru@1 wgan@1 dqn@1"


def test_a_symbol_cannot_steer_the_terminal() -> None:
    shown = view(0, 0)
    shown.instruments["x"] = instrument("A\x1b[2J")
    shown.note(alert(0, symbol="B\x1b[2J"))
    assert "\x1b" not in "".join(drawn(shown))


def test_a_sparkline_spans_its_own_range() -> None:
    assert board.sparkline([1.0, 2.0, 3.0]).plain == "▁▅█"
    assert board.sparkline([5.0, 5.0]).plain == "▁▁"
    assert board.sparkline([]).plain == ""


@pytest.mark.parametrize(("score", "bar"), [(0.0, "┄┄┄┄┄┄┄┄   0"), (50.0, "━━━━┄┄┄┄  50"), (100.0, "━━━━━━━━ 100")])
def test_a_score_is_a_bar_and_a_number(score: float, bar: str) -> None:
    assert board.score_bar(score, "red").plain == bar


def test_without_a_terminal_it_is_a_line() -> None:
    shown = view(2)
    shown.instruments["NEW"] = instrument("NEW", warming=True)
    assert board.plain(shown) == (
        "34 of 60 s: in 0/s, out 0/s, 8 rejected (json 3, range 5), 3 alerts opened, lag 12 ticks, "
        "latency p50 4.1 ms p99 9.8 ms; 3 symbols: 2 critical, 1 warming"
    )


def test_the_picture_holds_the_board_and_fetches_nothing() -> None:
    drawn_svg = board.picture(view())
    assert "SYMBOL-3.SPOT" in drawn_svg
    assert "<svg" in drawn_svg
    assert set(re.findall(r"https?://[^\s\"')]+", drawn_svg)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
