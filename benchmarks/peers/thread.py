"""An engine that its caller steps, run by one thread of its own behind `Driver.stream`."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Protocol

from benchmarks.peers.lines import Outbox, Request, Step

Given = tuple[int, Step | Exception | None]
"""A request's number, and tokens of it, or its end (None) or failure."""


class Stepped(Protocol):
    """Called in one thread only. `number` names a request that is not over."""

    def add(self, number: int, request: Request) -> None:
        """Queue a request."""
        ...

    def drop(self, number: int) -> None:
        """Forget it; nothing more is said of it."""
        ...

    def step(self) -> Iterable[Given]:
        """Work on what is queued, for as short a time as it can."""
        ...


class EngineThread:
    """Runs one `Stepped`: sleeps while nothing is queued."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outboxes: dict[int, Outbox] = {}
        self._numbers = 0
        self._engine: Stepped | None = None
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    async def start(self, make: Callable[[], Stepped]) -> None:
        """Make the engine, in its thread."""

        def make_here() -> None:
            self._engine = make()

        await self.call(make_here)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run something in the engine's thread, between two steps."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:
                loop.call_soon_threadsafe(future.set_exception, error)
            else:
                loop.call_soon_threadsafe(future.set_result, result)

        self._inbox.put(run)
        return await future

    async def stream(self, request: Request) -> AsyncGenerator[Step, None]:
        """See `Driver.stream`."""
        self._numbers += 1
        number, outbox = self._numbers, Outbox()
        self._inbox.put(lambda: self._add(number, request, outbox))
        try:
            async for step in outbox:
                yield step
        finally:
            self._inbox.put(lambda: self._drop(number))

    async def close(self) -> None:
        """End the thread."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _loop(self) -> None:
        while True:
            while not (self._outboxes and self._inbox.empty()):
                command = self._inbox.get()
                if command is None:
                    return
                command()
            self._step()

    def _step(self) -> None:
        if self._engine is None:
            return
        try:
            given = list(self._engine.step())
        except Exception as error:
            given = [(number, error) for number in self._outboxes]
        for number, item in given:
            outbox = self._outboxes.get(number)
            if outbox is None:
                continue
            outbox.put(item)
            if not isinstance(item, Step):
                del self._outboxes[number]

    def _add(self, number: int, request: Request, outbox: Outbox) -> None:
        try:
            if self._engine is None:
                raise RuntimeError("nothing is loaded")
            self._engine.add(number, request)
        except Exception as error:
            outbox.put(error)
        else:
            self._outboxes[number] = outbox

    def _drop(self, number: int) -> None:
        if self._outboxes.pop(number, None) is not None and self._engine is not None:
            self._engine.drop(number)
