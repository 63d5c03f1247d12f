"""Health by the progress of offsets."""

from stream.health import Health


def test_starting_until_partitions_are_assigned() -> None:
    health = Health(30.0)
    assert health.status(0.0) == "starting"
    health.assign([])
    assert health.status(0.0) == "ok"


def test_starting_until_each_partition_of_the_first_assignment_is_known() -> None:
    health = Health(30.0)
    health.assign([0, 1, 2])
    health.update(0, committed=5, position=5, lag=0, commit_age=0.0, now=1.0)
    health.update(1, committed=5, position=5, lag=0, commit_age=0.0, now=1.0)
    assert health.status(1.0) == "starting"
    health.assign([0, 1, 3])  # another worker has 2 now; 3 came while all went well
    assert health.status(1.0) == "ok"


def assigned(stall_seconds: float = 30.0) -> Health:
    health = Health(stall_seconds)
    health.assign([])
    return health


def test_lag_without_progress_stalls() -> None:
    health = assigned()
    health.update(0, committed=5, position=9, lag=10, commit_age=1.0, now=100.0)
    health.update(0, committed=5, position=9, lag=12, commit_age=31.0, now=130.0)
    assert health.status(130.0) == "ok"
    assert health.status(130.5) == "stalled"


def test_ticks_that_are_computed_again_are_progress() -> None:
    health = assigned()
    health.update(0, committed=50, position=9, lag=10, commit_age=0.0, now=100.0, recomputed=9)
    health.update(0, committed=50, position=20, lag=10, commit_age=0.0, now=129.0, recomputed=20)
    health.update(0, committed=50, position=20, lag=10, commit_age=0.0, now=159.0, recomputed=20)
    assert health.status(159.0) == "ok"
    assert health.status(159.5) == "stalled"


def test_progress_keeps_a_lagging_partition_ok() -> None:
    health = assigned()
    health.update(0, committed=5, position=9, lag=1000, commit_age=1.0, now=100.0)
    health.update(0, committed=6, position=9, lag=2000, commit_age=1.0, now=129.0)
    assert health.status(150.0) == "ok"


def test_an_idle_partition_is_ok() -> None:
    health = assigned()
    health.update(0, committed=5, position=5, lag=0, commit_age=0.0, now=100.0)
    health.update(0, committed=5, position=5, lag=0, commit_age=0.0, now=500.0)
    assert health.status(500.0) == "ok"


def test_the_clock_starts_when_there_is_something_to_do() -> None:
    health = assigned()
    health.update(0, committed=5, position=5, lag=0, commit_age=0.0, now=500.0)
    health.update(0, committed=5, position=8, lag=3, commit_age=0.5, now=501.0)
    assert health.status(529.0) == "ok"
    assert health.status(531.0) == "stalled"


def test_one_stalled_partition_is_enough_and_is_forgotten_when_it_goes() -> None:
    health = assigned()
    health.update(0, committed=5, position=5, lag=0, commit_age=0.0, now=200.0)
    health.update(1, committed=5, position=8, lag=3, commit_age=0.5, now=100.0)
    assert health.status(200.0) == "stalled"
    health.assign([0])
    assert health.status(200.0) == "ok"


def test_report_shows_each_partition() -> None:
    health = assigned()
    health.update(2, committed=None, position=8, lag=3, commit_age=0.25, now=100.0)
    assert health.report(101.0) == {
        "status": "ok",
        "partitions": {
            "2": {"lag": 3, "committed": None, "position": 8, "commit_age_seconds": 0.25, "seconds_since_progress": 1.0}
        },
    }
