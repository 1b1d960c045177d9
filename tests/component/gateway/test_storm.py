"""A storm of keys before a real replica: most requests are cancelled, and nothing of them is left."""

import asyncio
import gc
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.component.gateway.conftest import Running, load, rss_mb
from tests.component.gateway.storm import as_it_should_be, gateway_before, idle, nothing_left, replica_with, storm
from tests.component.replica.conftest import Replica

LEAK_KB = 0.7
"""Memory a request in the second half of the storm: less than a leak, more than what a heap does by itself."""


@pytest_asyncio.fixture
async def replica() -> AsyncIterator[Replica]:
    async with replica_with(max_concurrent_sequences=16) as started:
        yield started


@pytest_asyncio.fixture
async def gateway(replica: Replica) -> AsyncIterator[Running]:
    async with gateway_before(replica) as started:
        yield started


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [60.0, pytest.param(600.0, marks=pytest.mark.long, id="ten minutes")])
async def test_nothing_is_left_of_a_storm(gateway: Running, replica: Replica, seconds: float) -> None:
    chance = random.Random(1)

    def memory_kb() -> float:
        gc.collect()
        return rss_mb(os.getpid()) * 1000

    await storm(gateway.url, replica, 3.0, chance)  # connections and caches that stay
    tasks, descriptors, memory = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), [memory_kb()]
    outcomes: Counter[str] = Counter()
    for _ in range(2):
        outcomes += await storm(gateway.url, replica, seconds / 2, chance)
        memory.append(memory_kb())
    grown = [(after - before) / (outcomes.total() / 2) for before, after in pairwise(memory)]
    print(f"{dict(outcomes)} in {seconds:.0f} s; memory grew by {grown[0]:.2f}, then {grown[1]:.2f} kB a request")
    await nothing_left(gateway, replica, tasks)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 16  # kept connections to the replica
    assert grown[1] < LEAK_KB
    as_it_should_be(outcomes)


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
        gateway_before(replica) as gateway,
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
