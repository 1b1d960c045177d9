"""Behind nginx, HAProxy and Envoy, set up as docs/front-proxies.md says: cancels, streams, and a storm."""

import asyncio
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from benchmarks.gateway import envoy
from e2e.cluster import debian
from tests.component.gateway.conftest import Replica, Running, StartReplica, Table, eventually, script
from tests.component.gateway.storm import as_it_should_be, gateway_before, nothing_left, replica_with, storm

KINDS = ("nginx", "haproxy", "envoy")
STORM_SECONDS = 5.0
"""Through each."""

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{gateway};
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_next_upstream off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  option abortonclose
  retries 0
  timeout connect 1s
  timeout client 10m
  timeout server 10m
frontend in
  bind 127.0.0.1:{port}
  default_backend gateway
backend gateway
  server gateway 127.0.0.1:{gateway}
"""


def started_by(kind: str, file: Path) -> list[str]:
    """The command of a proxy, which is installed first, with this configuration."""
    if kind == "envoy":
        return envoy.command(file)
    debian.install({"nginx": "nginx-light", "haproxy": "haproxy"})
    return [str(debian.which(kind)), *(("-c", str(file)) if kind == "nginx" else ("-f", str(file), "-db"))]


@contextmanager
def proxy(kind: str, folder: Path, gateway: int) -> Iterator[str]:
    """The URL of a proxy before the gateway's port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    file = folder / f"{kind}.yaml"
    text = {"nginx": NGINX, "haproxy": HAPROXY, "envoy": envoy.CONFIGURATION}[kind]
    file.write_text(text.format(folder=folder, port=port, gateway=gateway))
    command = started_by(kind, file)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_in_front(
    gateway: Running, table: Table, start_replica: StartReplica, tmp_path: Path, kind: str
) -> None:
    replica = start_replica("a")
    table.serve(replica.address)
    with proxy(kind, tmp_path, int(gateway.url.rsplit(":", 1)[1])) as url:
        async with aiohttp.ClientSession() as session:
            await _pieces(session, url)
            await _cancels(session, url, replica)


async def test_nothing_is_left_of_a_storm_through_each(tmp_path: Path) -> None:
    async with replica_with(max_concurrent_sequences=16) as replica, gateway_before(replica) as gateway:
        for kind in KINDS:
            chance = random.Random(1)
            with proxy(kind, tmp_path, int(gateway.url.rsplit(":", 1)[1])) as url:
                await storm(url, replica, 0.3, chance)  # connections that stay
                tasks = len(asyncio.all_tasks())
                outcomes = await storm(url, replica, STORM_SECONDS, chance)
                print(f"{kind}: {dict(outcomes)}")
                await nothing_left(gateway, replica, tasks)
            as_it_should_be(outcomes)


async def _pieces(session: aiohttp.ClientSession, url: str) -> None:
    """A stream of six seconds comes piece by piece and whole."""
    body = {"prompt": script(a={"deltas": 12, "delay": 0.5}), "stream": True}
    times: list[float] = []
    async with session.post(f"{url}/v1/completions", json=body) as response:
        assert response.status == 200
        texts = []
        async for line in response.content:
            if line.startswith(b"data: {"):
                times.append(time.monotonic())
                texts.append(json.loads(line[6:])["choices"][0]["text"])
    assert "".join(texts) == "".join(f"a{n} " for n in range(12))
    assert times[-1] - times[0] > 4.0


async def _cancels(session: aiohttp.ClientSession, url: str, replica: Replica) -> None:
    """A stream and a whole answer that their client leaves."""
    for number, stream in enumerate((True, False)):
        body = {"prompt": script(a={"deltas": 200, "delay": 0.1}), "stream": stream, "seed": number}
        task = asyncio.ensure_future(session.post(f"{url}/v1/completions", json=body))

        async def seen(count: int = number + 2) -> bool:
            return len(await replica.seen()) == count

        await eventually(seen)
        await asyncio.sleep(0.3)
        left = time.monotonic()
        if task.done():
            task.result().close()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def cancelled(place: int = number + 1) -> bool:
            return bool((await replica.seen())[place]["end"] == "cancelled")

        await eventually(cancelled)
        print(f"stream {stream}: the replica sees a cancel after {(time.monotonic() - left) * 1000:.0f} ms")
