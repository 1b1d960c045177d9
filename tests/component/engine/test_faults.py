"""Cancelled, refused and failed requests harm nobody else."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from aixcoder_serving.engine.interface import (
    EngineClosed,
    EngineSettings,
    Finish,
    Generation,
    GenerationFailed,
    RequestRefused,
    Sampling,
)
from aixcoder_serving.engine.transformers_engine import TransformersEngine
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, complete, make_engine

LONG = Sampling(max_tokens=1500)
MARKER = 1999


async def _drained(generation: Generation) -> Finish | None:
    async for _ in generation:
        pass
    return generation.finish


async def _first(generation: Generation) -> None:
    async for _ in generation:
        return


@contextmanager
def _failing_on_marker(engine: TransformersEngine, fault: Exception) -> Iterator[None]:
    """Steps whose input holds the marker fail, in the real model."""

    def fail(_module: Any, _positional: Any, named: dict[str, Any]) -> None:
        if bool((named["input_ids"] == MARKER).any()):
            raise fault

    assert engine._model is not None
    hook = engine._model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


async def test_cancel_while_queued(single: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    running = single.submit(prompts[0], LONG)
    await _first(running)
    queued = [single.submit(prompts[1], LONG) for _ in range(3)]
    assert (single.stats().running, single.stats().waiting) == (1, 3)
    queued[1].cancel()
    queued[1].cancel()
    assert single.stats().waiting == 2
    assert await asyncio.wait_for(_drained(queued[1]), 5) == Finish("cancelled", 0)
    assert single.stats().running == 1
    for generation in (queued[0], queued[2], running):
        generation.cancel()
    await _drained(queued[0])
    assert single.stats().cancelled >= 3


async def test_cancel_while_running_frees_the_slot_in_one_step(
    single: TransformersEngine, prompts: list[tuple[int, ...]]
) -> None:
    generation = single.submit(prompts[0], LONG)
    seen = 0
    async for delta in generation:
        seen += len(delta.token_ids)
        if seen >= 5:
            generation.cancel()
    assert generation.finish is not None
    assert generation.finish.reason == "cancelled"
    at_cancel = single.stats().tokens_decoded
    assert at_cancel < 100
    assert single.stats().running == 0
    next_one = await complete(single, prompts[1], Sampling(max_tokens=3))
    assert len(next_one.ids) == 3
    assert single.stats().tokens_decoded == at_cancel + 3


async def test_first_in_first_out(single: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    order: list[int] = []

    async def run(n: int) -> None:
        await complete(single, prompts[n], Sampling(max_tokens=4))
        order.append(n)

    await asyncio.gather(*(run(n) for n in range(6)))
    assert order == list(range(6))


async def test_bad_requests_are_refused_alone(engine: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    running = asyncio.create_task(complete(engine, prompts[0], Sampling(max_tokens=30)))
    await asyncio.sleep(0)
    before = engine.stats()
    for prompt, sampling, parameter in [
        ([], Sampling(), "prompt"),
        ([1, 4096], Sampling(), "prompt"),
        ([1] * 3000, Sampling(max_tokens=1), "prompt"),
        ([1], Sampling(max_tokens=3000), "max_tokens"),
        ([1], Sampling(temperature=float("nan")), "sampling"),
    ]:
        with pytest.raises(RequestRefused) as refused:
            engine.submit(prompt, sampling)
        assert refused.value.parameter == parameter
    assert engine.stats().waiting <= before.waiting
    assert len((await running).ids) == 30


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RuntimeError("shapes differ\nat length"), "the engine failed on this request: RuntimeError"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
    ],
)
async def test_a_fault_fails_one_request(
    engine: TransformersEngine, prompts: list[tuple[int, ...]], fault: Exception, message: str
) -> None:
    expected = await complete(engine, prompts[0], Sampling(max_tokens=20))
    failed = engine.stats().failed
    with _failing_on_marker(engine, fault):
        good = asyncio.gather(*(complete(engine, prompts[0], Sampling(max_tokens=20)) for _ in range(3)))
        with pytest.raises(GenerationFailed, match=message):
            await complete(engine, [1, MARKER], Sampling(max_tokens=5))
        assert [outcome.ids for outcome in await good] == [expected.ids] * 3
    assert engine.stats().failed == failed + 1
    assert engine.failure is None
    assert (await complete(engine, [1, MARKER], Sampling(max_tokens=5))).finish is not None


async def test_a_lost_device_is_told(vocabulary: Vocabulary) -> None:
    engine = make_engine(vocabulary, concurrent=1)
    with (
        _failing_on_marker(engine, torch.AcceleratorError("unspecified launch failure\nmore")),
        pytest.raises(GenerationFailed, match="the device is lost: unspecified launch failure"),
    ):
        await complete(engine, [1, MARKER], Sampling(max_tokens=5))
    assert engine.failure == "the device is lost: unspecified launch failure"
    with pytest.raises(EngineClosed, match="the device is lost"):
        engine.submit([1], Sampling())
    engine.close()


async def test_close_ends_everything(vocabulary: Vocabulary, prompts: list[tuple[int, ...]]) -> None:
    engine = make_engine(vocabulary, concurrent=2)
    generations = [engine.submit(prompt, LONG) for prompt in prompts[:5]]
    await _first(generations[0])
    started = time.monotonic()
    await asyncio.to_thread(engine.close)
    print(f"closed after {time.monotonic() - started:.3f} s")
    for generation in generations[1:]:
        finish = await asyncio.wait_for(_drained(generation), 10)
        assert finish is not None
        assert finish.reason == "cancelled"
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    with pytest.raises(EngineClosed):
        engine.submit(prompts[0], LONG)


async def test_before_loading_nothing_is_taken(vocabulary: Vocabulary) -> None:
    engine = TransformersEngine(EngineSettings(str(TINY), device="cpu", dtype="float32"), vocabulary.token_bytes)
    with pytest.raises(EngineClosed, match="not loaded yet"):
        engine.submit([1], Sampling())
    assert engine.stats().load_percent == 0
    engine.close()
