"""The board in headless Chromium: what it shows, what it says when something is wrong, and whether all can use it."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from stream.config import Web
from stream.messages import ACTIONS, GATES, LEVELS, Alert, AlertKind, AlertState, Contribution, Severity
from stream.switch import InForce
from tests.browser import chromium
from tests.browser.__main__ import PICTURES, Tape, take
from tests.browser.market import Market, eventful
from tests.browser.served import REFRESH_SECONDS, STALL_SECONDS, Served
from tests.unit.test_desk import named, output
from tests.unit.test_history import answers

pytestmark = pytest.mark.skipif(chromium.program() is None, reason=chromium.MISSING)
expect.set_options(timeout=chromium.PATIENCE_MS)

SECONDS = 120  # of course that each symbol has
LONG = "BTCUSD_PERPETUAL.CM"  # a name for which a phone has no room on one line
LEVEL_OF = {
    "CALM": "normal",
    "UNEASY": "elevated",
    "TENSE": "high",
    "WILD": "critical",
    "YOUNG": "normal",
    LONG: "high",
}
SCORES = {"CALM": 12.0, "UNEASY": 45.0, "TENSE": 70.0, "WILD": 90.0, "YOUNG": 1.0, LONG: 65.0}
SYMBOLS = list(LEVEL_OF)


def tell(served: Served, second: float, symbol: str, price: float = 0.0) -> None:
    """Let a tick of a symbol be answered."""
    slot = SYMBOLS.index(symbol)
    results = answers([second], [price or SCORES[symbol]], [slot])
    results.risk[:, -1] = SCORES[symbol]
    results.forecast[:] = 1e-3
    results.level[:] = LEVELS.index(LEVEL_OF[symbol])
    results.warming[:] = symbol == "YOUNG"
    results.action[:] = ACTIONS.index("long" if symbol == "TENSE" else "flat")
    results.gate[:] = GATES.index("es_limit") if symbol == "WILD" else 0
    served.do(lambda: served.desk.note(0, output(results), time.time_ns() // 1_000_000))


def alert(symbol: str, severity: Severity, *, closed: bool = False, detail: str = "") -> Alert:
    """An alert with two reasons."""
    reasons = [] if closed else [Contribution("momentum_10s", 0.012, 3.0), Contribution("trade_rate_10s", 40.0, 1.0)]
    kind: AlertKind = "feed" if detail else "price_jump"
    state: AlertState = "closed" if closed else "opened"
    return Alert(f"{symbol}-{severity}", symbol, "V", kind, severity, state, 0, 1, 10**18, 5.0, 4.0, reasons, detail)


@contextmanager
def desk(web: Web | None = None) -> Iterator[Served]:
    """A board with a symbol of each level, and alerts of each severity, one of them over."""
    with Served(web) as served:
        served.do(lambda: served.desk.open(0, named(*SYMBOLS)))
        for second in range(1, SECONDS + 1):
            for symbol in SYMBOLS:
                tell(served, second, symbol, 61_234.5 if symbol == LONG else 100.0 + second % 7)
        changes = [alert("WILD", "critical"), alert("TENSE", "warning"), alert("UNEASY", "info")]
        changes += [
            alert("CALM", "info"),
            alert("CALM", "info", closed=True),
            alert("YOUNG", "warning", detail="stale"),
        ]
        served.do(lambda: served.desk.alerts.note(changes))
        yield served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A board for all tests that do not change it."""
    with desk() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with chromium.browser() as found:
        yield found


