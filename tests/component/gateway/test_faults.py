"""Clients that leave, replicas that go away, and what the other side sees of it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from tests.component.gateway.conftest import (
    Replica,
    Running,
    StartReplica,
    Table,
    ask,
    eventually,
    heard,
    running,
    script,
)

SLOW = script(all_={"deltas": 200, "delay": 0.05})


async def ended(replica: Replica) -> Callable[[], Awaitable[bool]]:
    async def all_ended() -> bool:
        seen = await replica.seen()
        return bool(seen) and all(entry["end"] for entry in seen)

    return all_ended


async def until_seen(replica: Replica) -> None:
    await eventually(replica.seen)


def raw_request(prompt: str, **fields: Any) -> bytes:
    body = json.dumps({"prompt": prompt, **fields}).encode()
    return b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def connect(gateway: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize(
    ("stream", "prompt", "phase"),
    [
        pytest.param(True, SLOW, "decode", id="stream"),
        pytest.param(False, SLOW, "decode", id="unary"),
        pytest.param(True, script(all_={"delay": 30}), "prefill", id="stream before its first byte"),
        pytest.param(False, script(all_={"delay": 30}), "prefill", id="unary before its first byte"),
    ],
)
async def test_client_that_leaves_cancels_at_once(
    gateway: Running, table: Table, start_replica: StartReplica, stream: bool, prompt: str, phase: str
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    _, writer = await connect(gateway)
    writer.write(raw_request(prompt, stream=stream))
    await until_seen(replica)
    await asyncio.sleep(0.15)
    left = time.monotonic()
    writer.close()
    await eventually(await ended(replica))
    print(f"close → the replica sees it: {(time.monotonic() - left) * 1000:.0f} ms")
    (seen,) = await replica.seen()
    assert seen["end"] == "cancelled"
    assert time.monotonic() - left < 5
    assert await gateway.metric("aixcoder_gateway_requests_total", outcome=f"client_gone_{phase}") == 1
    assert await gateway.metric("aixcoder_gateway_requests_in_flight") == 0


async def test_openai_client_that_is_cancelled(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    client = await gateway.client()
    task = asyncio.ensure_future(client.completions.create(model="any", prompt=SLOW))
    await until_seen(replica)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(await ended(replica))
    assert (await replica.seen())[0]["end"] == "cancelled"


async def test_client_that_leaves_in_its_body(gateway: Running, table: Table) -> None:
    table.serve()
    _, writer = await connect(gateway)
    writer.write(raw_request(SLOW)[:-5])
    await eventually(lambda: gateway.metric("aixcoder_gateway_requests_in_flight"))
    writer.close()

    async def counted() -> bool:
        return await gateway.metric("aixcoder_gateway_requests_total", outcome="client_gone") == 1

    await eventually(counted)


async def completed(client: openai.AsyncOpenAI, prompt: str, stream: bool) -> str:
    """The text of a completion."""
    if not stream:
        return (await client.completions.create(model="any", prompt=prompt)).choices[0].text
    chunks = await client.completions.create(model="any", prompt=prompt, stream=True)
    return "".join([chunk.choices[0].text async for chunk in chunks])


@pytest.mark.parametrize("stream", [False, True])
async def test_replica_gone_before_the_first_byte_is_replaced(
    gateway: Running, table: Table, start_replica: StartReplica, stream: bool
) -> None:
    bad, good = start_replica("bad"), start_replica("good")
    table.prefer(bad.address, good.address)
    await heard(gateway, 2)
    client = await gateway.client()
    for what in ({"cut_after": 0}, {"refuse": 503}, {"refuse": 429}, {"fail_after": (0, 503)}, {"die_after": 0}, {}):
        # The last finds the process gone, and knows it by its silence.
        await asyncio.sleep(0.1)
        assert await completed(client, script(bad=what), stream) == "good0 good1 good2 "
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total", reason="lost") == 3
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total", reason="busy") == 0
    assert await gateway.metric("aixcoder_gateway_requests_total", outcome="completed") == 6


async def test_another_replica_goes_on_with_a_greedy_answer(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    bad, good = start_replica("bad"), start_replica("good")
    table.prefer(bad.address, good.address)
    await heard(gateway, 2)
    client = await gateway.client()
    assert await completed(client, script(bad={"die_after": 2}), stream=False) == "bad0 bad1 good2 "
    assert (await good.seen())[0]["body"]["generated_token_ids"] == [0, 1]


async def test_whole_answer_begins_anew_on_another_replica(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    bad, good = start_replica("bad"), start_replica("good")
    table.prefer(bad.address, good.address)
    await heard(gateway, 2)
    client = await gateway.client()
    prompt = script(bad={"die_after": 2})
    answer = await client.completions.create(model="any", prompt=prompt, temperature=0.7)
    assert answer.choices[0].text == "good0 good1 good2 "


@pytest.mark.parametrize("what", [{"die_after": 2}, {"cut_after": 2}, {"fail_after": (2, 503)}])
async def test_stream_that_is_cut_ends_in_an_error(
    gateway: Running, table: Table, start_replica: StartReplica, what: dict[str, Any]
) -> None:
    bad, good = start_replica("bad"), start_replica("good")
    table.prefer(bad.address, good.address)
    await heard(gateway, 2)
    client = await gateway.client()
    prompt = script(bad={"delay": 0.2, **what})  # what its client has not read yet would begin anew, at the good one
    stream = await client.completions.create(model="any", prompt=prompt, stream=True, temperature=0.7)
    texts = []
    with pytest.raises(openai.APIError, match="went away"):  # noqa: PT012 - what came before it counts
        async for chunk in stream:
            texts.append(chunk.choices[0].text)  # noqa: PERF401 - it raises
    assert "".join(texts) == "bad0 bad1 "
    assert await good.seen() == []
    body = {"prompt": script(all_={"cut_after": 1}), "stream": True, "temperature": 0.7}
    async with gateway.session.post(f"{gateway.url}/v1/completions", json=body) as response:
        assert "[DONE]" not in await response.text()

    async def both_are_counted() -> bool:
        return await gateway.metric("aixcoder_gateway_requests_total", outcome="upstream_error") == 2

    await eventually(both_are_counted)  # an answer is written down after its last byte


@pytest.mark.parametrize("what", [{"cut_after": 0}, {"fail_after": (0, 503)}])
async def test_lost_twice_is_an_error(
    gateway: Running, table: Table, start_replica: StartReplica, what: dict[str, Any]
) -> None:
    """A request that ends its replica must not end them all."""
    replicas = [start_replica(name) for name in ("a", "b", "c")]
    table.serve(*(replica.address for replica in replicas))
    with pytest.raises(openai.InternalServerError) as caught:
        await completed(await gateway.client(), script(all_=what), stream=False)
    assert (caught.value.status_code, caught.value.code) == (502, "replica_lost")
    assert sum([len(await replica.seen()) for replica in replicas]) == 2


async def test_only_replica_gets_a_lost_request_again(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    with pytest.raises(openai.InternalServerError, match="went away"):
        await completed(await gateway.client(), script(all_={"cut_after": 0}), stream=False)
    assert len(await replica.seen()) == 2


async def test_address_that_does_not_answer(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    good = start_replica("good")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # A full backlog drops what comes, as the address of a node that is gone does.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        table.prefer(f"127.0.0.1:{full.getsockname()[1]}", good.address)
        began = time.monotonic()
        assert await completed(await gateway.client(), "{}", stream=True) == "good0 good1 good2 "
        print(f"answered by the other replica after {(time.monotonic() - began) * 1000:.0f} ms")
        for each in waiting:
            each.close()
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total", reason="not_taken") <= 1


@asynccontextmanager
async def closes_after_one_answer(*, ends: bool = False) -> AsyncIterator[str]:
    """A replica that closes a kept connection just as the next request comes in, but takes new connections.

    `ends`: it takes none any more.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for first in (True, False):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):  # it tells nothing of its load
                writer.close()
                return
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if first:
                lines = [
                    {"type": "started", "prompt_tokens": 1},
                    {"type": "finished", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 0},
                ]
                body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            else:
                if ends:
                    server.close()
                writer.close()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:  # the gateway closed it
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_kept_connection_that_was_closed_is_no_death(gateway: Running, table: Table) -> None:
    async with closes_after_one_answer() as address:
        table.serve(address)
        client = await gateway.client()
        for _ in range(3):
            await completed(client, "{}", stream=False)
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total") == 0


