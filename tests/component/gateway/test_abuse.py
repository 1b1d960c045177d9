"""Connections that lie or stall."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aixcoder_serving.gateway import connection
from tests.component.gateway.conftest import Replica, Running, StartReplica, Table, eventually, script

BODY = json.dumps({"prompt": script(all_={"deltas": 1})}).encode()
LINE = b"POST /v1/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
GOOD = LINE + HOST + LENGTH + b"\r\n" + BODY
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
REST = BODY + b"\r\n0\r\n\r\n"
CHUNK = b"%x\r\n" % len(BODY) + REST
LONG = b"x: " + b"y" * 20_000 + b"\r\n"
UPGRADE = LINE + HOST + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def connected(gateway: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed at the end. The time is a guard against a hang."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(15):
            yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The next one that has a length, or all that comes until the server closes."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return head + await (reader.readexactly(int(length[1])) if length else reader.read())


async def send(gateway: Running, data: bytes, *, behind: bytes = b"") -> bytes:
    """All that comes back until the server closes; behind another request what comes after that one's answer."""
    async with connected(gateway) as (reader, writer):
        if behind:
            writer.write(behind)
            assert statuses(await answer(reader)) == [200]
        writer.write(data)
        return await reader.read()


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        pytest.param(LINE + HOST + LENGTH + CHUNKED + b"\r\n" + CHUNK + SMUGGLED, [400], id="length and chunked"),
        pytest.param(LINE + HOST + CHUNKED + LENGTH + b"\r\n" + CHUNK + SMUGGLED, [400], id="chunked and length"),
        pytest.param(LINE + HOST + LENGTH + b"content-length: 5\r\n\r\n" + BODY, [400], id="two lengths"),
        pytest.param(LINE + HOST + LENGTH + LENGTH + b"\r\n" + BODY, [400], id="one length twice"),
        pytest.param(LINE + HOST + b"content-length: 5, 5\r\n\r\n" + BODY, [400], id="a list of lengths"),
        pytest.param(LINE + HOST + b"content-length: -5\r\n\r\n" + BODY, [400], id="a negative length"),
        pytest.param(LINE + HOST + b"content-length: +5\r\n\r\n" + BODY, [400], id="a length with a plus"),
        pytest.param(LINE + HOST + b"content-length: 0x5\r\n\r\n" + BODY, [400], id="a hexadecimal length"),
        pytest.param(LINE + HOST + b"content-length: 99999999999999999999\r\n\r\n", [400], id="a huge length"),
        pytest.param(LINE + HOST + b"content-length : 5\r\n\r\nhello", [400], id="space before the colon"),
        pytest.param(LINE + HOST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNK, [400], id="xchunked"),
        pytest.param(LINE + HOST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNK, [400], id="not last"),
        pytest.param(LINE + HOST + b"transfer-encoding:\x0bchunked\r\n\r\n" + CHUNK, [400], id="a tab of another kind"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\nzz\r\nhello\r\n0\r\n\r\n", [400], id="a bad chunk size"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n5\r\nhelloXX0\r\n\r\n", [400], id="a chunk without its end"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\nffffffffffffffffff\r\n", [400], id="a huge chunk"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n%x;a\n" % len(BODY) + REST, [400], id="a line feed in an extension"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n%x\n" % len(BODY) + REST, [400], id="a line feed behind a size"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n" + CHUNK[:-2] + LONG + b"\r\n", [431], id="a long trailer"),
        # Skipped, and kept nowhere: nothing but the time for a body bounds it.
        pytest.param(
            LINE + HOST + CLOSE + CHUNKED + b"\r\n%x;" % len(BODY) + b"x" * 20_000 + b"\r\n" + REST,
            [200],
            id="extension",
        ),
        pytest.param(
            LINE.replace(b"\r\n", b"\n") + b"host: x\ncontent-length: 5\n\nhello", [400], id="bare line feeds"
        ),
        pytest.param(LINE + b"host: x\n" + LENGTH + b"\r\n" + BODY, [400], id="one bare line feed"),
        pytest.param(LINE + b"host: x\rfoo: y\r\n\r\n", [400], id="a bare carriage return"),
        pytest.param(LINE + HOST + b" folded: y\r\n\r\n", [400], id="a folded first header"),
        pytest.param(LINE + HOST + b"a: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY, [400], id="a folded header"),
        pytest.param(LINE + HOST + b"a\x00b: c\r\n\r\n", [400], id="a zero byte in a name"),
        pytest.param(LINE + HOST + b"a: b\x00c\r\n\r\n", [400], id="a zero byte in a value"),
        pytest.param(LINE + HOST + b"no colon\r\n\r\n", [400], id="no colon"),
        pytest.param(LINE + HOST + b": empty\r\n\r\n", [400], id="no name"),
        pytest.param(b"POST  /v1/completions HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [400], id="two spaces"),
        pytest.param(b"POST /v1/completions HTTP/9.9\r\n" + HOST + b"\r\n", [400], id="no such version"),
        pytest.param(b"POST /v1/completions\r\n\r\n", [400], id="no version"),
        pytest.param(b"POST /v1/compl\x80etions HTTP/1.1\r\n" + HOST + b"\r\n", [400], id="a byte in the path"),
        pytest.param(b"BREW /v1/completions HTTP/1.1\r\n" + HOST + b"\r\n", [400], id="no such method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400], id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], id="HTTP/2"),
        pytest.param(b"\r\n" * 10_000, [431], id="nothing but line ends"),
        pytest.param(GOOD + SMUGGLED, [400], id="two in one"),
        pytest.param(GOOD + GOOD[:40], [400], id="a part of a second"),
        pytest.param(LINE + HOST + LONG + b"\r\n", [431], id="a long header"),
        pytest.param(LINE + HOST + b"x: y\r\n" * 101 + b"\r\n", [431], id="many headers"),
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [431], id="a long path"),
        pytest.param(UPGRADE, [400], id="an upgrade"),
        pytest.param(UPGRADE + SMUGGLED, [400], id="an upgrade and one behind"),
        pytest.param(LINE + HOST + CLOSE + LENGTH + b"expect: 100-continue\r\n\r\n" + BODY, [100, 200], id="expect"),
    ],
)
async def test_a_lie_gets_one_refusal(
    gateway: Running, table: Table, start_replica: StartReplica, data: bytes, answers: list[int]
) -> None:
    """As the first request of a connection, and as its second one."""
    replica = start_replica("a")
    table.serve(replica.address)
    assert statuses(await send(gateway, data)) == answers
    assert statuses(await send(gateway, data, behind=GOOD)) == answers
    assert statuses(await closing(gateway)) == [200]


