import ast
import asyncio
import inspect
import queue
import sched
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from aixcoder_serving.engine.interface import EngineSettings, Finish, Sampling
from aixcoder_serving.engine.transformers_engine import TransformersEngine
from aixcoder_serving.fim.prompt import build
from aixcoder_serving.fim.vocabulary import Vocabulary

TINY = Path(__file__).parents[3] / "models" / "tiny"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


@pytest.fixture(scope="session")
def oracle() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)


@pytest.fixture(scope="session")
def prompts(vocabulary: Vocabulary) -> list[tuple[int, ...]]:
    """24 prompts from the middle of functions: suffix first, prefix first, and without a suffix."""
    made = []
    for module in (queue, sched, textwrap):
        lines = ast.unparse(ast.parse(inspect.getsource(module))).splitlines(keepends=True)
        for n in range(8):
            cut = (n + 1) * len(lines) // 9
            made.append(
                build(
                    vocabulary,
                    prefix="".join(lines[max(cut - 20, 0) : cut]),
                    suffix=None if n == 7 else "".join(lines[cut + 1 : cut + 12]),
                    path=f"{module.__name__}.py",
                    order="psm" if n == 6 else "spm",
                    room=400,
                ).ids
            )
    return made


@dataclass
class Outcome:
    ids: list[int]
    held: list[int]
    finish: Finish | None


async def complete(engine: TransformersEngine, prompt: Sequence[int], sampling: Sampling) -> Outcome:
    generation = engine.submit(prompt, sampling)
    outcome = Outcome([], [], None)
    async for delta in generation:
        outcome.ids += delta.token_ids
        outcome.held.append(delta.held_bytes)
    outcome.finish = generation.finish
    return outcome


async def complete_all(engine: TransformersEngine, wishes: Sequence[tuple[Sequence[int], Sampling]]) -> list[Outcome]:
    return await asyncio.gather(*(complete(engine, prompt, sampling) for prompt, sampling in wishes))


def make_engine(vocabulary: Vocabulary, concurrent: int = 4, length: int = 2048) -> TransformersEngine:
    settings = EngineSettings(
        str(TINY), device="cpu", dtype="float32", max_model_length=length, max_concurrent_sequences=concurrent
    )
    engine = TransformersEngine(settings, vocabulary.token_bytes)
    engine.load()
    return engine


@pytest.fixture(scope="session")
def engine(vocabulary: Vocabulary) -> Iterator[TransformersEngine]:
    """Runs four at once."""
    made = make_engine(vocabulary)
    yield made
    made.close()


@pytest.fixture
def single(vocabulary: Vocabulary) -> Iterator[TransformersEngine]:
    """Runs one at a time; the test's own."""
    made = make_engine(vocabulary, concurrent=1)
    yield made
    made.close()
