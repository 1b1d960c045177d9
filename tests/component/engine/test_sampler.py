"""The sampler against transformers' own processors of logits."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.logprobs import token_logprobs
from aixcoder_serving.engine.noise import keys
from aixcoder_serving.engine.sampler import Row, Rule, sample
from aixcoder_serving.engine.vocabulary import Slice
from tests.unit.engine.draws import gumbel
from tests.unit.engine.slices import cut, on_slices

SIZES = [1, 2, 3, 4, 8]


@pytest.fixture(scope="module")
def past(prompts: list[tuple[int, ...]]) -> Tensor:
    """A prompt of the tiny model; the last 40 tokens pass as its completion."""
    return torch.tensor(prompts[1])


@pytest.fixture(scope="module")
def logits(oracle: LlamaForCausalLM, past: Tensor) -> Tensor:
    """Of the tiny model at the last 48 tokens: (48, vocabulary)."""
    with torch.no_grad():
        found: Tensor = oracle(past[None]).logits[0, -48:]
    return found


def _processors(wish: Sampling) -> LogitsProcessorList:
    """In the order of vLLM."""
    chain = LogitsProcessorList()
    if wish.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(wish.repetition_penalty))
    chain.append(TemperatureLogitsWarper(wish.temperature))
    if wish.min_p:
        chain.append(MinPLogitsWarper(wish.min_p))
    if wish.top_k:
        chain.append(TopKLogitsWarper(wish.top_k))
    if wish.top_p < 1:
        chain.append(TopPLogitsWarper(wish.top_p))
    return chain


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"temperature": 0.2},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"min_p": 0.05},
        {"min_p": 0.9},
        {"top_k": 1},
        {"top_k": 20},
        {"top_p": 0.95},
        {"top_p": 0.2, "temperature": 3.0},
        {"top_k": 20, "top_p": 0.8, "min_p": 0.01, "repetition_penalty": 1.1, "temperature": 1.7},
    ],
    ids=str,
)
def test_what_transformers_leaves_is_drawn_from(logits: Tensor, past: Tensor, wish: dict[str, Any], size: int) -> None:
    """The token is the maximum of its scores plus the noise: filtered ones are at minus infinity there."""
    sampling = Sampling(**{"temperature": 1.0, **wish})
    vocabulary = logits.shape[1]
    rows, expected = [], []
    for n in range(len(logits)):
        position = len(past) - len(logits) + n + 1
        rows.append(Row(Rule(sampling, seed=n, prompt_length=len(past) - 40), position, past))
        scores = _processors(sampling)(past[None, :position], logits[n : n + 1].clone())
        noise = gumbel(keys(torch.tensor([n]), torch.tensor([position])), 0, vocabulary)
        expected.append(int((scores + noise).argmax()))
    ranks = on_slices(logits, cut(vocabulary, size), lambda own, part, ranks: sample(own, rows, part, ranks))
    assert ranks == [[(i, None) for i in expected]] * size


def test_min_tokens_bans_what_transformers_bans(logits: Tensor, past: Tensor) -> None:
    likeliest = int(logits[-1].argmax())
    row = Row(
        Rule(Sampling(min_tokens=41, stop_ids=frozenset({likeliest})), seed=0, prompt_length=len(past) - 40), len(past)
    )
    ban = MinNewTokensLengthLogitsProcessor(len(past) - 40, 41, torch.tensor([likeliest]))
    expected = int(ban(past[None], logits[-1:].clone()).argmax())
    whole = Slice(0, logits.shape[1], logits.shape[1])
    assert sample(logits[-1:], [row], whole, OneRank()) == [(expected, None)]
    assert expected != likeliest


@pytest.mark.parametrize("size", SIZES)
def test_logprobs_are_those_of_the_whole_row(logits: Tensor, past: Tensor, size: int) -> None:
    """Also those of a prompt: of each token by the logits of the one before it."""
    ids = past[-47:].tolist()
    parts = cut(logits.shape[1], size)
    ranks = on_slices(logits[:-1], parts, lambda own, part, ranks: token_logprobs(own, ids, [20] * 47, part, ranks))
    expected = torch.log_softmax(logits[:-1], -1)
    values, best = expected.topk(20)
    for found in ranks:
        assert found == ranks[0]
        assert [told.token_id for told in found] == ids
        assert torch.tensor([told.logprob for told in found]).allclose(expected[range(47), ids], rtol=0, atol=1e-4)
        assert torch.tensor([[log for _, log in told.top] for told in found]).allclose(values, rtol=0, atol=1e-4)
        assert torch.tensor([[i for i, _ in told.top] for told in found]).equal(best)
