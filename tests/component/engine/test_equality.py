"""Greedy output is transformers' own, token for token, however requests are batched, cut, drafted, cached and split."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoTokenizer, LlamaForCausalLM

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import Finish, Sampling
from aixcoder_serving.engine.ops import Ops
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import (
    TINY,
    MakeEngine,
    Outcome,
    Prompt,
    complete,
    complete_all,
    transformers_greedy,
)
from tests.component.engine.cores import Core, native_ops, torch_ops

MAX_TOKENS = 12
TENSOR_PARALLEL: dict[str, dict[str, Any]] = {
    "cached and drafted": {},
    "block by block": {"step_budget_ms": 0.01},
    "nothing reused": {"prefix_caching": False, "drafting": False},
}


def _draft(chance: random.Random, ids: list[int]) -> list[int]:
    """One that is right, one that goes wrong, none: the n-gram's."""
    return chance.choice([ids, [*ids[:3], 5, 6, 7], []])


@pytest.fixture(scope="session")
def expected(oracle: LlamaForCausalLM, vocabulary: Vocabulary, typing_prompts: list[Prompt]) -> dict[Prompt, list[int]]:
    """One at a time, nothing cached, nothing drafted; each token is checked against transformers."""
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, prefix_caching=False, drafting=False, slots=1)
    sampling = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    found = {prompt: core.complete(prompt, sampling).ids for prompt in typing_prompts}
    for prompt, ids in found.items():
        assert ids == transformers_greedy(oracle, prompt, ids)
        assert len(ids) == MAX_TOKENS or ids[-1] in vocabulary.stop_ids
    assert len(found) == 200
    assert {len(ids) < MAX_TOKENS for ids in found.values()} == {True, False}, "both ways to end are seen"
    return found


@pytest.mark.parametrize(
    "ops",
    [pytest.param(native_ops, id="native"), pytest.param(torch_ops, id="torch", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"slots": 1, "prefix_caching": False, "drafting": False}, id="alone"),
        pytest.param({"slots": 16, "prefix_caching": False, "drafting": False}, id="batched"),
        pytest.param({"slots": 16, "drafting": False}, id="cached"),
        pytest.param({"slots": 16}, id="cached and drafted"),
        pytest.param({"slots": 16, "tokens_a_step": 40}, id="cached, drafted and chunked"),
        pytest.param({"slots": 16, "tokens_a_step": 1024}, id="whole prompts"),
        pytest.param({"slots": 16, "blocks": 60, "length": 512}, id="a cache that is too small"),
    ],
)
def test_two_hundred_prompts(
    vocabulary: Vocabulary, expected: dict[Prompt, list[int]], ops: Callable[[], Ops], options: dict[str, Any]
) -> None:
    core = Core(str(TINY), ops(), vocabulary.token_bytes, **options)
    sampling = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    chance, answers = random.Random(3), {}
    order = list(expected)
    chance.shuffle(order)
    for prompt in order:
        answers[prompt] = core.submit(prompt, sampling, draft=_draft(chance, expected[prompt]))
        for _ in range(chance.randrange(3)):
            core.step()
    core.finish()
    assert {prompt: answer.ids for prompt, answer in answers.items()} == expected
    assert core.engine.stats().blocks_used == 0


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        pytest.param(size, settings, id=f"{size}, {name}", marks=[pytest.mark.long] if settings and size > 2 else [])
        for size in (1, 2, 4, 8)
        for name, settings in TENSOR_PARALLEL.items()
    ],
)
async def test_tensor_parallel(
    make_engine: MakeEngine,
    vocabulary: Vocabulary,
    expected: dict[Prompt, list[int]],
    size: int,
    settings: dict[str, Any],
) -> None:
    engine = make_engine(tensor_parallel_size=size, max_concurrent_sequences=16, **settings)
    sampling = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    chance = random.Random(4)
    drafts = [_draft(chance, ids) for ids in expected.values()]
    outcomes = await complete_all(engine, [(prompt, sampling) for prompt in expected], drafts)
    stats = engine.stats()
    engine.close()
    assert [outcome.ids for outcome in outcomes] == list(expected.values())
    assert (stats.prefix_hit_tokens > 0) == settings.get("prefix_caching", True)
    if not settings:
        assert stats.draft_tokens_accepted > 0
    if "step_budget_ms" in settings:
        # A block a step, and what costs nothing beside it by this machine's own measure; 120 tokens a step otherwise.
        assert stats.steps >= stats.tokens_prefilled / 40


async def test_finish_and_text(engine: EngineClient, vocabulary: Vocabulary, prompts: list[Prompt]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    greedy = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    for prompt in prompts:
        outcome = await complete(engine, prompt, greedy)
        stopped = outcome.ids[-1] in vocabulary.stop_ids
        assert outcome.finish is not None
        assert outcome.finish == Finish(
            "stop" if stopped else "length", len(outcome.ids), cached_tokens=outcome.finish.cached_tokens
        )
        stream, text = TextStream(vocabulary), ""
        for token in outcome.ids:
            text += stream.push([token])
        assert text + stream.finish() == tokenizer.decode(outcome.ids, skip_special_tokens=True)


async def test_a_length_of_zero_runs_nothing(engine: EngineClient, prompts: list[Prompt]) -> None:
    before = engine.stats()
    outcome = await complete(engine, prompts[0], Sampling(max_tokens=0))
    assert outcome == Outcome([], [], Finish("length", 0))
    assert engine.stats().tokens_prefilled == before.tokens_prefilled


async def test_counters(single: EngineClient, prompts: list[Prompt]) -> None:
    await asyncio.gather(*(complete(single, prompts[i], Sampling(max_tokens=3 + 2 * i)) for i in range(2)))
    stats = single.stats()
    assert (stats.completed, stats.running, stats.waiting, stats.load_percent) == (2, 0, 0, 100)
    assert stats.tokens_prefilled + stats.prefix_hit_tokens == len(prompts[0]) + len(prompts[1])
    assert stats.tokens_decoded == 8
    assert stats.steps == sum(stats.step_seconds) > 0
