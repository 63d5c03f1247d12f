"""The dashboards: their files, what each panel must say, and that they ask for what there is."""

import json
import math
import re
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import picture
from grafana.check import Asked, problem_of, substituted
from grafana.dashboards import BOARDS
from grafana.files import FOLDER, path_of, text_of
from grafana.panels import DATA_SOURCE, GRID_WIDTH, INTERVAL, RUNBOOKS, Board, Note, Panel, Query, places
from grafana.server import Series
from stream.config import ROOT, Settings
from tests.unit.test_prometheus import RUNBOOKS as PAGES
from tests.unit.test_prometheus import SUFFIXES, alerts, declared, rules

PANELS = [(board, panel) for board in BOARDS for panel in board.asking]
PROVISIONING = ROOT / "grafana" / "provisioning"


def title(found: Any) -> str:
    return str(getattr(found, "title", ""))


def read(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path_of(board).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("board", BOARDS, ids=title)
def test_file_is_what_the_code_makes(board: Board) -> None:
    assert path_of(board).read_text(encoding="utf-8") == text_of(board), "run `make dashboards`"


def test_no_file_is_left_of_a_dashboard_that_is_gone() -> None:
    assert sorted(FOLDER.glob("*.json")) == sorted(path_of(board) for board in BOARDS)


def lost(before: Any, after: Any, where: str = "") -> list[str]:
    """Places in a tree that another does not hold as they were; what it holds beyond them does not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [place for key in before for place in lost(before[key], after.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            place for at, pair in enumerate(zip(before, after, strict=True)) for place in lost(*pair, f"{where}[{at}]")
        ]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


@pytest.mark.parametrize("board", BOARDS, ids=title)
def test_json_passes_through_grafanas_own_types(board: Board) -> None:
    register_default_plugins()
    read_back = json.loads(json.dumps(Dashboard.from_json(read(board)), cls=JSONEncoder))
    assert lost(read(board), read_back) == []  # the types add their defaults, and know every key of ours


def test_key_that_grafana_does_not_know_is_found() -> None:
    read_back = json.loads(json.dumps(Dashboard.from_json({**read(BOARDS[0]), "tittle": "x"}), cls=JSONEncoder))
    assert lost({"tittle": "x"}, read_back) == [".tittle: 'x' became None"]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=title)
def test_panel_says_what_a_reader_has_to_know(board: Board, panel: Panel) -> None:
    (found,) = (each for each in read(board)["panels"] if each["title"] == panel.title)
    defaults = found["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"] == "no data yet"
    assert len(found["description"]) > 20
    assert found["description"].endswith(".")
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
    assert found["links"]
    assert found["datasource"]["uid"] == DATA_SOURCE.uid
    assert [target["expr"] for target in found["targets"]] == [query.expr for query in panel.queries]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=title)
def test_links_lead_to_alerts_and_pages_that_are_there(board: Board, panel: Panel) -> None:
    (found,) = (each for each in read(board)["panels"] if each["title"] == panel.title)
    urls = [link["url"] for link in found["links"]]
    pages = [url.removeprefix(f"{RUNBOOKS}/") for url in urls if url.startswith(RUNBOOKS)]
    assert pages
    for page in pages:
        name, _, part = page.partition("#")
        text = (PAGES / name).read_text(encoding="utf-8").lower()
        assert not part or f"\n## {part.replace('-', ' ')}\n" in text
    named = {url.rpartition("=")[2] for url in urls if url.startswith("/alerting/")}
    assert named <= {alert["alert"] for alert in alerts()}


def test_every_alert_is_linked_from_a_panel() -> None:
    assert {alert for _, panel in PANELS for alert in panel.alerts} == {alert["alert"] for alert in alerts()}


def test_queries_ask_only_for_metrics_and_records_that_exist() -> None:
    there = declared() | {rule["record"] for rule in rules() if "record" in rule}
    asked = {
        name
        for _, panel in PANELS
        for query in panel.queries
        for name in re.findall(r"tapewatch[_:][\w:]+", query.expr)
    }
    assert {name for name in asked if name not in there and SUFFIXES.sub("", name) not in there} == set()


@pytest.mark.parametrize("board", BOARDS, ids=title)
def test_panels_lie_on_the_grid_and_on_no_other(board: Board) -> None:
    cells = [
        (x, y)
        for place in places(board.panels)
        for x in range(place.x, place.x + place.w)
        for y in range(place.y, place.y + place.h)
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < GRID_WIDTH
    assert [each["gridPos"] for each in read(board)["panels"]] == [place.to_json() for place in places(board.panels)]


@pytest.mark.parametrize("board", BOARDS, ids=title)
def test_titles_and_ids_are_unique(board: Board) -> None:
    found = read(board)["panels"]
    assert len({each["title"] for each in found}) == len(found)
    assert len({each["id"] for each in found}) == len(found)


def test_pages_name_only_panels_that_there_are() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))
    titles = {board.title for board in BOARDS} | {panel.title for board in BOARDS for panel in board.panels}
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text))
    assert len(named) > 10
    assert named - titles == set()


def test_settings_that_the_panels_name_exist() -> None:
    text = " ".join(panel.description for _, panel in PANELS)
    named = re.findall(r"\b(features|worker|risk|alerts)\.([a-z_]+)", text)
    assert len(named) > 5
    assert [f"{part}.{key}" for part, key in named if not hasattr(getattr(Settings(), part), key)] == []


def test_provisioned_data_source_is_the_one_that_panels_ask() -> None:
    text = (PROVISIONING / "datasources" / "prometheus.yaml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    scraped = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["global"]
    assert (source["uid"], source["type"]) == (DATA_SOURCE.uid, DATA_SOURCE.type_val)
    assert source["jsonData"]["timeInterval"] == INTERVAL == scraped["scrape_interval"]


def test_provisioned_folder_takes_files() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "tapewatch.yaml").read_text(encoding="utf-8"))[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")


def series(*values: float, **labels: str) -> Series:
    return Series(labels, [(float(at), value) for at, value in enumerate(values)])


def test_answer_of_the_expected_shape_and_range_is_right() -> None:
    assert (
        problem_of(Query("x", by=("kind",), low=0, high=1), [series(0.0, 1.0, kind="a"), series(0.5, kind="b")]) == ""
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "no data"),
        ([series(0.5)], "labels [] instead of ['kind']"),
        ([series(0.5, kind="a", symbol="b")], "labels ['kind', 'symbol'] instead of ['kind']"),
        ([series(0.5, 1.5, kind="a")], "1.5 is not from 0 to 1"),
        ([series(math.nan, 0.5, kind="a")], "nan is not from 0 to 1"),
    ],
)
def test_answer_of_another_shape_or_range_is_named(answer: list[Series], said: str) -> None:
    assert said in problem_of(Query("x", by=("kind",), low=0, high=1), answer)


def test_quantile_of_nothing_may_be_undefined_but_not_for_ever() -> None:
    query = Query("x", undefined=True)
    assert problem_of(query, [series(math.nan, 0.5)]) == ""
    assert problem_of(query, [series(0.5, math.nan)]) == "only NaN"


def test_variables_are_put_in() -> None:
    text = substituted('m{symbol="$symbol", venue="$venue"}', "BTCUSDT", "spot")
    assert text == 'm{symbol="BTCUSDT", venue="spot"}'


def test_no_variable_stands_outside_the_dashboard_that_has_it() -> None:
    for board, panel in PANELS:
        for query in panel.queries:
            left = substituted(query.expr, "", "")
            assert "$" not in left
            assert board.symbol or left == query.expr


def test_picture_shows_every_panel_with_its_answers() -> None:
    for board in BOARDS:
        asked = [
            Asked(board, panel, query, [series(0.25, 0.75, **dict.fromkeys(query.by, "<named>"))], "")
            for panel in board.asking
            for query in panel.queries
        ]
        drawn = picture.draw(board, asked)
        assert drawn.count("<polyline") == len(asked)
        assert "<named>" not in drawn
        for panel in board.panels:
            assert f">{panel.title}<" in drawn
        assert any(isinstance(panel, Note) for panel in board.panels) == (board.title in {"Symbol", "Models"})


def test_picture_shows_what_is_wrong() -> None:
    board = BOARDS[0]
    panel = board.asking[0]
    assert ">no data<" in picture.draw(board, [Asked(board, panel, panel.queries[0], [], "no data")])
