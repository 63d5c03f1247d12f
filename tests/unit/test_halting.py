"""The switch on the board: who may ask, from where, and that it is asked twice."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from stream.config import Settings, Web, Worker
from stream.controls import Asked
from stream.errors import TapewatchError
from stream.health import Health
from stream.messages import Control
from stream.metrics import Metrics
from stream.switch import InForce
from stream.web.desk import Desk
from stream.web.halting import Halting, allowed
from stream.web.pages import Pages

WISH: dict[str, Any] = {"control": "halt", "reason": "the feed is wrong", "typed": "HALT", "by": "anna"}
HALT = InForce(None, 1_700_000_000_000, "anna", "the feed is wrong", [0, 1])


class Site(NamedTuple):
    """A board, and what its switch has sent."""

    client: aiohttp.ClientSession
    origin: str
    sent: list[Control]

    async def ask(self, wish: object, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of an answer, asked as the board's own page does unless told otherwise."""
        whole = {"Origin": self.origin, "Content-Type": "application/json"} | dict(headers or {})
        body = wish if isinstance(wish, bytes) else msgspec.json.encode(wish)
        async with self.client.post("/control", data=body, headers={k: v for k, v in whole.items() if v}) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def site(web: Web, failure: str = "", halts: tuple[InForce, ...] = ()) -> AsyncIterator[Site]:
    settings, sent = Settings(worker=Worker(port=0), web=web), list[Control]()

    def send(control: Control) -> Asked:
        if failure:
            raise TapewatchError(failure)
        sent.append(control)
        return Asked(control, {0: 5, 1: 7}, {})

    pages = Pages(settings, Metrics(), Health(30.0), Desk(4), lambda: 2, Halting(settings, lambda: halts, send))
    url = await pages.start()
    try:
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=30)) as client:
            yield Site(client, url, sent)
    finally:
        await pages.stop()


def asked(
    wish: object, headers: Mapping[str, str] | None = None, web: Web | None = None, failure: str = ""
) -> tuple[int, str, list[Control]]:
    async def run() -> tuple[int, str, list[Control]]:
        async with site(web or Web(), failure) as there:
            return *await there.ask(wish, headers), there.sent

    return asyncio.run(run())


def test_a_halt_is_sent_with_reason_scope_and_who_asked() -> None:
    status, text, (control,) = asked(WISH | {"symbol": "ACME"})
    assert (status, msgspec.json.decode(text)["partitions"]) == (200, [0, 1])
    assert (control.control, control.symbol, control.reason) == ("halt", "ACME", "the feed is wrong")
    assert control.by == "anna (board, not signed in)"


def test_who_signed_in_is_named_whatever_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("otto:secret\n")
    web, login = Web(password_file=str(file)), base64.b64encode(b"otto:secret").decode()
    status, _, (control,) = asked(WISH, {"Authorization": f"Basic {login}"}, web)
    assert (status, control.by) == (200, "otto (board)")
    status, _, sent = asked(WISH, {}, web)
    assert (status, sent) == (401, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Origin": ""}, 403),  # no browser leaves it out
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),  # what a form of another page could send
    ],
)
def test_another_page_cannot_ask(headers: dict[str, str], status: int) -> None:
    found, _, sent = asked(WISH, headers)
    assert (found, sent) == (status, [])


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (WISH | {"typed": "halt"}, "the word HALT was not typed"),
        (WISH | {"control": "resume"}, "the word RESUME was not typed"),
        (WISH | {"reason": "  "}, "length >= 1"),
        (WISH | {"reason": "x" * 501}, "length <= 500"),
        (WISH | {"by": " "}, "say who you are"),
        (WISH | {"by": "x" * 65}, "length <= 64"),
        (WISH | {"by": "a\x1b"}, "cannot be printed"),
        (WISH | {"symbol": ""}, "length >= 1"),
        (WISH | {"control": "stop"}, "Invalid enum value 'stop'"),
        (WISH | {"venue": "V"}, "unknown field `venue`"),
        ({"control": "halt"}, "missing required field"),
        (b"junk", "JSON is malformed"),
        (b"[" * 5000, ""),
        (b"", "truncated"),
    ],
)
def test_a_wish_that_is_none_is_refused_with_the_reason(wish: object, why: str) -> None:
    status, text, sent = asked(wish)
    assert (status, sent) == (400, [])
    assert why in text


def test_a_body_without_end_is_refused() -> None:
    assert asked(WISH | {"reason": "x" * 20_000})[0] == 413


def test_what_kafka_refuses_is_told() -> None:
    status, text, _ = asked(WISH, failure="the broker did not take it for topic ticks, partition 0")
    assert (status, text) == (502, "the broker did not take it for topic ticks, partition 0\n")


def test_a_board_for_readers_has_no_switch() -> None:
    status, text, sent = asked(WISH, web=Web(kill_switch="off"))
    assert (status, text, sent) == (403, "this board may not halt or resume (web.kill_switch)\n", [])


@pytest.mark.parametrize(
    ("host", "web", "may"),
    [
        ("127.0.0.1", Web(), True),
        ("10.0.0.5", Web(unprotected=True), False),
        ("10.0.0.5", Web(unprotected=True, kill_switch="on"), True),
        ("10.0.0.5", Web(password_file="p", certificate_file="c", key_file="k"), True),
        ("127.0.0.1", Web(kill_switch="off"), False),
    ],
)
def test_by_default_only_a_board_that_not_just_anybody_opens_has_a_switch(host: str, web: Web, may: bool) -> None:
    assert allowed(Settings(worker=Worker(host=host), web=web)) is may


def test_the_board_and_health_tell_what_is_halted() -> None:
    async def run() -> None:
        async with site(Web(refresh_seconds=0.1), halts=(HALT,)) as there:
            async with there.client.get("/live") as answer:
                await answer.content.readline()  # retry
                await answer.content.readline()
                assert await answer.content.readline() == b"event: snapshot\n"
                snapshot = msgspec.json.decode((await answer.content.readline()).partition(b": ")[2])
            async with there.client.get("/health") as answer:
                health = await answer.json()
        assert snapshot["halts"] == [msgspec.to_builtins(HALT)]
        assert (snapshot["kill_switch"], snapshot["asks_name"], health["actions_halted"]) == (True, True, True)

    asyncio.run(run())
