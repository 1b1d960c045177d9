"""Requests without a slot: fewest uncached tokens first, the oldest first once they have waited long."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Iterator

from aixcoder_serving.engine.request import Request


class WaitingQueue:
    """Queued and parked requests. All operations are O(log n) or O(1), spread over time."""

    def __init__(self) -> None:
        self._order = 0
        self._heap: list[tuple[int, int, Request]] = []  # outdated entries are skipped when they come up
        self._arrivals: deque[Request] = deque()  # those that left are dropped when they come to its head
        self._parked: dict[bytes, list[Request]] = {}
        self._members: set[Request] = set()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: Request) -> bool:
        return request in self._members

    def __iter__(self) -> Iterator[Request]:
        return iter(self._members)

    def add(self, request: Request, uncached: int) -> None:
        """Queue a request that has `uncached` tokens to compute."""
        self._members.add(request)
        self._arrivals.append(request)
        self._push(request, uncached)

    def remove(self, request: Request) -> None:
        """Take a request out: it runs now, or it is gone."""
        self._members.discard(request)
        if request.parked_on is not None:
            self._unpark(request)

    def aged(self, before: float) -> Iterator[Request]:
        """Those that arrived before then, oldest first; parked ones wait for another one's progress instead."""
        while self._arrivals and self._arrivals[0] not in self._members:
            self._arrivals.popleft()
        for request in list(self._arrivals):
            if request.arrived > before:
                return
            if request in self._members and request.parked_on is None:
                yield request

    def shortest(self) -> Generator[Request]:
        """By uncached tokens. What was taken and not removed when the generator is closed keeps its place."""
        taken = []
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                request = entry[2]
                if request in self._members and request.parked_on is None and request.uncached == entry[0]:
                    taken.append(entry)
                    yield request
        finally:
            for entry in taken:
                if entry[2] in self._members and entry[2].parked_on is None:
                    heapq.heappush(self._heap, entry)

    def park(self, request: Request, block: bytes) -> None:
        """Hold a request until `wake(block)`."""
        request.parked_on = block
        self._parked.setdefault(block, []).append(request)

    def wake(self, block: bytes) -> None:
        """The block is there, or will not come: those that waited for it are in the queue again."""
        for request in self._parked.pop(block, ()):
            request.parked_on = None
            self._push(request, request.uncached)

    def _unpark(self, request: Request) -> None:
        block, request.parked_on = request.parked_on, None
        if block is not None:
            self._parked[block].remove(request)
            if not self._parked[block]:
                del self._parked[block]

    def _push(self, request: Request, uncached: int) -> None:
        request.uncached = uncached
        self._order += 1
        heapq.heappush(self._heap, (uncached, self._order, request))
