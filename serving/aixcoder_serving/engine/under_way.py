"""Which running request computes which block, and who waits for it rather than compute it, too.

Who waits is parked until the last block that it shares with the one that computes them is there, or that one is gone:
an earlier block alone would only park it again. While followers of a long prompt wait, they cost no plan anything.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable

from aixcoder_serving.engine.request import Request
from aixcoder_serving.engine.waiting import WaitingQueue


class UnderWay:
    """Blocks by their hashes; each is one running request's, whoever else comes to compute it."""

    def __init__(self, waiting: WaitingQueue, block_size: int) -> None:
        self._waiting = waiting
        self._block_size = block_size
        self._owners: dict[bytes, Request] = {}

    def begin(self, request: Request) -> None:
        """A request runs: it computes all full pages of its prompt that are not published yet."""
        for block in request.hashes[request.published :]:
            self._owners.setdefault(block, request)

    def follow(self, request: Request, known: int) -> bool:
        """Park a waiting request where a running one computes its next block, the one behind `known` ones."""
        if known == len(request.hashes) or request.sampling.prompt_logprobs is not None:  # it reads no cache
            return False
        owner = self._owners.get(request.hashes[known])
        if owner is None:
            return False
        # Whatever there is in between, the block before the place that is found is the owner's.
        end = bisect_left(request.hashes, True, known + 1, key=lambda block: self._owners.get(block) is not owner)
        self._waiting.park(request, request.hashes[end - 1])
        owner.awaited = min(owner.awaited, len(request.prompt))
        return True

    def end(self, request: Request, blocks: Iterable[bytes]) -> None:
        """These blocks of its are there, or will not come: who waited for them goes on, with all that it published."""
        cached, woken = request.published * self._block_size, False
        for block in blocks:
            if self._owners.get(block) is request:
                del self._owners[block]
                woken |= self._waiting.wake(block, cached)
        if woken:
            self._look_for_followers(request)

    def leave(self, request: Request) -> None:
        """A waiting request is gone, parked or not."""
        owner = None if request.parked_on is None else self._owners[request.parked_on]
        self._waiting.remove(request)
        if owner is not None:
            self._look_for_followers(owner)

    def check_integrity(self, running: Collection[Request]) -> None:
        """Raise RuntimeError unless running requests compute each block that is under way, and that one waits for."""
        for block, owner in self._owners.items():
            if owner not in running or block not in owner.hashes[owner.published :]:
                raise RuntimeError(f"a block is under way that request {owner.id} does not compute")
        for request in self._waiting:
            if request.parked_on is None:
                continue
            owner_or_none = self._owners.get(request.parked_on)
            if owner_or_none is None:
                raise RuntimeError(f"request {request.id} waits for a block that nobody computes")
            if owner_or_none.awaited > len(request.prompt):
                raise RuntimeError(f"request {owner_or_none.id} does not know that request {request.id} waits for it")

    def _look_for_followers(self, owner: Request) -> None:
        lengths = [
            len(follower.prompt)
            for block in owner.hashes[owner.published :]
            if self._owners.get(block) is owner
            for follower in self._waiting.parked(block)
        ]
        owner.awaited = min(lengths, default=math.inf)


def urgency(request: Request) -> float:
    """Tokens until its first one, or until that of the shortest prompt that waits for its blocks."""
    return min(len(request.tokens), request.awaited) - request.computed
