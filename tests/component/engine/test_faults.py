"""Cancelled, refused and failed requests harm nobody else; a lost process or rank is told within two seconds."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import (
    EngineClosed,
    EngineSettings,
    Finish,
    Generation,
    GenerationFailed,
    RequestRefused,
    Sampling,
)
from aixcoder_serving.engine.ops import Batch
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, MakeEngine, Prompt, complete
from tests.component.engine.cores import Core, native_ops

REPOSITORY = Path(__file__).parents[3]
LONG = Sampling(max_tokens=1500, temperature=1.5, seed=1)  # at random, so that no draft is ever right
LOST = {
    (False, signal.SIGKILL): r"the engine's process ended \(signal 9\)",
    (False, signal.SIGSTOP): r"the engine's process has not moved for \d\.\d s",
    (True, signal.SIGKILL): r"rank 1 ended by signal 9 \(SIGKILL\)",
    (True, signal.SIGSTOP): r"rank 1 has not moved for 1\.5 s",
}
"""What is told, by whether there are several ranks and by what became of the last one."""
NOTICED_SECONDS = 2.0
GUARD = 5 * NOTICED_SECONDS


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _drained(generation: Generation) -> Finish | None:
    async for _ in generation:
        pass
    return generation.finish


async def _first(generation: Generation) -> None:
    async for _ in generation:
        return


async def test_cancel_while_queued(single: EngineClient, prompts: list[Prompt]) -> None:
    running = single.submit(prompts[0], LONG)
    await _first(running)
    queued = [single.submit(prompts[1], LONG) for _ in range(3)]
    queued[1].cancel()
    queued[1].cancel()
    assert await asyncio.wait_for(_drained(queued[1]), GUARD) == Finish("cancelled", 0)
    await asyncio.sleep(0.3)
    assert (single.stats().running, single.stats().waiting) == (1, 2)
    for generation in (queued[0], queued[2], running):
        generation.cancel()
    await _drained(queued[0])
    await _drained(running)
    assert single.stats().cancelled == 4


async def test_cancel_while_running_frees_the_slot(single: EngineClient, prompts: list[Prompt]) -> None:
    generation = single.submit(prompts[0], LONG)
    seen = 0
    async for delta in generation:
        seen += len(delta.token_ids)
        if seen >= 5:
            generation.cancel()
    assert generation.finish is not None
    assert generation.finish.reason == "cancelled"
    assert single.stats().tokens_decoded < 200
    assert (single.stats().running, single.stats().blocks_used) == (0, 0)
    assert len((await complete(single, prompts[1], Sampling(max_tokens=3))).ids) == 3


async def test_bad_requests_are_refused_alone(engine: EngineClient, prompts: list[Prompt]) -> None:
    running = asyncio.create_task(complete(engine, prompts[0], Sampling(max_tokens=30)))
    await asyncio.sleep(0)
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
    assert len((await running).ids) == 30


def test_larger_than_the_cache(make_engine: MakeEngine) -> None:
    engine = make_engine(cache_tokens=64)

    async def submit() -> None:
        engine.submit([1] * 60, Sampling(max_tokens=16))

    with pytest.raises(RequestRefused, match="64"):
        asyncio.run(submit())
    engine.close()


def test_an_allocation_that_fails_in_a_step(vocabulary: Vocabulary, prompts: list[Prompt]) -> None:
    """The step's requests fail, the next ones find slots, blocks and tables as they should be."""
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, slots=2)
    forward, wanted = core.runner._model.forward, {"fail": False}

    def failing(batch: Batch, caches: Any) -> Tensor:
        hidden = forward(batch, caches)
        if wanted.pop("fail", False):
            raise MemoryError
        return hidden

    core.runner._model.forward = failing  # type: ignore[method-assign]
    expected = core.complete(prompts[0], Sampling(max_tokens=8)).ids
    hit = [core.submit(prompts[0], Sampling(max_tokens=8)), core.submit(prompts[1], Sampling(max_tokens=8))]
    core.step()
    wanted["fail"] = True
    core.step()
    assert all(answer.error is not None and "failed" in answer.error for answer in hit)
    assert core.engine.stats().blocks_used == 0
    assert core.complete(prompts[0], Sampling(max_tokens=8)).ids == expected
    assert core.engine.failure is None


