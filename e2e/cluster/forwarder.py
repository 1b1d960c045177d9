"""Connections from the host's 127.0.0.1 into the cluster's network.

The listening sockets belong to the host's namespace; the supervisor, and so each connection that this module opens,
to the cluster's. Half-closed connections stay half-closed, and a reset is passed on: a server behind it sees a client
leave as it would without it.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from e2e.cluster.api import Json

_CHUNK = 64 * 1024
_RESOLVED_SECONDS = 2.0

Resolve = Callable[[str], str]


class Services(Protocol):
    """What answers for Services: the API server's client."""

    def get(self, path: str, /) -> Json:
        """The object at an API path."""


def split_target(target: str) -> tuple[str, int]:
    """("name.namespace.svc", 80) of `name.namespace.svc:80`. Raises ValueError with what a target looks like."""
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"A target is ADDRESS:PORT or SERVICE.NAMESPACE.svc:PORT, not {target!r}.")
    return host, int(port)


class ServiceAddresses:
    """Addresses of `SERVICE.NAMESPACE.svc`, asked of the API server every two seconds at most; others stay as given."""

    def __init__(self, api: Services) -> None:
        self._api = api
        self._known: dict[str, tuple[float, str]] = {}

    def __call__(self, host: str) -> str:
        """The cluster IP. Raises ApiError or OSError while there is no such Service."""
        parts = host.split(".")
        if len(parts) != 3 or parts[2] != "svc":
            return host
        resolved, address = self._known.get(host, (float("-inf"), ""))
        if time.monotonic() - resolved > _RESOLVED_SECONDS:
            address = self._api.get(f"/api/v1/namespaces/{parts[1]}/services/{parts[0]}")["spec"]["clusterIP"]
            self._known[host] = (time.monotonic(), address)
        return address


class Forwarder:
    """The forwards of one cluster, by name."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._servers: dict[str, tuple[asyncio.Server, int, str]] = {}

    def ports(self) -> dict[str, dict[str, object]]:
        """Name → local port and target."""
        return {name: {"port": port, "target": target} for name, (_, port, target) in self._servers.items()}

    async def add(self, name: str, listening: socket.socket, target: str) -> None:
        """Serve `listening`; a forward of that name that was there before ends."""
        host, port = split_target(target)
        await self.remove(name)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(reader, writer, host, port)

        server = await asyncio.start_server(serve, sock=listening, limit=_CHUNK)
        self._servers[name] = (server, listening.getsockname()[1], target)

    async def remove(self, name: str) -> None:
        """Stop listening; open connections go on. A name that is not there is no error."""
        if name in self._servers:
            self._servers.pop(name)[0].close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        try:
            address = await asyncio.to_thread(self._resolve, host) if host.endswith(".svc") else host
            upstream_reader, upstream_writer = await asyncio.open_connection(address, port, limit=_CHUNK)
        except Exception:
            _reset(writer)
            return
        await asyncio.gather(_copy(reader, upstream_writer, writer), _copy(upstream_reader, writer, upstream_writer))
        for end in (writer, upstream_writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except OSError:
        _reset(sink)
        _reset(back)


def _reset(writer: asyncio.StreamWriter) -> None:
    # Lingering for 0 s: a reset, which no one takes for the end of an answer.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
