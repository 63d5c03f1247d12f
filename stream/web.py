"""The worker's two pages: /metrics for Prometheus and /health for whoever restarts it."""

import time

import msgspec
from aiohttp import web

from stream.errors import ConfigError
from stream.health import Health
from stream.metrics import Metrics


class Pages:
    """Serves `metrics` at /metrics and `health` at /health (503 unless it is ok)."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, and give the address, http://HOST:PORT; port 0 takes a free one.

        Raises
        ------
        ConfigError
            If the port cannot be had.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/health", self._get_health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"setting worker.port = {port}: cannot listen on {host}:{port} ({error.strerror}); choose another, "
                "or 0 for a free one"
            ) from None
        self._runner = runner
        return f"http://{host}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get_metrics(self, _request: web.Request) -> web.Response:
        body, content_type = self._metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_health(self, _request: web.Request) -> web.Response:
        report = self._health.report(time.monotonic())
        return web.Response(
            body=msgspec.json.encode(report),
            status=200 if report["status"] == "ok" else 503,
            content_type="application/json",
        )
