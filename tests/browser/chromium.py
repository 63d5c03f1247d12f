"""Debian's Chromium, headless, driven by Playwright, which brings no browser of its own here."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from stream.errors import TapewatchError

PROGRAMS: Final = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
MISSING: Final = "Chromium is not installed (Debian: apt install chromium; `make chromium`)"
PATIENCE_MS: Final = 60_000
"""A machine may be busy with other work: a time-out is for what hangs."""
ALONE: Final = (
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
"""Options with which it looks for nobody outside this machine."""
DESK: Final = (1440, 900)
PHONE: Final = (390, 844)


def program() -> str | None:
    """Where it is; None where it is missing."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser of one's own; raises TapewatchError where there is none."""
    path = program()
    if path is None:
        raise TapewatchError(MISSING)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ALONE, timeout=PATIENCE_MS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def page(
    chromium: Browser, *, dark: bool = False, size: tuple[int, int] = DESK, login: tuple[str, str] | None = None
) -> Iterator[Page]:
    """A window of a new profile; with a name and a password, for a board whose certificate it then takes as it is."""
    context = chromium.new_context(
        color_scheme="dark" if dark else "light",
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=2 if size == PHONE else 1,
        is_mobile=size == PHONE,
        has_touch=size == PHONE,
        locale="en-GB",
        ignore_https_errors=login is not None,
        http_credentials={"username": login[0], "password": login[1]} if login else None,
    )
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context.new_page()
    finally:
        context.close()
