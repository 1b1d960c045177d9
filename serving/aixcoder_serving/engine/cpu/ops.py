"""`Ops` on a processor, by the native library."""

from __future__ import annotations

import ctypes
import logging
import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aixcoder_serving.engine.cpu import library
from aixcoder_serving.engine.cpu.layer import Layers, sequences
from aixcoder_serving.engine.ops import Batch, Rotary
from aixcoder_serving.engine.torch_ops import TorchOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aixcoder_serving.engine.ops import Ops
    from aixcoder_serving.engine.weights import LayerWeights

logger = logging.getLogger(__name__)

_HUGE_PAGE = 2**21
_MADV_HUGEPAGE = 14
_MAX_HEAD_DIM = 512


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight (rows, width) as linear.cpp reads it."""

    data: Tensor
    rows: int
    width: int


@dataclass(frozen=True, slots=True)
class BlockCache:
    """One layer, (blocks, elements of a block), as cache.h lays them out."""

    data: Tensor
    kv_heads: int
    head_dim: int


def cpu_ops(device: torch.device, dtype: torch.dtype, block_size: int) -> Ops:
    """`CpuOps`, or `TorchOps` where they cannot be had; then the log says why."""
    try:
        return CpuOps(device, dtype, block_size)
    except library.LibraryMissing as missing:
        logger.warning("The native operations are not used, generation is slower: %s", missing)
        return TorchOps(device, dtype, block_size)


class CpuOps:
    """`Ops` by the native library, in float32 and bfloat16, on as many threads as torch uses in the calling thread.

    Rows do not depend on each other: a row's result is the same bits whatever else is in the step. Raises
    `LibraryMissing`, also for another dtype.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, block_size: int, *, variant: str | None = None
    ) -> None:
        """`variant`: one of `build.VARIANTS`, None for the best one that this processor runs."""
        if dtype not in {torch.float32, torch.bfloat16}:
            raise library.LibraryMissing(f"they are there for float32 and bfloat16, not for {dtype}")
        self.device = device
        self.dtype = dtype
        self.block_size = block_size
        self._library = library.load(variant)
        self._bf16 = int(dtype == torch.bfloat16)

    def __str__(self) -> str:
        return Path(self._library._name).name

    def pack(self, weight: Tensor) -> PackedWeight:
        """See `Ops`."""
        rows, width = weight.shape
        weight = weight.to(self.dtype).contiguous()
        packed = _on_huge_pages((self._library.aix_packed_elements(rows, width, self._bf16),), self.dtype)
        self._library.aix_pack(weight.data_ptr(), packed.data_ptr(), rows, width, self._bf16)
        return PackedWeight(packed, rows, width)

    def linear(self, x: Tensor, weight: PackedWeight) -> Tensor:
        """See `Ops`."""
        x = x.contiguous()
        if x.shape[1] != weight.width or x.dtype != self.dtype:
            raise ValueError(f"x is {tuple(x.shape)} {x.dtype}, the weight takes (T, {weight.width}) {self.dtype}")
        out = torch.empty(x.shape[0], weight.rows, dtype=self.dtype)
        self._library.aix_linear(
            x.data_ptr(), weight.data.data_ptr(), out.data_ptr(), x.shape[0], weight.width, weight.rows, self._bf16
        )
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`."""
        x = x.contiguous()
        out = torch.empty_like(x)
        self._library.aix_rms_norm(
            None, x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.shape[0], x.shape[1], eps, self._bf16
        )
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`. Raises ValueError where `residual` is not contiguous."""
        if not residual.is_contiguous():
            raise ValueError("residual is not contiguous, so it cannot be added to in place")
        x = x.contiguous()
        out = torch.empty_like(x)
        self._library.aix_rms_norm(
            x.data_ptr(), residual.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps, self._bf16
        )
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `Ops`."""
        gate_up = gate_up.contiguous()
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty(rows, width, dtype=self.dtype)
        self._library.aix_silu_mul(gate_up.data_ptr(), out.data_ptr(), rows, width, self._bf16)
        return out

    def new_cache(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> list[BlockCache]:
        """See `Ops`. Raises ValueError for a head_dim that is odd or above 512."""
        if head_dim % 2 or not 0 < head_dim <= _MAX_HEAD_DIM:
            raise ValueError(f"head_dim is {head_dim}: it must be even and at most {_MAX_HEAD_DIM}")
        shape = (blocks, self._library.aix_block_elements(kv_heads, head_dim, self.block_size))
        return [BlockCache(_on_huge_pages(shape, self.dtype).zero_(), kv_heads, head_dim) for _ in range(layers)]

    def cache_bytes(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> int:
        """See `Ops`."""
        elements: int = self._library.aix_block_elements(kv_heads, head_dim, self.block_size)
        return layers * blocks * elements * self.dtype.itemsize

    def rope_and_store(self, qkv: Tensor, batch: Batch, cache: BlockCache, rotary: Rotary, kv_heads: int) -> Tensor:
        """See `Ops`."""
        qkv = qkv.contiguous()
        heads = qkv.shape[1] // cache.head_dim - 2 * kv_heads
        q = torch.empty(qkv.shape[0], heads, cache.head_dim, dtype=self.dtype)
        self._library.aix_rope_and_store(
            qkv.data_ptr(), q.data_ptr(), heads, cache.data.data_ptr(), kv_heads, cache.head_dim, self.block_size,
            rotary.cos.data_ptr(), rotary.sin.data_ptr(), *sequences(batch), self._bf16,
        )  # fmt: skip
        return q

    def attend(self, q: Tensor, batch: Batch, cache: BlockCache) -> Tensor:
        """See `Ops`."""
        q = q.contiguous()
        tokens, heads, head_dim = q.shape
        out = torch.empty(tokens, heads * head_dim, dtype=self.dtype)
        self._library.aix_attend(
            q.data_ptr(), out.data_ptr(), heads, cache.data.data_ptr(), cache.kv_heads, head_dim, self.block_size,
            *sequences(batch), self._bf16,
        )  # fmt: skip
        return out

    def layers(
        self, weights: Sequence[LayerWeights], norm: Tensor, caches: list[BlockCache], rotary: Rotary, eps: float
    ) -> Layers:
        """See `Ops`."""
        return Layers(self._library, weights, norm, caches, rotary, self.block_size, eps)

    def copy_blocks(self, caches: list[BlockCache], copies: tuple[tuple[int, int], ...]) -> None:
        """See `Ops`."""
        pairs = array("l", (block for copy in copies for block in copy))
        address, _ = pairs.buffer_info()
        for cache in caches:
            block_bytes = cache.data.shape[1] * cache.data.itemsize
            self._library.aix_copy_blocks(cache.data.data_ptr(), block_bytes, address, len(copies))


def _on_huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor. Where it is large the kernel is asked for huge pages: fewer address look-ups."""
    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE_PAGE:
        return torch.empty(shape, dtype=dtype)
    memory = torch.empty(size + _HUGE_PAGE, dtype=torch.uint8)
    skipped = -memory.data_ptr() % _HUGE_PAGE
    aligned = memory[skipped : skipped + size]
    # A kernel without huge pages says no, and nothing is lost.
    ctypes.CDLL(None).madvise(
        ctypes.c_void_p(aligned.data_ptr()), ctypes.c_size_t(size // _HUGE_PAGE * _HUGE_PAGE), _MADV_HUGEPAGE
    )
    return aligned.view(dtype).view(shape)
