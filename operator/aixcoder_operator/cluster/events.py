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
from typing import Literal, TypeVar

from aixcoder_operator.api import names, objects
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, ClusterError, NotLeading

EventType = Literal["Normal", "Warning"]
_News = TypeVar("_News")

REPEAT_SECONDS = 600.0
"""The same news of the same object is told again no sooner."""
BURST = 20
"""News that one object may have at once…"""
REFILL_SECONDS = 30.0
"""… and the time after which it may have one more."""
TOPIC_SECONDS = 60.0
"""News of one topic of an object is told no more often."""
_WAITING = 200
_LONGEST_NOTE = 1024  # bytes

logger = logging.getLogger(__name__)


class NewsFilter:
    """Decides what is news. Pure but for `clock` (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}
        self._topics: dict[tuple[str, str], float] = {}
        self._spent: dict[str, float] = {}  # uid → when its allowance is full again

    def admits(self, uid: str, reason: str, message: str, topic: str = "") -> bool:
        """Whether this is to be told now; then it counts as told. `topic` "": of none."""
        now = self._clock()
        self._forget(now)
        news = (uid, reason, message)
        full_again = max(self._spent.get(uid, now), now)
        if news in self._told or (uid, topic) in self._topics or full_again - now > (BURST - 1) * REFILL_SECONDS:
            return False
        self._told[news] = now
        if topic:
            self._topics[uid, topic] = now
        self._spent[uid] = full_again + REFILL_SECONDS
        return True

    def _forget(self, now: float) -> None:
        _drop_older(self._told, now - REPEAT_SECONDS)
        _drop_older(self._topics, now - TOPIC_SECONDS)
        for uid, full_again in list(self._spent.items()):
            if full_again <= now:
                del self._spent[uid]


def _drop_older(told: dict[_News, float], than: float) -> None:
    # Insertion order is age.
    for news, at in list(told.items()):
        if at > than:
            break
        del told[news]


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

    def record(self, regarding: Object, reason: str, message: str, type: EventType = "Normal", topic: str = "") -> None:
        """Tell of `regarding` (a stored object). `reason`: one CamelCase word; `message`: a sentence.

        `topic`: what is told once a minute at most, whatever the words; "": no such thing.
        """
        if not self._news.admits(objects.uid(regarding), reason, message, topic):
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
