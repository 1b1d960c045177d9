"""Whether a model can fit at all, told before minutes of loading and before the kernel ends the process."""

from __future__ import annotations

from pathlib import Path

from aixcoder_serving.engine.checkpoint import Checkpoint
from aixcoder_serving.engine.interface import LoadFailed

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_GIB = 2**30


def require(checkpoint: Checkpoint, dtype: str, available: int, where: str) -> None:
    """Raise `LoadFailed` (OutOfMemory) where the weights alone, as `dtype`, are more than `available` bytes."""
    needed = checkpoint.weight_bytes * _BYTES[dtype] // _BYTES.get(checkpoint.dtype or "", 4)
    if needed > available:
        raise LoadFailed(
            "OutOfMemory",
            f"the weights need {needed / _GIB:.1f} GiB as {dtype} and {where} has {available / _GIB:.1f} GiB: "
            "give it more memory or devices",
        )


def host_bytes(root: Path = Path("/")) -> int:
    """Memory of this container, or of the machine where no limit is set: what can never be exceeded."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    container = root / "sys/fs/cgroup/memory.max"
    if container.is_file() and (text := container.read_text().strip()) != "max":
        limits.append(int(text))
    return min(limits)
