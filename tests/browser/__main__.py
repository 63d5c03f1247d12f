"""Takes the pictures of the board again: `make pictures`.

Recorded and made markets (`market.eventful`) run through the worker's own pipeline and models into a board: in a hurry
to the second at which there is something to see, and then at their own pace while the pictures are taken.
"""

import argparse
import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from stream.config import ROOT
from tests.browser import chromium
from tests.browser.market import RECORDED_SECONDS, Market, eventful
from tests.browser.served import Served

FOLDER: Final = ROOT / "docs" / "images"
BEGIN_SECONDS: Final = 612.0
"""After the first recorded tick: a pump, a crash and a volatile market are to be seen."""
WINDOW: Final = (1280, 720)
COLOURS: Final = 256  # a third of the bytes
STEP_SECONDS: Final = 0.1
CALM_RATE: Final = re.compile(r"^[1-9][0-9]{0,2}$")
"""Ticks a second once the hurry is over."""
SYMBOL: Final = "/#/symbol/ALPHA/simulator"


class Picture(NamedTuple):
    """What is looked at, and what is done before."""

    name: str
    path: str = "/"
    dark: bool = False
    size: tuple[int, int] = WINDOW
    do: Callable[[Page, Served], None] = lambda page, served: None


def _open_alert(page: Page, _served: Served) -> None:
    page.locator("#alerts summary").first.click()
    page.locator("#alerts summary").nth(3).click()


def _stand_still(page: Page, served: Served) -> None:
    served.freeze()
    expect(page.locator("body.stale")).to_be_attached()


PICTURES: Final = (
    Picture("board-table-light"),
    Picture("board-table-dark", dark=True),
    Picture("board-symbol-light", SYMBOL, size=(1280, 960)),
    Picture("board-symbol-dark", SYMBOL, dark=True, size=(1280, 960)),
    Picture("board-alert-open", do=_open_alert),
    Picture("board-phone", size=chromium.PHONE),
    Picture("board-phone-symbol", SYMBOL, dark=True, size=chromium.PHONE),
    Picture("board-stale", do=_stand_still),
)


class Tape:
    """A market that goes on at its own pace while in `with`, from where it was left."""

    def __init__(self, market: Market, seconds: float = BEGIN_SECONDS) -> None:
        self._market = market
        self._seconds = seconds
        market.play_to(seconds)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the recording."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(STEP_SECONDS) and self._seconds < RECORDED_SECONDS:
                self._seconds += STEP_SECONDS
                self._market.play_to(self._seconds)

        thread = threading.Thread(target=run, name="tape")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def take(picture: Picture, browser: Browser, served: Served, folder: Path) -> Path:
    """One of them, as PNG."""
    with chromium.page(browser, dark=picture.dark, size=picture.size) as page:
        page.goto(served.url + picture.path)
        expect(page.locator("#fact-rate")).to_have_text(CALM_RATE)
        expect(page.locator("#symbol-body" if picture.path == SYMBOL else "#rows")).to_be_visible()
        picture.do(page, served)
        content = page.screenshot()
        served.thaw()
    file = folder / f"{picture.name}.png"
    Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    return file


def main() -> None:
    """All of them, into docs/images or another folder."""
    parser = argparse.ArgumentParser(description="Take the pictures of the board in the browser.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: docs/images)")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with Served() as served, chromium.browser() as browser:
        tape = Tape(Market(served, eventful()))
        for picture in PICTURES:
            with tape.running():
                file = take(picture, browser, served, folder)
            print(f"{file.stat().st_size / 1000:6.1f} kB  {file}")


if __name__ == "__main__":
    main()
