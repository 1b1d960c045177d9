"""The forward pass against transformers, float32: any split into ranks, chunks, batches and blocks gives its logits."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from aixcoder_serving.engine import weights
from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cpu.ops import CpuOps
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Batch, Collectives, Ops
from aixcoder_serving.engine.torch_ops import TorchOps
from tests.component.engine.conftest import TINY, Prompt

CPU = torch.device("cpu")
LENGTH, BLOCKS, BLOCK = 512, 96, 16
# Logits reach 25. In float32 transformers itself is up to 4e-4 from float64 here, and 1.4e-5 in the root of the mean.
WORST, TYPICAL = 5e-4, 2.5e-5
MakeOps = Callable[[torch.dtype], Ops]
OPS: dict[str, MakeOps] = {
    "torch": lambda dtype: TorchOps(CPU, dtype, BLOCK),
    "native": lambda dtype: CpuOps(CPU, dtype, BLOCK),
}


class Threads:
    """Ranks as threads of this process: each call waits until all ranks have brought their part."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[Tensor] = [torch.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def rank(self, rank: int) -> "_Rank":
        return _Rank(self, rank)

    def all(self, work: Callable[[int], Any]) -> list[Any]:
        """What `work` returns on each rank."""
        results: list[Any] = [None] * self.size

        def run(rank: int) -> None:
            try:
                results[rank] = work(rank)
            except BaseException as error:
                results[rank] = error
                self.barrier.abort()

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
                raise result
        return results


class _Rank:
    """`Collectives` of one thread."""

    def __init__(self, threads: Threads, rank: int) -> None:
        self.rank, self.size, self._threads = rank, threads.size, threads

    def beat(self) -> None:
        pass

    def all_gather(self, x: Tensor) -> Tensor:
        self._threads.parts[self.rank] = x
        self._threads.barrier.wait()
        gathered = torch.stack(self._threads.parts)
        self._threads.barrier.wait()
        return gathered

    def all_reduce(self, x: Tensor) -> Tensor:
        return self.all_gather(x).sum(0)


class Model:
    """All ranks of one model with their caches; sequences live in `slots`, on scattered blocks."""

    def __init__(self, path: Path, make_ops: MakeOps, size: int = 1, dtype: torch.dtype = torch.float32) -> None:
        found = inspect(str(path))
        found.shape.check_tensor_parallel(size)
        self.beats = 0
        self._threads = Threads(size)
        ops = make_ops(dtype)
        ranks: Sequence[Collectives] = [self._threads.rank(n) for n in range(size)] if size > 1 else [OneRank()]
        self.ranks = [
            LlamaModel(found.shape, ops, rank, weights.load(found, ops, rank.rank, size), LENGTH, self._beat)
            for rank in ranks
        ]
        self._caches = [rank.new_cache(BLOCKS) for rank in self.ranks]
        scattered = torch.randperm(BLOCKS, generator=torch.Generator().manual_seed(7)).to(torch.int32)
        self._tables = scattered.view(-1, LENGTH // BLOCK)  # (3 slots, blocks)

    def _beat(self) -> None:
        self.beats += 1

    def step(self, work: Sequence[tuple[int, Sequence[int], int, int]]) -> Tensor:
        """(R, vocabulary). Each entry: slot, the ids of its sequence so far, how many of them are new, logits rows."""
        rows: list[int] = []
        begin = [0]
        for _, _, new, wanted in work:
            begin.append(begin[-1] + new)
            rows += range(begin[-1] - wanted, begin[-1])
        int32 = torch.int32
        batch = Batch(
            ids=torch.tensor([token for _, ids, new, _ in work for token in ids[len(ids) - new :]]),
            positions=torch.cat([torch.arange(len(ids) - new, len(ids), dtype=int32) for _, ids, new, _ in work]),
            query_start=torch.tensor(begin, dtype=int32),
            context=torch.tensor([len(ids) for _, ids, _, _ in work], dtype=int32),
            slots=torch.tensor([slot for slot, _, _, _ in work], dtype=int32),
            tables=self._tables,
            logits_rows=torch.tensor(rows, dtype=torch.int64),
        )

        def run(rank: int) -> Tensor:
            model = self.ranks[rank]
            logits = model.logits(model.forward(batch, self._caches[rank]))
            assert (logits.dtype, tuple(logits.shape)) == (torch.float32, (len(rows), len(model.vocabulary)))
            return logits

        return torch.cat(self._threads.all(run) if len(self.ranks) > 1 else [run(0)], dim=-1)


def reference(oracle: LlamaForCausalLM, ids: Sequence[int]) -> Tensor:
    """(len(ids), vocabulary)."""
    with torch.inference_mode():
        logits: Tensor = oracle(torch.tensor([ids])).logits[0].float()
    return logits


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    difference = (found - expected).abs()
    assert difference.max() <= WORST
    assert difference.square().mean().sqrt() <= TYPICAL


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_prefill_decode_and_chunks_in_one_batch(
    oracle: LlamaForCausalLM, prompts: list[Prompt], ops: str, size: int
) -> None:
    """One sequence decodes, one prefills in two chunks, one wants all its logits, in the same steps."""
    model = Model(TINY, OPS[ops], size)
    first, second, third = (list(prompt) for prompt in prompts[:3])
    expected = [reference(oracle, ids) for ids in (first, second, third)]
    cut = len(second) * 2 // 3

    close(model.step([(1, first, len(first), 1)]), expected[0][-1:])
    grown = [*first, int(expected[0][-1].argmax())]
    longer = reference(oracle, grown)
    logits = model.step([(2, second[:cut], cut, 0), (1, grown, 1, 1), (0, third, len(third), len(third))])
    close(logits, torch.cat((longer[-1:], expected[2])))
    logits = model.step([(1, [*grown, 5, 6], 2, 2), (2, second, len(second) - cut, 3)])
    close(logits, torch.cat((reference(oracle, [*grown, 5, 6])[-2:], expected[1][-3:])))
    assert model.beats == 3 * 5 * size


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("size", [1, 4])
def test_greedy_tokens(oracle: LlamaForCausalLM, prompts: list[Prompt], ops: str, size: int) -> None:
    """Three sequences of different lengths at once."""
    model, new = Model(TINY, OPS[ops], size), 16
    texts = [list(prompt) for prompt in prompts[3:6]]
    expected = []
    for ids in texts:
        made = oracle.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, eos_token_id=None)
        expected.append(made[0, len(ids) :].tolist())
    lengths = [len(ids) for ids in texts]
    logits = model.step([(slot, ids, len(ids), 1) for slot, ids in enumerate(texts)])
    for _ in range(new):
        for ids, token in zip(texts, logits.argmax(-1).tolist(), strict=True):
            ids.append(token)
        logits = model.step([(slot, ids, 1, 1) for slot, ids in enumerate(texts)])
    assert [ids[length:] for ids, length in zip(texts, lengths, strict=True)] == expected


