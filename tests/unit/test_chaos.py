"""The chaos harness judged by itself: its plan of faults, and that its verdict fails when it must."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from stream.config import Settings
from stream.verify import Report, Tally
from tests.chaos import plan, verdict
from tests.chaos.crew import Crew, Exit
from tests.chaos.load import FAULT_EVERY, messages
from tests.chaos.verdict import Kept, Verdict

ROLES = ("predictions", "risk", "actions", "alerts", "rejected")


def test_the_same_seed_makes_the_same_faults() -> None:
    assert plan.make(7, 40, 3) == plan.make(7, 40, 3)
    assert plan.make(7, 40, 3) != plan.make(8, 40, 3)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_a_target_has_time_to_come_back_before_it_is_struck_again(seed: int, workers: int) -> None:
    faults = plan.make(seed, 50, workers)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    for number, fault in enumerate(faults):
        low, high = plan.LENGTHS[fault.kind]
        assert low <= fault.seconds <= high
        later = [each for each in faults[number + 1 :] if each.target == fault.target]
        assert all(each.at >= fault.end + plan.SETTLE_SECONDS - 0.002 for each in later)  # times are rounded to ms


@pytest.mark.parametrize("seed", range(20))
def test_five_faults_are_one_of_each_kind(seed: int) -> None:
    faults = plan.make(seed, 5, 2)
    assert {fault.kind for fault in faults} == set(plan.KINDS)
    assert [fault.target for fault in faults if fault.kind == "broker"] == [plan.BROKER]
    assert [fault.target for fault in faults if fault.kind == "join"] == [2]


def test_swaps_lie_among_the_faults_and_move_none() -> None:
    faults = plan.make(5, 6, 2)
    both = plan.with_swaps(faults, 5, 4)
    swaps = [fault for fault in both if fault.kind == "swap"]
    assert [fault for fault in both if fault.kind != "swap"] == faults
    assert len(swaps) == 4
    assert all(faults[0].at <= swap.at <= max(fault.end for fault in faults) for swap in swaps)
    assert both == plan.with_swaps(faults, 5, 4)


def test_faults_of_different_targets_overlap() -> None:
    faults = plan.make(1, 50, 3)
    assert any(fault.end > later.at for fault, later in itertools.pairwise(faults))


def test_a_timeline_holds_each_beginning_and_end_in_order() -> None:
    faults = plan.make(3, 20, 2)
    events = plan.timeline(faults)
    assert [event.at for event in events] == sorted([f.at for f in faults] + [f.end for f in faults])
    assert [event.fault for event in events if event.begins] == faults


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 0)])
def test_a_plan_without_faults_or_workers_is_refused(count: int, workers: int) -> None:
    with pytest.raises(ValueError, match=f"count={count}, workers={workers}"):
        plan.make(1, count, workers)


def test_the_load_has_malformed_messages_in_it() -> None:
    block = next(messages())
    assert len(block.values) == pytest.approx(1024 * (1 + 1 / FAULT_EVERY), abs=1)
    assert block.keys.count(block.keys[0]) < len(block.keys)


def test_what_kafka_lost_changed_or_made_up_is_told() -> None:
    kept = Kept()
    verdict.compare({0: 10, 1: 11, 2: 12}, {0: 10, 1: 99, 3: 13, 4: 14}, kept)
    assert kept == Kept(acknowledged=3, lost=1, changed=1, foreign=2)


def judged(**changes: Any) -> Verdict:
    """A run without a fault in it, changed."""
    topics = {role: Tally(expected=100, found=100) for role in ROLES}
    whole = Verdict(
        seed=1,
        command="",
        machine={},
        workers=2,
        rate=100.0,
        seconds=1.0,
        sent=100,
        refused=[],
        kept=Kept(acknowledged=100),
        uncommitted=0,
        catch_up_seconds=0.1,
        faults=[],
        exits=[],
        report=Report("exactly_once", 100, 100, topics),
    )
    return msgspec.structs.replace(whole, **changes)


def report(delivery: str = "exactly_once", internal: int = 0, **tally: int) -> Report:
    topics = {role: Tally(expected=100, found=100) for role in ROLES}
    topics["risk"] = Tally(**{"expected": 100, "found": 100} | tally)
    return Report(delivery, 100, 100, topics, internal)


def test_a_run_in_which_all_is_right_passes() -> None:
    assert judged().ok
    assert judged(report=report("at_least_once", duplicated=40)).ok
    assert judged(exits=[Exit(0, 1, "tapewatch: no Kafka broker answers at 127.0.0.1:1")]).ok


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kept": Kept(acknowledged=99)}, "1 of 100 messages were not taken"),
        ({"refused": ["1 messages got no answer"]}, "were not taken: ['1 messages got no answer']"),
        ({"kept": Kept(acknowledged=100, lost=1)}, "1 messages lost"),
        ({"kept": Kept(acknowledged=100, changed=1)}, "1 messages changed"),
        ({"kept": Kept(acknowledged=100, foreign=1)}, "1 messages never acknowledged"),
        ({"uncommitted": 3}, "3 messages were never committed"),
        ({"report": report(missing=1)}, "not what the ticks call for"),
        ({"report": report(different=1)}, "not what the ticks call for"),
        ({"report": report(unordered=1)}, "not what the ticks call for"),
        ({"report": report(duplicated=1)}, "not what the ticks call for"),
        ({"report": report(internal=1)}, "1 ticks were refused as internal"),
        ({"report": msgspec.structs.replace(report(), ticks=99)}, "99 messages verified, 100 acknowledged"),
        ({"exits": [Exit(1, -9, "tapewatch: x")]}, "worker 1 ended with -9 and no clear reason"),
        ({"exits": [Exit(1, 1, "KeyError: 'x'")]}, "no clear reason: KeyError"),
    ],
)
def test_anything_lost_wrong_or_twice_fails_the_run(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    found = judged(**changes)
    assert any(problem in line for line in found.problems), found.problems
    assert not found.ok
    verdict.write_json(found, tmp_path / "found.json")
    written = msgspec.json.decode((tmp_path / "found.json").read_bytes())
    assert written["ok"] is False
    assert written["problems"] == found.problems


def test_a_swap_that_answered_nothing_is_told_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answered = msgspec.structs.replace(report(), models=["gru@1", "dqn@2"])
    found = judged(report=answered, swapped=["dqn@2", "gru@2"])
    verdict.show(found, Console())
    assert found.ok
    assert "not in force before the end: gru@2\n" in capsys.readouterr().out


def test_models_are_in_force_once_a_worker_has_put_each_in_the_place_of_another(tmp_path: Path) -> None:
    crew = Crew(Settings(), tmp_path)
    assert crew.said([])
    (tmp_path / "worker0.log").write_text(
        "INFO swapped models partition=1 from=gru@1,wgan@1,dqn@1 to=gru@1,wgan@1,dqn@2\n"
    )
    assert crew.said(["dqn@2"])
    assert not crew.said(["dqn@2", "gru@2"])
    (tmp_path / "worker1.log").write_text(
        "INFO models forecaster=gru@2\nINFO swapped models partition=0 from=gru@1,wgan@1,dqn@2 to=gru@2,wgan@1,dqn@2\n"
    )
    assert crew.said(["dqn@2", "gru@2"])
    assert not crew.said(["gru@1,wgan@1"])
