"""uvicorn inside a running event loop, on a socket of our own: no signal handlers, no logging configuration."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator
from typing import Any

import uvicorn

KEEP_ALIVE_SECONDS = 75
"""Longer than any client's pool keeps a connection, so that the client is the one who closes an idle one."""

_PORT_WAIT_SECONDS = 10.0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the host process's own business."""
        yield


class Listener:
    """Serves an ASGI application until `stop`."""

    def __init__(self, app: Any, host: str | None, port: int) -> None:
        """`host` None: all addresses, IPv6 too where there is any. `port` 0: a free one, see `port` after `start`."""
        self._host = host
        self.port = port
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,  # uvicorn's own would close Ray Serve's log handlers
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the port and serve. A process that has just died may hold it: wait a little. Raises OSError."""
        deadline = time.monotonic() + _PORT_WAIT_SECONDS
        while True:
            try:
                opened = listen(self._host, self.port)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.2)
        self.port = opened.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[opened]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait([listening, self._task], return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            self._task.result()

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._task is not None and not self._task.done()

    async def stop(self, patience: float) -> None:
        """Close the port; open connections have `patience` seconds to finish their answers."""
        if self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(patience))
        self._server.should_exit = True
        await self._task


def listen(host: str | None, port: int) -> socket.socket:
    """A listening socket; `host` None: all addresses. Raises OSError where the port is taken."""
    listener = _open(host, port)
    # Connections inherit it; asyncio does not set it on those of a socket that was made without a protocol. Without it
    # a token would wait for the acknowledgement of the one before, up to 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _open(host: str | None, port: int) -> socket.socket:
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=2048, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=2048)