@pytest.mark.parametrize("chunk", [1, 7, 16, 33])
def test_chunks_are_a_whole_prefill(oracle: LlamaForCausalLM, prompts: list[Prompt], chunk: int) -> None:
    model, ids = Model(TINY, OPS["native"]), list(prompts[0])[:120]
    logits = torch.empty(0)
    for end in [*range(chunk, len(ids), chunk), len(ids)]:
        new = end - (end - 1) // chunk * chunk
        logits = model.step([(0, ids[:end], new, int(end == len(ids)))])
    close(logits, reference(oracle, ids)[-1:])


def test_a_step_without_logits(oracle: LlamaForCausalLM, prompts: list[Prompt]) -> None:
    """Keys and values of the last layer are stored all the same."""
    model, ids = Model(TINY, OPS["native"], 2), list(prompts[0])
    assert model.step([(0, ids[:50], 50, 0)]).shape == (0, 2048)
    close(model.step([(0, ids, len(ids) - 50, 1)]), reference(oracle, ids)[-1:])


CONFIG: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "vocab_size": 203,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-4,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        pytest.param({}, 4, id="a vocabulary that does not divide"),
        pytest.param({"vocab_size": 5}, 4, id="a rank without ids"),
        pytest.param({"tie_word_embeddings": True}, 1, id="tied"),
        pytest.param({"tie_word_embeddings": True}, 2, id="tied, two ranks"),
        pytest.param({"num_key_value_heads": 8}, 1, id="a key/value head for each head"),
        pytest.param({"num_hidden_layers": 1}, 1, id="one layer"),
        pytest.param({"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 3.0}}, 1, id="linear"),
        pytest.param(
            {
                "rope_parameters": {
                    "rope_theta": 5000.0,
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                }
            },
            1,
            id="llama3",
        ),
    ],
)
@pytest.mark.parametrize("ops", OPS)
def test_other_shapes(tmp_path: Path, changes: dict[str, Any], size: int, ops: str) -> None:
    """Of random weights, and in the files that transformers writes."""
    torch.manual_seed(3)
    oracle = LlamaForCausalLM(LlamaConfig(**{**CONFIG, **changes})).eval()
    oracle.save_pretrained(tmp_path)
    ids = torch.randint(0, oracle.config.vocab_size, (90,)).tolist()
    expected = reference(oracle, ids)
    model = Model(tmp_path, OPS[ops], size)
    assert [id_ for rank in model.ranks for id_ in rank.vocabulary] == list(range(oracle.config.vocab_size))
    assert expected.abs().max() > 1
    close(model.step([(0, ids[:64], 64, 64)]), expected[:64])
    close(model.step([(0, ids, 26, 9)]), expected[-9:])


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("size", [1, 2])
def test_bfloat16_is_near(oracle: LlamaForCausalLM, prompts: list[Prompt], ops: str, size: int) -> None:
    """By logits: as near to float32 as transformers' own bfloat16 is, on average and at the worst, give or take."""
    ids = list(prompts[0])[:100]
    expected = reference(oracle, ids)
    theirs = reference(LlamaForCausalLM.from_pretrained(TINY, dtype=torch.bfloat16), ids)
    found = Model(TINY, OPS[ops], size, torch.bfloat16).step([(0, ids, 100, 100)])
    assert 0 < (found - expected).square().mean() < 1.5 * (theirs - expected).square().mean()
    assert (found - expected).abs().max() < 1.5 * (theirs - expected).abs().max()
