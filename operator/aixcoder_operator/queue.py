"""The keyed work queue: what decides when `reconcile(key)` runs.

A key never runs twice at once, and any number of `add`s while it waits or runs fold into one run after. A run that
raises comes again with a growing delay; one that returns a number comes again after that many seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0

Work = Callable[[str], Awaitable[float | None]]
"""Does the work for a key. Returns the seconds until it wants to run again, or None."""
OnFailure = Callable[[str, Exception, float], None]
"""Told of a key whose work raised, the error, and the seconds until it runs again."""


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after the n-th failure in a row; `jitter` in [0, 1) spreads it by a quarter to both sides."""
    # The exponent is bounded, so that a key that has failed for days does not overflow.
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16)) * (0.75 + jitter / 2)


def _ignore(key: str, error: Exception, delay: float) -> None:
    """Tell nobody."""


class WorkQueue:
    """Runs in the event loop that calls it; nothing here is thread-safe.

    Keys may be added before `start`: a standby collects what it would have to do. An error with an attribute
    `retry_after` (seconds) is not tried again before that.
    """

    def __init__(
        self,
        work: Work,
        *,
        workers: int,
        on_failure: OnFailure = _ignore,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._workers = workers
        self._on_failure = on_failure
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._ready: dict[str, None] = {}  # in the order of arrival
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._running: dict[str, tuple[asyncio.Task[None], float]] = {}  # with the loop time of the start
        self._again: set[str] = set()  # added while running
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}  # loop time; only of keys that failed last
        self._started = False
        self._closed = False

    def __len__(self) -> int:
        """Keys that are due and wait for a worker."""
        return len(self._ready)

    @property
    def running(self) -> int:
        """Keys that are worked on now."""
        return len(self._running)

    def oldest_running_seconds(self) -> float:
        """How long the longest of the present runs has been going on; 0 where none is."""
        return max((self._loop.time() - started for _, started in self._running.values()), default=0.0)

    def start(self) -> None:
        """Begin to work on what was added."""
        self._started = True
        self._dispatch()

    def add(self, key: str) -> None:
        """Run `key` as soon as a worker is free; once more after its present run, where it is running."""
        # However many events come in, a key that has just failed gets a breath.
        self.add_after(key, self._not_before.get(key, 0.0) - self._loop.time())

    def add_after(self, key: str, seconds: float) -> None:
        """Run `key` in `seconds`, or at an earlier time that was asked for already."""
        if self._closed or key in self._ready or key in self._again:
            return
        due = self._loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
            del self._timers[key]
        if seconds > 0:
            self._timers[key] = self._loop.call_at(due, self._due, key)
        elif key in self._running:
            self._again.add(key)
        else:
            self._ready[key] = None
            self._dispatch()

    async def close(self, grace_seconds: float) -> None:
        """Take no more keys, start no more runs, let those that run end; cancel them after `grace_seconds`."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tasks(self) -> Iterable[asyncio.Task[None]]:
        return [task for task, _ in self._running.values()]

    def _due(self, key: str) -> None:
        del self._timers[key]
        self.add_after(key, 0)

    def _dispatch(self) -> None:
        while self._started and not self._closed and self._ready and len(self._running) < self._workers:
            key = next(iter(self._ready))
            del self._ready[key]
            self._running[key] = (self._loop.create_task(self._run(key), name=f"work on {key}"), self._loop.time())

    async def _run(self, key: str) -> None:
        again: float | None = None
        try:
            again = await self._work(key)
            self._failures.pop(key, None)
            self._not_before.pop(key, None)
        except Exception as error:  # whatever the work raises is told and tried again
            again = self._fail(key, error)
        finally:
            del self._running[key]
            added = key in self._again
            self._again.discard(key)
            if again is not None:
                self.add_after(key, again)
            if added:
                self.add(key)
            self._dispatch()

    def _fail(self, key: str, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wished = float(getattr(error, "retry_after", 0.0))
        delay = max(backoff(failures, self._jitter()), wished)
        self._not_before[key] = self._loop.time() + max(FIRST_DELAY, wished)
        self._on_failure(key, error, delay)
        return delay
