"""The operator's own HTTP server: probes and metrics. A standby serves it as the leader does."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

Check = Callable[[], str | None]
"""A sentence about what is wrong, or None."""


def _page(checks: Sequence[Check]) -> web.Response:
    problems = [problem for check in checks if (problem := check()) is not None]
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")


def _listen(port: int) -> socket.socket:
    """One socket for IPv4 and IPv6, so that a free port is free in both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


@asynccontextmanager
async def serve_health(
    port: int, *, alive: Sequence[Check], ready: Sequence[Check], metrics: Callable[[], bytes]
) -> AsyncIterator[int]:
    """Serve /healthz, /readyz and /metrics on all interfaces while the context lasts; yields the port.

    An event loop that is stuck does not answer, which fails a probe as well. OSError where the port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _page(alive)

    async def readyz(_: web.Request) -> web.Response:
        return _page(ready)

    async def metrics_page(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_page)]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = _listen(port)
        await web.SockSite(runner, listener).start()
        yield int(listener.getsockname()[1])
    finally:
        await runner.cleanup()
