"""What the operations for CUDA must do, case by case, each held against `TorchOps`.

    TRITON_INTERPRET=1 python -m tests.component.engine.cuda_cases interpreted   on a processor, by the interpreter
    python -m tests.component.engine.cuda_cases device                           on a GPU, with graphs and bfloat16

Prints a JSON line a case: {"case", "error"}, error null or what went wrong. The interpreter is to be chosen before
Triton is imported, so this is a program, run by test_cuda_kernels.py. It can not multiply bfloat16 (Triton 3.9 takes
its bits for integers), so there attention is held in float32 and float16.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aixcoder_serving.engine import checkpoint, weights
from aixcoder_serving.engine.collectives import OneRank
from aixcoder_serving.engine.cuda.graphs import Forward, Graphs
from aixcoder_serving.engine.cuda.ops import CudaOps
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Batch, Ops, Rotary
from aixcoder_serving.engine.torch_ops import TorchCache, TorchOps

TINY = Path(__file__).parents[3] / "models" / "tiny"
DEVICE = torch.device("cuda" if sys.argv[1:] == ["device"] else "cpu")
# Of results that were rounded once, from sums in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
MULTIPLIED = [F32, F16, BF16] if DEVICE.type == "cuda" else [F32, F16]

Case = Callable[[], None]


class Heads(NamedTuple):
    """H, G and D of `ops`."""

    query: int
    kv: int
    dim: int


def normal(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def close(found: Tensor, wanted: Tensor) -> None:
    tolerance = TOLERANCE[wanted.dtype]
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def int32(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def scattered(slots: int, blocks: int, shared: int = 0) -> Tensor:
    """Tables of blocks in no order; the first `shared` of them are the same in all."""
    order = torch.randperm(slots * blocks + 3, generator=torch.Generator().manual_seed(1))
    tables = order[: slots * blocks].to(torch.int32).view(slots, blocks)
    tables[:, :shared] = tables[0, :shared]
    return tables.to(DEVICE)


def batch(work: list[tuple[int, int]], tables: Tensor) -> Batch:
    """A step of (context, query tokens) each, in the slots from the last one down."""
    starts = [0]
    for _, count in work:
        starts.append(starts[-1] + count)
    positions = [position for context, count in work for position in range(context - count, context)]
    return Batch(
        ids=torch.zeros(len(positions), dtype=torch.int64, device=DEVICE),
        positions=int32(positions),
        query_start=int32(starts),
        context=int32([context for context, _ in work]),
        slots=int32([len(tables) - 1 - n for n in range(len(work))]),
        tables=tables,
        logits_rows=torch.zeros(0, dtype=torch.int64, device=DEVICE),
    )


def filled(ops: CudaOps, heads: Heads, step: Batch, dtype: torch.dtype, *, rising: bool = False) -> TorchCache:
    """Keys and values where the step's sequences have some, everything else no number.

    With `rising` later positions weigh more, so that a sum over the earlier ones has to shrink.
    """
    blocks = int(step.tables.max()) + 1
    cache = ops.new_cache(1, blocks, heads.kv, heads.dim)[0]
    owned = torch.zeros(blocks, ops.block_size, dtype=torch.bool, device=DEVICE)
    for slot, context in zip(step.slots.tolist(), step.context.tolist(), strict=True):
        position = torch.arange(context, device=DEVICE)
        owned[step.tables[slot, position // ops.block_size], position % ops.block_size] = True
    for seed, part in enumerate((cache.keys, cache.values)):
        part.copy_(normal(*part.shape, dtype=dtype, seed=seed))
        part.masked_fill_(~owned[:, None, :, None], torch.nan)
    if rising:
        place = torch.arange(blocks, device=DEVICE)
        place[step.tables[0].long()] = torch.arange(len(step.tables[0]), device=DEVICE)
        cache.keys.mul_(1 + 4 * place[:, None, None, None] / len(step.tables[0]))
    return TorchCache(cache.keys, cache.values)


def attention(
    work: list[tuple[int, int]],
    heads: Heads,
    page: int,
    dtype: torch.dtype = F32,
    *,
    shared: int = 0,
    rising: bool = False,
) -> None:
    ops = CudaOps(DEVICE, dtype, page)
    width = -(-max(context for context, _ in work) // page)
    step = batch(work, scattered(len(work), width, shared))
    cache = filled(ops, heads, step, dtype, rising=rising)
    q = normal(len(step.ids), heads.query, heads.dim, dtype=dtype, seed=2)
    found = ops.attend(q, step, cache)  # type: ignore[arg-type]
    close(found, TorchOps(DEVICE, dtype, page).attend(q, step, cache))


def a_row_is_the_same_bits_alone() -> None:
    """Beside others, after others in its own chunk, and alone."""
    heads, ops = Heads(4, 1, 64), CudaOps(DEVICE, MULTIPLIED[-1], 16)
    step = batch([(40, 3), (700, 2), (5, 5)], scattered(3, 44))
    cache = filled(ops, heads, step, ops.dtype)
    q = normal(10, heads.query, heads.dim, dtype=ops.dtype, seed=2)
    together = ops.attend(q, step, cache)  # type: ignore[arg-type]
    single = replace(
        step,
        ids=step.ids[4:5],
        positions=step.positions[4:5],
        query_start=int32([0, 1]),
        context=step.context[1:2],
        slots=step.slots[1:2],
    )
    assert torch.equal(ops.attend(q[4:5].clone(), single, cache), together[4:5])  # type: ignore[arg-type]


def no_token_at_all() -> None:
    ops, heads = CudaOps(DEVICE, F32, 16), Heads(4, 2, 16)
    step = replace(batch([(1, 1)], scattered(1, 1)), positions=int32([]), query_start=int32([0, 0]))
    cache = ops.new_cache(1, 4, heads.kv, heads.dim)[0]
    assert ops.attend(normal(0, 4, 16), step, cache).shape == (0, 64)
    empty = normal(0, 8 * 16)
    assert ops.rope_and_store(empty, step, cache, rotary(4, 16), 2).shape == (0, 4, 16)
    assert ops.rms_norm(empty, normal(128), 1e-5).shape == (0, 128)
    assert ops.silu_mul(empty).shape == (0, 64)


def rotary(positions: int, dim: int) -> Rotary:
    angles = torch.outer(torch.arange(positions).float(), 10000.0 ** (-torch.arange(0, dim, 2) / dim)).to(DEVICE)
    return Rotary(angles.cos(), angles.sin())


def rope_and_store(heads: Heads, page: int, dtype: torch.dtype) -> None:
    """Rotated queries, and a cache that is changed where it should be and nowhere else."""
    native, plain = CudaOps(DEVICE, dtype, page), TorchOps(DEVICE, dtype, page)
    step = batch([(35, 2), (1, 1), (33, 3)], scattered(4, 3))
    step = replace(step, query_start=int32([0, 2, 3, 3, 6]), slots=int32([3, 2, 0, 1]), context=int32([35, 1, 0, 33]))
    qkv = normal(6, (heads.query + 2 * heads.kv) * heads.dim, dtype=dtype, seed=3)
    rotations = rotary(40, heads.dim)
    paged = native.new_cache(1, 16, heads.kv, heads.dim)[0]
    reference = plain.new_cache(1, 16, heads.kv, heads.dim)[0]
    for part in (paged.keys, paged.values, reference.keys, reference.values):
        part.fill_(7.0)
    found = native.rope_and_store(qkv, step, paged, rotations, heads.kv)
    close(found, plain.rope_and_store(qkv, step, reference, rotations, heads.kv))
    close(paged.keys, reference.keys)
    assert torch.equal(paged.values, reference.values)
    assert torch.equal(paged.keys == 7.0, reference.keys == 7.0)


def norms(width: int, dtype: torch.dtype) -> None:
    native, plain = CudaOps(DEVICE, dtype, 16), TorchOps(DEVICE, dtype, 16)
    x, weight = normal(3, width, dtype=dtype), normal(width, dtype=dtype, seed=1)
    close(native.rms_norm(x, weight, 1e-5), plain.rms_norm(x, weight, 1e-5))
    mine, theirs = normal(3, width, dtype=dtype, seed=2), normal(3, width, dtype=dtype, seed=2)
    close(native.add_rms_norm(x, mine, weight, 1e-5), plain.add_rms_norm(x, theirs, weight, 1e-5))
    close(mine, theirs)


def activation(width: int, dtype: torch.dtype) -> None:
    gate_up = normal(3, 2 * width, dtype=dtype) * 4
    close(CudaOps(DEVICE, dtype, 16).silu_mul(gate_up), TorchOps(DEVICE, dtype, 16).silu_mul(gate_up))


def copied_blocks() -> None:
    """In every layer; what is not a target stays as it is."""
    ops = CudaOps(DEVICE, BF16, 16)
    caches = ops.new_cache(3, 6, 2, 8)
    caches[0].layers.copy_(normal(*caches[0].layers.shape, dtype=BF16))
    wanted = caches[0].layers.clone()
    wanted[:, :, [5, 4, 0]] = wanted[:, :, [3, 3, 1]]
    ops.copy_blocks(caches, ((3, 5), (3, 4), (1, 0)))
    ops.copy_blocks(caches, ())
    for n, cache in enumerate(caches):
        assert torch.equal(cache.keys, wanted[n, 0])
        assert torch.equal(cache.values, wanted[n, 1])
    assert ops.cache_bytes(3, 6, 2, 8) == caches[0].layers.nbytes


def uncaptured(forward: Forward, inputs: list[Batch]) -> list[Callable[[], Tensor]]:
    return [partial(forward, each) for each in inputs]


def whole_model() -> None:
    """The tiny model: a prompt of 5, then a decoding step beside a prompt of 3, padded; on a GPU as captured graphs."""
    found = checkpoint.inspect(str(TINY))
    prompts = [torch.arange(10, 16, device=DEVICE), torch.arange(30, 33, device=DEVICE)]
    tables = torch.cat((scattered(2, 1), int32([9]).view(1, 1)))
    steps = [
        replace(batch([(5, 5)], tables[:2]), ids=prompts[0][:5], logits_rows=torch.tensor([4], device=DEVICE)),
        replace(
            batch([(6, 1), (3, 3)], tables[:2]),
            ids=torch.cat((prompts[0][5:], prompts[1])),
            logits_rows=torch.tensor([0, 3], device=DEVICE),
        ),
    ]

    def results(ops: Ops, *, padded: bool) -> list[Tensor]:
        model = LlamaModel(found.shape, ops, OneRank(), weights.load(found, ops, 0, 1), 16)
        caches = model.new_cache(10)
        forward: Forward = partial(model.forward, caches=caches)
        if padded:
            forward = Graphs(forward, tables, None if DEVICE.type == "cuda" else uncaptured)
        return [model.logits(forward(replace(step, tables=tables))).clone() for step in steps]

    reference = results(TorchOps(DEVICE, F32, 16), padded=False)
    for padded in (False, True) if DEVICE.type == "cuda" else (True,):
        for mine, theirs in zip(results(CudaOps(DEVICE, F32, 16), padded=padded), reference, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


CASES: dict[str, Case] = {
    "decoding, heads of 64, pages of 16": partial(
        attention, [(1, 1), (16, 1), (17, 1), (512, 1), (530, 1), (1100, 1)], Heads(8, 2, 64), 16
    ),
    "decoding, heads of 128, pages of 32": partial(attention, [(31, 1), (33, 1), (700, 1)], Heads(4, 1, 128), 32),
    "a long context, more splits than are added up at a time": partial(
        attention, [(8300, 1)], Heads(4, 1, 64), 16, rising=True
    ),
    "keystrokes, verification and decoding together": partial(
        attention, [(40, 40), (90, 8), (600, 1), (77, 16), (520, 9)], Heads(4, 1, 64), 16
    ),
    "a chunk of a prompt": partial(attention, [(150, 100)], Heads(4, 1, 64), 16),
    "a chunk over two splits": partial(attention, [(2060, 66), (2100, 3)], Heads(4, 1, 64), 32),
    "a large chunk and decoding": partial(attention, [(290, 280), (70, 1)], Heads(4, 1, 64), 16),
    "blocks that are shared": partial(attention, [(64, 1), (70, 6), (65, 1)], Heads(4, 1, 64), 16, shared=4),
    "three query heads of 80": partial(attention, [(50, 4), (20, 20)], Heads(3, 1, 80), 16),
    "as many key heads as query heads": partial(attention, [(50, 4), (20, 1)], Heads(3, 3, 64), 16),
    "more query heads than a tile has rows": partial(attention, [(20, 2)], Heads(20, 1, 64), 16),
    "a row is the same bits alone": a_row_is_the_same_bits_alone,
    "no token at all": no_token_at_all,
    "copied blocks": copied_blocks,
    "the whole model": whole_model,
}
for each in MULTIPLIED[1:]:
    CASES |= {
        f"decoding in {each}": partial(attention, [(33, 1), (530, 1)], Heads(4, 1, 128), 16, each),
        f"a chunk in {each}": partial(attention, [(90, 66)], Heads(4, 1, 128), 32, each),
        f"a large chunk in {each}": partial(attention, [(270, 260)], Heads(4, 1, 64), 32, each),
    }
for each in (F32, F16, BF16):
    CASES |= {
        f"rotation and storing, heads of 64, in {each}": partial(rope_and_store, Heads(8, 2, 64), 16, each),
        f"rotation and storing, heads of 80, in {each}": partial(rope_and_store, Heads(3, 1, 80), 32, each),
        f"norms in {each}": partial(norms, 200, each),
        f"activation in {each}": partial(activation, 1100, each),
    }
CASES["norms of 4096"] = partial(norms, 4096, F32)


def main() -> None:
    torch.set_num_threads(1)
    for name, case in CASES.items():
        error = None
        try:
            with torch.inference_mode():
                case()
        except Exception as wrong:
            error = f"{type(wrong).__name__}: {wrong}"
        print(json.dumps({"case": name, "error": error}), flush=True)


if __name__ == "__main__":
    main()
