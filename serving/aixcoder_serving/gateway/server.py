"""The HTTP server under the gateway's applications."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from aixcoder_serving.gateway.connection import BoundedProtocol

# Editors keep their connections; a proxy in front may keep its own for up to a minute.
_KEEP_ALIVE_SECONDS = 75
_UNREAD_MILLISECONDS = 30_000


class Server(uvicorn.Server):
    """uvicorn without its signal handlers and logging, which are ours. `listening` is set once it takes requests."""

    def __init__(self, application: ASGIApp, *, grace_seconds: float) -> None:
        self.listening = asyncio.Event()
        self._ended = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                application,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(grace_seconds),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `main`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.listening.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `end()`."""
        try:
            await super().serve(sockets)
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Take nothing new, and wait for what is in flight."""
        if self.started:
            self.should_exit = True
            await self._ended.wait()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        OSError: the port is taken.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # Connections inherit it. asyncio alone would not set it on those of a socket that was made without a protocol, and
    # the second piece of an answer would wait 40 ms for the client's acknowledgement of the first one.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A connection that was closed stays until its client has read the rest of the answer, which nothing else bounds.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
    return listener
