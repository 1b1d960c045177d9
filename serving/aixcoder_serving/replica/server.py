"""A replica's HTTP: completions, and pages that tell how it is. Plain ASGI, to see a closed connection at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

from pydantic import BaseModel, ValidationError

from aixcoder_serving.protocol import PROTOCOL_VERSION, CompletionRequest, Refused, Versioned
from aixcoder_serving.replica.authority import Authority
from aixcoder_serving.replica.completion import Completion
from aixcoder_serving.replica.events import LoadReporter
from aixcoder_serving.replica.metrics import CONTENT_TYPE, EngineMetrics
from aixcoder_serving.replica.service import Refusal, ReplicaService

MAX_BODY_BYTES = 16 * 1024 * 1024

_GUARDED = frozenset({"/generate", "/events"})
"""The other pages hold figures and nothing of a user; probes and Prometheus read them."""

_SERVED = "POST /generate, GET /events, GET /ready, GET /stats and GET /metrics are served"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ReplicaApp:
    """The ASGI application of one replica."""

    def __init__(self, service: ReplicaService) -> None:
        self._service = service
        self._metrics = EngineMetrics(service.engine_stats)
        self._reporter = LoadReporter(service)
        self._authority = Authority(service.settings.token_file)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"a replica speaks HTTP, not {scope['type']}")
        if scope["path"] in _GUARDED and not self._authority.allows(_authorization(scope)):
            await self._answer(send, 401, Refused(message="the gateway's token is missing or another deployment's"))
            return
        match scope["method"], scope["path"]:
            case "POST", "/generate":
                await self._generate(receive, send)
            case "GET", "/ready":
                readiness = self._service.readiness()
                await self._answer(send, 200 if readiness.phase == "ready" else 503, readiness)
            case "GET", "/events":
                await self._events(receive, send)
            case "GET", "/stats":
                await self._answer(send, 200, self._service.stats())
            case "GET", "/metrics":
                await self._whole(send, 200, CONTENT_TYPE.encode(), self._metrics.page())
            case _, "/generate" | "/events" | "/ready" | "/stats" | "/metrics":
                await self._answer(send, 405, Refused(message=_SERVED))
            case _:
                await self._answer(send, 404, Refused(message=_SERVED))

    async def _generate(self, receive: Receive, send: Send) -> None:
        self._service.enter()
        try:
            body = await _read(receive)
            if body is None:
                return
            completion = await self._service.submit(_parse(body))
            watcher = asyncio.create_task(_abandon_when_gone(receive, completion))
            try:
                await self._stream(send, completion.messages())
            finally:
                watcher.cancel()
                # Whatever ended this early (a cancelled server task too), the engine must not go on for nobody.
                completion.abandon()
        except Refusal as refusal:
            await self._answer(send, refusal.status, Refused(message=refusal.message, param=refusal.param))
        finally:
            self._service.leave()

    async def _stream(self, send: Send, messages: AsyncIterator[BaseModel]) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self._headers(b"application/x-ndjson")},
        )
        async for message in messages:
            line = message.model_dump_json().encode() + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, receive: Receive, send: Send) -> None:
        telling = asyncio.create_task(self._tell(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            leaving.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        async with aclosing(self._reporter.reports()) as reports:
            await self._stream(send, reports)

    async def _answer(self, send: Send, status: int, content: BaseModel) -> None:
        await self._whole(send, status, b"application/json", content.model_dump_json(exclude_none=True).encode())

    async def _whole(self, send: Send, status: int, content_type: bytes, body: bytes) -> None:
        headers = [*self._headers(content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", content_type)]
        if self._service.draining:
            headers.append((b"connection", b"close"))  # a pooled connection would outlive the listener
        return headers


def _authorization(scope: Message) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == b"authorization"), b"")


async def _read(receive: Receive) -> bytes | None:
    """The whole body, None where the client went away before its end. Raises `Refusal` where it is too long."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise Refusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes: send less context")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse(body: bytes) -> CompletionRequest:
    """Raises `Refusal`: it names the field and what is wrong, never what was sent."""
    try:
        request = CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        with suppress(ValidationError):  # in another version it need not look like ours
            _check_version(Versioned.model_validate_json(body))
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise Refusal(400, f"{field or 'body'}: {first['msg']}", field or None) from None
    _check_version(request)
    return request


def _check_version(request: Versioned) -> None:
    if request.version != PROTOCOL_VERSION:
        spoken = f"version {request.version} of the protocol, this replica speaks {PROTOCOL_VERSION}"
        raise Refusal(400, f"the request is in {spoken}", "version")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _abandon_when_gone(receive: Receive, completion: Completion) -> None:
    await _gone(receive)
    completion.abandon()
