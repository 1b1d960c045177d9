"""A rank's weights, read from the checkpoint's files: only its own slices, one after the other."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from aixcoder_serving.engine.checkpoint import Checkpoint
from aixcoder_serving.engine.device import is_out_of_memory
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.linear import Parameter, Piece, parameters
from aixcoder_serving.engine.ops import Ops
from aixcoder_serving.engine.tensorfile import TensorFile


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Norms (hidden,) plain, the others packed: qkv is q over k over v, gate_up is gate over up."""

    input_norm: Tensor
    qkv: Any
    o: Any
    post_norm: Tensor
    gate_up: Any
    down: Any


@dataclass(frozen=True, slots=True)
class Weights:
    """Embedding (ids of this rank, hidden) and norm (hidden,) plain; head packed, None where the rank has no ids."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Any


def load(
    checkpoint: Checkpoint,
    ops: Ops,
    rank: int,
    size: int,
    on_percent: Callable[[int], None] = lambda _percent: None,
) -> Weights:
    """Read and pack this rank's slices. Raises `LoadFailed`: ModelInvalid or OutOfMemory.

    Packing holds a weight twice. The largest come first and those that are not packed last, so that the second copy
    takes room that is filled later: there is never more in memory than in the end, where no weight is larger than the
    rest of them.
    """
    wanted = parameters(checkpoint.shape, rank, size)
    total, done = sum(parameter.numbers for parameter in wanted), 0
    made: dict[tuple[int | None, str], Any] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(closing(TensorFile(path))) for path in checkpoint.files]
        holders = {name: file for file in files for name in file.tensors}
        _check((piece for parameter in wanted for piece in parameter.pieces), holders, checkpoint)
        on_percent(0)
        for parameter in sorted(wanted, key=lambda each: (not each.packed, -each.numbers)):
            try:
                made[parameter.layer, parameter.name] = _make(parameter, holders, ops)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise LoadFailed(
                    "OutOfMemory", f"the weights do not fit: {done * 100 // total} % are loaded"
                ) from error
            done += parameter.numbers
            on_percent(done * 100 // total)
    layers = range(checkpoint.shape.layers)
    return Weights(
        embedding=made[None, "embedding"],
        layers=tuple(LayerWeights(**{name: made[n, name] for name in LayerWeights.__slots__}) for n in layers),
        norm=made[None, "norm"],
        head=made[None, "head"],
    )


def _check(pieces: Iterable[Piece], holders: Mapping[str, TensorFile], checkpoint: Checkpoint) -> None:
    """That each tensor is there, of the shape that config.json says and a format that can be read."""
    for piece in pieces:
        if piece.tensor not in holders:
            names = ", ".join(file.name for file in checkpoint.files[:3]) + ", …" * (len(checkpoint.files) > 3)
            raise LoadFailed("ModelInvalid", f"{checkpoint.path} lacks the tensor {piece.tensor}: it is not in {names}")
        file = holders[piece.tensor]
        file.dtype(piece.tensor)
        if (found := file.tensors[piece.tensor].shape) != piece.shape:
            raise LoadFailed(
                "ModelInvalid",
                f"{file.path} has {piece.tensor} of shape {list(found)}; by config.json it is {list(piece.shape)}",
            )


def _make(parameter: Parameter, holders: Mapping[str, TensorFile], ops: Ops) -> Any:
    weight = _outside_the_heap(parameter.shape, ops.dtype)
    row = 0
    for piece in parameter.pieces:
        target = weight[row : row + len(piece.rows)]
        holders[piece.tensor].read(piece.tensor, piece.rows, piece.columns, target)
        row += len(piece.rows)
    weight = weight.to(ops.device)
    if not parameter.packed:
        return weight
    return ops.pack(weight) if weight.numel() else None


def _outside_the_heap(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory the system has back at once when it is dropped.

    Where packing drops every other buffer, the heap would keep them as holes between those that stay.
    """
    count = prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)
