"""Whether a model can fit at all, told before minutes of loading and before the kernel ends the process.

Sizes are bytes. On CPU all ranks share one container, on CUDA each has a device of its own.
"""

from __future__ import annotations

from pathlib import Path

from aixcoder_serving.engine.interface import EngineSettings, LoadFailed
from aixcoder_serving.engine.linear import parameters, vocabulary_range
from aixcoder_serving.engine.shape import LlamaShape

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GIB = 2**30


def weight_bytes(shape: LlamaShape, dtype: str, size: int = 1, rank: int | None = None) -> int:
    """Weights of one rank, or of all `size` ranks together. The first rank has the most."""
    ranks = range(size) if rank is None else (rank,)
    return sum(parameter.numbers for each in ranks for parameter in parameters(shape, each, size)) * _BYTES[dtype]


def workspace_bytes(shape: LlamaShape, dtype: str, size: int, tokens: int, rows: int) -> int:
    """What one rank needs for a step of `tokens` tokens with logits for `rows` of them, apart from weights and cache.

    Counted where most lives at once: in the middle of a layer the residual, the layer's input and twice the widest
    inner tensor; at the end the logits as computed, in float32, and once more for the sampler.
    """
    qkv = (shape.heads + 2 * shape.kv_heads) * shape.head_dim // size
    gate_up = 2 * shape.intermediate_size // size
    layer = tokens * (3 * shape.hidden_size + 2 * max(qkv, gate_up)) * _BYTES[dtype]
    logits = rows * len(vocabulary_range(shape.vocabulary_size, 0, size)) * (_BYTES[dtype] + 2 * 4)
    return layer + logits


def require(*, weights: int, available: int, where: str, workspace: int = 0) -> None:
    """Raise `LoadFailed` (OutOfMemory) where all of it is more than what is available."""
    needed = weights + workspace
    if needed <= available:
        return
    parts = {"the weights": weights, "one step": workspace}
    told = ", ".join(f"{what} {_gib(count)}" for what, count in parts.items() if count)
    raise LoadFailed(
        "OutOfMemory",
        f"the model needs {_gib(needed)} of memory ({told}) and {where} has {_gib(available)}: "
        "give it more memory or devices, or ask for a smaller number format or a shorter max_model_length",
    )


def cache_blocks(settings: EngineSettings, block_bytes: int, free: int) -> int:
    """How many blocks each rank's cache gets. Raises `LoadFailed` (OutOfMemory) where that is too few.

    `block_bytes`: one block on one rank, all layers. `free`: what is left after weights and workspace, of the rank's
    own device on CUDA, of the container for all ranks on CPU. `cache_tokens` is taken as it is. Otherwise CUDA gets
    90 % of what is free; CPU a quarter, which is shared with others, or less where the longest sequences that can run
    at once need less. One sequence of the full length always has room, and one block more to compute in.
    """
    size = settings.block_size
    ranks = settings.tensor_parallel_size if settings.device == "cpu" else 1
    fitting = max(free, 0) // (block_bytes * ranks)
    if settings.cache_tokens is not None:
        blocks = least = -(-settings.cache_tokens // size)
        what = f"cache_tokens {settings.cache_tokens}"
    else:
        least = -(-settings.max_model_length // size) + 1
        what = f"one sequence of max_model_length {settings.max_model_length}"
        if settings.device == "cuda":
            blocks = fitting * 9 // 10
        else:
            blocks = min(settings.max_concurrent_sequences * (least - 1) + 1, fitting // 4)
        blocks = max(blocks, least)
    if least > fitting:
        raise LoadFailed(
            "OutOfMemory",
            f"the cache for {what} needs {_gib(least * block_bytes * ranks)} of memory and {_gib(max(free, 0))} are "
            "free beside the weights: give it more memory, or ask for less",
        )
    return blocks


def available_bytes(root: Path = Path("/")) -> int:
    """What this container can still have: the page cache counts as free, the kernel gives it back when asked."""
    lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
    machine = next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    limit = _limit(root)
    if limit is None:
        return machine
    used = _read_number(root / _V2 / "memory.current") or _read_number(root / _V1 / "memory.usage_in_bytes") or 0
    return max(0, min(machine, limit - used + _reclaimable(root)))


_V2 = "sys/fs/cgroup"
_V1 = "sys/fs/cgroup/memory"


def _limit(root: Path) -> int | None:
    """The control group's limit; in version 1 no limit is a number beyond any memory."""
    for file in (root / _V2 / "memory.max", root / _V1 / "memory.limit_in_bytes"):
        if (number := _read_number(file)) is not None:
            return number
    return None


def _reclaimable(root: Path) -> int:
    """Pages of files in the control group; version 1 counts those of its children under `total_` names."""
    for folder, prefix in ((_V2, ""), (_V1, "total_")):
        file = root / folder / "memory.stat"
        if file.is_file():
            counts = dict(line.split() for line in file.read_text().splitlines())
            return sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return 0


def _read_number(file: Path) -> int | None:
    if not file.is_file() or (text := file.read_text().strip()) == "max":
        return None
    return int(text)


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.1f} MiB"
