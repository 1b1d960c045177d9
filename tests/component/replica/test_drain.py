"""Leaving: unready at once, late requests taken for a while, running ones to their end, all within the grace."""

import asyncio
import time

import aiohttp
import pytest

from aixcoder_serving.protocol import Failed, Finished
from aixcoder_serving.replica import drain as drains
from tests.component.replica.conftest import LONG, ONE_LOOP, Replica, settings, start

pytestmark = ONE_LOOP


async def test_a_running_stream_and_a_late_request_end_well(replica: Replica) -> None:
    stream = asyncio.create_task(replica.generate(**LONG))
    await replica.until("/stats", running=1)
    started = time.monotonic()
    drain = asyncio.create_task(drains.drain(replica.service, replica.listener, 60))
    await asyncio.sleep(0.1)

    status, body = await replica.get("/ready")
    assert (status, body["phase"]) == (503, "draining")
    async with replica.post(prefix="x", sampling={"max_tokens": 2}) as late:
        assert late.status == 200
        assert late.headers["connection"] == "close"
        assert b'"finished"' in await late.read()

    assert isinstance((await stream)[-1], Finished)
    await drain
    took = time.monotonic() - started
    print(f"drained after {took:.2f} s")
    assert took >= drains.LINGER_SECONDS
    with pytest.raises(aiohttp.ClientConnectorError):
        await replica.get("/ready")


async def test_after_lingering_new_requests_are_refused(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LINGER_SECONDS", 0.05)
    answer = await replica.post(**LONG)
    drain = asyncio.create_task(drains.drain(replica.service, replica.listener, 60))
    await asyncio.sleep(0.3)
    async with replica.post(prefix="x") as refused:
        assert refused.status == 503
        assert "another one" in (await refused.json())["message"]
    lines = [line async for line in answer.content]
    assert b'"finished"' in lines[-1]
    await drain


async def test_the_grace_ends(replica: Replica) -> None:
    answer = await replica.post(**LONG)
    await answer.content.readline()
    started = time.monotonic()
    await drains.drain(replica.service, replica.listener, 0.2)
    print(f"cut after {time.monotonic() - started:.2f} s")
    lines = [line async for line in answer.content]
    failed = Failed.model_validate_json(lines[-1])
    assert (failed.status, failed.leaving) == (503, True)


async def test_one_that_was_never_ready_leaves_at_once(client: aiohttp.ClientSession) -> None:
    replica = await start(settings(model_path="/nowhere"), client)
    await replica.until("/ready", phase="failed")
    started = time.monotonic()
    await drains.drain(replica.service, replica.listener, 60)
    assert time.monotonic() - started < drains.LINGER_SECONDS


async def test_a_taken_port_is_waited_for_then_told(
    replica: Replica, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aixcoder_serving.replica.listener._PORT_WAIT_SECONDS", 0.3)
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        await start(settings(port=replica.listener.port), client)
