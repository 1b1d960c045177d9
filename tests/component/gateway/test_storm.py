"""A storm of keys before a real replica: most requests are cancelled, and nothing of them is left."""

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from aixcoder_serving.gateway.static import StaticRoutes
from tests.component.gateway.conftest import Running, load, rss_mb, running
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


@pytest_asyncio.fixture
async def replica() -> AsyncIterator[Replica]:
    async with replica_with(max_concurrent_sequences=16) as started:
        yield started


@pytest_asyncio.fixture
async def gateway(replica: Replica) -> AsyncIterator[Running]:
    routes = StaticRoutes.one("tiny", f"127.0.0.1:{replica.listener.port}")
    async with running(routes) as started:
        yield started


async def key(gateway: Running, session: aiohttp.ClientSession, n: int, chance: random.Random) -> str:
    """One key of one of twenty editors; seven of ten are cancelled by the next one."""
    patience = chance.uniform(0.05, 0.4) if chance.random() < 0.7 else None
    body = {
        "prompt": TEXT + "x" * (n // 20 % 40),
        "suffix": "\n",
        "max_tokens": 120,
        "ignore_eos": True,
        "stream": n % 2 == 0,
    }
    headers = {"x-editor-session": f"editor {n % 20}", "x-patience-ms": "2000"}
    try:
        async with asyncio.timeout(patience):
            async with session.post(f"{gateway.url}/v1/completions", json=body, headers=headers) as response:
                await response.read()
                return "served" if response.status == 200 else str(response.status)
    except TimeoutError:
        return "cancelled"


async def idle(replica: Replica) -> None:
    """Wait until the engine has nothing."""
    async with asyncio.timeout(30):
        while (stats := replica.service.engine_stats()).running + stats.waiting or replica.service.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seconds", "rate"), [(60.0, 200), pytest.param(600.0, 200, marks=pytest.mark.long, id="ten minutes")]
)
async def test_nothing_is_left_of_a_storm(gateway: Running, replica: Replica, seconds: float, rate: int) -> None:
    chance = random.Random(1)
    outcomes: dict[str, int] = {}

    async def storm(length: float) -> None:
        clock = asyncio.get_running_loop().time
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as all_,
        ):
            began, n = clock(), 0

            async def one(number: int) -> None:
                outcome = await key(gateway, session, number, chance)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

            while (due := began + n / rate) < began + length:
                await asyncio.sleep(max(due - clock(), 0))
                all_.create_task(one(n))
                n += 1
        await idle(replica)
        await asyncio.sleep(0.3)

    await storm(3.0)  # connections and caches that stay
    gc.collect()
    tasks, descriptors, memory = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), rss_mb(os.getpid())
    outcomes.clear()
    await storm(seconds)
    gc.collect()
    grown = rss_mb(os.getpid()) - memory
    print(f"{outcomes} in {seconds:.0f} s; memory grew by {grown:.1f} MB")
    stats = replica.service.engine_stats()
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)
    assert (len(replica.service._admission), replica.service._admission.tokens) == (0, 0)
    assert len(asyncio.all_tasks()) <= tasks
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 16  # kept connections to the replica
    assert await gateway.metric("aixcoder_gateway_requests_in_flight") == 0
    assert grown < 30
    assert set(outcomes) <= {"served", "cancelled", "503"}
    assert outcomes["served"] > outcomes.get("503", 0)


async def test_a_close_frees_the_slot_within_a_step(gateway: Running, replica: Replica) -> None:
    times = []
    body: dict[str, Any] = {
        "prompt": [1, 300, 301],
        "max_tokens": 1900,
        "temperature": 2.0,
        "ignore_eos": True,
        "stream": True,
    }
    async with aiohttp.ClientSession() as session:
        for seed in range(40):
            response = await session.post(f"{gateway.url}/v1/completions", json=body | {"seed": seed})
            await response.content.readany()
            assert replica.service.engine_stats().running == 1
            left = time.perf_counter()
            response.close()
            async with asyncio.timeout(10):
                while replica.service.engine_stats().running:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            times.append((time.perf_counter() - left) * 1000)
    stats = replica.service.engine_stats()
    step = stats.step_seconds_sum / stats.steps * 1000
    p99 = quantiles(times, n=100)[98]
    print(f"close → slot free: median {median(times):.1f} ms, p99 {p99:.1f} ms; a step takes {step:.1f} ms")
    assert (stats.running, stats.blocks_used) == (0, 0)


STEP_MS = 150.0
"""More than the tenth of a second after which an engine tells again what it did: it tells each step."""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_close_during_prefill_frees_all_within_a_step(stream: bool) -> None:
    prompt = [1, *(300 + i * i % 1700 for i in range(15_000))]
    body = {"prompt": prompt, "max_tokens": 20, "stream": stream}
    async with (
        replica_with(max_model_length=16_384, step_budget_ms=STEP_MS) as replica,
        running(StaticRoutes.one("tiny", f"127.0.0.1:{replica.listener.port}")) as gateway,
    ):
        stats = replica.service.engine_stats
        asking = asyncio.create_task(gateway.session.post(f"{gateway.url}/v1/completions", json=body))
        async with asyncio.timeout(30):
            while (before := stats()).steps < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        asking.cancel()
        await idle(replica)
        after = stats()
        print(f"{before.tokens_prefilled} tokens at the cancel, {after.tokens_prefilled} at the end")
        assert (before.running, before.tokens_decoded) == (1, 0)
        # The step that ran, and one that was planned before the cancel was there.
        assert after.steps <= before.steps + 2
        assert after.tokens_prefilled < len(prompt)
        assert (after.cancelled, after.completed, after.running, after.waiting, after.blocks_used) == (1, 0, 0, 0, 0)
        assert await gateway.metric("aixcoder_gateway_requests_total", outcome="client_gone_prefill") == 1
        counters = (await load(gateway)).deployments[0].counters
        assert (counters.cancelled_prefill, counters.tokens_decoded) == (1, 0)
