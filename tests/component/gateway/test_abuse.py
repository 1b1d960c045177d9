"""Connections that lie or stall."""

import asyncio
import json

import pytest

from aixcoder_serving.gateway import connection
from tests.component.gateway.conftest import Replica, Running, StartReplica, Table, eventually, script

BODY = json.dumps({"prompt": script(all_={"deltas": 1})}).encode()
LINE = b"POST /v1/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
GOOD = LINE + HOST + LENGTH + b"\r\n" + BODY
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


async def send(gateway: Running, data: bytes, *, half_close: bool = True) -> bytes:
    """All that comes back until the server closes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    if half_close:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 15)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        pytest.param(LINE + HOST + LENGTH + CHUNKED + b"\r\n" + CHUNK + SMUGGLED, {400}, id="length and chunked"),
        pytest.param(LINE + HOST + CHUNKED + LENGTH + b"\r\n" + CHUNK + SMUGGLED, {400}, id="chunked and length"),
        pytest.param(LINE + HOST + LENGTH + b"content-length: 5\r\n\r\n" + BODY, {400}, id="two lengths"),
        pytest.param(LINE + HOST + LENGTH + LENGTH + b"\r\n" + BODY, {400}, id="one length twice"),
        pytest.param(LINE + HOST + b"content-length: 5, 5\r\n\r\n" + BODY, {400}, id="a list of lengths"),
        pytest.param(LINE + HOST + b"content-length: -5\r\n\r\n" + BODY, {400}, id="a negative length"),
        pytest.param(LINE + HOST + b"content-length: +5\r\n\r\n" + BODY, {400}, id="a length with a plus"),
        pytest.param(LINE + HOST + b"content-length: 0x5\r\n\r\n" + BODY, {400}, id="a hexadecimal length"),
        pytest.param(LINE + HOST + b"content-length: 99999999999999999999\r\n\r\n", {400, 413}, id="a huge length"),
        pytest.param(LINE + HOST + b"content-length : 5\r\n\r\nhello", {400}, id="space before the colon"),
        pytest.param(LINE + HOST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNK, {400}, id="xchunked"),
        pytest.param(LINE + HOST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNK, {400}, id="not last"),
        pytest.param(LINE + HOST + b"transfer-encoding:\x0bchunked\r\n\r\n" + CHUNK, {400}, id="a tab of another kind"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\nzz\r\nhello\r\n0\r\n\r\n", {400}, id="a bad chunk size"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n5\r\nhelloXX0\r\n\r\n", {400}, id="a chunk without its end"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\nffffffffffffffffff\r\n", {400}, id="a huge chunk"),
        pytest.param(LINE + HOST + CHUNKED + b"\r\n5;" + b"x" * 20_000 + b"\r\nhello\r\n", {400, 431}, id="extension"),
        pytest.param(
            LINE.replace(b"\r\n", b"\n") + b"host: x\ncontent-length: 5\n\nhello", {400}, id="bare line feeds"
        ),
        pytest.param(LINE + b"host: x\n" + LENGTH + b"\r\n" + BODY, {400}, id="one bare line feed"),
        pytest.param(LINE + b"host: x\rfoo: y\r\n\r\n", {400}, id="a bare carriage return"),
        pytest.param(LINE + HOST + b" folded: y\r\n\r\n", {400}, id="a folded first header"),
        pytest.param(LINE + HOST + b"a: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY, {400}, id="a folded header"),
        pytest.param(LINE + HOST + b"a\x00b: c\r\n\r\n", {400}, id="a zero byte in a name"),
        pytest.param(LINE + HOST + b"a: b\x00c\r\n\r\n", {400}, id="a zero byte in a value"),
        pytest.param(LINE + HOST + b"no colon\r\n\r\n", {400}, id="no colon"),
        pytest.param(LINE + HOST + b": empty\r\n\r\n", {400}, id="no name"),
        pytest.param(b"POST  /v1/completions HTTP/1.1\r\n" + HOST + b"\r\n", {400}, id="two spaces"),
        pytest.param(b"POST /v1/completions HTTP/9.9\r\n" + HOST + b"\r\n", {400}, id="no such version"),
        pytest.param(b"POST /v1/completions\r\n\r\n", {400}, id="no version"),
        pytest.param(b"POST /v1/compl\x80etions HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404}, id="a byte in the path"),
        pytest.param(b"BREW /v1/completions HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}, id="no such method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}, id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}, id="HTTP/2"),
        pytest.param(b"\r\n" * 10_000, {431}, id="nothing but line ends"),
        pytest.param(GOOD + SMUGGLED, {400}, id="two in one"),
        pytest.param(GOOD + GOOD[:40], {400}, id="a part of a second"),
        pytest.param(LINE + HOST + b"x: " + b"y" * 20_000 + b"\r\n\r\n", {431}, id="a long header"),
        pytest.param(LINE + HOST + b"x: y\r\n" * 101 + b"\r\n", {431}, id="many headers"),
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {431}, id="a long path"),
        pytest.param(LINE + HOST + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", {400}, id="an upgrade"),
        pytest.param(LINE + HOST + LENGTH + b"expect: 100-continue\r\n\r\n" + BODY, {100, 200}, id="expect"),
    ],
)
async def test_a_lie_gets_a_refusal_and_never_a_second_answer(
    gateway: Running, table: Table, start_replica: StartReplica, data: bytes, allowed: set[int]
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    found = statuses(await send(gateway, data))
    assert set(found) <= allowed
    assert len(found) <= len(allowed - {400, 404, 405, 413, 431}) + 1
    assert statuses(await closing(gateway)) == [200]


async def slow_request(
    gateway: Running, replica: Replica, deltas: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The connection of a request that the replica has begun to answer, for some time."""
    slow = json.dumps({"prompt": script(a={"deltas": deltas, "delay": 0.05})}).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(LINE + HOST + b"content-length: %d\r\n\r\n" % len(slow) + slow)
    await eventually(replica.seen)
    return reader, writer


