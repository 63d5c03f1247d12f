"""The worker's pages over a real connection: the board's news, who is sent away, and that files are as shipped."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from stream.config import Settings, Web, Worker
from stream.errors import ConfigError
from stream.health import Health
from stream.metrics import Metrics
from stream.web import live
from stream.web.desk import Desk
from stream.web.pages import Pages
from tests.unit.test_desk import alert, named, output
from tests.unit.test_history import answers

SHIPPED = {  # uPlot 1.6.32 from npm, dist/ as it is there
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


class Site(NamedTuple):
    """Pages that are served, and who asks them."""

    desk: Desk
    health: Health
    pages: Pages
    url: str
    client: aiohttp.ClientSession


QUICK = Web(refresh_seconds=0.1)


@asynccontextmanager
async def site(web: Web) -> AsyncIterator[Site]:
    """Pages of a worker with two symbols."""
    settings = Settings(worker=Worker(port=0), web=web)
    desk, health, metrics = Desk(web.courses), Health(30.0), Metrics()
    metrics.models([("forecaster", "gru@1")])
    desk.open(2, named("A", "B"))
    desk.note(2, output(answers([1.0, 2.0, 2.0], [10.0, 11.0, 50.0], slots=[0, 0, 1]), [alert(partition=2)]), 5)
    pages = Pages(settings, metrics, health, desk, lambda: 4)
    url = await pages.start()
    try:
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=30)) as client:
            yield Site(desk, health, pages, url, client)
    finally:
        await pages.stop()


def run(check: Callable[[Site], Awaitable[None]], web: Web = QUICK) -> None:
    async def check_at_site() -> None:
        async with site(web) as there:
            await check(there)

    asyncio.run(check_at_site())


async def news(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Events and their content, as a browser reads them."""
    event = ""
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, msgspec.json.decode(value)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, for at most half a minute."""
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within 30 s")


async def first(response: aiohttp.ClientResponse, wanted: str) -> Any:
    """Content of the next event of a kind."""
    async for event, content in news(response):
        if event == wanted:
            return content
    raise AssertionError(f"the news ended without {wanted}")


def test_a_viewer_is_told_all_at_once_and_then_what_changes() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            stream = news(response)
            name, snapshot = await anext(stream)
            assert name == "snapshot"
            assert [row["symbol"] for row in snapshot["rows"]] == ["B", "A"]
            assert [each["partition"] for each in snapshot["partitions"]] == [2]
            assert (snapshot["partitions_in_all"], snapshot["models"]) == (
                4,
                {"forecaster": "gru@1", "critic": "", "policy": ""},
            )
            name, alerts = await anext(stream)
            assert (name, [each["open"] for each in alerts]) == ("alerts", [True])
            there.desk.note(2, output(answers([3.0], [90.0])), 6)
            async for name, snapshot in stream:
                if name == "snapshot" and snapshot["rows"][0]["symbol"] == "A":
                    break
            assert snapshot["rows"][0]["price"] == 90.0

    run(check)


def test_alerts_are_told_only_when_they_change() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as response:
            stream = news(response)
            seen = [await anext(stream) for _ in range(6)]
            kinds = [name for name, _ in seen]
            # With the first picture, and once by the clock, which had told nobody before.
            assert kinds.count("alerts") <= 2
            there.desk.alerts.note([alert(7, partition=2)])
            alerts = await first(response, "alerts")
            assert len(alerts) == 2

    run(check)


def test_a_follower_gets_the_whole_course_and_then_the_new_points() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live", params={"symbol": "A", "venue": "V"}) as response:
            course = await first(response, "course")
            assert (course["whole"], course["second"], course["price"]) == (True, [1, 2], [10.0, 11.0])
            # What comes before the clock has told of the symbol once is told with all of it.
            while (course := await first(response, "course"))["whole"]:
                pass
            assert course["second"] == [2]
            there.desk.note(2, output(answers([3.0], [12.0])), 6)
            while (course := await first(response, "course"))["second"] != [2, 3]:
                assert course["second"] == [2]
            assert course["row"]["price"] == 12.0

    run(check)


def test_a_clock_set_back_sends_the_whole_course_again() -> None:
    async def check(there: Site) -> None:
        there.desk.note(2, output(answers([5000.0], [12.0])), 6)
        async with there.client.get("/live", params={"symbol": "A", "venue": "V"}) as response:
            while (course := await first(response, "course"))["whole"]:
                pass
            there.desk.note(2, output(answers([100.0], [13.0])), 6)
            while not (course := await first(response, "course"))["whole"]:
                pass
            assert course["second"] == [100]

    run(check)


def test_a_symbol_nobody_knows_has_no_row() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live", params={"symbol": "nobody"}) as response:
            assert (await first(response, "course"))["row"] is None

    run(check)


def test_one_viewer_too_many_is_told_so_and_the_place_comes_free() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as one, there.client.get("/live") as two:
            await first(one, "snapshot")
            await first(two, "snapshot")
            async with there.client.get("/live") as three:
                assert three.status == 503
                assert "2 viewers (web.viewers)" in await three.text()
        await until(lambda: there.pages.live.viewers == 0)  # it learns at its next news that they have left
        async with there.client.get("/live") as again:
            assert again.status == 200

    run(check, Web(refresh_seconds=0.1, viewers=2))


def test_a_slow_viewer_is_dropped_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SLOW_SECONDS", 0.2)

    async def check(there: Site) -> None:
        names = [f"{'long' * 12}{number}" for number in range(90)]
        there.desk.open(3, named(*names))
        there.desk.note(3, output(answers([1.0] * 90, slots=range(90))), 5)
        host, port = there.url.removeprefix("http://").split(":")
        # The reader stops reading at once: what it is sent fills its buffer, the system's, and then the worker's.
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET /live HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
        async with there.client.get("/live") as quick:
            async for _ in news(quick):
                if there.pages.live.dropped:
                    break
            assert (await first(quick, "snapshot"))["rows"]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(10**9)
        writer.close()

    run(check)


def test_viewers_of_a_worker_that_stops_are_sent_away() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as response:
            await first(response, "snapshot")
            await there.pages.stop()
            with pytest.raises(AssertionError):
                await first(response, "nothing")

    run(check)


def test_without_viewers_nothing_is_encoded() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/live") as response:
            await first(response, "snapshot")
        await until(lambda: there.pages.live.viewers == 0)
        before = there.pages.live.beats
        for _ in range(3):
            await there.pages.live.tick()
        assert there.pages.live.beats == before

    run(check)


def test_every_file_of_the_page_is_served_with_its_type_and_asked_for_once() -> None:
    async def check(there: Site) -> None:
        async with there.client.get("/") as response:
            page = await response.text()
            assert (response.status, response.content_type) == (200, "text/html")
        used = [part.split('"')[0] for part in page.split('"/static/')[1:]]
        assert len(used) >= 4
        for name in [*used, "charts.js", "link.js"]:
            async with there.client.get(f"/static/{name}") as response:
                assert response.status == 200, name
                tag = response.headers["ETag"]
            async with there.client.get(f"/static/{name}", headers={"If-None-Match": tag}) as response:
                assert (response.status, await response.read()) == (304, b"")
        for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/", "/static/uPlot.LICENSE2"):
            async with there.client.get(path) as response:
                assert response.status == 404, path

    run(check)


@pytest.mark.parametrize(("name", "digest"), SHIPPED.items())
def test_shipped_library_is_what_its_makers_published(name: str, digest: str) -> None:
    content = resources.files("stream.web").joinpath("static", name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest


def test_port_that_is_taken_is_named() -> None:
    async def check(there: Site) -> None:
        port = int(there.url.rpartition(":")[2])
        other = Pages(Settings(worker=Worker(port=port)), Metrics(), there.health, there.desk)
        with pytest.raises(ConfigError, match=f"worker.port = {port}"):
            await other.start()

    run(check)
