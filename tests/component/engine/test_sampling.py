"""Chosen tokens depend on the request alone: its seed, its penalties, its stops; never on what runs beside it."""

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from aixcoder_serving.engine.client import EngineClient
from aixcoder_serving.engine.interface import Finish, Sampling
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, MakeEngine, Prompt, complete, complete_all
from tests.component.engine.cores import Core, native_ops

WISHES: dict[str, dict[str, Any]] = {
    "a temperature": {"temperature": 1.0, "seed": 7},
    "a high temperature": {"temperature": 2.0, "seed": -(2**63)},
    "top-p": {"temperature": 1.2, "seed": 2**63 - 1, "top_p": 0.7},
    "top-k": {"temperature": 1.2, "seed": 3, "top_k": 5},
    "min-p": {"temperature": 1.2, "seed": 3, "min_p": 0.05},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.3},
    "penalties and a seed": {"temperature": 0.8, "seed": 4, "repetition_penalty": 1.2, "frequency_penalty": 0.5},
    "a bias": {"logit_bias": ((431, -100.0), (266, 3.0))},
    "a least length": {"min_tokens": 9, "stop_ids": frozenset(range(0, 2048, 3))},
}


@pytest.fixture(scope="module")
def exact() -> LlamaForCausalLM:
    """Transformers in float64: in float32 it is itself up to 1e-4 away from that."""
    return LlamaForCausalLM.from_pretrained(TINY, dtype=torch.float64)


def _wish(name: str) -> Sampling:
    return Sampling(max_tokens=24, **WISHES[name])


@pytest.fixture(scope="module")
def expected(vocabulary: Vocabulary, prompts: list[Prompt]) -> dict[str, list[int]]:
    """Alone, nothing cached, nothing drafted."""
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, prefix_caching=False, drafting=False, slots=1)
    return {name: core.complete(prompts[0], _wish(name)).ids for name in WISHES}


def test_wishes_make_a_difference(
    expected: dict[str, list[int]], vocabulary: Vocabulary, prompts: list[Prompt]
) -> None:
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes)
    greedy = core.complete(prompts[0], Sampling(max_tokens=24)).ids
    assert all(ids != greedy for ids in expected.values())
    assert len(expected["a least length"]) >= 9


@pytest.mark.parametrize("name", WISHES)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="cached and drafted"),
        pytest.param({"tokens_a_step": 20}, id="in chunks"),
        pytest.param({"slots": 3}, id="batched by three"),
    ],
)
def test_in_company(
    vocabulary: Vocabulary, prompts: list[Prompt], expected: dict[str, list[int]], name: str, options: dict[str, Any]
) -> None:
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, **options)
    company = [core.submit(prompt, Sampling(max_tokens=24, temperature=1.0)) for prompt in prompts[1:4]]
    right, wrong = [*expected[name]], [*expected[name][:4], 5, 6, 7]
    answers = [core.submit(prompts[0], _wish(name), draft=draft) for draft in (right, wrong, ())]
    core.finish()
    assert [answer.ids for answer in answers] == [expected[name]] * 3
    assert all(answer.finish is not None for answer in company)


@pytest.mark.parametrize("size", [2, 4])
async def test_split_over_ranks(
    make_engine: MakeEngine, prompts: list[Prompt], expected: dict[str, list[int]], size: int
) -> None:
    """Each wish with a draft that is right, with one that goes wrong and with none."""
    engine = make_engine(tensor_parallel_size=size)
    cases = [(name, draft) for name, ids in expected.items() for draft in (ids, [*ids[:4], 5, 6, 7], [])]
    wishes = [(prompts[0], _wish(name)) for name, _ in cases]
    outcomes = await complete_all(engine, wishes, [draft for _, draft in cases])
    accepted = engine.stats().draft_tokens_accepted
    engine.close()
    assert [outcome.ids for outcome in outcomes] == [expected[name] for name, _ in cases]
    assert accepted > sum(map(len, expected.values())) / 2


async def test_seeds_differ_and_no_seed_is_a_new_one(engine: EngineClient, prompts: list[Prompt]) -> None:
    wishes = [(prompts[0], Sampling(max_tokens=24, temperature=2.0, seed=n)) for n in range(4)]
    wishes += [(prompts[0], Sampling(max_tokens=24, temperature=2.0))] * 4
    outcomes = await complete_all(engine, wishes)
    assert len({tuple(outcome.ids) for outcome in outcomes}) == 8


