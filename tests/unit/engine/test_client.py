"""The engine's client where its process and its caller meet at the wrong moment."""

import asyncio
from multiprocessing import Pipe
from typing import Any

import pytest

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.handle import RequestHandle
from aixcoder_serving.engine.interface import Delta, EngineClosed, EngineSettings, EngineStats, Sampling
from aixcoder_serving.engine.messages import Loaded, Stepped
from aixcoder_serving.engine.validation import validate


def loaded() -> EngineClient:
    """One whose process is not there, and whose threads do not run."""
    client = EngineClient(EngineSettings("nowhere"), ())
    client._loaded = Loaded(100, 1000, "float32", EngineStats())
    return client


def test_the_first_failure_is_the_cause() -> None:
    client, (ours, engines) = loaded(), Pipe()
    engines.send(Stepped((), EngineStats(), "rank 1 ended by signal 9 (SIGKILL)"))
    engines.close()
    client._read(ours)
    assert client.failure == "rank 1 ended by signal 9 (SIGKILL)", "not that the process ends of it"
    client.close()


async def test_no_request_comes_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed by another thread while a request is looked at: it would wait for good."""
    client = loaded()

    def closing(*arguments: Any, **more: Any) -> Any:
        client.close()
        return validate(*arguments, **more)

    monkeypatch.setattr("aixcoder_serving.engine.client.validate", closing)
    with pytest.raises(EngineClosed, match="the engine is closed"):
        client.submit([1], Sampling())
    assert not client._handles


def test_a_loop_that_closes_harms_no_other_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may close at any moment, also after it was seen open: what tells it of new tokens has others to tell."""
    loop = asyncio.new_event_loop()

    async def handle() -> RequestHandle:
        return RequestHandle(lambda: None)

    made = loop.run_until_complete(handle())
    loop.close()
    monkeypatch.setattr(loop, "is_closed", lambda: False)
    made.emit(Delta((1,)))
