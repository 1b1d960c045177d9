"""From a model's folder to a rank that runs plans."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aixcoder_serving.engine import weights
from aixcoder_serving.engine.checkpoint import Checkpoint
from aixcoder_serving.engine.device import is_out_of_memory
from aixcoder_serving.engine.interface import EngineSettings, LoadFailed
from aixcoder_serving.engine.memory import available_bytes, cache_blocks, require, weight_bytes, workspace_bytes
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Collectives, Ops
from aixcoder_serving.engine.runner import Forward, Runner
from aixcoder_serving.engine.scheduler import MOST_ROWS

logger = logging.getLogger(__name__)

_MOST_TOKENS = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Loaded:
    """One rank, ready. `blocks` is the size of its cache, the same on every rank."""

    runner: Runner
    blocks: int


def most_tokens(settings: EngineSettings) -> int:
    """The query tokens that one step can hold."""
    return max(min(_MOST_TOKENS[settings.device], settings.max_model_length), settings.max_concurrent_sequences)


def load(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    collectives: Collectives,
    on_percent: Callable[[int], None],
    heartbeat: Callable[[], None],
) -> Loaded:
    """Load this rank's share; `settings.dtype` is not `auto`. Every rank calls it. Raises `LoadFailed`."""
    shape, rank, size = checkpoint.shape, collectives.rank, collectives.size
    ops = _ops(settings, rank)
    if rank == 0:
        logger.info("operations by %s", ops)
    mine = None if settings.device == "cpu" else rank  # on cpu the ranks share one container
    needed = weight_bytes(shape, settings.dtype, size, mine)
    workspace = workspace_bytes(
        shape, settings.dtype, size, most_tokens(settings), max(MOST_ROWS, settings.max_concurrent_sequences)
    ) * (size if mine is None else 1)
    free, where = _free(settings, rank)
    require(weights=needed, workspace=workspace, available=free, where=where)
    block_bytes = ops.cache_bytes(shape.layers, 1, shape.kv_heads // size, shape.head_dim)
    blocks = cache_blocks(settings, block_bytes, free - needed - workspace)
    # All have the same; on cpu they look at the same memory at different times.
    counts = collectives.all_gather(torch.tensor([blocks], dtype=torch.int64, device=ops.device))
    blocks = int(counts[0] if settings.device == "cpu" else counts.min())
    try:
        share = weights.load(checkpoint, ops, rank, size, on_percent)
        model = LlamaModel(shape, ops, collectives, share, settings.max_model_length, heartbeat)
        runner = Runner(
            model,
            ops,
            collectives,
            vocabulary_size=shape.vocabulary_size,
            blocks=blocks,
            slots=settings.max_concurrent_sequences,
            max_length=settings.max_model_length,
            graphed=_graphed(settings),
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise LoadFailed("OutOfMemory", f"{where} has too little memory for rank {rank} of {size}") from error
    return Loaded(runner, blocks)


def _ops(settings: EngineSettings, rank: int) -> Ops:
    dtype: torch.dtype = getattr(torch, settings.dtype)
    if settings.device == "cpu":
        from aixcoder_serving.engine.cpu.ops import cpu_ops

        return cpu_ops(torch.device("cpu"), dtype, settings.block_size)
    from aixcoder_serving.engine.cuda.ops import CudaOps

    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    return CudaOps(device, dtype, settings.block_size)


def _graphed(settings: EngineSettings) -> Callable[[Forward, Tensor], Forward] | None:
    if settings.device == "cpu":
        return None
    from aixcoder_serving.engine.cuda.graphs import Graphs

    return Graphs


def _free(settings: EngineSettings, rank: int) -> tuple[int, str]:
    if settings.device == "cpu":
        return available_bytes(), "this container"
    free: int = torch.cuda.mem_get_info(rank)[0]
    return free, f"CUDA device {rank}"
