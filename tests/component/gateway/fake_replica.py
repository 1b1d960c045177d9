"""A replica that speaks the protocol and does what the test wrote into the prompt.

`python -m … NAME HOST SLOTS` prints its port. The prompt is JSON: replica name (or "*") → `Script`. Only the model is
fake: server, socket and process are real.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aixcoder_serving.protocol import (
    Begun,
    CompletionRequest,
    Delta,
    Failed,
    Finished,
    LoadReport,
    Message,
    Refused,
    Started,
)


class Script(BaseModel):
    """What to do with a request. Counts are of deltas, times in seconds."""

    deltas: int = 3
    delay: float = 0.0
    refuse: int | None = None
    """Answer with this status instead."""
    fail_after: tuple[int, int] | None = None
    """(deltas, status): a Failed after so many deltas."""
    cut_after: int | None = None
    """End the answer properly as HTTP goes, but without a Finished."""
    die_after: int | None = None
    """SIGKILL to oneself."""
    die: bool = False
    """The same, before it answers at all."""
    nonsense_after: int | None = None
    """A line that is no message."""


class Seen(BaseModel):
    """What became of a request here."""

    id: str
    body: dict[str, object]
    headers: dict[str, str]
    deltas: int = 0
    end: str | None = None


class FakeReplica:
    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.seen: list[Seen] = []
        self.most = 0
        """Requests that ran at once."""
        self.refused = 0
        self.active: dict[int, int] = {}
        """Tokens of each request that runs."""
        self.room_since = time.monotonic()
        """When it last ceased to be full."""
        self.changed = asyncio.Event()
        self.number = 0

    def report(self) -> LoadReport:
        self.number += 1
        return LoadReport(
            number=self.number,
            slots=self.slots,
            running=len(self.active),
            waiting=0,
            room=max(self.slots - len(self.active), 0),
            tokens=sum(self.active.values()),
            blocks_free=100,
            steps=self.number,
        )

    async def events(self, _request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            while True:
                changed = self.changed
                yield self.report().model_dump_json().encode() + b"\n"
                await asyncio.sleep(0.02)
                await asyncio.wait([asyncio.ensure_future(changed.wait())], timeout=0.98)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def figures(self, _request: Request) -> Response:
        room = len(self.active) < self.slots
        room_ms = round((time.monotonic() - self.room_since) * 1000) if room else 0
        return JSONResponse(
            {"most": self.most, "refused": self.refused, "active": len(self.active), "room_ms": room_ms}
        )

    async def page(self, _request: Request) -> Response:
        return JSONResponse([entry.model_dump() for entry in self.seen])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.json()
        except ClientDisconnect:
            return
        asked = CompletionRequest.model_validate(body)
        entry = Seen(id=asked.id, body=body, headers=dict(request.headers))
        self.seen.append(entry)
        prompt = asked.prefix or ""
        try:
            scripts = json.loads(prompt) if prompt.startswith("{") else {}  # a plain prompt: no script
        except json.JSONDecodeError:
            scripts = {}
        script = Script.model_validate(scripts.get(self.name, scripts.get("*", {})))
        if script.die:
            os.kill(os.getpid(), signal.SIGKILL)
        if script.refuse is not None:
            self.change()
            refused = Refused(message=f"refused with {script.refuse}", param="prompt")
            entry.end = "refused"
            await Response(refused.model_dump_json(), script.refuse, media_type="application/json")(
                scope, receive, send
            )
            return
        if len(self.active) >= self.slots:
            self.refused += 1
            self.change()
            self.seen.remove(entry)
            await Response(Refused(message="full").model_dump_json(), 429)(scope, receive, send)
            return
        self.active[id(entry)] = 7 + asked.sampling.max_tokens
        self.most = max(self.most, len(self.active))
        self.change()
        answering = asyncio.ensure_future(self._answer(script, asked, entry, send))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if len(self.active) == self.slots:
            self.room_since = time.monotonic()
        del self.active[id(entry)]
        self.change()
        if not answering.done():
            entry.end = "cancelled"
            answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, script: Script, asked: CompletionRequest, entry: Seen, send: Send) -> None:
        async def say(message: Message) -> None:
            await write(message.model_dump_json().encode() + b"\n")

        async def write(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        head = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await say(Started(prompt_tokens=7, report=self.number + 1))
        for n in range(len(asked.generated_token_ids), script.deltas + 1):
            if script.die_after == n:
                await asyncio.sleep(0.05)  # what was said before is on its way
                os.kill(os.getpid(), signal.SIGKILL)
            if script.fail_after is not None and script.fail_after[0] == n:
                await say(Failed(status=script.fail_after[1], message="failed as told"))
                break
            if script.nonsense_after == n:
                await write(b'{"type": "poem"}\n')
                break
            if script.cut_after == n:
                break
            if n == script.deltas:
                await say(
                    Finished(finish_reason="stop", prompt_tokens=7, completion_tokens=script.deltas, cached_tokens=2)
                )
                break
            await asyncio.sleep(script.delay)
            begun = None if entry.deltas else Begun(cached_tokens=2, waited_ms=0)
            await say(Delta(text=f"{self.name}{n} ", token_ids=(n,), begun=begun))
            entry.deltas += 1
        entry.end = entry.end or "ended"
        await write(b"", more=False)


def main() -> None:
    replica = FakeReplica(sys.argv[1], int(sys.argv[3]))
    app = Starlette(
        routes=[
            Route("/generate", replica, methods=["POST"]),
            Route("/events", replica.events),
            Route("/seen", replica.page),
            Route("/figures", replica.figures),
        ]
    )
    listener = socket.create_server((sys.argv[2], 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_keep_alive=75)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
