"""An engine that dies or stands still behind a replica; a replica that dies in front of one."""

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from aixcoder_serving.protocol import STREAM_MESSAGE, Failed
from aixcoder_serving.replica import drain as drains
from tests.component.processes import engines, ranks, until_engine, until_gone
from tests.component.replica.conftest import LONG, ONE_LOOP, Messages, settings, start

pytestmark = ONE_LOOP

NOTICED_SECONDS = 2.0
GUARD = 5 * NOTICED_SECONDS


async def _messages(answer: aiohttp.ClientResponse) -> Messages:
    return [STREAM_MESSAGE.validate_json(line) async for line in answer.content]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("size", [1, 2])
async def test_a_lost_engine_ends_its_requests_as_ones_for_another_replica(
    client: aiohttp.ClientSession, fault: signal.Signals, size: int
) -> None:
    """The victim is the last rank; with one alone that is the engine's own process."""
    before = set(engines(os.getpid()))
    replica = await start(settings(tensor_parallel_size=size), client)
    await replica.service.loaded()
    (engine,) = set(engines(os.getpid())) - before
    processes = ranks(engine)
    assert len(processes) == size
    running = [await replica.post(**LONG) for _ in range(2)]
    for answer in running:
        await answer.content.readline()
    await replica.until("/stats", running=2)
    assert replica.service.unhealthy(60) is None

    began = time.monotonic()
    os.kill(processes[-1], fault)
    ends = [messages[-1] for messages in [await _messages(answer) for answer in running]]
    took = time.monotonic() - began
    print(f"told after {took:.2f} s: {ends[0]}")
    assert took < GUARD
    assert [end.status for end in ends if isinstance(end, Failed)] == [503] * 2
    status, ready = await replica.get("/ready")
    assert (status, ready["phase"], ready["reason"]) == (503, "failed", "EngineFailed")
    assert replica.service.unhealthy(60) == ready["message"] == await replica.service.lost()
    async with replica.post(prefix="x") as refused:
        assert refused.status == 503
    async with client.get(f"{replica.url}/metrics") as page:
        assert page.status == 200

    left = time.monotonic()
    await drains.drain(replica.service, replica.listener, 1.0)
    assert time.monotonic() - left < drains.LINGER_SECONDS, "nobody is sent here any more"
    await until_gone(processes)


async def test_closing_leaves_no_process(client: aiohttp.ClientSession) -> None:
    before = set(engines(os.getpid()))
    replica = await start(settings(tensor_parallel_size=2), client)
    await replica.service.loaded()
    (engine,) = set(engines(os.getpid())) - before
    processes = ranks(engine)
    answer = await replica.post(**LONG)
    await answer.content.readline()
    await drains.drain(replica.service, replica.listener, 0.2)
    await until_gone(processes)
    answer.close()


@pytest.mark.parametrize("begun", [False, True], ids=["before the engine's process", "in it"])
async def test_closing_while_loading_leaves_none_either(client: aiohttp.ClientSession, begun: bool) -> None:
    before = set(engines(os.getpid()))
    replica = await start(settings(), client)
    processes = [await until_engine(os.getpid(), but=before)] if begun else []
    began = time.monotonic()
    await replica.stop()
    assert time.monotonic() - began < 2, "an engine that loads is not waited for"
    await until_gone(processes)
    await asyncio.sleep(0.2)
    assert set(engines(os.getpid())) == before
    assert replica.service.load_failure is None, "it was meant to end"
