"""A real gateway in this process, before replicas that are processes of their own."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import openai
import pytest

from aixcoder_serving.gateway.main import GatewaySettings, run
from aixcoder_serving.gateway.routing import RouteTable, View
from aixcoder_serving.protocol import DeploymentView, GatewayLoad

ROOT = Path(__file__).parents[3]


@dataclass
class Replica:
    """A process that speaks the protocol."""

    name: str
    process: subprocess.Popen[str]
    address: str

    async def seen(self) -> list[dict[str, Any]]:
        """What became of each request that reached it."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.address}/seen") as response:
            return list(await response.json())

    async def figures(self) -> dict[str, int]:
        """How many ran at once, were refused, and run now, and for how many ms it has had room."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.address}/figures") as response:
            return dict(await response.json())

    def end(self) -> None:
        """Kill it, if it still lives."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class StartReplica(Protocol):
    """Starts a fake replica of a name, on loopback where no other address is said."""

    def __call__(self, name: str, host: str = "127.0.0.1", slots: int = 64) -> Replica: ...


@pytest.fixture
def start_replica() -> Iterator[StartReplica]:
    """Start a fake replica of a name."""
    started: list[Replica] = []

    def start(name: str, host: str = "127.0.0.1", slots: int = 64) -> Replica:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.component.gateway.fake_replica", name, host, str(slots)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "serving")])},
        )
        assert process.stdout is not None
        replica = Replica(name, process, f"{host}:{int(process.stdout.readline())}")
        started.append(replica)
        return replica

    yield start
    for replica in started:
        replica.end()


@dataclass
class Table:
    """A route table that the test writes."""

    view: View | None = None

    def serve(self, *addresses: str, name: str = "tiny", **spec: Any) -> None:
        """One deployment with one unit of these replicas."""
        self.view = View.of([deployment(name, **spec)], {("ns", "unit"): addresses})

    def prefer(self, first: str, second: str) -> None:
        """One deployment that sends all but one in a million requests to `first` while it can be had."""
        endpoints = {("ns", "first"): (first,), ("ns", "second"): (second,)}
        self.view = View.of([deployment("tiny", weights={"first": 999_999, "second": 1})], endpoints)

    async def run(self) -> None:
        """The test changes the view."""
        await asyncio.Event().wait()


def deployment(name: str, *, weights: dict[str, int] | None = None, **spec: Any) -> DeploymentView:
    """A resource; if not said otherwise its unit `unit` has all the traffic."""
    return DeploymentView.model_validate(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec,
            "status": {"traffic": {"version": 1, "weights": weights or {"unit": 100}}},
        }
    )


@dataclass
class Running:
    """A gateway that runs."""

    url: str
    internal: str
    stop: asyncio.Event
    task: asyncio.Task[None]
    session: aiohttp.ClientSession
    clients: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def client(self, **options: Any) -> openai.AsyncOpenAI:
        """OpenAI's own client, without retries of its own."""
        settings: dict[str, Any] = {"api_key": "none", "base_url": f"{self.url}/v1", "max_retries": 0} | options
        return await self.clients.enter_async_context(openai.AsyncOpenAI(**settings))

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one metric; 0 where it has not been counted yet."""
        async with self.session.get(f"{self.internal}/metrics") as response:
            page = await response.text()
        for line in page.splitlines():
            if line.startswith(name) and all(f'{label}="{value}"' in line for label, value in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


async def heard(gateway: Running, count: int) -> None:
    """Wait until so many replicas tell their load: until then each gets a few requests only."""

    async def all_of_them() -> bool:
        return await gateway.metric("aixcoder_gateway_replicas_heard") == count

    await eventually(all_of_them)


async def load(gateway: Running, since: float = 0.0) -> GatewayLoad:
    """The page /load, with the bins from second `since` on."""
    async with gateway.session.get(f"{gateway.internal}/load", params={"since": str(since)}) as response:
        return GatewayLoad.model_validate_json(await response.read())


async def ask(gateway: Running, prompt: str, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, Any]:
    """Status and body of a completion."""
    body = {"prompt": prompt, "max_tokens": 20, **fields}
    async with gateway.session.post(f"{gateway.url}/v1/completions", json=body, headers=headers) as response:
        return response.status, await response.json()


def new_key(folder: Path, name: str, **record: Any) -> str:
    """A key whose record is stored in `folder`."""
    key = f"axk_{name}_{'s' * 40}"
    (folder / name).write_text(json.dumps({"sha256": hashlib.sha256(key.encode()).hexdigest(), **record}))
    return key


@asynccontextmanager
async def running(routes: RouteTable, **settings: Any) -> AsyncIterator[Running]:
    """A gateway on free ports, ended at the end."""
    ports: asyncio.Future[tuple[int, int | None]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "internal_port": 0, "drain_seconds": 0.0} | settings
    task = asyncio.ensure_future(
        run(GatewaySettings(**options), routes, stop, started=lambda *both: ports.set_result(both))
    )
    await asyncio.wait((task, ports), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    public, internal = ports.result()
    unlimited = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=unlimited) as session, AsyncExitStack() as clients:
        yield Running(f"http://127.0.0.1:{public}", f"http://127.0.0.1:{internal}", stop, task, session, clients)
    stop.set()
    await task


@pytest.fixture
def table() -> Table:
    """Routes that the test writes."""
    return Table()


@pytest.fixture
async def gateway(table: Table) -> AsyncIterator[Running]:
    """A gateway without keys on the test's routes."""
    async with running(table) as started:
        yield started


def script(**of: dict[str, Any]) -> str:
    """A prompt that tells each replica what to do; `all_` means every one."""
    return json.dumps({"*" if name == "all_" else name: what for name, what in of.items()})


async def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """The first true value of an awaited condition. `seconds` is a guard against a hang."""
    async with asyncio.timeout(seconds):
        while True:
            value = await condition()
            if value:
                return value
            await asyncio.sleep(0.01)


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in millions of bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
