"""Kubernetes Events: what `kubectl describe` shows of what the operator did and met.

An Event is news for people. It never fails or delays a reconcile, and never floods the API server.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from aixcoder_operator.api import names, objects
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, ClusterError, NotLeading

EventType = Literal["Normal", "Warning"]

REPEAT_SECONDS = 600.0
"""The same news of the same object is told again no sooner."""
BURST = 20
"""News that one object may have at once…"""
REFILL_SECONDS = 30.0
"""… and the time after which it may have one more."""
_WAITING = 200
_LONGEST_NOTE = 1024  # bytes

logger = logging.getLogger(__name__)


class NewsFilter:
    """Decides what is news. Pure but for `clock` (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}
        self._spent: dict[str, float] = {}  # uid → when its allowance is full again

    def admits(self, uid: str, reason: str, message: str) -> bool:
        """Whether this is to be told now; then it counts as told."""
        now = self._clock()
        self._forget(now)
        news = (uid, reason, message)
        full_again = max(self._spent.get(uid, now), now)
        if news in self._told or full_again - now > (BURST - 1) * REFILL_SECONDS:
            return False
        self._told[news] = now
        self._spent[uid] = full_again + REFILL_SECONDS
        return True

    def _forget(self, now: float) -> None:
        # Insertion order is age.
        for news, told in list(self._told.items()):
            if now - told < REPEAT_SECONDS:
                break
            del self._told[news]
        for uid, full_again in list(self._spent.items()):
            if full_again <= now:
                del self._spent[uid]


def shortened(message: str) -> str:
    """`message`, cut to what the API server takes as an Event's note: 1024 bytes of UTF-8."""
    if len(message.encode()) <= _LONGEST_NOTE:
        return message
    return message.encode()[: _LONGEST_NOTE - len("…".encode())].decode(errors="ignore") + "…"


class EventRecorder:
    """Takes news at once and posts it in the background while `run` runs."""

    def __init__(self, client: Client, instance: str, *, news: NewsFilter | None = None) -> None:
        self._client = client
        self._instance = instance
        self._news = news or NewsFilter()
        self._queue: asyncio.Queue[Object] = asyncio.Queue(_WAITING)

    def record(self, regarding: Object, reason: str, message: str, type: EventType = "Normal") -> None:
        """Tell of `regarding` (a stored object). `reason`: one CamelCase word; `message`: a sentence."""
        if not self._news.admits(objects.uid(regarding), reason, message):
            return
        try:
            self._queue.put_nowait(self._event(regarding, reason, message, type))
        except asyncio.QueueFull:
            logger.warning("an Event was dropped, too many wait: %s %s", reason, message)

    async def run(self) -> None:
        """Post what is recorded, for ever."""
        while True:
            event = await self._queue.get()
            try:
                await self._client.create(event)
            except (ClusterError, NotLeading) as error:
                logger.warning("an Event could not be posted: %s", error)
            finally:
                self._queue.task_done()

    async def flush(self, seconds: float) -> None:
        """Wait until all that was recorded is posted, `seconds` at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            logger.warning("%d Events were not posted before the end", self._queue.qsize())

    def _event(self, regarding: Object, reason: str, message: str, type_: EventType) -> Object:
        now = datetime.now(UTC)
        namespace = objects.namespace(regarding)
        return {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.kind,
            "metadata": {"name": f"{objects.name(regarding)}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": names.MANAGER,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": reason,
            "note": shortened(message),
            "type": type_,
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": namespace,
                "name": objects.name(regarding),
                "uid": objects.uid(regarding),
                "resourceVersion": objects.resource_version(regarding),
            },
        }