async def test_a_narrow_choice_is_the_greedy_one(engine: EngineClient, prompts: list[Prompt]) -> None:
    greedy = await complete(engine, prompts[3], Sampling(max_tokens=24))
    for narrow in ({"top_p": 1e-6}, {"top_k": 1}, {"min_p": 1.0}, {"temperature": 1e-300}, {"temperature": 1e-6}):
        wish = Sampling(max_tokens=24, **{"temperature": 1.0, **narrow})  # type: ignore[arg-type]
        assert (await complete(engine, prompts[3], wish)).ids == greedy.ids


@pytest.mark.parametrize("top", [0, 1, 5])
def test_logprobs(vocabulary: Vocabulary, exact: LlamaForCausalLM, prompts: list[Prompt], top: int) -> None:
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes)
    answer = core.complete(prompts[0], Sampling(max_tokens=10, logprobs=top, temperature=1.0, seed=1, top_k=7))
    with torch.inference_mode():
        logits = exact(torch.tensor([[*prompts[0], *answer.ids]])).logits[0]
    expected = torch.log_softmax(logits[len(prompts[0]) - 1 : -1], dim=-1)
    assert [entry.token_id for entry in answer.logprobs] == answer.ids
    for entry, row in zip(answer.logprobs, expected, strict=True):
        assert entry.logprob == pytest.approx(row[entry.token_id].item(), rel=0, abs=1e-4)
        values, ids = row.topk(top) if top else (torch.empty(0), torch.empty(0))
        assert [i for i, _ in entry.top] == ids.tolist()
        assert [value for _, value in entry.top] == pytest.approx(values.tolist(), rel=0, abs=1e-4)


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_prompt_logprobs(
    vocabulary: Vocabulary, exact: LlamaForCausalLM, prompts: list[Prompt], max_tokens: int
) -> None:
    """The least likely tokens are 1.03e-4 away, hence `rel`; transformers' own float32 is 1.07e-4 away there."""
    core = Core(str(TINY), native_ops(), vocabulary.token_bytes, tokens_a_step=100)
    core.complete(prompts[0], Sampling(max_tokens=1))
    answer = core.complete(prompts[0], Sampling(max_tokens=max_tokens, prompt_logprobs=2))
    with torch.inference_mode():
        rows = torch.log_softmax(exact(torch.tensor([prompts[0]])).logits[0], dim=-1)
    assert answer.finish == Finish("length", max_tokens, cached_tokens=0), "it reads no cached prefix"
    assert [entry.token_id for entry in answer.prompt_logprobs] == list(prompts[0][1:])
    for entry, row in zip(answer.prompt_logprobs, rows[:-1], strict=True):
        assert entry.logprob == pytest.approx(row[entry.token_id].item(), rel=1e-5, abs=1e-4)
        assert [value for _, value in entry.top] == pytest.approx(row.topk(2).values.tolist(), rel=1e-5, abs=1e-4)


async def test_stop_strings_across_tokens(engine: EngineClient, vocabulary: Vocabulary, prompts: list[Prompt]) -> None:
    """Every three characters of what the model writes, as a stop string, end it exactly there."""
    free = await complete(engine, prompts[0], Sampling(max_tokens=12))
    text = vocabulary.decode(free.ids)
    borders = {len(vocabulary.decode(free.ids[:n])) for n in range(len(free.ids))}
    stops = [text[n : n + 3] for n in range(len(text) - 3)]
    outcomes = await complete_all(engine, [(prompts[0], Sampling(max_tokens=12, stop=(stop,))) for stop in stops])
    across = 0
    for stop, outcome in zip(stops, outcomes, strict=True):
        assert outcome.finish is not None
        assert outcome.finish.reason == "stop"
        stream = TextStream(vocabulary)
        shown = stream.push(outcome.ids, outcome.held[-1]) + stream.finish(outcome.finish.trim_bytes)
        start = text.index(stop)
        assert shown == text[:start]
        across += any(start < border < start + 3 for border in borders)
    assert across > 5


async def test_a_stop_string_that_never_comes(engine: EngineClient, prompts: list[Prompt]) -> None:
    outcome = await complete(engine, prompts[0], Sampling(max_tokens=6, stop=("\x01",)))
    assert outcome.finish is not None
    assert outcome.finish.reason == "length"
