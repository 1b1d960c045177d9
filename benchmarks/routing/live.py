"""Plays requests of a trace, at their times, on a real gateway before replicas that only keep time."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp

from benchmarks.contest import progress
from benchmarks.routing.replica import prompt
from benchmarks.routing.simulate import Arrival

START_SECONDS = 30.0
TOLD_SECONDS = 30.0


@contextmanager
def _program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    # A line of log for each request, which nobody reads here.
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def play(arrivals: Sequence[Arrival], replicas: int, wait: float) -> dict[str, Any]:
    """What came of it: shares of the requests that waited no longer, that were refused, that kept to one replica."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with _program("benchmarks.routing.replica", str(replicas)) as fleet:
        if fleet.stdout is None:
            raise RuntimeError("the replicas have no standard output")
        ports = json.loads(fleet.stdout.readline())
        with _program("benchmarks.gateway.ours", str(port), *map(str, ports)):
            return asyncio.run(_play(arrivals, port, ports[0], wait))


async def _play(arrivals: Sequence[Arrival], port: int, replica: int, wait: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=120.0)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        url = f"http://127.0.0.1:{port}"
        await _ready(session, url)
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


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                async with session.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


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
