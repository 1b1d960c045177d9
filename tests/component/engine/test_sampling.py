import torch
from transformers import LlamaForCausalLM

from aixcoder_serving.engine.interface import Finish, Sampling
from aixcoder_serving.engine.transformers_engine import TransformersEngine
from aixcoder_serving.fim.detokenize import TextStream
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import complete, complete_all

Prompts = list[tuple[int, ...]]


def _sampled(temperature: float = 1.0, **more: float) -> Sampling:
    return Sampling(max_tokens=24, temperature=temperature, **more)  # type: ignore[arg-type]


async def test_a_seed_repeats_whatever_runs_beside_it(engine: TransformersEngine, prompts: Prompts) -> None:
    alone = await complete(engine, prompts[0], _sampled(seed=7))
    noise = [(prompt, _sampled()) for prompt in prompts[1:6]]
    crowd = await complete_all(engine, [*noise[:2], (prompts[0], _sampled(seed=7)), *noise[2:]])
    assert crowd[2].ids == alone.ids
    torch.manual_seed(1)
    assert (await complete(engine, prompts[0], _sampled(seed=7))).ids == alone.ids


async def test_seeds_differ_and_no_seed_is_a_new_one(engine: TransformersEngine, prompts: Prompts) -> None:
    wishes = [(prompts[0], _sampled(temperature=2.0, seed=n)) for n in range(4)]
    wishes += [(prompts[0], _sampled(temperature=2.0))] * 4
    outcomes = await complete_all(engine, wishes)
    assert len({tuple(outcome.ids) for outcome in outcomes}) == 8


async def test_draws_are_those_of_the_warped_distribution(
    engine: TransformersEngine, oracle: LlamaForCausalLM, prompts: Prompts
) -> None:
    """Step by step: logits / T, the smallest set of tokens with top_p of the chance, one draw by the seed."""
    temperature, top_p, seed = 1.3, 0.8, 11
    outcome = await complete(engine, prompts[2], _sampled(temperature=temperature, top_p=top_p, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    ids, expected = list(prompts[2]), []
    for _ in range(8):
        with torch.no_grad():
            chances = torch.softmax(oracle(torch.tensor([ids])).logits[0, -1] / temperature, dim=-1)
        order = torch.argsort(chances, descending=True)
        kept = torch.zeros_like(chances)
        before = torch.cumsum(chances[order], 0) - chances[order]
        kept[order[before < top_p]] = chances[order[before < top_p]]
        expected.append(int(torch.multinomial(kept / kept.sum(), 1, generator=generator)))
        ids.append(expected[-1])
    assert outcome.ids[:8] == expected


async def test_a_narrow_top_p_is_greedy(engine: TransformersEngine, prompts: Prompts) -> None:
    greedy = await complete(engine, prompts[3], Sampling(max_tokens=24))
    assert (await complete(engine, prompts[3], _sampled(top_p=1e-6))).ids == greedy.ids


async def test_a_temperature_near_zero_is_greedy(engine: TransformersEngine, prompts: Prompts) -> None:
    greedy = await complete(engine, prompts[3], Sampling(max_tokens=12))
    for temperature in (1e-300, 1e-5, 1e-3):
        wish = Sampling(max_tokens=12, temperature=temperature)
        assert (await complete(engine, prompts[3], wish)).ids == greedy.ids


async def test_seeds_at_both_ends(engine: TransformersEngine, prompts: Prompts) -> None:
    for seed in (-(2**63), 2**63 - 1, 0):
        outcome = await complete(engine, prompts[0], _sampled(seed=seed))
        assert outcome.finish is not None
        assert outcome.finish.reason == "length"


async def test_stop_strings_across_tokens(engine: TransformersEngine, vocabulary: Vocabulary, prompts: Prompts) -> None:
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
        stream, shown = TextStream(vocabulary), ""
        for token, held in zip(outcome.ids, outcome.held, strict=False):
            shown += stream.push([token], held)
        start = text.index(stop)
        assert shown + stream.finish(outcome.finish.trim_bytes) == text[:start]
        across += any(start < border < start + 3 for border in borders)
    assert across > 5


async def test_a_stop_string_that_never_comes(engine: TransformersEngine, prompts: Prompts) -> None:
    outcome = await complete(engine, prompts[0], Sampling(max_tokens=6, stop=("\x01",)))
    assert outcome.finish == Finish("length", 6)
