"""A reverse proxy before the API server that can be slow, silent or broken."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

_HOP_BY_HOP = {"host", "transfer-encoding", "content-length", "connection"}


class ApiProxy:
    """Forwards to the API server of `configuration`, with its credentials.

    While `open` is cleared requests are taken and stay unanswered; `failures` are answered one by one instead of
    forwarding: a status with headers. While `deaf` is set watches stay open and show nothing. Each answer is `late` by
    so many seconds.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._upstream = configuration.host
        self._tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        self._tls.load_cert_chain(configuration.cert_file, configuration.key_file)
        self.open = asyncio.Event()
        self.open.set()
        self.deaf = False
        self.late = 0.0
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.seen: list[tuple[str, str]] = []
        """Method and path of each request, watches too."""
        self.configuration = Configuration()
        self._connections: set[asyncio.Transport] = set()

    def cut(self) -> None:
        """Break every connection with a request under way."""
        for connection in list(self._connections):
            connection.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return web.Response(status=502)
        self._connections.add(transport)
        try:
            return await self._forward(request)
        finally:
            self._connections.discard(transport)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if self.failures:
            status, headers = self.failures.pop(0)
            return web.Response(status=status, headers=headers, text='{"message": "made to fail"}')
        await asyncio.sleep(self.late)
        body = await request.read()
        await self.open.wait()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            data=body or None,  # an empty body would get a content type
            headers=headers,
            ssl=self._tls,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
            )
            with suppress(ConnectionError):
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await self.open.wait()
                    if not (self.deaf and "watch" in request.query):
                        await response.write(chunk)
                await response.write_eof()
            return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ApiProxy]:
        """The proxy, listening; `configuration` leads to it."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False) as session:
            self._session = session
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                self.open.set()
                await runner.cleanup()
