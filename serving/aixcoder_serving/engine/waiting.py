"""Requests without a slot: fewest uncached tokens first, the oldest first once they have waited long."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from aixcoder_serving.engine.request import Request

_OUTDATED = 64  # entries of the heap that may be outdated, beside as many as there are members

_LOOKED_AT = 128

_PARKED = -1


class WaitingQueue:
    """Queued and parked requests. All operations are O(log n) or O(1), spread over time.

    One that is queued has one entry in the heap; others there are outdated, and skipped when they come up.
    """

    def __init__(self) -> None:
        self.uncached = 0
        """Tokens that all members have to compute."""
        self._order = 0
        self._heap: list[tuple[int, int, Request]] = []
        self._members: dict[Request, int] = {}  # by arrival; with the order of its entry in the heap, or `_PARKED`
        self._parked: dict[bytes, dict[Request, None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: Request) -> bool:
        return request in self._members

    def __iter__(self) -> Iterator[Request]:
        return iter(self._members)

    def add(self, request: Request, uncached: int) -> None:
        """Queue a request that has `uncached` tokens to compute."""
        self.uncached += uncached
        self._push(request, uncached)

    def remove(self, request: Request) -> None:
        """Take a request out: it runs now, or it is gone."""
        del self._members[request]
        self.uncached -= request.uncached
        if request.parked_on is not None:
            block, request.parked_on = request.parked_on, None
            del self._parked[block][request]
            if not self._parked[block]:
                del self._parked[block]
        self._drop_outdated()

    def aged(self, before: float) -> Iterator[Request]:
        """Those that arrived before then, oldest first; parked ones wait for another one's progress instead.

        The first `_LOOKED_AT` of all: a plan has no room for more.
        """
        for request in list(islice(self._members, _LOOKED_AT)):
            if request.arrived > before:
                break
            if self._members.get(request, _PARKED) != _PARKED:
                yield request

    def shortest(self) -> Generator[Request]:
        """By uncached tokens. What was taken and not removed when the generator is closed keeps its place."""
        taken = []
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                if self._current(entry):
                    taken.append(entry)
                    yield entry[2]
        finally:
            for entry in taken:
                if self._current(entry):
                    heapq.heappush(self._heap, entry)

    def park(self, request: Request, block: bytes) -> None:
        """Hold a request until `wake(block)`."""
        request.parked_on = block
        self._members[request] = _PARKED
        self._parked.setdefault(block, {})[request] = None

    def parked(self, block: bytes) -> Iterable[Request]:
        """Those that wait for the block."""
        return self._parked.get(block, ())

    def wake(self, block: bytes, cached: int) -> bool:
        """The block is there, or will not come: those that waited for it are in the queue again.

        The first `cached` tokens of each can be found. Whether there was any.
        """
        woken = self._parked.pop(block, ())
        for request in woken:
            request.parked_on = None
            self.uncached += len(request.prompt) - cached - request.uncached
            self._push(request, len(request.prompt) - cached)
        return bool(woken)

    def check_integrity(self) -> None:
        """Raise RuntimeError unless each member is either parked or has its place in the heap."""
        current = {entry[2] for entry in self._heap if self._current(entry)}
        parked = {request: block for block, requests in self._parked.items() for request in requests}
        for request, order in self._members.items():
            if (order == _PARKED) != (request in parked) or request.parked_on != parked.get(request):
                raise RuntimeError(f"request {request.id} is parked and not listed so, or the other way round")
            if (request in parked) == (request in current):
                raise RuntimeError(f"request {request.id} waits, and is not either parked or in the heap")
        if self.uncached != sum(request.uncached for request in self._members):
            raise RuntimeError(f"{self.uncached} tokens are said to wait, which is not what the members have")
        if len(parked) + len(current) != len(self._members):
            raise RuntimeError(
                f"{len(parked)} requests are parked, {len(current)} queued and {len(self._members)} wait"
            )

    def _current(self, entry: tuple[int, int, Request]) -> bool:
        return self._members.get(entry[2]) == entry[1]

    def _push(self, request: Request, uncached: int) -> None:
        request.uncached = uncached
        self._order += 1
        self._members[request] = self._order
        heapq.heappush(self._heap, (uncached, self._order, request))
        self._drop_outdated()

    def _drop_outdated(self) -> None:
        """Else the heap would hold what left it for as long as something shorter always comes."""
        if len(self._heap) > 2 * len(self._members) + _OUTDATED:
            self._heap = [entry for entry in self._heap if self._current(entry)]
            heapq.heapify(self._heap)
