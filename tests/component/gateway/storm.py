"""A storm of keys before a real replica, and what must be left of it: nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from aixcoder_serving.gateway.answer import OUTCOME_HEADER
from aixcoder_serving.gateway.static import StaticRoutes
from tests.component.gateway.conftest import Running, running
from tests.component.replica.conftest import Replica, settings, start

TEXT = "def _put(self, item):\n    heappush(self.queue, item)\n\n" * 6


@asynccontextmanager
async def replica_with(**changes: Any) -> AsyncIterator[Replica]:
    """A real one, that no other test has used."""
    async with aiohttp.ClientSession() as client:
        started = await start(settings(threads=1, **changes), client)
        await started.service.loaded()
        yield started
        await started.stop()


@asynccontextmanager
async def gateway_before(replica: Replica) -> AsyncIterator[Running]:
    """A gateway with this replica alone."""
    async with running(StaticRoutes.one("tiny", f"127.0.0.1:{replica.listener.port}")) as started:
        yield started


async def idle(replica: Replica) -> None:
    """Wait until the engine has nothing."""
    async with asyncio.timeout(30):
        while (stats := replica.service.engine_stats()).running + stats.waiting or replica.service.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def storm(url: str, replica: Replica, seconds: float, chance: random.Random, rate: int = 200) -> Counter[str]:
    """How many requests had which outcome. It ends once the replica has nothing to do any more."""
    outcomes: Counter[str] = Counter()
    clock = asyncio.get_running_loop().time
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as all_,
    ):
        began = clock()

        async def one(number: int) -> None:
            outcomes[await _key(url, session, number, chance)] += 1

        for number in range(round(seconds * rate)):
            await asyncio.sleep(max(began + number / rate - clock(), 0))
            all_.create_task(one(number))
    await idle(replica)
    await asyncio.sleep(0.3)
    return outcomes


def as_it_should_be(outcomes: Counter[str]) -> None:
    """A storm: many were cancelled; and most of the others had an answer."""
    assert set(outcomes) <= {"served", "superseded", "cancelled", "503"}
    assert outcomes["cancelled"] > 0.1 * outcomes.total()
    assert outcomes["served"] > outcomes["503"]


async def nothing_left(gateway: Running, replica: Replica, tasks: int) -> None:
    """No slot, no block, no place, no request, and no more tasks than before."""
    stats = replica.service.engine_stats()
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)
    assert (len(replica.service._admission), replica.service._admission.tokens) == (0, 0)
    assert len(asyncio.all_tasks()) <= tasks
    assert await gateway.metric("aixcoder_gateway_requests_in_flight") == 0


async def _key(url: str, session: aiohttp.ClientSession, number: int, chance: random.Random) -> str:
    """One key of one of twenty editors; seven of ten are cancelled by the next one."""
    patience = chance.uniform(0.05, 0.4) if chance.random() < 0.7 else None
    body = {
        "prompt": TEXT + "x" * (number // 20 % 40),
        "suffix": "\n",
        "max_tokens": 120,
        "ignore_eos": True,
        "stream": number % 2 == 0,
    }
    headers = {"x-editor-session": f"editor {number % 20}", "x-patience-ms": "2000"}
    try:
        async with asyncio.timeout(patience):
            async with session.post(f"{url}/v1/completions", json=body, headers=headers) as response:
                await response.read()
                return (
                    response.headers.get(OUTCOME_HEADER, "served") if response.status == 200 else str(response.status)
                )
    except TimeoutError:
        return "cancelled"
