import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import torch

from aixcoder_serving.protocol import STREAM_MESSAGE, Delta, Failed, Finished, ReplicaSettings, Started
from aixcoder_serving.replica.listener import Listener
from aixcoder_serving.replica.server import ReplicaApp
from aixcoder_serving.replica.service import ReplicaService

TINY = Path(__file__).parents[3] / "models" / "tiny"
PREFIX = "class PriorityQueue(Queue):\n\n    def _qsize(self):\n"
SUFFIX = "\n    def x():\n"
LONG: dict[str, Any] = {
    "prompt_token_ids": [1, 300, 301],
    "sampling": {"max_tokens": 1900, "temperature": 2.0, "seed": 5, "ignore_eos": True},
}
"""At random, so that nothing is guessed ahead, and with no end of the model's own: longer than lingering."""

Messages = list[Started | Delta | Finished | Failed]

ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
"""For each test module here: starting an engine costs seconds, so that tests share one, and one event loop."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def settings(**changes: Any) -> ReplicaSettings:
    base: dict[str, Any] = {
        "model_path": str(TINY),
        "device": "cpu",
        "dtype": "float32",
        "max_model_length": 2048,
        "max_concurrent_sequences": 2,
        "port": 0,
        "shutdown_grace_seconds": 20,
    }
    return ReplicaSettings.model_validate(base | changes)


class Replica:
    """A listening replica and a client of it."""

    def __init__(self, service: ReplicaService, listener: Listener, client: aiohttp.ClientSession) -> None:
        self.service = service
        self.listener = listener
        self.client = client
        self.url = f"http://127.0.0.1:{listener.port}"

    @property
    def engine(self) -> int:
        """The process of its engine, once loaded."""
        pid = getattr(self.service._engine, "pid", None)
        assert isinstance(pid, int)
        return pid

    def post(self, **request: Any) -> Any:
        return self.client.post(f"{self.url}/generate", json={"id": "test", **request})

    async def generate(self, **request: Any) -> Messages:
        async with self.post(**request) as answer:
            assert answer.status == 200, await answer.text()
            return [STREAM_MESSAGE.validate_json(line) async for line in answer.content]

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.client.get(self.url + path) as answer:
            return answer.status, json.loads(await answer.read())

    async def stats(self) -> dict[str, Any]:
        return (await self.get("/stats"))[1]

    async def until(self, path: str, **expected: Any) -> dict[str, Any]:
        """The page once it has these values."""
        async with asyncio.timeout(60):
            while True:
                _, page = await self.get(path)
                if page | expected == page:
                    return page
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        await self.service.close()
        await self.listener.stop(patience=1)


async def start(wish: ReplicaSettings, client: aiohttp.ClientSession) -> Replica:
    service = ReplicaService(wish)
    listener = Listener(ReplicaApp(service), "127.0.0.1", wish.port)
    await listener.start()
    service.start()
    return Replica(service, listener, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(client: aiohttp.ClientSession) -> AsyncIterator[Replica]:
    """Ready, two at once; every test leaves it idle. Its counters and its cache are of all tests before."""
    started = await start(settings(), client)
    await started.service.loaded()
    yield started
    await started.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replica(client: aiohttp.ClientSession) -> AsyncIterator[Replica]:
    """The same for one test alone, which may end it."""
    started = await start(settings(), client)
    await started.service.loaded()
    yield started
    await started.stop()


def text_of(messages: Messages) -> str:
    return "".join(message.text for message in messages if isinstance(message, Delta))


def ids_of(messages: Messages) -> list[int]:
    return [i for message in messages if isinstance(message, Delta) for i in message.token_ids]


def finished(messages: Messages) -> Finished:
    last = messages[-1]
    assert isinstance(last, Finished), last
    return last
