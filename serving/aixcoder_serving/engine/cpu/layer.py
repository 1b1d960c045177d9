"""Layers as one native call each: what a rank without others to talk to runs in a step."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Batch, Rotary

if TYPE_CHECKING:
    from aixcoder_serving.engine.cpu.ops import BlockCache
    from aixcoder_serving.engine.weights import LayerWeights

_P, _L, _I, _F = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float


class _Layer(ctypes.Structure):
    """`Layer` of layer.cpp."""

    _fields_ = (
        *((name, _P) for name in ("qkv", "o", "post_norm", "gate_up", "down", "next_norm", "cache", "cos", "sin")),
        *((name, _L) for name in ("hidden", "heads", "kv_heads", "head_dim", "intermediate", "block_size")),
        ("eps", _F),
        ("bf16", _I),
    )


class Layers:
    """See `Ops.layers`. Holds what the native side points to."""

    def __init__(
        self,
        library: ctypes.CDLL,
        layers: Sequence[LayerWeights],
        norm: Tensor,
        caches: Sequence[BlockCache],
        rotary: Rotary,
        block_size: int,
        eps: float,
    ) -> None:
        self._run = library.aix_layer
        self._held = layers, norm, caches, rotary
        next_norms = (*(layer.input_norm for layer in layers[1:]), norm)
        self._layers = [
            _Layer(
                layer.qkv.data.data_ptr(), layer.o.data.data_ptr(), layer.post_norm.data_ptr(),
                layer.gate_up.data.data_ptr(), layer.down.data.data_ptr(), next_norm.data_ptr(),
                cache.data.data_ptr(), rotary.cos.data_ptr(), rotary.sin.data_ptr(),
                layer.o.rows, layer.o.width // cache.head_dim, cache.kv_heads, cache.head_dim, layer.down.width,
                block_size, eps, int(norm.dtype == torch.bfloat16),
            )
            for layer, next_norm, cache in zip(layers, next_norms, caches, strict=True)
        ]  # fmt: skip
        self._pointers = [ctypes.addressof(layer) for layer in self._layers]

    def __call__(self, x: Tensor, residual: Tensor, batch: Batch, count: int, heartbeat: Callable[[], None]) -> Tensor:
        """See `Ops.layers`."""
        out = torch.empty_like(x)
        where = sequences(batch)
        source, total, target = x.data_ptr(), residual.data_ptr(), out.data_ptr()
        for pointer in self._pointers[:count]:
            heartbeat()
            self._run(pointer, source, total, target, *where)
            source = target
        return out if count else x


def sequences(batch: Batch) -> tuple[int, ...]:
    """What describes a step to the library: positions, query_start, slots, tables; tokens, sequences, table width."""
    tables = batch.tables
    return (
        batch.positions.data_ptr(), batch.query_start.data_ptr(), batch.slots.data_ptr(), tables.data_ptr(),
        batch.positions.shape[0], batch.slots.shape[0], tables.stride(0),
    )  # fmt: skip
