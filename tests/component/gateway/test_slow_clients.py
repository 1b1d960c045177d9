"""Clients that say nothing, or everything slowly: good traffic goes on beside them, and they are let go."""

import asyncio
import csv
import itertools
import logging
import os
import resource
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from benchmarks import program
from e2e.cluster import debian
from tests.component.gateway.conftest import Running, StartReplica, Table, eventually, rss_mb, script

GOOD = 4
"""Clients of the good traffic."""
SLOW = 300
SLOW_SECONDS = 15
MODES = {
    "headers": ("-H", "-t", "POST", "-i", "2", "-x", "24"),
    "body": ("-B", "-s", "8192", "-i", "2", "-x", "10"),
    "reading": ("-X", "-w", "16", "-y", "64", "-n", "1", "-z", "8"),
}
"""How slowhttptest is slow, each in small pieces every other second."""
PATHS = {"headers": "/v1/completions", "body": "/v1/completions", "reading": "/openapi.json"}
SILENT = 5000


@asynccontextmanager
async def good_traffic(url: str) -> AsyncIterator[Counter[int]]:
    """Clients that ask on and on while the block runs: how often they got which status."""
    statuses: Counter[int] = Counter()
    seeds = itertools.count()

    async def client(session: aiohttp.ClientSession) -> None:
        while True:
            body = {"prompt": script(all_={"deltas": 3, "delay": 0.01}), "seed": next(seeds)}
            async with session.post(f"{url}/v1/completions", json=body) as response:
                await response.read()
                statuses[response.status] += 1

    async with aiohttp.ClientSession() as session:
        clients = [asyncio.create_task(client(session)) for _ in range(GOOD)]
        try:
            yield statuses
        finally:
            for task in clients:
                task.cancel()
            ended = await asyncio.gather(*clients, return_exceptions=True)
    assert [end for end in ended if not isinstance(end, asyncio.CancelledError)] == []


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("mode", MODES)
async def test_good_traffic_beside_slow_clients(
    gateway: Running,
    table: Table,
    start_replica: StartReplica,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    debian.install({"slowhttptest": "slowhttptest"})
    table.serve(start_replica("a").address)
    before = most = descriptors(os.getpid())
    command = (
        *(str(debian.which("slowhttptest")), *MODES[mode], "-u", gateway.url + PATHS[mode]),
        *("-c", str(SLOW), "-r", "100", "-l", str(SLOW_SECONDS), "-p", "3", "-g", "-o", str(tmp_path / "slow")),
    )
    async with good_traffic(gateway.url) as statuses:
        attack = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        output = asyncio.create_task(attack.communicate())
        try:
            async with asyncio.timeout(5 * SLOW_SECONDS):
                while not output.done():
                    most = max(most, descriptors(os.getpid()))
                    await asyncio.sleep(0.1)
        finally:
            if attack.returncode is None:
                attack.kill()
            said = (await output)[0].decode()

    async def released() -> bool:
        return descriptors(os.getpid()) <= before + GOOD  # kept connections to the replica

    await eventually(released)
    with (tmp_path / "slow.csv").open() as file:
        seconds = list(csv.DictReader(file))
    print(f"slow {mode}: good traffic {dict(statuses)}; {most - before} descriptors at most; at the end {seconds[-1]}")
    assert most - before >= SLOW
    assert set(statuses) == {200}
    assert {second["Service Available"] for second in seconds} == {str(SLOW)}
    if mode != "reading":
        assert "No open connections left" in said  # the gateway closed them, before the attack was over
    assert await gateway.metric("aixcoder_gateway_requests_in_flight") == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Let this process, and those that it starts, open as many files as there are silent connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SILENT + 1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
async def test_good_traffic_beside_silent_connections(start_replica: StartReplica) -> None:
    def connect() -> list[socket.socket]:
        return [sockets.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(SILENT)]

    def ends() -> int:
        """How many the gateway closes, without a word."""
        return sum(connection.recv(1) == b"" for connection in silent)

    replica = start_replica("a").address.rsplit(":", 1)[1]
    with program.started("benchmarks.gateway.ours", "0", replica) as (pid, line), ExitStack() as sockets:
        port = int(line)
        async with good_traffic(f"http://127.0.0.1:{port}") as statuses:
            await asyncio.sleep(1.0)
            memory, files, warm = rss_mb(pid), descriptors(pid), statuses.total()
            silent = await asyncio.to_thread(connect)

            async def taken() -> bool:
                return descriptors(pid) >= files + SILENT

            await eventually(taken)
            grown, opened = rss_mb(pid) - memory, statuses.total()
            closed = await asyncio.to_thread(ends)
            most = max(grown, rss_mb(pid) - memory)
            served = statuses.total() - opened

            async def released() -> bool:
                return descriptors(pid) <= files + GOOD  # kept connections to the replica

            await eventually(released)
    print(
        f"{SILENT} silent connections: {grown:.1f} MB, {most:.1f} MB once they were closed; "
        f"good traffic {dict(statuses)}, {opened - warm} of it while they came, {served} while they stood"
    )
    assert closed == SILENT
    assert most <= 50
    assert set(statuses) == {200}
    assert served > 100
