"""The switch on the board: POST /control halts or resumes the agent's actions, from the board's own page alone."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from msgspec import Meta

from stream import controls
from stream.config import Settings
from stream.controls import Asked
from stream.errors import TapewatchError
from stream.messages import Control, ControlName
from stream.switch import InForce
from stream.web.door import Door, is_loopback

log = logging.getLogger("tapewatch.switch")
MOST_BYTES: Final = 16_384
"""Of a request's body: there is no other that has one."""


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page sends."""

    control: ControlName
    reason: str
    typed: str  # the word that was typed when asked again
    by: Annotated[str, Meta(max_length=64)] = ""  # where nobody has signed in: the name that was given
    symbol: str | None = None


_decode = msgspec.json.Decoder(Wish).decode


def allowed(settings: Settings) -> bool:
    """Whether the board may halt and resume: by default only where not just anybody can open it."""
    rules = settings.web
    if rules.kill_switch != "auto":
        return rules.kill_switch == "on"
    return is_loopback(settings.worker.host) or bool(rules.password_file or rules.token_file)


def none_in_force() -> Sequence[InForce]:
    """Nothing is halted."""
    return ()


class Halting:
    """The switch as the board has it.

    Parameters
    ----------
    in_force
        Tells what is halted in the worker's partitions.
    send
        Puts a control on the topics, blocking; None: there is nothing to put it on.
    """

    def __init__(
        self,
        settings: Settings,
        in_force: Callable[[], Sequence[InForce]] = none_in_force,
        send: Callable[[Control], Asked] | None = None,
    ) -> None:
        self.in_force = in_force
        self.allowed = send is not None and allowed(settings)
        self._send = send
        self._one_at_a_time = asyncio.Lock()

    async def post(self, request: web.Request, door: Door) -> web.Response:
        """POST /control; a plain line says why it was refused."""
        if not self.allowed or self._send is None:
            return _no(403, "this board may not halt or resume (web.kill_switch)")
        if not same_origin(request):
            return _no(403, "only the board's own page may ask for this")
        if request.content_type != "application/json":
            return _no(415, "this wants application/json")
        try:
            wish = _decode(await request.read())
            control = self._control(wish, door.who(request.headers.get("Authorization", "")))
        except (ValueError, RecursionError, TapewatchError) as error:
            return _no(400, str(error))
        try:
            async with self._one_at_a_time:
                asked = await asyncio.to_thread(self._send, control)
        except TapewatchError as error:
            log.warning("the board could not %s: %s", control.control, error)
            return _no(502, str(error))
        log.warning("asked by the board control=%s by=%r id=%s", control.control, control.by, control.control_id)
        told = {"control_id": control.control_id, "partitions": sorted(asked.offsets)}
        return web.json_response(body=msgspec.json.encode(told))

    @staticmethod
    def _control(wish: Wish, signed_in: str | None) -> Control:
        if wish.typed != wish.control.upper():
            raise TapewatchError(f"the word {wish.control.upper()} was not typed")
        by = signed_in if signed_in is not None else wish.by.strip()
        if not by:
            raise TapewatchError("say who you are: nobody has to sign in here, and the audit wants a name")
        unchecked = "" if signed_in is not None else ", not signed in"
        return controls.made(wish.control, wish.reason, f"{by} (board{unchecked})", wish.symbol)


def same_origin(request: web.Request) -> bool:
    """Whether a page of ours sends this: a browser says truly where it comes from, and another page's is refused.

    The name must be ours; that it is spelt http or https is not looked at, for TLS may end before us.
    """
    origin, site = request.headers.get("Origin", ""), request.headers.get("Sec-Fetch-Site", "same-origin")
    try:
        return site == "same-origin" and bool(request.host) and urlsplit(origin).netloc == request.host
    except ValueError:
        return False


def _no(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=f"{why}\n")