async def test_one_that_ends_with_a_request_on_a_kept_connection_is_a_death(gateway: Running, table: Table) -> None:
    """It had the request, whatever a new connection is told."""
    async with closes_after_one_answer(ends=True) as address:
        table.serve(address)
        patience = {"x-patience-ms": "300"}
        assert (await ask(gateway, "{}", patience))[0] == 200
        assert (await ask(gateway, "{}", patience))[0] == 503
    assert await gateway.metric("aixcoder_gateway_upstream_retries_total", reason="lost") == 1


async def test_drain_finishes_what_is_in_flight(table: Table, start_replica: StartReplica) -> None:
    table.serve(start_replica("a").address)
    async with running(table, drain_seconds=0.5) as gateway:
        client = await gateway.client()
        prompt = script(a={"deltas": 20, "delay": 0.1})
        stream = await client.completions.create(model="any", prompt=prompt, stream=True)
        chunks = aiter(stream)
        await anext(chunks)
        gateway.stop.set()
        await asyncio.sleep(0.1)
        async with gateway.session.get(f"{gateway.url}/readyz") as response:
            assert response.status == 503
            assert response.headers["connection"] == "close"
        assert await completed(client, "{}", stream=False) == "a0 a1 a2 "  # still served, while others learn
        texts = [chunk.choices[0].text async for chunk in chunks]
        assert texts == [f"a{n} " for n in range(1, 20)] + [""]
        await asyncio.wait_for(gateway.task, 5)


async def test_grace_is_not_endless(table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    async with running(table, grace_seconds=1.0) as gateway:
        client = await gateway.client()
        stream = await client.completions.create(model="any", prompt=SLOW, stream=True)
        await anext(aiter(stream))
        gateway.stop.set()
        await asyncio.wait_for(gateway.task, 10)
        await eventually(await ended(replica))


async def test_port_that_is_taken_is_said(table: Table) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with running(table, port=taken.getsockname()[1]):
            pass
