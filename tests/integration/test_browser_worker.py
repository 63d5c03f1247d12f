"""The board of a real worker in a real browser: empty at first, live, under a flood of connections, and restarted."""

import contextlib
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import expect

from stream import clients, topics
from stream.broker import HOST, EmbeddedBroker, free_ports
from stream.children import Child
from stream.config import ROOT, Settings
from stream.demo import worker_command
from tests.browser import chromium

Eventually = Callable[[Callable[[], bool]], None]
FLOOD = 1_200  # connections, of which a worker holds 256 (web.connections) at a time
AT_ONCE = 400  # open at this end


class Stand:
    """A worker with the bundled models, and ticks of one symbol."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._log = folder / "worker.log"
        (self.port,) = free_ports(1)
        self.url = f"http://{HOST}:{self.port}"
        self._sent = 0

    def worker(self, eventually: Eventually) -> Child:
        """One that is ready."""
        child = Child(worker_command(None, self._settings, self.port), self._log, directory=ROOT)
        eventually(lambda: '"ok"' in self.ask("/health") or not child.running)
        assert child.running, child.last_lines(5)
        return child

    def send(self, count: int) -> None:
        """Ticks, ten a second of the venue's clock, each a little dearer."""
        producer = clients.producer(self._settings.cluster)
        for _ in range(count):
            self._sent += 1
            at = 1_800_000_000_000_000_000 + self._sent * 100_000_000
            tick = {"symbol": "ACME", "exchange_ns": at, "price": 100.0 + self._sent / 100, "size": 1.0}
            producer.send(self._settings.topics.ticks, key=b"ACME", value=msgspec.json.encode(tick))
        producer.close()

    @property
    def price(self) -> str:
        """Of the newest tick, as the board writes it."""
        return f"{100.0 + self._sent / 100:.3f}"

    def ask(self, path: str) -> str:
        """A page; empty where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                found: str = answer.read().decode()
                return found
        except OSError:
            return ""

    def flood(self) -> None:
        """Open FLOOD connections, some of which send junk, and say nothing on the others."""
        for _ in range(FLOOD // AT_ONCE):
            with contextlib.ExitStack() as stack:
                there = [stack.enter_context(socket.create_connection((HOST, self.port))) for _ in range(AT_ONCE)]
                for each in there[::8]:
                    with contextlib.suppress(ConnectionError):  # it is refused before it has said anything
                        each.sendall(b"\x00junk\r\n\r\n")


@pytest.mark.skipif(chromium.program() is None, reason=chromium.MISSING)
def test_board_is_empty_then_live_then_flooded_then_back_after_a_restart(
    embedded: EmbeddedBroker, tmp_path: Path, eventually: Eventually
) -> None:
    settings = Settings(broker=embedded.address)
    topics.require_topics(settings)  # asking makes them
    stand = Stand(settings, tmp_path)
    with chromium.browser() as browser, chromium.page(browser) as page:
        price, link = page.locator("#rows td.n").first, page.locator("#link-text")
        with stand.worker(eventually) as worker:
            page.goto(stand.url)
            expect(page.locator("#empty")).to_have_text("No data yet: the worker is ready and waits for ticks.")
            expect(page.locator("#alerts-empty")).to_have_text("None since the worker started.")
            stand.send(250)
            expect(price).to_have_text(stand.price)
            stand.flood()
            stand.send(50)
            expect(price).to_have_text(stand.price)
            expect(link).to_have_text("live")
            assert worker.stop() == 0
        expect(link).to_contain_text("stale")
        expect(page.get_by_role("alert")).to_contain_text("no connection")
        expect(price).to_have_text(stand.price)  # what was known is still there to be read
        with stand.worker(eventually):
            expect(link).to_have_text("live")
            expect(page.locator("#empty")).to_be_visible()  # the embedded broker keeps no snapshots
            stand.send(10)
            expect(price).to_have_text(stand.price)
