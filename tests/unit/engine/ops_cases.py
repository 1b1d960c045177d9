"""What the tests of the operations share: steps over a small paged cache, and the devices to compare."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from aixcoder_serving.engine.cpu import build, library
from aixcoder_serving.engine.cpu.ops import CpuOps
from aixcoder_serving.engine.ops import Batch, Ops, Rotary
from aixcoder_serving.engine.torch_ops import TorchOps

CPU = torch.device("cpu")
RUNNABLE = library.supported(library.processor_flags())
VARIANTS = [
    pytest.param(variant, marks=pytest.mark.skipif(variant not in RUNNABLE, reason="this processor cannot run it"))
    for variant in build.VARIANTS
]
DTYPES = [torch.float32, torch.bfloat16]
# Of two results that were rounded once, from sums in another order.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def native(variant: str, dtype: torch.dtype, block_size: int = 16) -> CpuOps:
    return CpuOps(CPU, dtype, block_size, variant=variant)


def reference(dtype: torch.dtype, block_size: int = 16) -> TorchOps:
    return TorchOps(CPU, dtype, block_size)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found: Tensor, wanted: Tensor) -> None:
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


@dataclass(frozen=True)
class Shape:
    """Heads of a layer: H, G and D of `ops`."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def rotary(positions: int, head_dim: int) -> Rotary:
    angles = torch.outer(torch.arange(positions).float(), 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))
    return Rotary(angles.cos(), angles.sin())


def batch(work: list[tuple[int, int, int]], tables: Tensor) -> Batch:
    """A step of (slot, first position, end) each."""
    positions = [position for _, start, end in work for position in range(start, end)]
    starts = [0]
    for _, start, end in work:
        starts.append(starts[-1] + end - start)

    def int32(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    return Batch(
        ids=torch.zeros(len(positions), dtype=torch.int64),
        positions=int32(positions),
        query_start=int32(starts),
        context=int32([end for _, _, end in work]),
        slots=int32([slot for slot, _, _ in work]),
        tables=tables,
        logits_rows=torch.zeros(0, dtype=torch.int64),
    )


class Sequence:
    """The activations of one slot's tokens, from which steps are made."""

    def __init__(self, slot: int, length: int, shape: Shape, dtype: torch.dtype) -> None:
        self.slot = slot
        self.qkv = normal(length, shape.width, dtype=dtype, seed=slot + 1)


def run(
    ops: Ops, shape: Shape, sequences: list[Sequence], tables: Tensor, steps: list[list[tuple[int, int, int]]]
) -> dict[int, Tensor]:
    """Store and attend step by step; what each slot's tokens gave, in their order."""
    by_slot = {sequence.slot: sequence for sequence in sequences}
    cache = ops.new_cache(1, int(tables.max()) + 1, shape.kv_heads, shape.head_dim)[0]
    rotations = rotary(max(len(sequence.qkv) for sequence in sequences), shape.head_dim)
    out: dict[int, list[Tensor]] = {slot: [] for slot in by_slot}
    for work in steps:
        step = batch(work, tables)
        qkv = torch.cat([by_slot[slot].qkv[start:end] for slot, start, end in work])
        q = ops.rope_and_store(qkv, step, cache, rotations, shape.kv_heads)
        attended = ops.attend(q, step, cache)
        for (slot, _, _), start, end in zip(
            work, step.query_start.tolist(), step.query_start[1:].tolist(), strict=False
        ):
            out[slot].append(attended[start:end])
    return {slot: torch.cat(parts) for slot, parts in out.items() if parts}
