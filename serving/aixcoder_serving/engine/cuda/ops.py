"""`Ops` on an NVIDIA GPU. Never run on a GPU: held by Triton's interpreter and its compiler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from aixcoder_serving.engine.cuda import attention, elementwise
from aixcoder_serving.engine.ops import Batch, Rotary

_INTERPRETED = 2  # multiprocessors where there is no device: few enough that each program has several items


@dataclass(frozen=True, slots=True)
class PagedCache:
    """One layer: keys and values, each (blocks, kv_heads, block_size, head_dim).

    They are parts of `layers` (layers, 2, blocks, kv_heads, block_size, head_dim), so that a block is copied in every
    layer at once.
    """

    keys: Tensor
    values: Tensor
    layers: Tensor


class CudaOps:
    """`Ops` by cuBLAS and Triton: nothing here waits for the device, and all of it can be captured in a CUDA graph.

    Products are cuBLAS's, which adds in another order for other numbers of rows: unlike on a processor, a row's last
    bits depend on how many rows a step has. All else depends on the row alone, within one `attention.tiling`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        self.device = device
        self.dtype = dtype
        self.block_size = block_size
        self._multiprocessors = _INTERPRETED
        if device.type == "cuda":
            self._multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count

    def __str__(self) -> str:
        return "cuBLAS and Triton"

    def pack(self, weight: Tensor) -> Tensor:
        """See `Ops`. The weight itself."""
        return weight

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Ops`."""
        return functional.linear(x, weight)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`."""
        return elementwise.rms_norm(x, x, weight, eps, add=False)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`."""
        return elementwise.rms_norm(x, residual, weight, eps, add=True)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `Ops`."""
        return elementwise.silu_mul(gate_up)

    def new_cache(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> list[PagedCache]:
        """See `Ops`."""
        shape = (layers, 2, blocks, kv_heads, self.block_size, head_dim)
        whole = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return [PagedCache(keys, values, whole) for keys, values in whole]

    def cache_bytes(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> int:
        """See `Ops`."""
        return 2 * layers * blocks * kv_heads * self.block_size * head_dim * self.dtype.itemsize

    def rope_and_store(self, qkv: Tensor, batch: Batch, cache: PagedCache, rotary: Rotary, kv_heads: int) -> Tensor:
        """See `Ops`."""
        return elementwise.rope_and_store(qkv, batch, cache.keys, cache.values, rotary)

    def attend(self, q: Tensor, batch: Batch, cache: PagedCache) -> Tensor:
        """See `Ops`."""
        return attention.attend(q, batch, cache.keys, cache.values, self._multiprocessors)

    def layers(self, *_model: object) -> None:
        """See `Ops`: operation by operation, in a graph."""

    def copy_blocks(self, caches: list[PagedCache], copies: tuple[tuple[int, int], ...]) -> None:
        """See `Ops`."""
        if copies:
            source, target = torch.tensor(copies).to(self.device, non_blocking=True).unbind(-1)
            layers = caches[0].layers
            layers[:, :, target] = layers[:, :, source]
