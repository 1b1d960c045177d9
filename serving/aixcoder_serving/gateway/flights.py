"""The flights under way: identical requests share one, and one that nobody reads any more ends.

minuet asks for the same completion three times at once; editors ask again after a reload. A shared flight has one
replica's place, and its answer is the same for all: what is greedy or has a seed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aixcoder_serving.gateway.dispatch import Wish
from aixcoder_serving.gateway.flight import Airspace, Flight
from aixcoder_serving.gateway.ledger import DeploymentLedger
from aixcoder_serving.protocol import CompletionRequest


@dataclass(eq=False, slots=True)
class _Shared:
    flight: Flight
    task: asyncio.Task[None]
    readers: int = 0


def identity(wish: Wish) -> bytes:
    """A digest of what is asked, by whom, and of which revision; the same for requests with one answer.

    Each editor has flights of its own: one that types on supersedes what it asked before, and nobody else's.
    """
    request, deployment, who = wish.request, wish.deployment, wish.editor
    normalised = request.model_dump_json(exclude={"id", "draft_token_ids"}, exclude_defaults=True)
    digest = hashlib.blake2b(digest_size=16)
    editor = "" if who is None else f"{who.key}\0{who.name}"
    traffic = str(deployment.status.traffic.version)
    for part in (wish.key, editor, deployment.metadata.uid, traffic, normalised):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    return digest.digest()


def repeatable(request: CompletionRequest) -> bool:
    """Whether the same request has the same answer."""
    return request.sampling.temperature == 0.0 or request.sampling.seed is not None


class Flights:
    """All flights of one gateway. Used from one event loop."""

    def __init__(self, airspace: Airspace) -> None:
        self._airspace = airspace
        self._shared: dict[bytes, _Shared] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def aboard(self, wish: Wish, ledger: DeploymentLedger) -> AsyncIterator[Flight]:
        """The flight of a request while the block runs: one that is under way already, or a new one."""
        name = identity(wish)
        shared = self._shared.get(name) if repeatable(wish.request) else None
        if shared is None:
            ledger.count("arrivals")
            flight = Flight(self._airspace, wish, ledger, name)
            shared = _Shared(flight, asyncio.create_task(flight.run()))
            if repeatable(wish.request):
                self._shared[name] = shared
                shared.task.add_done_callback(lambda _task: self._forget(name, shared))
        else:
            shared.flight.joined(wish)
        shared.readers += 1
        try:
            yield shared.flight
        finally:
            shared.readers -= 1
            if not shared.readers:
                self._forget(name, shared)
                await self._land(shared)

    async def _land(self, shared: _Shared) -> None:
        """End a flight that nobody reads. One that has all of its answer ends by itself, and keeps its connection."""
        if shared.flight.transcript.over:
            self._ending.add(shared.task)
            shared.task.add_done_callback(self._ending.discard)
        else:
            shared.task.cancel()
            await asyncio.wait([shared.task])

    def _forget(self, name: bytes, shared: _Shared) -> None:
        if self._shared.get(name) is shared:
            del self._shared[name]
