"""The engine's client where its process and its caller meet at the wrong moment."""

import asyncio
import os
import threading
from multiprocessing import Pipe
from typing import Any

import pytest

from aixcoder_serving.engine import client as module
from aixcoder_serving.engine import watchdog
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


def test_one_that_stands_still_in_the_middle_of_a_message_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "FROZEN_SECONDS", 0.05)
    client, (ours, engines) = loaded(), Pipe()
    client._heartbeat.beat()
    os.write(engines.fileno(), bytes(2))  # of a message's length
    reader = threading.Thread(target=client._read, args=(ours,))
    reader.start()
    client._watch(ours)
    assert client.failure is not None
    assert "has not moved" in client.failure
    engines.close()
    reader.join(5)
    assert not reader.is_alive()
    client.close()


def test_what_can_not_be_read_is_a_lost_engine() -> None:
    client, (ours, engines) = loaded(), Pipe()
    engines.send_bytes(b"no pickle")
    client._read(ours)
    assert client.failure == "the engine told what can not be read (UnpicklingError)"
    client.close()


def test_standing_still_is_noticed_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(watchdog, "monotonic", lambda: now)
    heartbeat = watchdog.Heartbeat()
    heartbeat.beat()
    assert heartbeat.age() == 0.0
    while heartbeat.age() <= module.FROZEN_SECONDS:  # it stopped just after this look
        now += module._LOOK_SECONDS
    assert now <= 2.0
    heartbeat.close()
