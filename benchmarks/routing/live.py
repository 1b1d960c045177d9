"""Plays requests of a trace, at their times, on a real gateway before replicas that only keep time."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import aiohttp

from benchmarks import program
from benchmarks.contest import progress
from benchmarks.routing.replica import prompt
from benchmarks.routing.simulate import Arrival

TOLD_SECONDS = 30.0


def play(arrivals: Sequence[Arrival], replicas: int, wait: float) -> dict[str, Any]:
    """What came of it: shares of the requests that waited no longer, that were refused, that kept to one replica."""
    with program.started("benchmarks.routing.replica", str(replicas)) as (_, listed):
        ports = json.loads(listed)
        with program.started("benchmarks.gateway.ours", "0", *map(str, ports)) as (_, port):
            return asyncio.run(_play(arrivals, int(port), ports[0], wait))


async def _play(arrivals: Sequence[Arrival], port: int, replica: int, wait: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=120.0)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        url = f"http://127.0.0.1:{port}"
        await asyncio.sleep(1.0)  # the replicas have told their load
        statuses: Counter[int] = Counter()
        began = time.monotonic()
        told = began
        async with asyncio.TaskGroup() as all_:
            for number, arrival in enumerate(arrivals):
                await asyncio.sleep(max(began + arrival.at - arrivals[0].at - time.monotonic(), 0.0))
                if time.monotonic() - told > TOLD_SECONDS:
                    told = time.monotonic()
                    progress(f"live: {number} of {len(arrivals)} requests sent")
                all_.create_task(_ask(session, url, arrival, statuses))
        async with session.get(f"http://127.0.0.1:{replica}/waits") as response:
            waits: list[tuple[int, str, float]] = await response.json()
    places: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for name, editor, _ in waits:
        places[editor][name] += 1
    return {
        "requests": len(arrivals),
        "attained": round(sum(seconds <= wait for _, _, seconds in waits) / len(arrivals), 4),
        "answered": round(statuses[200] / len(arrivals), 4),
        "same_replica": round(sum(max(found.values()) for found in places.values()) / max(len(waits), 1), 3),
    }


async def _ask(session: aiohttp.ClientSession, url: str, arrival: Arrival, statuses: Counter[int]) -> None:
    editor = arrival.editor.hex()
    body = {
        "prompt": prompt(arrival.prompt, arrival.output, editor),
        "max_tokens": max(arrival.output, 1),
        "temperature": 1.0,
    }
    headers = {"x-editor-session": editor, "x-patience-ms": "60000"}
    async with session.post(f"{url}/v1/completions", json=body, headers=headers) as response:
        await response.read()
        statuses[response.status] += 1
