"""Greedy output is transformers' own, token for token, alone and beside others."""

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from aixcoder_serving.engine.interface import Finish, Sampling
from aixcoder_serving.engine.transformers_engine import TransformersEngine
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, Outcome, complete, complete_all

MAX_TOKENS = 12


def _expected(oracle: LlamaForCausalLM, prompt: tuple[int, ...], stop_ids: frozenset[int]) -> list[int]:
    ids = torch.tensor([prompt])
    out = oracle.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=sorted(stop_ids),
    )
    made: list[int] = out[0, len(prompt) :].tolist()
    return made


async def test_greedy(
    engine: TransformersEngine, oracle: LlamaForCausalLM, vocabulary: Vocabulary, prompts: list[tuple[int, ...]]
) -> None:
    greedy = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    expected = [_expected(oracle, prompt, vocabulary.stop_ids) for prompt in prompts]
    alone = [await complete(engine, prompt, greedy) for prompt in prompts]
    together = await complete_all(engine, [(prompt, greedy) for prompt in prompts])

    assert len(prompts) == 24
    assert [outcome.ids for outcome in alone] == expected
    assert [outcome.ids for outcome in together] == expected
    assert {len(ids) < MAX_TOKENS for ids in expected} == {True, False}, "both ways to end are seen"
    for outcome in alone:
        stopped = outcome.ids[-1] in vocabulary.stop_ids
        assert outcome.finish == Finish("stop" if stopped else "length", len(outcome.ids))


async def test_text(engine: TransformersEngine, vocabulary: Vocabulary, prompts: list[tuple[int, ...]]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    greedy = Sampling(max_tokens=MAX_TOKENS, stop_ids=vocabulary.stop_ids)
    for prompt in prompts[:6]:
        stream, text, outcome = TextStream(vocabulary), "", await complete(engine, prompt, greedy)
        for token in outcome.ids:
            text += stream.push([token])
        assert text + stream.finish() == tokenizer.decode(outcome.ids, skip_special_tokens=True)


async def test_a_length_of_zero_runs_nothing(engine: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    before = engine.stats()
    outcome = await complete(engine, prompts[0], Sampling(max_tokens=0))
    assert outcome == Outcome([], [], Finish("length", 0))
    assert engine.stats().tokens_prefilled == before.tokens_prefilled


async def test_counters(single: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    await complete_all(single, [(prompts[0], Sampling(max_tokens=3)), (prompts[1], Sampling(max_tokens=5))])
    stats = single.stats()
    assert (stats.completed, stats.running, stats.waiting, stats.load_percent) == (2, 0, 0, 100)
    assert stats.tokens_prefilled == len(prompts[0]) + len(prompts[1])
    assert stats.tokens_decoded == 8
