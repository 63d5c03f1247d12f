"""Every query of every panel and every rule, asked of Prometheus over a worker that is fed by a replay.

The short form of `make dashboards-check`.
"""

import shutil
import time

import pytest

from grafana import check
from grafana.dashboards import BOARDS
from grafana.server import MISSING, Stand
from stream.errors import TapewatchError

SPEED = 60.0  # a minute of trading a second, so that tests of forecasts end soon


@pytest.mark.skipif(shutil.which("prometheus") is None, reason=MISSING)
def test_panels_and_rules_have_answers_on_the_sample_and_none_fires() -> None:
    with Stand(SPEED) as stand:
        assert check.check_empty(stand.prometheus) > 50
        with pytest.raises(TapewatchError, match="parse error"):
            stand.prometheus.now("sum by (")
        assert check.instruments(stand.prometheus) == []
        stand.start()
        since = time.time()
        asked = check.settle(stand, since, ahead=True)
        assert [str(each) for each in asked if each.problem] == []
        assert check.faults_of_rules(stand.prometheus) == []
        assert check.alerts_seen(stand.prometheus, since)["firing"] == set()
        assert len(check.instruments(stand.prometheus)) == 7
        assert {each.board.title for each in asked} == {board.title for board in BOARDS}


def test_missing_prometheus_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TapewatchError, match="apt install prometheus"), Stand(SPEED):
        pass