@contextmanager
def shown(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page that has heard from its worker; whatever it complained of is an error."""
    complaints: list[str] = []
    with chromium.page(browser, **options) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Content Sec" in message.text else None)
        page.goto(url)
        expect(page.locator("#link-text")).to_have_text("live")
        yield page
    assert complaints == []


def row(page: Page, symbol: str) -> Locator:
    """The table's row of a symbol."""
    return page.locator("#rows tr").filter(has=page.get_by_role("link", name=symbol, exact=True))


def test_table_shows_each_symbol_by_score_and_follows_the_worker(browser: Browser) -> None:
    with desk() as served, shown(browser, served.url) as page:
        expect(page.locator("#rows th a")).to_have_text(["WILD", "TENSE", LONG, "UNEASY", "CALM", "YOUNG"])
        assert "critical" in row(page, "WILD").inner_text()
        assert "long" in row(page, "TENSE").inner_text()
        assert "flat (gated)" in row(page, "WILD").inner_text()
        expect(row(page, "YOUNG")).to_contain_text("silent")  # an alert says so
        expect(page.locator("#fact-alerts")).to_have_text("4")
        tell(served, SECONDS + 1, "CALM", 31_415.9)
        expect(row(page, "CALM")).to_contain_text("31,415.9")
        SCORES["CALM"] = 99.0
        try:
            tell(served, SECONDS + 2, "CALM")
        finally:
            SCORES["CALM"] = 12.0
        expect(page.locator("#rows th a").first).to_have_text("CALM")


def test_nothing_is_asked_of_anybody_but_the_worker(browser: Browser, served: Served) -> None:
    asked: list[str] = []
    with chromium.page(browser) as page:
        page.context.on("request", lambda request: asked.append(request.url))
        page.goto(served.url)
        row(page, "WILD").get_by_role("link").click()
        expect(page.locator("#plot-price canvas")).to_be_visible()
    assert {url[: len(served.url)] for url in asked} == {served.url}
    assert len(asked) > len(("/", "board.css", "board.js", "/live"))


def test_a_symbol_opens_and_its_charts_are_drawn(browser: Browser, served: Served) -> None:
    with shown(browser, served.url) as page:
        row(page, "TENSE").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("TENSE @ V")
        expect(page.locator("#symbol-level")).to_have_text("high")
        expect(page.locator(".plot canvas")).to_have_count(5)
        for canvas in page.locator(".plot canvas").all():
            assert canvas.evaluate(INKED) > 200, "an empty chart"
        assert "lowest 100.000, highest 106.000" in (page.locator("#plot-price").get_attribute("aria-label") or "")
        expect(page.locator("#alerts li")).to_have_count(1)  # only its own
        expect(page).to_have_title("(4) 101.000 TENSE · Tapewatch")
        page.get_by_role("link", name="All symbols").click()
        expect(page).to_have_title("(4) Tapewatch")
        expect(page.locator("#alerts li")).to_have_count(5)


INKED = """canvas => {
  const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return dots.filter((value, i) => i % 4 === 3 && value > 0).length;
}"""


def test_an_alert_opens_to_its_reasons(browser: Browser, served: Served) -> None:
    with shown(browser, served.url) as page:
        item = page.locator("#alerts li").filter(has_text="WILD")
        expect(item.locator(".why")).to_be_hidden()
        item.locator("summary").click()
        expect(item.locator(".why")).to_contain_text("Value 5, threshold 4")
        expect(item.get_by_role("row")).to_have_text(
            ["Driven byValueShare", "momentum 10s0.01275 %", "trade rate 10s4025 %"]
        )
        item.get_by_role("link", name="WILD @ V").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("WILD @ V")


@pytest.mark.parametrize("path", ["/#/symbol/nobody/", "/#/symbol/TENSE/elsewhere", "/#/symbol/%F0%9F%90%9F%3Cb%3E/V"])
def test_a_symbol_that_is_not_there_says_so(browser: Browser, served: Served, path: str) -> None:
    with shown(browser, served.url + path) as page:
        expect(page.locator("#symbol-empty")).to_contain_text("No data yet: this worker has had no tick of")
        expect(page.locator("#symbol-body")).to_be_hidden()
        expect(page.locator("#symbol-others a")).to_have_count(len(SYMBOLS))


def test_a_mistyped_symbol_leads_to_the_one_that_was_meant(browser: Browser, served: Served) -> None:
    with shown(browser, served.url + "/#/symbol/tens/V") as page:
        expect(page.locator("#symbol-others")).to_contain_text("It has ticks of TENSE @ V, ")
        page.locator("#symbol-others a").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("TENSE @ V")
        expect(page.locator("#symbol-body")).to_be_visible()
        expect(page.locator("#symbol-others")).to_be_hidden()


def test_a_symbol_whose_course_is_not_kept_says_so_and_shows_its_numbers(browser: Browser) -> None:
    none_kept = Web(refresh_seconds=REFRESH_SECONDS, courses=0)
    with desk(none_kept) as served, shown(browser, served.url + "/#/symbol/TENSE/V") as page:
        expect(page.locator("#symbol-note")).to_contain_text("its last minutes are not kept")
        expect(page.locator("#figures")).to_contain_text("101.000")
        expect(page.locator("figure:visible")).to_have_count(0)
        page.get_by_role("link", name="All symbols").click()
        expect(row(page, "TENSE")).to_contain_text("\u2013")  # a dash, for there is no change that one knows


def test_an_address_that_means_nothing_is_the_table(browser: Browser, served: Served) -> None:
    with shown(browser, served.url + "/#/symbol/%E0%A4%A/V") as page:
        expect(page.locator("#rows tr")).to_have_count(len(SYMBOLS))


def test_a_worker_that_says_nothing_is_shown_as_stale_until_it_speaks_again(browser: Browser) -> None:
    with desk() as served, shown(browser, served.url) as page:
        served.freeze()
        expect(page.locator("#link-text")).to_contain_text("stale")
        expect(page.get_by_role("alert")).to_contain_text(re.compile(r"Not live: nothing .* since .* UTC .* are old"))
        expect(page.locator("body.stale")).to_be_attached()
        expect(page.get_by_role("status")).to_have_text("stale")  # read out once, and not each second
        assert axe(page) == []
        served.thaw()
        expect(page.locator("#link-text")).to_have_text("live")
        expect(page.locator("#banner")).to_be_hidden()


def test_a_worker_that_stands_still_is_shown_as_such(browser: Browser) -> None:
    with desk() as served, shown(browser, served.url) as page:
        long_ago = time.monotonic() - 2 * STALL_SECONDS
        served.do(lambda: served.health.update(0, 1, 1, 50, 1000.0, long_ago))
        expect(page.locator("#link-text")).to_have_text("stalled")
        expect(page.get_by_role("alert")).to_contain_text("stands still")


def test_one_viewer_too_many_is_told_why(browser: Browser) -> None:
    few = Web(refresh_seconds=REFRESH_SECONDS, viewers=1)
    with desk(few) as served, shown(browser, served.url), chromium.page(browser) as late:
        late.goto(served.url)
        expect(late.get_by_role("alert")).to_contain_text("The board has all the viewers it takes; trying again")


def axe(page: Page) -> list[str]:
    """Faults that axe-core calls serious or critical, with the element of each."""
    found = Axe().run(page).response["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {node['html'][:120]} {node['failureSummary']}" for each in grave for node in each["nodes"]]


@pytest.mark.parametrize(
    ("dark", "size"),
    [(False, chromium.DESK), (True, chromium.DESK), (True, chromium.PHONE)],
    ids=["light", "dark", "dark phone"],
)
def test_axe_finds_no_serious_fault(browser: Browser, served: Served, dark: bool, size: tuple[int, int]) -> None:
    with shown(browser, served.url, dark=dark, size=size) as page:
        page.locator("#alerts summary").first.click()
        assert axe(page) == []
        row(page, "WILD").get_by_role("link").click()
        expect(page.locator("#plot-price canvas")).to_be_visible()
        assert axe(page) == []


WIDTHS = "() => [document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]"


def test_a_phone_needs_no_scrolling_sideways_and_sees_the_level(browser: Browser, served: Served) -> None:
    with shown(browser, served.url, size=chromium.PHONE) as page:
        for cell in page.locator("#rows .tag, #rows .n:visible").all():
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= chromium.PHONE[0] - 12
        assert page.locator("#table-scroll").evaluate("it => it.scrollWidth <= it.clientWidth")
        for _ in ("the table", "a symbol"):
            full, seen = page.evaluate(WIDTHS)
            assert full <= seen
            page.goto(served.url + "/#/symbol/WILD/V")
            expect(page.locator("#plot-price canvas")).to_be_visible()


def test_the_keyboard_reaches_everything(browser: Browser, served: Served) -> None:
    with shown(browser, served.url) as page:
        focused = page.locator(":focus")
        page.keyboard.press("Tab")
        expect(focused).to_have_text("Skip to the symbols")
        page.keyboard.press("Enter")
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.textContent"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            if any("CALM" in text and "closed" in text for text in reached):
                break
        assert set(SYMBOLS) <= reached
        page.locator("#alerts summary").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#alerts details[open]")).to_have_count(1)
        row(page, "TENSE").get_by_role("link").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_a_picture_is_taken_of_recorded_and_made_markets(browser: Browser, tmp_path: Path) -> None:
    with Served() as served:
        tape = Tape(Market(served, eventful()), seconds=2.0)
        with tape.running():
            file = take(PICTURES[0], browser, served, tmp_path)
        symbols = {row.symbol for row in served.do(served.desk.rows)}
    assert file.read_bytes().startswith(b"\x89PNG")
    assert {"ALPHA", "BRAVO", "CHARLIE", "LTCUSDT"} <= symbols


def test_a_new_alert_is_told_to_a_screen_reader(browser: Browser) -> None:
    with desk() as served, shown(browser, served.url) as page:
        expect(page.locator("#alerts li")).to_have_count(5)
        assert page.locator("#announce").text_content() == ""
        served.do(lambda: served.desk.alerts.note([alert("TENSE", "critical")]))
        expect(page.locator("#announce")).to_have_text("critical alert: price jump, TENSE @ V")


def test_the_switch_asks_why_and_then_again_and_the_banner_tells_on_every_page(browser: Browser) -> None:
    """By keyboard alone, but for the last."""
    with desk() as served, shown(browser, served.url + "/#/symbol/WILD/V") as page:
        press, write = page.keyboard.press, page.keyboard.type
        page.locator("#halt").focus()
        press("Enter")
        expect(page.get_by_role("dialog", name="Halt the agent's actions")).to_be_visible()
        expect(page.locator("#switch-scope option")).to_have_text(["all symbols", "WILD"])
        assert axe(page) == []
        press("Enter")
        expect(page.locator("#switch-problem")).to_have_text("Say why: the reason is kept.")
        write("the feed is wrong")
        press("Tab")
        write("anna")
        press("Enter")
        expect(page.locator("#switch-word")).to_have_text("To halt all symbols, type HALT")
        write("yes")
        press("Enter")
        expect(page.locator("#switch-problem")).to_have_text("Type HALT, or cancel.")
        assert served.asked == []
        press("Control+A")
        write("HALT")
        press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        (control,) = served.asked
        assert (control.control, control.symbol, control.reason) == ("halt", None, "the feed is wrong")

        halt = InForce(None, 1_700_000_000_000, control.by, "<b>why</b>", [0])
        served.do(lambda: served.halts.append(halt))
        told = page.locator("#halted-text")
        expect(told).to_have_text(
            "Actions halted since 2023-11-14 22:13:20 UTC by anna (board, not signed in): <b>why</b>"
        )
        assert axe(page) == []
        page.get_by_role("link", name="All symbols").click()
        expect(told).to_be_visible()
        page.locator("#resume").click()
        page.locator("#switch-reason").fill("it is right again")
        page.locator("#switch-go").click()
        page.locator("#switch-typed").fill("RESUME")
        page.locator("#switch-go").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert [each.control for each in served.asked] == ["halt", "resume"]
        served.do(served.halts.clear)
        expect(told).to_be_hidden()
        expect(page.locator("#resume")).to_be_hidden()


def test_a_board_for_readers_shows_a_halt_and_no_switch(browser: Browser) -> None:
    with desk(Web(refresh_seconds=REFRESH_SECONDS, kill_switch="off")) as served, shown(browser, served.url) as page:
        served.do(lambda: served.halts.append(InForce("WILD", 1_700_000_000_000, "anna", "why", [0])))
        expect(page.locator("#halted-text")).to_contain_text("Actions of WILD halted since")
        expect(page.locator("#halt")).to_be_hidden()
        expect(page.locator("#resume")).to_be_hidden()
