"""The harness and our engine's driver, on the tiny model, in processes."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.peer import Peer, PeerFailed, Running, processes
from benchmarks.peers.lines import Load, Request

OURS = Peer("ours", None, "benchmarks/ours.py", pausable=False)
OPTIONS = Load(
    model="models/tiny",
    dtype="float32",
    tensor_parallel=1,
    threads=1,
    sequences=2,
    max_length=256,
    cache_tokens=1024,
    cache_bytes=4096,
    prefix_caching=True,
    drafting=True,
)
PROMPT = tuple(range(300, 400))


@pytest.fixture
def running() -> Iterator[Running]:
    driver = Running(OURS)
    yield driver
    driver.end()


def test_runs_are_told_token_by_token(running: Running) -> None:
    running.load(OPTIONS)
    assert running.loaded["settings"]["cache_tokens"] == 1024
    first, again = (running.run([Request(0, PROMPT, 8)], 60)[0] for _ in range(2))
    assert (first.end, len(first.ids), sum(first.counts)) == ("length", 8, 8)
    assert (first.cached, again.cached) == (0, len(PROMPT) - 1)
    assert first.ids == again.ids
    running.reset()
    assert running.run([Request(0, PROMPT, 8)], 60)[0].cached == 0
    (cancelled,) = running.run([Request(1, PROMPT, 100, cancel_at=0.0)], 60)
    assert cancelled.end == "cancelled"
    stopped = running.run([Request(n, PROMPT, 100, at=100.0 * n) for n in range(2)], 60, lambda _: True)
    assert [result.id for result in stopped] == [0], "the second one had not come"
    assert running.memory_mb() > 0


def test_what_can_not_be_loaded_is_a_sentence(running: Running) -> None:
    with pytest.raises(PeerFailed, match="tokenizer"):
        running.load(replace(OPTIONS, model="models/absent"))


def test_nothing_is_left_of_an_ended_driver() -> None:
    driver = Running(OURS)
    driver.load(OPTIONS)
    started = driver.processes()
    assert len(started) >= 2
    driver.end()
    deadline = time.monotonic() + 10
    while (left := started & processes().keys()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_a_driver_that_ends_is_told() -> None:
    driver = Running(Peer("ends", None, "benchmarks/summary.py"))
    with pytest.raises(PeerFailed, match="the driver is gone"):
        driver.load(OPTIONS)
    driver.end()
