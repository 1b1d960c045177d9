"""The forwarder between two sockets of this machine: what each side does reaches the other."""

import asyncio
import socket

import pytest

from e2e.cluster.forwarder import Forwarder, ServiceAddresses, split_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [("10.0.0.1:80", ("10.0.0.1", 80)), ("gateway.default.svc:8080", ("gateway.default.svc", 8080))],
)
def test_targets(target: str, expected: tuple[str, int]) -> None:
    assert split_target(target) == expected


@pytest.mark.parametrize("target", ["", "10.0.0.1", ":80", "10.0.0.1:http"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="A target is ADDRESS:PORT"):
        split_target(target)


class Services:
    """Answers for one Service, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, dict[str, str]]:
        self.asked.append(path)
        return {"spec": {"clusterIP": "10.96.0.7"}}


def test_a_service_is_asked_for_once_in_a_while_and_an_address_never() -> None:
    services = Services()
    resolve = ServiceAddresses(services)
    assert [resolve("gateway.demo.svc") for _ in range(3)] == ["10.96.0.7"] * 3
    assert resolve("10.0.0.1") == "10.0.0.1"
    assert services.asked == ["/api/v1/namespaces/demo/services/gateway"]


async def test_bytes_half_closes_and_resets_pass_both_ways() -> None:
    served: list[bytes] = []
    reset = asyncio.Event()

    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            served.append(await reader.read(-1))
            writer.write(b"whole " * 100_000)
            writer.write_eof()
            await reader.read()
        except ConnectionResetError:
            reset.set()
        writer.close()

    server = await asyncio.start_server(answer_after_the_end, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    forwarder = Forwarder(lambda host: host)
    listening = socket.create_server(("127.0.0.1", 0))
    await forwarder.add("name", listening, f"127.0.0.1:{port}")
    local = forwarder.ports()["name"]["port"]
    assert isinstance(local, int)

    reader, writer = await asyncio.open_connection("127.0.0.1", local)
    writer.write(b"question")
    writer.write_eof()
    assert await reader.read(-1) == b"whole " * 100_000
    assert served == [b"question"]
    writer.close()
    await writer.wait_closed()

    _, writer = await asyncio.open_connection("127.0.0.1", local)
    writer.write(b"half a question")
    await writer.drain()
    linger_for_nothing = b"\x01\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
    writer.transport.abort()
    await asyncio.wait_for(reset.wait(), 10)

    await forwarder.remove("name")
    assert forwarder.ports() == {}
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", local)
