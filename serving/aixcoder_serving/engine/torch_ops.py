"""The operations in plain torch, for any device: the reference for the native ones, and what runs without them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from aixcoder_serving.engine.ops import Batch, Rotary


@dataclass(frozen=True, slots=True)
class TorchCache:
    """One layer: keys and values, each (blocks, kv_heads, block_size, head_dim)."""

    keys: Tensor
    values: Tensor


class TorchOps:
    """`Ops` by torch alone.

    Rows depend on each other in one way only: torch may add in another order where there are more of them.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, block_size: int) -> None:
        self.device = device
        self.dtype = dtype
        self.block_size = block_size

    def __str__(self) -> str:
        return "torch"

    def pack(self, weight: Tensor) -> Tensor:
        """See `Ops`. The weight itself."""
        return weight

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Ops`."""
        return functional.linear(x, weight)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Ops`."""
        return self.rms_norm(residual.add_(x), weight, eps)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """See `Ops`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate) * up

    def new_cache(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> list[TorchCache]:
        """See `Ops`."""
        shape = (blocks, kv_heads, self.block_size, head_dim)

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        return [TorchCache(zeros(), zeros()) for _ in range(layers)]

    def cache_bytes(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> int:
        """See `Ops`."""
        return 2 * layers * blocks * kv_heads * self.block_size * head_dim * self.dtype.itemsize

    def rope_and_store(self, qkv: Tensor, batch: Batch, cache: TorchCache, rotary: Rotary, kv_heads: int) -> Tensor:
        """See `Ops`. Rotates in float32 and rounds once."""
        head_dim = cache.keys.shape[-1]
        heads = qkv.view(qkv.shape[0], -1, head_dim)
        rotated = _rotate(heads[:, :-kv_heads], batch.positions, rotary)
        counts = batch.query_start.diff()
        slots = torch.repeat_interleave(batch.slots, counts, output_size=qkv.shape[0])
        blocks = batch.tables[slots, batch.positions // self.block_size]
        offsets = batch.positions % self.block_size
        cache.keys[blocks, :, offsets] = rotated[:, -kv_heads:]
        cache.values[blocks, :, offsets] = heads[:, -kv_heads:]
        return rotated[:, :-kv_heads].contiguous()

    def attend(self, q: Tensor, batch: Batch, cache: TorchCache) -> Tensor:
        """See `Ops`. One sequence after another, in float32."""
        tokens, _, head_dim = q.shape
        kv_heads = cache.keys.shape[1]
        wide = q.float().view(tokens, kv_heads, -1, head_dim) * head_dim**-0.5
        out = torch.empty_like(wide)
        starts, contexts, slots = batch.query_start.tolist(), batch.context.tolist(), batch.slots.tolist()
        for start, end, context, slot in zip(starts, starts[1:], contexts, slots, strict=False):
            blocks = batch.tables[slot, : -(-context // self.block_size)]
            # (G, context, D)
            keys = cache.keys[blocks].transpose(0, 1).flatten(1, 2)[:, :context].float()
            values = cache.values[blocks].transpose(0, 1).flatten(1, 2)[:, :context].float()
            scores = torch.einsum("tghd,gcd->tghc", wide[start:end], keys)
            later = torch.arange(context, device=q.device) > batch.positions[start:end, None]
            weights = scores.masked_fill_(later[:, None, None], -torch.inf).softmax(-1)
            out[start:end] = torch.einsum("tghc,gcd->tghd", weights, values)
        return out.view(tokens, -1).to(q.dtype)

    def layers(self, *_model: object) -> None:
        """See `Ops`: operation by operation."""

    def copy_blocks(self, caches: list[TorchCache], copies: tuple[tuple[int, int], ...]) -> None:
        """See `Ops`."""
        if copies:
            source, target = torch.tensor(copies, device=self.device).unbind(-1)
            for cache in caches:
                cache.keys[target] = cache.keys[source]
                cache.values[target] = cache.values[source]


def _rotate(heads: Tensor, positions: Tensor, rotary: Rotary) -> Tensor:
    """Rotate (T, heads, D), each to its position: (a, b) becomes (a cos - b sin, b cos + a sin)."""
    first, second = heads.float().chunk(2, dim=-1)
    cos, sin = rotary.cos[positions, None], rotary.sin[positions, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(heads.dtype)
