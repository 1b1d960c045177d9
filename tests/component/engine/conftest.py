import ast
import asyncio
import inspect
import itertools
import json
import queue
import random
import sched
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import Engine, EngineSettings, Finish, Sampling
from aixcoder_serving.fim.prompt import build
from aixcoder_serving.fim.vocabulary import Vocabulary

TINY = Path(__file__).parents[3] / "models" / "tiny"

Prompt = tuple[int, ...]
MakeEngine = Callable[..., EngineClient]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


@pytest.fixture(scope="session")
def oracle() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def _source(module: Any) -> list[str]:
    return ast.unparse(ast.parse(inspect.getsource(module))).splitlines(keepends=True)


@pytest.fixture(scope="session")
def prompts(vocabulary: Vocabulary) -> list[Prompt]:
    """24 prompts from the middle of functions: suffix first, prefix first, and without a suffix."""
    made = []
    for module in (queue, sched, textwrap):
        lines = _source(module)
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


@pytest.fixture(scope="session")
def typing_prompts(vocabulary: Vocabulary) -> list[Prompt]:
    """200 different ones as editors send them: places in files, at each ten keystrokes that go on from one another."""
    chance = random.Random(5)
    made: dict[Prompt, None] = {}  # keystrokes that add white space only give the same prompt again
    for place in itertools.count():
        module = (queue, sched, textwrap, json.decoder)[place % 4]
        lines = _source(module)
        cut = chance.randrange(5, len(lines) - 5)
        before, line, after = "".join(lines[max(cut - 15, 0) : cut]), lines[cut].rstrip("\n"), lines[cut + 1 : cut + 8]
        for key in range(10):
            typed = line[: len(line) * key // 9]
            made[build(vocabulary, prefix=before + typed, suffix="".join(after), path="a.py", room=400).ids] = None
        if len(made) >= 200:
            break
    return list(made)[:200]


def transformers_greedy(oracle: LlamaForCausalLM, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
    """What transformers chooses after the prompt and after each token of the answer but the last.

    Equal to the answer exactly where its own greedy generation is.
    """
    ids = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        logits = oracle(ids).logits[0]
    chosen: list[int] = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
    return chosen


@dataclass
class Outcome:
    ids: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    finish: Finish | None = None


async def complete(engine: Engine, prompt: Sequence[int], sampling: Sampling, **more: Any) -> Outcome:
    generation = engine.submit(prompt, sampling, **more)
    outcome = Outcome()
    async for delta in generation:
        outcome.ids += delta.token_ids
        outcome.held.append(delta.held_bytes)
    outcome.finish = generation.finish
    return outcome


async def complete_all(
    engine: Engine, wishes: Sequence[tuple[Sequence[int], Sampling]], drafts: Sequence[Sequence[int]] | None = None
) -> list[Outcome]:
    each = zip(wishes, drafts or [()] * len(wishes), strict=True)
    return await asyncio.gather(*(complete(engine, *wish, draft=draft) for wish, draft in each))


@pytest.fixture(scope="session")
def make_engine(vocabulary: Vocabulary) -> Iterator[MakeEngine]:
    """Makes loaded engines in processes of their own; closes them at the end of the session at the latest."""
    made: list[EngineClient] = []

    def make(**settings: Any) -> EngineClient:
        defaults: dict[str, Any] = {
            "model_path": str(TINY),
            "device": "cpu",
            "dtype": "float32",
            "max_model_length": 2048,
            "max_concurrent_sequences": 4,
            "cache_tokens": 16384,
            "threads": 1,
        }
        engine = EngineClient(EngineSettings(**{**defaults, **settings}), vocabulary.token_bytes)
        made.append(engine)
        engine.load()
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="session")
def engine(make_engine: MakeEngine) -> EngineClient:
    """Runs four at once."""
    return make_engine()


@pytest.fixture
def single(make_engine: MakeEngine) -> Iterator[EngineClient]:
    """Runs one at a time; the test's own."""
    made = make_engine(max_concurrent_sequences=1)
    yield made
    made.close()
