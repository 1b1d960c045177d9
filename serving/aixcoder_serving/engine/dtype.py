"""The number format where `auto` is asked for: what the checkpoint has, unless this processor is slow at it."""

from __future__ import annotations

import time
from typing import Literal

import torch

Dtype = Literal["bfloat16", "float16", "float32"]


def choose(device: str, checkpoint: str | None) -> Dtype:
    """Look at checkpoint and processor. Processor flags do not tell: bf16 may be there and 150 times slower."""
    wanted: Dtype = checkpoint if checkpoint in ("bfloat16", "float16") else "float32"  # type: ignore[assignment]
    if wanted == "float32":
        return wanted
    if device == "cuda":
        return wanted if wanted == "float16" or torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if _seconds(torch.bfloat16) <= _seconds(torch.float32) else "float32"


def _seconds(dtype: torch.dtype, rows: int = 64, width: int = 1024) -> float:
    """The better of two timed matrix products, after one to warm up."""
    a, b = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
    a @ b
    times = []
    for _ in range(2):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