@asynccontextmanager
async def slow_request(
    gateway: Running, replica: Replica, deltas: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The connection of a request that the replica has begun to answer, for some time."""
    slow = json.dumps({"prompt": script(a={"deltas": deltas, "delay": 0.05})}).encode()
    async with connected(gateway) as (reader, writer):
        writer.write(LINE + HOST + b"content-length: %d\r\n\r\n" % len(slow) + slow)
        await eventually(replica.seen)
        yield reader, writer


async def test_what_is_pipelined_behind_a_running_request_is_dropped(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    async with slow_request(gateway, replica, 5) as (reader, writer):
        writer.write(SMUGGLED)
        found = await reader.read()
    assert statuses(found) == [200]
    assert CLOSE in found


async def test_pipeline_then_close_is_seen(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    async with slow_request(gateway, replica, 500) as (_, writer):
        writer.write(SMUGGLED * 100)
        await asyncio.sleep(0.1)

    async def cancelled() -> bool:
        return [entry["end"] for entry in await replica.seen()] == ["cancelled"]

    await eventually(cancelled)


async def test_who_says_nothing_is_let_go_without_a_word(
    gateway: Running, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    table.serve()
    assert await send(gateway, b"") == b""


@pytest.mark.parametrize("behind", [pytest.param(b"", id="first"), pytest.param(GOOD, id="second")])
@pytest.mark.parametrize(
    ("data", "bound"),
    [
        pytest.param(LINE, "HEADERS_SECONDS", id="in the headers"),
        pytest.param(LINE + HOST + LENGTH + b"\r\n" + BODY[:5], "BODY_SECONDS", id="in the body"),
    ],
)
async def test_who_stops_to_send_is_not_waited_for(
    gateway: Running,
    table: Table,
    start_replica: StartReplica,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
    bound: str,
    behind: bytes,
) -> None:
    monkeypatch.setattr(connection, bound, 0.2)
    table.serve(start_replica("a").address)
    assert statuses(await send(gateway, data, behind=behind)) == [408]


@pytest.mark.parametrize(
    ("rest", "answers"),
    [
        pytest.param(b"", [], id="stops"),
        pytest.param(b"zz\r\n", [], id="lies"),
        pytest.param(b"0\r\n\r\n" + LINE, [408], id="ends, and begins the next"),
        pytest.param(b"0\r\n\r\n" + LINE + LONG * 2, [431], id="ends, and the next is too much"),
    ],
)
async def test_what_comes_after_an_early_answer_has_no_second_one(
    gateway: Running, table: Table, monkeypatch: pytest.MonkeyPatch, rest: bytes, answers: list[int]
) -> None:
    """A request is refused by its path before its body is there: its rest is silently bounded, the next one is not."""
    monkeypatch.setattr(connection, "HEADERS_SECONDS", 0.2)
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.5)
    table.serve()
    async with connected(gateway) as (reader, writer):
        writer.write(LINE.replace(b"completions", b"nothing") + HOST + CHUNKED + b"\r\n5\r\nhello\r\n")
        assert statuses(await answer(reader)) == [404]
        writer.write(rest)
        assert statuses(await reader.read()) == answers


async def test_bodies_of_all_requests_have_a_bound(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.serve(start_replica("a").address)
    monkeypatch.setattr(connection, "BODIES_BYTES", 10_000)
    large = json.dumps({"prompt": script(all_={"deltas": 1}), "suffix": "x" * 20_000}).encode()
    assert statuses(await send(gateway, LINE + HOST + b"content-length: %d\r\n\r\n" % len(large) + large)) == [503]
    assert statuses(await closing(gateway)) == [200]
    assert connection.BoundedProtocol.bodies_bytes == 0


async def closing(gateway: Running) -> bytes:
    """A good request that asks for the connection to be closed."""
    return await send(gateway, LINE + HOST + CLOSE + LENGTH + b"\r\n" + BODY)


async def test_an_old_connection_ends_with_its_answer(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "AGE_SECONDS", 0.0)
    table.serve(start_replica("a").address)
    found = await send(gateway, GOOD)
    assert statuses(found) == [200]
    assert CLOSE in found
