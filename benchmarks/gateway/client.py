"""A client of one router: many connections, little work on each. Times are in seconds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

PROMPT = "def quicksort(items):\n    if len(items) < 2:\n        return items\n" * 20
DONE = b"[DONE]"


def request(*, stream: bool, number: int) -> bytes:
    """A completion request of about 1.4 kB, each another one: nothing is answered together."""
    fields = {
        "model": "mock",
        "prompt": f"# {number}\n{PROMPT}",
        "suffix": "\n\nprint(quicksort([3, 1, 2]))\n",
        "max_tokens": 64,
        "temperature": 0.2,
        "stream": stream,
    }
    body = json.dumps(fields).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: mock\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    return head % len(body) + body


class Caller(asyncio.Protocol):
    """One connection. `whole` answers end by their length, streams by their last event."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._data = b""
        self._answered: asyncio.Future[bytes] | None = None
        self._first: Callable[[], None] | None = None
        self.transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = transport  # type: ignore[assignment]  # TCP gives a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the router closed the connection"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._first is not None:
            self._first()
            self._first = None
        self._data += data
        if self._complete() and self._answered is not None and not self._answered.done():
            answer, self._data = self._data, b""
            self._answered.set_result(answer)

    def _complete(self) -> bool:
        if self._stream:
            return self._data.endswith(b"0\r\n\r\n") and DONE in self._data[-200:]
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            return self._data.endswith(b"0\r\n\r\n")
        return len(self._data) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])

    async def ask(self, data: bytes, first: Callable[[], None] | None = None) -> bytes:
        """Send a request; its whole answer. `first` is called at the answer's first byte."""
        if self.transport is None or self.lost:
            raise ConnectionResetError("not connected")
        self._answered = asyncio.get_running_loop().create_future()
        self._first = first
        self.transport.write(data)
        return await self._answered


async def connect(port: int, *, stream: bool) -> Caller:
    """A new connection."""
    _, caller = await asyncio.get_running_loop().create_connection(lambda: Caller(stream=stream), "127.0.0.1", port)
    return caller


async def latencies(port: int, count: int) -> list[float]:
    """Times of whole answers, one after the other on one connection."""
    caller = await connect(port, stream=False)
    times = []
    for number in range(count):
        data = request(stream=False, number=number)
        began = time.perf_counter()
        answer = await caller.ask(data)
        times.append(time.perf_counter() - began)
        if b" 200 " not in answer[:20]:
            raise RuntimeError(f"the router answered {answer[:200]!r}")
    if caller.transport is not None:
        caller.transport.close()
    return times


async def throughput(port: int, *, stream: bool, connections: int, seconds: float) -> tuple[int, float]:
    """Answers, and the time in which they came, with all connections busy."""
    callers = [await connect(port, stream=stream) for _ in range(connections)]
    end = time.perf_counter() + seconds
    began, done = time.perf_counter(), 0

    async def call(caller: Caller, number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await caller.ask(request(stream=stream, number=number + connections * done))
            done += 1

    await asyncio.gather(*(call(caller, number) for number, caller in enumerate(callers)))
    taken = time.perf_counter() - began
    for caller in callers:
        if caller.transport is not None:
            caller.transport.close()
    return done, taken


async def hold(port: int, count: int) -> list[Caller]:
    """Streams of which the first byte has come and that go on."""
    callers = [await connect(port, stream=True) for _ in range(count)]
    for number, caller in enumerate(callers):
        arrived = asyncio.Event()
        asking = asyncio.ensure_future(caller.ask(request(stream=True, number=number), arrived.set))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait_for(arrived.wait(), 10)
    return callers