async def test_what_is_pipelined_behind_a_running_request_is_dropped(
    gateway: Running, table: Table, start_replica: StartReplica
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    reader, writer = await slow_request(gateway, replica, 5)
    writer.write(SMUGGLED)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    writer.close()


async def test_pipeline_then_close_is_seen(gateway: Running, table: Table, start_replica: StartReplica) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    _, writer = await slow_request(gateway, replica, 500)
    writer.write(SMUGGLED * 100)
    await asyncio.sleep(0.1)
    writer.close()

    async def cancelled() -> bool:
        return [entry["end"] for entry in await replica.seen()] == ["cancelled"]

    await eventually(cancelled)


@pytest.mark.parametrize(
    ("data", "bound", "status"),
    [
        pytest.param(b"", "SILENT_SECONDS", None, id="says nothing"),
        pytest.param(LINE, "HEADERS_SECONDS", 408, id="stops in the headers"),
        pytest.param(LINE + HOST + LENGTH + b"\r\n" + BODY[:5], "BODY_SECONDS", 408, id="stops in the body"),
    ],
)
async def test_who_stops_to_send_is_not_waited_for(
    gateway: Running, table: Table, monkeypatch: pytest.MonkeyPatch, data: bytes, bound: str, status: int | None
) -> None:
    monkeypatch.setattr(connection, bound, 0.2)
    table.serve()
    answer = await asyncio.wait_for(send(gateway, data, half_close=False), 5)
    assert statuses(answer) == ([] if status is None else [status])


async def test_bodies_of_all_requests_have_a_bound(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.serve(start_replica("a").address)
    monkeypatch.setattr(connection, "BODIES_BYTES", 10_000)
    large = json.dumps({"prompt": script(all_={"deltas": 1}), "suffix": "x" * 20_000}).encode()
    answer = await send(gateway, LINE + HOST + b"content-length: %d\r\n\r\n" % len(large) + large)
    assert statuses(answer) == [503]
    assert statuses(await closing(gateway)) == [200]
    assert connection.BoundedProtocol.bodies_bytes == 0


async def closing(gateway: Running) -> bytes:
    """A good request that asks for the connection to be closed."""
    return await send(gateway, LINE + HOST + b"connection: close\r\n" + LENGTH + b"\r\n" + BODY, half_close=False)


async def test_an_old_connection_ends_with_its_answer(
    gateway: Running, table: Table, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "AGE_SECONDS", 0.0)
    table.serve(start_replica("a").address)
    answer = await send(gateway, GOOD, half_close=False)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
