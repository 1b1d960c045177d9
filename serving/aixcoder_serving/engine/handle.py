"""One request between the thread that runs it and the event loop that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable

from aixcoder_serving.engine.interface import Delta, Finish, GenerationFailed, TokenLogprobs


class RequestHandle:
    """A `Generation`. The engine calls `emit`, `end` and `fail` from any thread; `end` or `fail` is the last call."""

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self.cancelled = False
        self._on_cancel = on_cancel
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()  # guards what follows
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._prompt_logprobs: list[TokenLogprobs] = []
        self._held_bytes = self._cached_tokens = 0
        self._waited_ms: float | None = None
        self._finish: Finish | None = None
        self._error: str | None = None

    @property
    def finish(self) -> Finish | None:
        """How it ended, or None."""
        return self._finish

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        if not self.cancelled:
            self.cancelled = True
            self._on_cancel()

    def emit(self, delta: Delta) -> None:
        """Hand over new tokens."""
        with self._lock:
            self._token_ids += delta.token_ids
            self._logprobs += delta.logprobs
            self._prompt_logprobs += delta.prompt_logprobs
            self._held_bytes, self._cached_tokens = delta.held_bytes, delta.cached_tokens
            if delta.waited_ms is not None:
                self._waited_ms = delta.waited_ms
        self._wake()

    def end(self, finish: Finish) -> None:
        """Nothing more comes."""
        with self._lock:
            self._finish = finish
        self._wake()

    def fail(self, message: str) -> None:
        """Nothing more comes, by a fault."""
        with self._lock:
            self._error = message
        self._wake()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas until the end."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            with self._lock:
                delta = Delta(
                    tuple(self._token_ids),
                    self._held_bytes,
                    tuple(self._logprobs),
                    tuple(self._prompt_logprobs),
                    self._cached_tokens,
                    self._waited_ms,
                )
                self._token_ids, self._logprobs, self._prompt_logprobs, self._waited_ms = [], [], [], None
                finish, error = self._finish, self._error
            if delta.token_ids or delta.prompt_logprobs or delta.waited_ms is not None:
                yield delta
            if error is not None:
                raise GenerationFailed(error)
            if finish is not None:
                return

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # a closed loop has nobody left who waits
            self._loop.call_soon_threadsafe(self._arrived.set)
