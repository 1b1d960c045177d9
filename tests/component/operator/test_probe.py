import asyncio
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from aixcoder_operator.cluster.probe import Prober
from aixcoder_serving.protocol import Readiness, ReplicaStats, Route, Routes

ROUTES = Routes(
    routes=(
        Route(
            namespace="n",
            name="demo",
            uid="u",
            served_name="m",
            traffic_version=3,
            endpoints={"demo-a": ("10.0.0.1:30000",)},
        ),
    )
)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """On 127.0.0.1 a replica that loads and a gateway, on 127.0.0.2 one that talks nonsense; both on one port."""

    async def ready(_: web.Request) -> web.Response:
        return web.Response(
            status=503, content_type="application/json", text='{"phase": "loading", "percent": 40, "since": "newer"}'
        )

    async def stats(_: web.Request) -> web.Response:
        return web.json_response({"running": 2, "waiting": 1})

    async def routes(_: web.Request) -> web.Response:
        return web.Response(text=ROUTES.model_dump_json())

    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    good, bad = web.Application(), web.Application()
    good.add_routes([web.get("/ready", ready), web.get("/stats", stats), web.get("/routes", routes)])
    bad.add_routes([web.get("/{any}", nonsense)])
    listener = socket.create_server(("127.0.0.1", 0))
    free = int(listener.getsockname()[1])
    runners = [web.AppRunner(application, access_log=None, shutdown_timeout=0.1) for application in (good, bad)]
    for runner in runners:
        await runner.setup()
    await web.SockSite(runners[0], listener).start()
    await web.TCPSite(runners[1], "127.0.0.2", free).start()
    yield free
    for runner in runners:
        await runner.cleanup()


async def test_replicas_are_asked_at_once_and_who_does_not_answer_is_none(port: int) -> None:
    with socket.create_server(("127.0.0.3", port)):  # takes the connection and says nothing
        async with aiohttp.ClientSession() as session:
            prober = Prober(session, replica_port=port, seconds=0.5)
            ips = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
            began = time.monotonic()
            readiness = await prober.readiness(ips)
            stats = await prober.stats(ips)
            print(f"two rounds of four took {time.monotonic() - began:.2f} s")
            assert time.monotonic() - began < 5
    assert readiness == {**dict.fromkeys(ips), "127.0.0.1": Readiness(phase="loading", percent=40)}
    assert stats == {**dict.fromkeys(ips), "127.0.0.1": ReplicaStats(running=2, waiting=1)}


async def test_gateways_are_asked_by_address(port: int) -> None:
    async with aiohttp.ClientSession() as session:
        found = await Prober(session).routes([f"127.0.0.1:{port}", f"127.0.0.2:{port}", "127.0.0.4:1"])
    assert found == {f"127.0.0.1:{port}": ROUTES, f"127.0.0.2:{port}": None, "127.0.0.4:1": None}


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end() -> None:
    whole = ROUTES.model_dump_json().encode()

    async def routes(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (whole[:10], whole[10:]):
            await response.write(piece)
            await asyncio.sleep(0.05)
        return response

    application = web.Application()
    application.add_routes([web.get("/routes", routes)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        found = await Prober(session).routes([address])
    await runner.cleanup()
    assert found == {address: ROUTES}


async def test_nobody_to_ask_is_no_answer() -> None:
    async with aiohttp.ClientSession() as session:
        assert await Prober(session).readiness([]) == {}
