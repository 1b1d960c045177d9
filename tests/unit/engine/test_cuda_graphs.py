"""The padding of steps up to a graph's size, with the forward pass itself in place of what a graph would replay.

Capturing needs a GPU: see tests/component/engine/cuda_cases.py.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from aixcoder_serving.engine.cuda.graphs import SIZES, Forward, Graphs
from aixcoder_serving.engine.ops import Batch, Rotary
from aixcoder_serving.engine.torch_ops import TorchCache, TorchOps

SLOTS, BLOCKS, PAGE, WIDTH, HEADS, HEAD_DIM = 4, 9, 16, 4, 2, 8
SCRATCH = BLOCKS


def without_capture(forward: Forward, inputs: list[Batch]) -> list[Callable[[], Tensor]]:
    return [partial(forward, batch) for batch in inputs]


class Layer:
    """One layer that stores and attends, as a forward pass does; `inputs` are the batches that it was given."""

    def __init__(self) -> None:
        self.ops = TorchOps(torch.device("cpu"), torch.float32, PAGE)
        self.cache: TorchCache = self.ops.new_cache(1, BLOCKS + 1, HEADS, HEAD_DIM)[0]
        self.inputs: list[Batch] = []
        self.embedding = torch.randn(1000, 3 * HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(0))
        angles = torch.outer(torch.arange(WIDTH * PAGE).float(), 0.1 ** torch.arange(HEAD_DIM // 2))
        self.rotary = Rotary(angles.cos(), angles.sin())

    def forward(self, batch: Batch) -> Tensor:
        self.inputs.append(batch)
        q = self.ops.rope_and_store(self.embedding[batch.ids], batch, self.cache, self.rotary, HEADS)
        return self.ops.attend(q, batch, self.cache)[batch.logits_rows]


def tables() -> Tensor:
    table = torch.tensor([[3, 1, 0, 0], [8, 2, 4, 0], [5, 0, 0, 0], [6, 7, 0, 0]], dtype=torch.int32)
    return torch.cat((table, torch.full((1, WIDTH), SCRATCH, dtype=torch.int32)))


def batch(work: list[tuple[int, int, int]], rows: list[int] | None = None) -> Batch:
    """A step of (slot, first position, end) each; logits of the last token of each, or of `rows`."""
    counts = [end - start for _, start, end in work]
    query_start = [sum(counts[:n]) for n in range(len(counts) + 1)]
    positions = [position for _, start, end in work for position in range(start, end)]
    ids = [100 * slot + position for slot, start, end in work for position in range(start, end)]
    wanted = [end - 1 for end in query_start[1:]] if rows is None else rows

    def int32(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    return Batch(
        ids=torch.tensor(ids),
        positions=int32(positions),
        query_start=int32(query_start),
        context=int32([end for *_, end in work]),
        slots=int32([slot for slot, *_ in work]),
        tables=tables(),
        logits_rows=torch.tensor(wanted, dtype=torch.int64),
    )


STEPS = {
    "one decoding": [[(0, 0, 5)], [(0, 5, 6)], [(0, 6, 7)]],
    "all slots decoding": [[(n, 0, 3) for n in range(SLOTS)], [(n, 3, 4) for n in (2, 0, 3, 1)]],
    "a size exactly": [[(0, 0, 8), (1, 0, 8)]],
    "one more than a size": [[(0, 0, 9), (1, 0, 8)]],
    "keystroke, drafts and decoding together": [[(1, 0, 20), (2, 0, 4)], [(1, 20, 23), (2, 4, 5), (0, 0, 9)]],
    "fewer sequences than before": [[(0, 0, 3), (1, 0, 3), (2, 0, 3)], [(3, 0, 7)], [(1, 3, 4)]],
}


@pytest.mark.parametrize("name", STEPS)
def test_padding_changes_no_result(name: str) -> None:
    plain, padded = Layer(), Layer()
    graphs = Graphs(padded.forward, tables(), without_capture)
    for work in STEPS[name]:
        torch.testing.assert_close(graphs(batch(work)), plain.forward(batch(work)))


@pytest.mark.parametrize("name", STEPS)
def test_padding_writes_to_the_scratch_block_only(name: str) -> None:
    plain, padded = Layer(), Layer()
    graphs = Graphs(padded.forward, tables(), without_capture)
    for work in STEPS[name]:
        padded.cache.keys[SCRATCH] = padded.cache.values[SCRATCH] = torch.nan
        graphs(batch(work))
        plain.forward(batch(work))
        assert torch.equal(padded.cache.keys[:SCRATCH], plain.cache.keys[:SCRATCH])
        assert torch.equal(padded.cache.values[:SCRATCH], plain.cache.values[:SCRATCH])
        padding = len(padded.inputs[-1].ids) - len(batch(work).ids)
        assert padded.cache.keys[SCRATCH, :, 0].isnan().any() == (padding == 0)
        assert padded.cache.keys[SCRATCH, :, 1:].isnan().all()


@pytest.mark.parametrize(
    ("tokens", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (33, 48), (255, 256), (256, 256), (257, 257)]
)
def test_the_next_size_is_run(tokens: int, size: int) -> None:
    seen: list[int] = []

    def forward(batch: Batch) -> Tensor:
        seen.append(len(batch.ids))
        return torch.zeros(len(batch.logits_rows), 3)

    graphs = Graphs(forward, torch.zeros(SLOTS + 1, 20, dtype=torch.int32), without_capture)
    assert len(graphs(batch([(0, 0, tokens)]))) == 1
    assert seen == [size]


def test_rows_whose_logits_are_wanted() -> None:
    """None, as in the middle of a prompt, some, and all."""
    plain, padded = Layer(), Layer()
    graphs = Graphs(padded.forward, tables(), without_capture)
    for rows in ([], [1, 4], [0, 1, 2, 3, 4]):
        step = batch([(0, 0, 2), (1, 0, 3)], rows)
        found = graphs(step)
        assert found.shape == (len(rows), HEADS * HEAD_DIM)
        torch.testing.assert_close(found, plain.forward(step))


def test_sizes_ascend_and_begin_with_one_token() -> None:
    assert list(SIZES) == sorted(set(SIZES))
    assert SIZES[0] == 1
