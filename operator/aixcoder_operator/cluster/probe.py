"""Asks replicas and gateways, by address, what they are doing. Who does not answer in time is None."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import aiohttp
from pydantic import ValidationError

from aixcoder_serving.protocol import REPLICA_PORT, Message, Readiness, ReplicaStats, Routes

PROBE_SECONDS = 2.0
_LARGEST_BODY = 4 * 1024 * 1024

_M = TypeVar("_M", bound=Message)


class Prober:
    """All targets of one call are asked at once, so a call takes `seconds` at most."""

    def __init__(
        self, session: aiohttp.ClientSession, *, replica_port: int = REPLICA_PORT, seconds: float = PROBE_SECONDS
    ) -> None:
        self._session = session
        self._replica_port = replica_port
        self._seconds = seconds

    async def readiness(self, ips: Iterable[str]) -> dict[str, Readiness | None]:
        """`/ready` of the replicas on these pods; it says as much with 503 as with 200."""
        return await self._by_ip(ips, "/ready", Readiness)

    async def stats(self, ips: Iterable[str]) -> dict[str, ReplicaStats | None]:
        """`/stats` of the replicas on these pods."""
        return await self._by_ip(ips, "/stats", ReplicaStats)

    async def routes(self, addresses: Iterable[str]) -> dict[str, Routes | None]:
        """`/routes` of the gateways at these `ip:port`."""
        asked = list(addresses)
        answers = await asyncio.gather(*(self._ask(f"http://{address}/routes", Routes) for address in asked))
        return dict(zip(asked, answers, strict=True))

    async def _by_ip(self, ips: Iterable[str], path: str, type_: type[_M]) -> dict[str, _M | None]:
        asked = list(ips)
        urls = (f"http://{host_in_url(ip)}:{self._replica_port}{path}" for ip in asked)
        answers = await asyncio.gather(*(self._ask(url, type_) for url in urls))
        return dict(zip(asked, answers, strict=True))

    async def _ask(self, url: str, type_: type[_M]) -> _M | None:
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._session.get(url, headers={"Connection": "close"}, allow_redirects=False) as response,
            ):
                return type_.model_validate_json(await body(response, _LARGEST_BODY))
        except (TimeoutError, aiohttp.ClientError, OSError, ValidationError):
            return None


async def body(response: aiohttp.ClientResponse, largest: int) -> bytes:
    """The whole body, however many pieces it comes in; cut where it has more than `largest` bytes."""
    found = bytearray()
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > largest:
            break
    return bytes(found[:largest])


def host_in_url(host: str) -> str:
    """A host name or address as a URL writes it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
