"""The worker's pages: /metrics for Prometheus, /health for whoever restarts it, and the board in the browser at /."""

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Final

import msgspec
from aiohttp import web

from stream.config import Settings
from stream.errors import ConfigError
from stream.health import Health
from stream.metrics import Metrics
from stream.web import certificate, door
from stream.web.desk import Desk, Partition, Snapshot
from stream.web.door import Door, Handler
from stream.web.halting import MOST_BYTES, Halting
from stream.web.live import Live

log = logging.getLogger("tapewatch.worker")

STOP_SECONDS: Final = 1.0
"""How long an answer that is under way may take when the worker stops."""
IDLE_SECONDS: Final = 30.0
"""A connection that has asked something may wait so long before it asks again."""
STATIC: Final = {
    "index.html": "text/html",
    "board.css": "text/css",
    "board.js": "text/javascript",
    "charts.js": "text/javascript",
    "link.js": "text/javascript",
    "switch.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
    "icon.svg": "image/svg+xml",
}


class Pages:
    """Serves `metrics` at /metrics, `health` at /health (503 unless it is ok), and the board, which shows `desk`.

    `partitions_in_all` tells how many the topic of ticks has, None while that is unknown; `halting` is the switch of
    the agent's actions, none if None.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        health: Health,
        desk: Desk,
        partitions_in_all: Callable[[], int | None] = lambda: None,
        halting: Halting | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._desk = desk
        self._partitions_in_all = partitions_in_all
        self._halting = halting or Halting(settings)
        self.live: Final = Live(desk, self._snapshot, settings.web.refresh_seconds, settings.web.viewers)
        self._started_ms = time.time_ns() // 1_000_000
        self._counted = time.monotonic(), 0
        self._rate = 0.0
        self._listener: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen at `worker.host` and `worker.port`, and give the address.

        Raises
        ------
        ConfigError
            If the port cannot be had, or the pages may not be served there as the settings are.
        """
        host, port = self._settings.worker.host, self._settings.worker.port
        door.check(self._settings)
        guard, encryption = Door(self._settings), self._encryption()
        app = web.Application(middlewares=[guard.guard], client_max_size=MOST_BYTES)
        app.on_response_prepare.append(guard.dress)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/live", self.live.serve)
        app.router.add_post("/control", partial(self._halting.post, door=guard))
        for path, file in _static().items():
            app.router.add_get(path, file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS, keepalive_timeout=IDLE_SECONDS)
        await runner.setup()
        assert runner.server is not None
        patience = door.SILENT_SECONDS if encryption else None
        listen = asyncio.get_running_loop().create_server
        try:
            self._listener = await listen(
                partial(guard.protocol, runner.server), host, port, ssl=encryption, ssl_handshake_timeout=patience
            )
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"setting worker.port = {port}: cannot listen on {host}:{port} ({error.strerror}); choose another, "
                "or 0 for a free one"
            ) from None
        self._runner = runner
        self.live.start()
        taken = self._listener.sockets[0].getsockname()[1]
        return f"{'https' if encryption else 'http'}://{f'[{host}]' if ':' in host else host}:{taken}"

    async def stop(self) -> None:
        """Stop listening."""
        await self.live.stop()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _encryption(self) -> ssl.SSLContext | None:
        rules = self._settings.web
        context = certificate.encryption(rules)
        complaint = certificate.complaint(context, rules.certificate_file, time.time()) if context else None
        if complaint:
            log.warning("web.certificate_file: browsers refuse the board, or soon will: %s", complaint)
        return context

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        body, content_type = self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_health(self, _request: web.Request) -> web.Response:
        report = self._health.report(time.monotonic())
        report["actions_halted"] = len(self._halting.in_force()) > 0
        return web.Response(
            body=msgspec.json.encode(report),
            status=200 if report["status"] == "ok" else 503,
            content_type="application/json",
        )

    def _snapshot(self) -> Snapshot:
        now = time.monotonic()
        progress = self._health.report(now)["partitions"]
        return Snapshot(
            at_ms=time.time_ns() // 1_000_000,
            started_ms=self._started_ms,
            refresh_seconds=self._settings.web.refresh_seconds,
            group=self._settings.worker.group,
            status=self._health.status(now),
            partitions=[
                Partition(
                    partition,
                    progress.get(str(partition), {}).get("lag"),
                    progress.get(str(partition), {}).get("commit_age_seconds"),
                )
                for partition in self._desk.partitions
            ],
            partitions_in_all=self._partitions_in_all(),
            models=self._metrics.model_names,
            ticks_per_second=self._ticks_per_second(now),
            rejected=self._desk.rejected,
            symbols=self._desk.symbols(),
            rows=self._desk.rows(),
            halts=self._halting.in_force(),
            kill_switch=self._halting.allowed,
            asks_name=not (self._settings.web.password_file or self._settings.web.token_file),
        )

    def _ticks_per_second(self, now: float) -> float:
        """Over the last second or so that somebody looked."""
        since, ticks = self._counted
        if now - since >= 1.0:
            self._rate = (self._desk.ticks - ticks) / (now - since)
            self._counted = now, self._desk.ticks
        return round(self._rate, 1)


def _static() -> dict[str, Handler]:
    """A handler for each file of the board, all read now: no path of a request ever reaches the disk."""
    folder = resources.files("stream.web").joinpath("static")
    files = {f"/static/{name}": _file(folder.joinpath(name).read_bytes(), kind) for name, kind in STATIC.items()}
    return files | {"/": files["/static/index.html"]}


def _file(content: bytes, content_type: str) -> Handler:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def get(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers, content_type=content_type, charset="utf-8")

    return get
