"""What the demo says of a scenario: opened as it must, not opened, or cut short and not judged."""

from stream.messages import Alert, AlertKind, Injection
from stream.programme import Verdict

PUMP = Injection("ALPHA", "simulator", "pump", begin_ns=100, end_ns=200, opens="pump", seed=0)
ELSEWHERE = "\n  alerts opened where nothing was injected: 0"


def opened(kind: AlertKind) -> Alert:
    return Alert("1", "ALPHA", "simulator", kind, "warning", "opened", 0, 1, 150, 2.0, 1.0, [])


def verdict(*kinds: AlertKind, cut_short: bool = False) -> Verdict:
    found = Verdict([PUMP])
    for kind in kinds:
        found.note(opened(kind))
    found.cut_short = cut_short
    return found


def test_the_alert_that_must_open_did() -> None:
    for cut_short in (False, True):
        found = verdict("pump", cut_short=cut_short)
        assert found.complete
        assert found.in_words() == "  pump on ALPHA opened pump: as it must" + ELSEWHERE


def test_the_alert_that_must_open_did_not() -> None:
    found = verdict("anomaly")
    assert not found.complete
    assert found.in_words() == "  pump on ALPHA did not open pump, as it must; opened anomaly" + ELSEWHERE


def test_what_was_cut_short_is_not_judged() -> None:
    found = verdict(cut_short=True)
    assert found.complete
    assert found.in_words() == "  pump on ALPHA opened nothing: stopped before the end: not judged" + ELSEWHERE
