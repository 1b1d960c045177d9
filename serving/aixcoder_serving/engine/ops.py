"""What a device must be able to do: the operations of which the model's forward pass is made.

Shapes: T query tokens of S sequences in one step, H query heads and G key/value heads of dimension D on this rank.
Activations are (T, width), contiguous, of the engine's dtype. Each row's result depends on that row alone, in the same
order of additions however many rows there are: then a request's output depends on no other request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from aixcoder_serving.engine.weights import LayerWeights


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of one step.

    ids: (T,) int64. positions: (T,) int32. query_start: (S + 1,) int32, where each sequence's tokens begin in T.
    context: (S,) int32, tokens of each sequence with the ones of this step. slots: (S,) int32, rows of `tables`:
    (slots, blocks) int32, which block holds the positions i * block_size and after. logits_rows: (R,) int64, the rows
    of T whose logits are wanted. Tensors are on the engine's device.
    """

    ids: Tensor
    positions: Tensor
    query_start: Tensor
    context: Tensor
    slots: Tensor
    tables: Tensor
    logits_rows: Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Cosines and sines of rotary embedding: each (positions, D / 2) float32, for pairs (i, i + D / 2)."""

    cos: Tensor
    sin: Tensor


class Collectives(Protocol):
    """Between the ranks of one engine. Each call is made by every rank in the same order, or none returns.

    Raises `ranks.RankLost` where a rank is dead or frozen.
    """

    rank: int
    size: int

    def beat(self) -> None:
        """Show that this rank moves; to be called more often than every second."""
        ...

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over all ranks, added in the order of ranks; may be `x` itself, overwritten."""
        ...

    def all_gather(self, x: Tensor) -> Tensor:
        """(size, *x.shape): every rank's tensor, in the order of ranks."""
        ...


class Layers(Protocol):
    """All layers of a model that is not split."""

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, count: int, heartbeat: Callable[[], None]) -> Tensor:
        """Run the first `count` of them on x (T, hidden), the normed residual, which they add to in place.

        Returns the residual normed for what follows. `heartbeat` is called before each.
        """
        ...


class Ops(Protocol):
    """One device. A packed weight and a layer's cache are opaque to everybody else."""

    device: torch.device
    dtype: torch.dtype
    block_size: int

    def pack(self, weight: Tensor) -> Any:
        """A weight (N, K) in the form in which this device multiplies fastest; the caller drops the original."""
        ...

    def linear(self, x: Tensor, weight: Any) -> Tensor:
        """Multiply x (T, K) by the packed weight's transpose: (T, N)."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x / sqrt(mean(x²) + eps), in float32, rounded to the dtype, times weight (width,), as transformers."""
        ...

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Adds x to `residual` in place; returns `rms_norm` of that."""
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """(T, 2 N), gate in the first half: silu(gate) * up, (T, N)."""
        ...

    def new_cache(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> list[Any]:
        """An empty cache for each layer."""
        ...

    def cache_bytes(self, layers: int, blocks: int, kv_heads: int, head_dim: int) -> int:
        """What `new_cache` would take."""
        ...

    def rope_and_store(self, qkv: Tensor, batch: Batch, cache: Any, rotary: Rotary, kv_heads: int) -> Tensor:
        """Of qkv (T, (H + 2 G) D) rotate q and k, store k and v in the cache, return q (T, H, D)."""
        ...

    def attend(self, q: Tensor, batch: Batch, cache: Any) -> Tensor:
        """Causal attention over the cache, scale D ** -0.5: (T, H * D)."""
        ...

    def layers(
        self, weights: Sequence[LayerWeights], norm: Tensor, caches: list[Any], rotary: Rotary, eps: float
    ) -> Layers | None:
        """A model's layers, each as one call with the same bits as operation by operation; None where it has no such.

        `norm` is what follows the last one.
        """
        ...

    def copy_blocks(self, caches: list[Any], copies: tuple[tuple[int, int], ...]) -> None:
        """Copies whole blocks, (from, to), in every layer."""
        ...
