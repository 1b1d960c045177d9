"""Tells gateways the load: `GET /events`, a report when it changes, at most every 20 ms and at least every second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aixcoder_serving.protocol import LoadReport
from aixcoder_serving.replica.service import ReplicaService

SHORTEST_SECONDS = 0.02
LONGEST_SECONDS = 1.0
BUSY_SECONDS = 0.25
"""While something runs: an engine that stands still is noticed by a look at it."""


class LoadReporter:
    """Makes reports for as long as anybody listens; all listeners get the same ones."""

    def __init__(self, service: ReplicaService) -> None:
        self._service = service
        self._report: LoadReport | None = None
        self._news = asyncio.Event()
        self._listeners = 0
        self._making: asyncio.Task[None] | None = None

    async def reports(self) -> AsyncGenerator[LoadReport]:
        """The last report, and each new one; a slow listener misses some. Ends with the engine, or where it stalls."""
        self._listeners += 1
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        try:
            told = None
            while self._service.stopped is None and not self._service.closed:
                news = self._news
                if self._report is not None and self._report is not told:
                    told = self._report
                    yield told
                else:
                    await news.wait()
        finally:
            self._listeners -= 1
            if not self._listeners and self._making is not None:
                self._making.cancel()
                self._making, self._report = None, None

    async def _make(self) -> None:
        while True:
            self._service.changed.clear()
            self._report = self._service.report()
            self._news.set()
            self._news = asyncio.Event()
            await asyncio.sleep(SHORTEST_SECONDS)
            try:
                longest = BUSY_SECONDS if self._service.in_flight else LONGEST_SECONDS
                async with asyncio.timeout(longest - SHORTEST_SECONDS):
                    await self._service.changed.wait()
            except TimeoutError:
                pass
