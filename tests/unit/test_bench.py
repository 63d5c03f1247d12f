"""What the benchmark makes of clocks and counters: schedules, lag after a burst, quantiles, and what is kept."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stream import cli
from stream.config import ROOT
from stream.errors import TapewatchError
from tests.benchmark import burst, findings, latency, own_share, plots, profile, report, schedule, symbols, targets
from tests.benchmark.backtest import Backtested
from tests.benchmark.backtest import Run as Pass
from tests.benchmark.checkpoints import AT_LEAST_ONCE, EXACTLY_ONCE, PLAIN, Kept, Recovered, Way
from tests.benchmark.drain import Drained, Run
from tests.benchmark.journey import Journey, Measured
from tests.benchmark.schedule import Phase
from tests.benchmark.stages import Staged
from tests.benchmark.stand import Stand
from tests.benchmark.start import Started

MACHINE = {"date": "2026-11-24 10:00 UTC", "commit": "1234567", "load": "0.10", "processor": "one", "command": "it"}
SECOND_NS = 1_000_000_000


def test_ticks_are_due_evenly_in_each_phase() -> None:
    phases = [Phase(2.0, 1.0), Phase(4.0, 0.5)]
    assert schedule.due_ns(phases).tolist() == [500_000_000, SECOND_NS, 1_250_000_000, 1_500_000_000]
    assert schedule.bounds(phases) == [slice(0, 2), slice(2, 4)]
    assert [schedule.read(text) for text in schedule.written(phases)] == phases


def journey_with_lag(phases: list[Phase], lag_ns: int, from_ns: int, to_ns: int) -> Journey:
    """All answers take 2 ms, and those of ticks sent within a time take longer."""
    sent = schedule.due_ns(phases)
    taken = np.where((sent >= from_ns) & (sent < to_ns), lag_ns, 2_000_000)
    return Journey(sent + taken, sent, np.zeros_like(sent), [None] * len(phases))


def test_a_burst_that_lags_is_over_when_the_medians_are_calm_again() -> None:
    phases = [Phase(1000.0, 4.0), Phase(11_000.0, 1.0), Phase(1000.0, 5.0)]
    seen = journey_with_lag(phases, 300_000_000, 4 * SECOND_NS + 1, 5 * SECOND_NS + 400_000_000)
    found = burst.assess(seen, phases, 0.5)
    assert found.worst_seconds == pytest.approx(0.3)
    assert found.before_p50_ms == pytest.approx(2.0)
    assert found.sent_in_seconds == pytest.approx(1.0, abs=0.01)
    assert found.normal_after_seconds == pytest.approx(0.4, abs=0.11)
    assert max(found.longest_ms[:29]) == pytest.approx(2.0)


def test_a_burst_that_never_calms_down_says_so() -> None:
    phases = [Phase(1000.0, 4.0), Phase(11_000.0, 1.0), Phase(1000.0, 5.0)]
    found = burst.assess(journey_with_lag(phases, 300_000_000, 4 * SECOND_NS, 20 * SECOND_NS), phases, 0.5)
    assert found.normal_after_seconds is None


def test_own_share_is_what_happened_between_two_looks() -> None:
    before = own_share.Note(1.0, 10, {0.001: 5.0, 0.002: 8.0, float("inf"): 8.0})
    after = own_share.Note(1.5, 110, {0.001: 105.0, 0.002: 208.0, float("inf"): 208.0})
    found = own_share.between(before, after)
    assert found is not None
    assert found.stages_mean == pytest.approx(5.0)
    assert found.acknowledged_p50 == pytest.approx(1.0)
    assert found.ticks_a_chunk == pytest.approx(2.0)
    assert own_share.between(before, before) is None


def test_a_quantile_behind_the_last_bound_is_that_bound() -> None:
    assert own_share.quantile({0.1: 1.0, float("inf"): 10.0}, 0.9) == 0.1


def test_parts_that_were_measured_again_replace_those_that_were_kept(tmp_path: Path) -> None:
    old = findings.Findings({"start": MACHINE, "backtest": MACHINE}, start=Started([2.0], [0.1]))
    old.backtest = Backtested(10, [Pass(1.0, 2.0, 0.0)])
    new = findings.Findings({"start": MACHINE | {"commit": "7654321"}}, start=Started([1.0], [0.2]))
    findings.write(findings.merged(old, new), tmp_path / "kept" / "found.json")
    found = findings.read(tmp_path / "kept" / "found.json")
    assert found.start == Started([1.0], [0.2])
    assert found.backtest == old.backtest
    assert [found.taken[part]["commit"] for part in ("start", "backtest")] == ["7654321", "1234567"]


def test_nothing_is_kept_where_no_file_is(tmp_path: Path) -> None:
    assert findings.read(tmp_path / "absent.json") == findings.Findings()


def test_a_rate_of_too_few_ticks_is_kept_as_one_that_is_not_known(tmp_path: Path) -> None:
    run = Run(math.nan, math.nan, [20, 20, 20])
    file = tmp_path / "found.json"
    findings.write(findings.Findings(peers=[Drained("naive", "worker", 1, 20, [run])]), file)
    (peer,) = findings.read(file).peers or []
    assert math.isnan(peer.runs[0].ticks_per_second)
    assert math.isnan(peer.runs[0].ticks_per_cpu_second)
    assert peer.runs[0].results == [20, 20, 20]


def test_every_part_has_tables() -> None:
    assert set(report.TABLES) == set(findings.PARTS)


def test_ratios_are_taken_run_by_run() -> None:
    ours = Drained("worker", "worker", 1, 10, [Run(100.0, 200.0, []), Run(50.0, 100.0, [])])
    theirs = Drained("raw loop", "raw loop", 1, 10, [Run(200.0, 100.0, []), Run(50.0, 100.0, [])])
    (ratios,) = (table for table in report.tables(findings.Findings(drain=[ours, theirs])) if "Ratios" in table.title)
    assert ratios.rows == [["worker / raw loop", "0.75 (0.50 to 1.00)", "1.50 (1.00 to 2.00)"]]


def test_targets_are_met_or_missed_by_medians() -> None:
    ours = Drained("worker", "worker", 1, 10, [Run(100.0, 250_000.0, []), Run(50.0, 190_000.0, [])])
    theirs = Drained("naive", "naive", 1, 10, [Run(1.0, 5000.0, [])] * 2)
    found = findings.Findings(drain=[ours, theirs], start=Started([2.0, 4.0, 3.5], [0.1] * 3))
    assert [(each.measure, each.found, each.met) for each in targets.judge(found)] == [
        ("drain, ticks/s a CPU second", "220,000 (partitions: 1)", True),
        ("drain, ticks/s by the wall", "75 (partitions: 1)", False),
        ("drain, of the naive's by CPU", "44.00", True),
        ("start to first result", "3.50", False),
    ]


def test_heads_are_judged_in_full_chunks_and_alone() -> None:
    staged = [Staged(size, 1000, [{"inference": us}]) for size, us in ((512, 1.4), (32, 9.0), (1, 61.0))]
    assert [(each.measure, each.found, each.met) for each in targets.judge(findings.Findings(stages=staged))] == [
        ("all heads, a tick in chunks of 512", "1.40", True),
        ("all heads, a tick in chunks of 1", "61.00", False),
    ]


def drained_with(way: Way, instruments: int, rates: list[float]) -> Kept:
    """Runs of one way, by the wall."""
    return Kept(way.name, instruments, 10, [Run(rate, 1.0, []) for rate in rates])


def test_checkpoints_are_judged_run_by_run_by_what_the_drain_keeps() -> None:
    kept = [
        drained_with(PLAIN, 16, [100.0, 50.0]),
        drained_with(AT_LEAST_ONCE, 16, [90.0, 49.0]),
        drained_with(EXACTLY_ONCE, 16, [80.0, 39.0]),
        drained_with(PLAIN, 10_000, [100.0]),
        drained_with(AT_LEAST_ONCE, 10_000, [86.0]),
        drained_with(EXACTLY_ONCE, 10_000, [74.0]),
        drained_with(PLAIN, 100, [100.0]),
        drained_with(AT_LEAST_ONCE, 100, [1.0]),
    ]
    assert [(each.target, each.found, each.met) for each in targets.judge(findings.Findings(checkpoints=kept))] == [
        (">= 0.95", "0.94", False),
        (">= 0.85", "0.86", True),
        (">= 0.75", "0.79", True),
        (">= 0.75", "0.74", False),
    ]


def test_exactly_once_has_a_latency_of_its_own_to_keep() -> None:
    run = latency.Run(5000.0, 10, 79.0, 201.0, 300.0, 400.0, 0.1, 0.5)
    rated = [latency.Rated("worker, exactly once", rate, [run]) for rate in (1000.0, 5000.0)]
    (judged,) = targets.judge(findings.Findings(latency=rated))
    assert (judged.target, judged.found, judged.met) == ("80 / 200 ms", "79.0 / 201.0", False)


def test_the_state_of_many_instruments_must_be_back_soon() -> None:
    recovered = [Recovered(16, [9.0]), Recovered(10_000, [1.0, 3.0, 1.9])]
    (judged,) = targets.judge(findings.Findings(recovery=recovered))
    assert (judged.target, judged.found, judged.met) == ("<= 2 s", "1.90", True)


def test_nothing_is_judged_that_was_not_measured() -> None:
    assert targets.judge(findings.Findings()) == []


def test_what_differs_between_parts_is_told_for_each() -> None:
    other = MACHINE | {"processor": "two"}
    taken = {"start": MACHINE | {"kafka": "4"}, "backtest": other | {"kafka": "4"}}
    common, parts = report.tables(findings.Findings(taken))
    assert ["kafka", "4"] in common.rows
    assert [row[-1] for row in parts.rows] == ["one", "two"]


def some_findings() -> findings.Findings:
    """A little of everything that is drawn."""
    run = latency.Run(1000.0, 10, 1.0, 2.0, 3.0, 4.0, 0.1, 0.5, 990.0)
    subjects: tuple[Measured, ...] = ("worker", "raw loop")
    lagging = burst.Run([1.0, 300.0, 2.0], [1.0, 200.0, 1.0], 1.0, 2.0, 0.3, 1.0, 0.2, 0.5)
    return findings.Findings(
        {"latency": MACHINE},
        drain=[Drained("worker", "worker", 1, 10, [Run(100.0, 200.0, []), Run(50.0, 100.0, [])])],
        latency=[latency.Rated(subject, rate, [run]) for subject in subjects for rate in (1000.0, 5000.0)],
        burst=[burst.Burst("worker", 100, 5000.0, [lagging, lagging]), burst.Burst("raw loop", 100, 5000.0, [lagging])],
        symbols=symbols.Symbols([symbols.Cost(16, even, 4.0, 1.0) for even in (True, False)], []),
    )


def test_what_was_found_is_drawn(tmp_path: Path) -> None:
    assert plots.write(some_findings(), tmp_path) == list(plots.PLOTS)
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{name}.{kind}" for name in plots.PLOTS for kind in ("png", "svg")
    }
    assert set(plots.PLOTS) == set(plots.CAPTIONS)


def test_nothing_is_drawn_of_what_was_not_measured(tmp_path: Path) -> None:
    assert plots.write(findings.Findings(), tmp_path) == []


def test_the_page_shows_pictures_and_tables_and_is_the_same_again(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{report.START}\n{report.END}\nafter\n", encoding="utf-8")
    found = findings.Findings({"burst": MACHINE}, burst=some_findings().burst)
    report.write_page(found, page)
    text, picture = page.read_text(encoding="utf-8"), (tmp_path / "burst.svg").read_bytes()
    assert f"![{plots.CAPTIONS['burst']}](burst.svg)" in text
    assert "| worker | 5,000 | 2 | 1.0 (1.0 to 1.0) | 0.30 (0.30 to 0.30) | 0.2 (0.2 to 0.2) |" in text
    report.write_page(found, page)
    assert (page.read_text(encoding="utf-8"), (tmp_path / "burst.svg").read_bytes()) == (text, picture)


def test_bench_without_a_checkout_says_that_it_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["tapewatch", "bench", "drain"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "no checkout" in capsys.readouterr().err
    assert (ROOT / "tests" / "benchmark").is_dir()


def test_a_kafka_that_ended_is_told_with_its_last_lines(tmp_path: Path) -> None:
    stand, log = Stand(), tmp_path / "broker.log"
    log.write_text("started\nout of memory\n")
    stand._broker = SimpleNamespace(running=False, log=log)  # type: ignore[assignment]
    with pytest.raises(TapewatchError, match=r"Kafka ended by itself \(no answer\).*out of memory"):
        stand.__exit__(None, TapewatchError("no answer"), None)


def test_an_error_of_ours_is_not_told_as_the_brokers(tmp_path: Path) -> None:
    stand = Stand()
    stand._broker = SimpleNamespace(running=True, log=tmp_path / "absent")  # type: ignore[assignment]
    stand.__exit__(None, TapewatchError("no answer"), None)


def test_shares_of_a_flame_graph_are_added_up_by_frame() -> None:
    svg = (
        "<title>all (100 samples, 100%)</title><title>take (app.py) (1,200 samples, 60.50%)</title>"
        "<title>&lt;lambda&gt; (x.py) (1 sample, 2.00%)</title><title>take (app.py) (9 samples, 9.25%)</title>"
    )
    assert profile.shares(svg) == {"all": 100.0, "take (app.py)": 69.75, "<lambda> (x.py)": 2.0}
