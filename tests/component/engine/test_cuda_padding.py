"""An engine whose steps are padded as for CUDA graphs, on a processor: the same tokens, and no trace of the padding."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cuda.graphs import Forward, Graphs
from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.ops import Batch
from aixcoder_serving.engine.runner import Runner
from aixcoder_serving.fim.vocabulary import Vocabulary
from tests.component.engine.conftest import TINY, Prompt
from tests.component.engine.cores import Answer, Core, torch_ops

SLOTS, BLOCKS, LENGTH = 4, 256, 1024


def uncaptured(forward: Forward, inputs: list[Batch]) -> list[Callable[[], Tensor]]:
    return [partial(forward, each) for each in inputs]


def core(vocabulary: Vocabulary, *, padded: bool) -> Core:
    made = Core(str(TINY), torch_ops(), vocabulary.token_bytes, slots=SLOTS, blocks=BLOCKS, length=LENGTH)
    if padded:
        made.runner = Runner(
            made.runner._model,
            made.runner._ops,
            OneRank(),
            vocabulary_size=len(vocabulary.token_bytes),
            blocks=BLOCKS,
            slots=SLOTS,
            max_length=LENGTH,
            graphed=partial(Graphs, capture=uncaptured),
        )
    return made


@pytest.fixture(scope="module")
def both(vocabulary: Vocabulary) -> tuple[Core, Core]:
    return core(vocabulary, padded=False), core(vocabulary, padded=True)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=12),
        Sampling(max_tokens=12, temperature=0.8, seed=3),
        Sampling(max_tokens=6, temperature=1.0, seed=3, top_p=0.8, repetition_penalty=1.2, logprobs=2),
        Sampling(max_tokens=3, prompt_logprobs=1),
    ],
    ids=["greedy", "temperature", "filters and penalties", "logprobs of the prompt"],
)
def test_the_same_tokens(both: tuple[Core, Core], prompts: list[Prompt], sampling: Sampling) -> None:
    """More requests than slots, prompts of a whole step and of one token among them, and drafts."""

    def answers(made: Core) -> list[Answer]:
        found = [made.submit(prompt[-length:], sampling) for prompt, length in zip(prompts[:6], LENGTHS, strict=True)]
        draft = made.complete(prompts[6][-50:], Sampling(max_tokens=12)).ids
        found.append(made.submit(prompts[6][-50:], sampling, draft=draft))
        made.finish()
        return found

    for plain, padded in zip(answers(both[0]), answers(both[1]), strict=True):
        assert padded.error is None
        assert padded.ids == plain.ids
        for mine, theirs in zip(padded.logprobs, plain.logprobs, strict=True):
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        for mine, theirs in zip(padded.prompt_logprobs, plain.prompt_logprobs, strict=True):
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)


LENGTHS = [300, 1, 17, 64, 65, 90]


def test_the_block_and_the_slot_of_the_padding_are_nobody_elses(both: tuple[Core, Core]) -> None:
    runner = both[1].runner
    assert torch.equal(runner._tables[SLOTS], torch.full_like(runner._tables[SLOTS], BLOCKS))
    assert not (runner._tables[:SLOTS] == BLOCKS).any()
    assert both[1].engine.pool.total == BLOCKS
    assert runner._caches[0].keys.shape[0] == BLOCKS + 1
    assert not runner._caches[0].keys[BLOCKS, :, 1:].any()
