"""A replica without a model, fast enough not to be what is measured: `python -m benchmarks.gateway.mock PORT`.

Speaks our protocol (`/generate`, `/events`) and OpenAI's (`/v1/completions`), since each router speaks one of them.
What it answers is set by `POST /mode`: so many deltas, so many seconds apart, the first one at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
MODEL = "mock"


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(body: bytes) -> bytes:
    """An answer in one piece."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def event(text: str, reason: str | None) -> bytes:
    """One of OpenAI's events."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(head).encode() + b"\n\n"


STARTED = chunk(b'{"type":"started","prompt_tokens":400,"report":1}\n')
DELTA = chunk(b'{"type":"delta","text":"ab","token_ids":[5]}\n')
FINISHED = chunk(b'{"type":"finished","finish_reason":"length","prompt_tokens":400,"completion_tokens":1}\n')
EVENT, LAST = chunk(event("ab", None)), chunk(event("", "length") + b"data: [DONE]\n\n")
END = b"0\r\n\r\n"
REPORT = {"slots": 100_000, "running": 0, "waiting": 0, "room": 100_000, "tokens": 0, "blocks_free": 1, "steps": 1}
ANSWER = whole(
    json.dumps(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 1, "total_tokens": 401},
        }
    ).encode()
)
MODELS = whole(json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1}]}).encode())


@dataclass
class Mode:
    """What every answer is."""

    deltas: int = 1
    seconds: float = 0.0


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # TCP gives a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for stream in self._streams:
            stream.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body, self._data = self._data[end + 4 : end + 4 + length], self._data[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/generate":
            self._stream(b"application/x-ndjson", STARTED, DELTA, FINISHED)
        elif path == b"/events":
            self._start(self._report())
        elif path == b"/v1/completions":
            if b'"stream":true' in body.replace(b" ", b""):
                self._stream(b"text/event-stream", b"", EVENT, LAST)
            else:
                self._write(ANSWER)
        elif path == b"/mode":
            told = json.loads(body)
            self._mode.deltas, self._mode.seconds = int(told["deltas"]), float(told["seconds"])
            self._write(whole(b"{}"))
        else:
            self._write(MODELS if path == b"/v1/models" else whole(b'{"status": "ok", "model_path": "mock"}'))

    def _stream(self, kind: bytes, first: bytes, delta: bytes, last: bytes) -> None:
        if self._mode.seconds == 0.0:
            self._write(HEAD % kind + first + delta * self._mode.deltas + last + END)
        else:
            self._start(self._paced(kind, first, delta, last))

    async def _paced(self, kind: bytes, first: bytes, delta: bytes, last: bytes) -> None:
        self._write(HEAD % kind + first + delta)
        for _ in range(self._mode.deltas - 1):
            await asyncio.sleep(self._mode.seconds)
            self._write(delta)
        self._write(last + END)

    async def _report(self) -> None:
        self._write(HEAD % b"application/x-ndjson")
        number = 0
        while True:
            number += 1
            self._write(chunk(json.dumps({"number": number, **REPORT}).encode() + b"\n"))
            await asyncio.sleep(0.5)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int) -> None:
    """Serve until killed."""
    mode = Mode()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(mode), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