@pytest.mark.parametrize("who", [0, 1])
def test_an_allocation_that_fails_in_a_step_of_two_ranks(who: int) -> None:
    """The other rank leaves the step in the middle, and both go on alike."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.component.engine.two_ranks", str(who)],
        cwd=REPOSITORY,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'serving'}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    (error,) = set(found.pop("errors"))
    assert f"rank {who}: out of memory, in " in error
    assert found == {"used": 0, "same": True, "failure": None}


def test_a_model_that_computes_nan_fails_that_request_alone(vocabulary: Vocabulary, prompts: list[Prompt]) -> None:
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, prefix_caching=False, drafting=False)
    alone = [core.complete(prompt, Sampling(max_tokens=8)).ids for prompt in prompts[:2]]
    logits = core.runner._model.logits

    def broken(hidden: Tensor) -> Tensor:
        values = logits(hidden)
        if len(values) == 2:
            values[0] = float("nan")
        return values

    core.runner._model.logits = broken  # type: ignore[method-assign]
    answers = [core.submit(prompt, Sampling(max_tokens=8)) for prompt in prompts[:2]]
    core.finish()
    bad, good = (0, 1) if answers[0].error else (1, 0)
    assert answers[bad].error == "the model computed no probabilities for the next token (not a number)"
    assert answers[good].error is None
    assert answers[good].ids == alone[good]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_a_lost_rank(
    make_engine: MakeEngine, prompts: list[Prompt], size: int, fault: signal.Signals, busy: bool
) -> None:
    """The last rank, which is the engine's own process where there is one only."""
    engine = make_engine(tensor_parallel_size=size)
    assert engine.pid is not None
    children = _children(engine.pid)
    assert len(children) == size - 1
    victim = children[0] if children else engine.pid
    await complete(engine, prompts[0], Sampling(max_tokens=2))
    generation = engine.submit(prompts[0], LONG) if busy else None
    if generation is not None:
        await _first(generation)
    started = time.monotonic()
    os.kill(victim, fault)
    while engine.failure is None:
        assert time.monotonic() - started < GUARD, "nobody noticed"
        await asyncio.sleep(0.01)
    print(f"noticed after {time.monotonic() - started:.2f} s: {engine.failure}")
    sentence = LOST[size > 1, fault]
    if generation is not None:
        with pytest.raises(GenerationFailed, match=sentence):
            await _drained(generation)
    with pytest.raises(EngineClosed, match=sentence):
        engine.submit([1], Sampling())
    engine.close()
    assert re.fullmatch(sentence, engine.failure), "what was told stays, though the process ends of it"
    while _is_there(engine.pid) or _is_there(victim):
        assert time.monotonic() - started < GUARD, "a process stayed behind"
        await asyncio.sleep(0.01)


async def test_close_ends_everything(make_engine: MakeEngine, prompts: list[Prompt]) -> None:
    engine = make_engine(max_concurrent_sequences=2)
    generations = [engine.submit(prompts[0], LONG)]
    await _first(generations[0])
    generations += [engine.submit(prompt, LONG) for prompt in prompts[1:5]]
    started = time.monotonic()
    await asyncio.to_thread(engine.close)
    print(f"closed after {time.monotonic() - started:.3f} s")
    for generation in generations[1:]:
        finish = await asyncio.wait_for(_drained(generation), GUARD)
        assert finish is not None
        assert finish.reason == "cancelled"
    with pytest.raises(EngineClosed):
        engine.submit(prompts[0], LONG)


async def test_the_engine_does_not_outlive_its_client(tmp_path: Path) -> None:
    """A replica that is killed leaves no engine behind."""
    program = (
        "import sys, time\n"
        "from aixcoder_serving.engine.client import EngineClient\n"
        "from aixcoder_serving.engine.interface import EngineSettings\n"
        "e = EngineClient(EngineSettings(sys.argv[1], device='cpu', dtype='float32', tensor_parallel_size=2,\n"
        "                                max_model_length=512, cache_tokens=4096), ())\n"
        "e.load(); print(e.pid, flush=True); time.sleep(600)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(TINY)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    deadline = time.monotonic() + GUARD
    while _is_there(pid):
        assert time.monotonic() < deadline, "the engine goes on for nobody"
        await asyncio.sleep(0.05)


async def test_before_loading_nothing_is_taken(vocabulary: Vocabulary) -> None:
    engine = EngineClient(EngineSettings(str(TINY), device="cpu", dtype="float32"), vocabulary.token_bytes)
    with pytest.raises(EngineClosed, match="not loaded yet"):
        engine.submit([1], Sampling())
    assert engine.stats().load_percent == 0
    engine.close()
