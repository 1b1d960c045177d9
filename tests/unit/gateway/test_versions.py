"""Which versions of the protocol a gateway speaks with a replica, over real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import BaseModel

from aixcoder_serving.gateway import load_reports, upstream
from aixcoder_serving.gateway.load_reports import LoadReports
from aixcoder_serving.gateway.replica_load import ReplicaLoad
from aixcoder_serving.gateway.replica_tokens import ReplicaTokens
from aixcoder_serving.gateway.upstream import Broken, NotTaken, Rejected, Upstream, UpstreamError
from aixcoder_serving.protocol import (
    PROTOCOL_VERSION,
    CompletionRequest,
    Delta,
    Finished,
    LoadReport,
    Refused,
    Started,
)

NOW, BEFORE, NEXT = PROTOCOL_VERSION, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1
REQUEST = CompletionRequest(id="r", prefix="x")
DELTA = Delta(text="a", token_ids=(1,))
FINISHED = Finished(finish_reason="stop", prompt_tokens=1, completion_tokens=1)


def report(version: int, number: int = 1) -> LoadReport:
    return LoadReport(
        version=version, number=number, slots=1, running=0, waiting=0, room=1, tokens=0, blocks_free=1, steps=0
    )


def started(version: int) -> Started:
    return Started(version=version, prompt_tokens=1)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica shares the test's loop: on a busy machine a connection takes it longer than one may."""
    for module in (upstream, load_reports):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 10.0)


@asynccontextmanager
async def replica(*lines: BaseModel, status: int = 200) -> AsyncIterator[str]:
    """The address of a server that answers each request with these lines."""
    body = "".join(line.model_dump_json() + "\n" for line in lines)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    server = web.Application()
    server.add_routes([web.get("/events", answer), web.post("/generate", answer)])
    runner = web.AppRunner(server)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def told(address: str) -> list[LoadReport]:
    found: list[LoadReport] = []
    async with LoadReports(ReplicaTokens()) as hearing:
        await hearing.reports(address, "uid", found.append)
    return found


async def answered(address: str) -> list[Started | Delta | Finished]:
    async with Upstream(ReplicaTokens()) as replicas:
        return [message async for message in replicas.generate(address, "uid", REQUEST)]


@pytest.mark.parametrize("version", [BEFORE, NOW])
async def test_reports_of_this_version_and_the_one_before_are_taken(version: int) -> None:
    async with replica(report(version), report(version, 2)) as address:
        assert [found.number for found in await told(address)] == [1, 2]


@pytest.mark.parametrize("version", [BEFORE - 1, NEXT])
async def test_reports_of_another_one_are_not(version: int) -> None:
    async with replica(report(version)) as address:
        with pytest.raises(Broken) as caught:
            await told(address)
        assert str(caught.value) == (
            f"{address} speaks version {version} of the protocol, this gateway {BEFORE} and {NOW}"
        )


@pytest.mark.parametrize("version", [BEFORE, NOW])
async def test_an_answer_in_this_version_and_the_one_before_is_read(version: int) -> None:
    async with replica(started(version), DELTA, FINISHED) as address:
        assert await answered(address) == [started(version), DELTA, FINISHED]


@pytest.mark.parametrize("version", [BEFORE - 1, NEXT])
async def test_an_answer_in_another_one_is_not(version: int) -> None:
    async with replica(started(version), DELTA, FINISHED) as address:
        with pytest.raises(Broken, match=f"speaks version {version} of the protocol, this gateway {BEFORE} and {NOW}"):
            await answered(address)


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        pytest.param("version", NotTaken, id="another replica may speak it"),
        pytest.param("prompt", Rejected, id="the client's own fault"),
    ],
)
async def test_a_request_whose_version_a_replica_refuses_was_not_taken(
    param: str, expected: type[UpstreamError]
) -> None:
    async with replica(Refused(message="why", param=param), status=400) as address:
        with pytest.raises(expected, match="why"):
            await answered(address)


def test_a_request_is_written_in_the_version_that_the_replica_told_last() -> None:
    load = ReplicaLoad()
    assert load.version == NOW
    load.take(report(BEFORE))
    assert load.version == BEFORE
    load.unheard()
    assert load.version == BEFORE
    load.take(report(NOW))
    assert load.version == NOW
