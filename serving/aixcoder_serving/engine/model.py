"""The forward pass of Llama on one rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from aixcoder_serving.engine import rotary
from aixcoder_serving.engine.linear import vocabulary_range
from aixcoder_serving.engine.ops import Batch, Collectives, Layers, Ops
from aixcoder_serving.engine.shape import LlamaShape
from aixcoder_serving.engine.weights import Weights


class LlamaModel:
    """A rank has its share of the heads, of the intermediate columns and of the ids; all ranks run the same batches.

    T tokens of a step, R of them whose logits are wanted.
    """

    def __init__(
        self,
        shape: LlamaShape,
        ops: Ops,
        collectives: Collectives,
        weights: Weights,
        max_length: int,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Run sequences of up to `max_length` tokens; `heartbeat` is called once a layer."""
        self._ops = ops
        self._collectives = collectives
        self._weights = weights
        self._heartbeat = heartbeat
        self._layers = shape.layers
        self._kv_heads = shape.kv_heads // collectives.size
        self._head_dim = shape.head_dim
        self._eps = shape.rms_norm_eps
        self._rotary = rotary.tables(shape, max_length, ops.device)
        self._stacked: tuple[Sequence[Any], Layers | None] = (), None
        self.vocabulary = vocabulary_range(shape.vocabulary_size, collectives.rank, collectives.size)

    def new_cache(self, blocks: int) -> list[Any]:
        """Keys and values of this rank's heads, for each layer."""
        return self._ops.new_cache(self._layers, blocks, self._kv_heads, self._head_dim)

    @torch.inference_mode()
    def forward(self, batch: Batch, caches: Sequence[Any]) -> Tensor:
        """(R, hidden) after the last norm, of the rows `batch.logits_rows`; keys and values of all T go to the caches.

        Those rows ascend and are, of each sequence, its last ones of this step; there may be none.
        """
        ops, weights, eps = self._ops, self._weights, self._eps
        last = weights.layers[-1]
        next_norms = (*(layer.input_norm for layer in weights.layers[1:]), weights.norm)
        residual = self._embed(batch.ids)
        x = ops.rms_norm(residual, weights.layers[0].input_norm, eps)
        narrow = len(batch.logits_rows) < len(batch.ids)
        done = 0
        if (stacked := self._layers_on(caches)) is not None:
            done = self._layers - narrow
            x = stacked(x, residual, batch, done, self._heartbeat)
        for layer, cache, next_norm in list(zip(weights.layers, caches, next_norms, strict=True))[done:]:
            self._heartbeat()
            q = ops.rope_and_store(ops.linear(x, layer.qkv), batch, cache, self._rotary, self._kv_heads)
            if layer is last and narrow:
                q, residual, batch = _only_logits_rows(q, residual, batch)
                if not len(batch.ids):
                    return residual
            x = self._sum(ops.linear(ops.attend(q, batch, cache), layer.o))
            x = ops.add_rms_norm(x, residual, layer.post_norm, eps)
            x = self._sum(ops.linear(ops.silu_mul(ops.linear(x, layer.gate_up)), layer.down))
            x = ops.add_rms_norm(x, residual, next_norm, eps)
        return x

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Of `forward`'s (R, hidden), float32: (R, ids of this rank), column i for the id `vocabulary[i]`."""
        if not self.vocabulary:
            return hidden.new_empty(len(hidden), 0, dtype=torch.float32)
        return self._ops.linear(hidden, self._weights.head).float()

    def _layers_on(self, caches: Sequence[Any]) -> Layers | None:
        """Layers that need no other rank, where the device has them as one call each."""
        if self._collectives.size > 1:
            return None
        if self._stacked[0] is not caches:
            weights = self._weights
            made = self._ops.layers(weights.layers, weights.norm, list(caches), self._rotary, self._eps)
            self._stacked = caches, made
        return self._stacked[1]

    def _embed(self, ids: Tensor) -> Tensor:
        """(T, hidden). A rank adds zeros for the ids of others."""
        if self._collectives.size == 1:
            return functional.embedding(ids, self._weights.embedding)
        if not self.vocabulary:
            mine = self._weights.embedding.new_zeros(len(ids), self._weights.embedding.shape[1])
            return self._collectives.all_reduce(mine)
        rows = ids - self.vocabulary.start
        others = (rows < 0) | (rows >= len(self.vocabulary))
        mine = functional.embedding(rows.masked_fill(others, 0), self._weights.embedding)
        return self._collectives.all_reduce(mine.masked_fill_(others[:, None], 0))

    def _sum(self, x: Tensor) -> Tensor:
        return x if self._collectives.size == 1 else self._collectives.all_reduce(x)


def _only_logits_rows(q: Tensor, residual: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Batch]:
    """What the last layer goes on with once all keys and values are stored: fewer queries of the same sequences."""
    rows = batch.logits_rows
    narrow = replace(
        batch,
        ids=batch.ids[rows],
        positions=batch.positions[rows],
        query_start=torch.searchsorted(rows, batch.query_start, out_int32=True),
    )
    return q[rows], residual[rows], narrow
