"""The replica under a real Ray Serve: loads, fails and heals, is killed and comes back, leaves without cutting any."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aixcoder_serving.protocol import STREAM_MESSAGE, ReplicaSettings
from tests.component.processes import engines, ranks, until_gone
from tests.component.replica.conftest import ONE_LOOP, TINY, settings

pytestmark = ONE_LOOP

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1000000",
}

MARK = "AIXCODER_TEST_RAY"  # in the environment of all processes of one host


class Host:
    """The process of ray_host.py and what hangs on it."""

    def __init__(self, wish: ReplicaSettings, folder: str) -> None:
        self.url = f"http://127.0.0.1:{wish.port}"
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.component.replica.ray_host", folder, wish.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT | {MARK: folder},
            start_new_session=True,
        )

    def replica_pids(self) -> set[int]:
        return {pid for pid, command in self._processes() if command.startswith("ray::ServeReplica:completion:Replica")}

    def delete(self) -> None:
        """Begin to delete the application."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def until(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the host ended before it said {word!r}")

    def end(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            for pid, _ in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Processes of this Ray: its own tell the folder in their environment or command."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if self._folder in command or f"{MARK}={self._folder}" in environment:
                yield int(entry.name), command


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray")  # tmp_path is too long for Ray's sockets
    started = Host(settings(model_path=str(tmp_path / "model"), port=port), folder)
    try:
        yield started
    finally:
        started.end()
        shutil.rmtree(folder, ignore_errors=True)


async def _ready(client: aiohttp.ClientSession, host: Host) -> dict[str, Any]:
    try:
        async with client.get(f"{host.url}/ready") as answer:
            page: dict[str, Any] = await answer.json()
            return page
    except aiohttp.ClientError:
        return {"phase": "gone"}


async def _until(client: aiohttp.ClientSession, host: Host, phase: str) -> dict[str, Any]:
    started = time.monotonic()
    async with asyncio.timeout(150):
        while True:
            page = await _ready(client, host)
            if page["phase"] == phase:
                print(f"{phase} after {time.monotonic() - started:.1f} s: {page}")
                return page
            await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
async def test_the_life_of_a_replica(host: Host, tmp_path: Path, client: aiohttp.ClientSession) -> None:
    failed = await _until(client, host, "failed")
    assert failed["reason"] == "ModelNotFound"
    await asyncio.to_thread(host.until, "running")
    before = host.replica_pids()
    assert len(before) == 1

    shutil.copytree(TINY, tmp_path / "model")
    await _until(client, host, "ready")
    healed = host.replica_pids()
    assert len(healed) == 1
    assert healed != before, "Serve replaced the process that could not load"

    (replica,) = healed
    os.kill(replica, signal.SIGKILL)
    await _until(client, host, "gone")
    await _until(client, host, "ready")

    (replica,) = host.replica_pids()
    (engine,) = engines(replica)
    began = time.monotonic()
    os.kill(engine, signal.SIGKILL)
    await _until(client, host, "failed")
    await _until(client, host, "ready")
    assert host.replica_pids().isdisjoint({replica}), "Serve replaced the replica whose engine was lost"
    print(f"replaced {time.monotonic() - began:.1f} s after its engine was killed")
    assert time.monotonic() - began < 60
    (replica,) = host.replica_pids()
    last = ranks(engines(replica)[0])

    request = {
        "id": "x",
        "prompt_token_ids": [1, 300],
        "sampling": {"max_tokens": 2000, "temperature": 2.0, "seed": 1, "ignore_eos": True},
    }
    async with client.post(f"{host.url}/generate", json=request) as answer:
        await answer.content.readline()
        started = time.monotonic()
        host.delete()
        lines = [line async for line in answer.content]
    assert STREAM_MESSAGE.validate_json(lines[-1]).type == "finished"
    print(f"the stream ended {time.monotonic() - started:.1f} s after the deletion began")
    await asyncio.to_thread(host.until, "deleted")
    print(f"deleted {time.monotonic() - started:.1f} s after it began")
    assert (await _ready(client, host))["phase"] == "gone"
    assert host.replica_pids() == set()
    await until_gone(last)
