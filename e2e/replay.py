"""Requests at the times of a trace, whatever becomes of those before: as many clients as it takes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from e2e.load import LONG, REQUEST_SECONDS


@dataclass
class Replayed:
    """`seconds`: of each request that was completed, from its sending to the end of its answer."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    latest_s: float = 0.0
    """By how much the latest one was sent later than the trace says."""


def replay(url: str, model: str, at: Sequence[float], tokens: int, *, patience_s: float) -> Replayed:
    """Send a request for `tokens` tokens at each of these seconds, each another text; returns when all have ended."""
    found = Replayed()
    alike = LONG | {"model": model, "max_tokens": tokens, "stop": [f"replay {time.time_ns()}"]}
    headers = {"x-patience-ms": f"{patience_s * 1000:.0f}"}

    async def one(session: aiohttp.ClientSession, start: float, number: int) -> None:
        await asyncio.sleep(max(start + at[number] - time.monotonic(), 0.0))
        sent = time.monotonic()
        found.latest_s = max(found.latest_s, sent - start - at[number])
        try:
            body = alike | {"seed": number}
            async with session.post(f"{url}/v1/completions", json=body, headers=headers) as response:
                text = await response.text()
                if response.status == 200:
                    found.seconds.append(time.monotonic() - sent)
                else:
                    found.failures[f"{response.status} {text[:200]}"] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            found.failures[repr(error)] += 1

    async def all_of_them() -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            start = time.monotonic()
            await asyncio.gather(*(one(session, start, number) for number in range(len(at))))

    asyncio.run(all_of_them())
    return found
