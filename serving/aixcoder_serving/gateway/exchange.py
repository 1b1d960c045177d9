"""One HTTP request and its answer over ASGI: body in, bytes out, and whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from aixcoder_serving.gateway.problems import Problem, body_too_large

BODY_LIMIT = 4 * 2**20


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


class Exchange:
    """A request and its answer, which is `begun` once its head has been sent and `complete` once its last byte has."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self.begun = False
        self.complete = False
        self.status = 0

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            ClientGone: the client left while it sent it.
            Problem: it is longer than `BODY_LIMIT` bytes.

        """
        announced = self.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > BODY_LIMIT:
            raise body_too_large(BODY_LIMIT)
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > BODY_LIMIT:
                raise body_too_large(BODY_LIMIT)
            if not message.get("more_body", False):
                return bytes(body)

    async def start(self, status: int, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send the head of the answer."""
        self.begun, self.status = True, status
        lines = [("content-type", content_type), *headers]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the answer; `last` ends it."""
        self.complete = last
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def whole(self, status: int, data: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a JSON answer in one piece."""
        await self.start(status, "application/json", [("content-length", str(len(data))), *headers])
        await self.write(data, last=True)

    async def problem(self, problem: Problem, data: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send an answer that is an error, with `data` as its JSON body."""
        more = list(headers)
        if problem.retry_after is not None:
            # SDKs would retry by themselves and multiply the load that is being shed.
            more += [("retry-after", str(problem.retry_after)), ("x-should-retry", "false")]
        if problem.status == 401:
            more.append(("www-authenticate", "Bearer"))
        await self.whole(problem.status, data, more)

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which answers; cancel it the moment the client leaves. The body must have been read.

        Raises:
            ClientGone: the client left.

        """
        task = asyncio.ensure_future(work)
        watcher = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            # A server also reports the end of an answer as a disconnect: what is complete may finish its accounts.
            if task.done() or self.complete:
                await task
            else:
                raise ClientGone
        finally:
            task.cancel()
            watcher.cancel()
            await asyncio.gather(task, watcher, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
