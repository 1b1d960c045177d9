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

GREEDY = 0.02
"""Up to this temperature a completion is as good as greedy: Continue sends 0.01."""


@dataclass(eq=False, slots=True)
class _Shared:
    flight: Flight
    task: asyncio.Task[None]
    readers: int = 0


def identity(key: str, deployment_uid: str, traffic_version: int, request: CompletionRequest) -> bytes:
    """A digest of what is asked, by whom, and of which revision; the same for requests with one answer."""
    normalised = request.model_dump_json(exclude={"id", "draft_token_ids"}, exclude_defaults=True)
    digest = hashlib.blake2b(digest_size=16)
    for part in (key, deployment_uid, str(traffic_version), normalised):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    return digest.digest()


def repeatable(request: CompletionRequest) -> bool:
    """Whether the same request has the same answer."""
    return request.sampling.temperature <= GREEDY or request.sampling.seed is not None


class Flights:
    """All flights of one gateway. Used from one event loop."""

    def __init__(self, airspace: Airspace) -> None:
        self._airspace = airspace
        self._shared: dict[bytes, _Shared] = {}

    @asynccontextmanager
    async def aboard(self, wish: Wish, ledger: DeploymentLedger) -> AsyncIterator[Flight]:
        """The flight of a request while the block runs: one that is under way already, or a new one."""
        traffic = wish.deployment.status.traffic.version
        name = identity(wish.key, wish.deployment.metadata.uid, traffic, wish.request)
        shared = self._shared.get(name) if repeatable(wish.request) else None
        if shared is None:
            flight = Flight(self._airspace, wish, ledger, name)
            shared = _Shared(flight, asyncio.create_task(flight.run()))
            if repeatable(wish.request):
                self._shared[name] = shared
                shared.task.add_done_callback(lambda _task: self._forget(name, shared))
        shared.readers += 1
        try:
            yield shared.flight
        finally:
            shared.readers -= 1
            if not shared.readers:
                self._forget(name, shared)
                shared.task.cancel()
                await asyncio.wait([shared.task])

    def _forget(self, name: bytes, shared: _Shared) -> None:
        if self._shared.get(name) is shared:
            del self._shared[name]
