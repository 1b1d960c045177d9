"""The number format where `auto` is asked for: what the checkpoint has, unless this processor is slow at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch

from aixcoder_serving.engine.cpu.ops import cpu_ops

Dtype = Literal["bfloat16", "float16", "float32"]

# Rows of a keystroke's step; a weight of 8 or 16 MiB, which no core's own cache holds.
_ROWS, _WIDTH, _REPEATS = 32, 2048, 3


def choose(device: str, checkpoint: str | None) -> Dtype:
    """Look at checkpoint and processor; call it where the engine's threads are already set.

    Processor flags do not tell: bf16 may be there and 150 times slower.
    """
    wanted: Dtype = checkpoint if checkpoint in ("bfloat16", "float16") else "float32"  # type: ignore[assignment]
    if wanted == "float32":
        return wanted
    if device == "cuda":
        return wanted if wanted == "float16" or torch.cuda.is_bf16_supported() else "float16"
    bfloat16, float32 = product_seconds(torch.bfloat16, torch.float32)
    return "bfloat16" if bfloat16 <= float32 else "float32"


def product_seconds(*dtypes: torch.dtype) -> list[float]:
    """The best time of the engine's own matrix product in each format; turn by turn, so that all meet the same load."""
    products = [_product(dtype) for dtype in dtypes]
    times: list[list[float]] = [[] for _ in products]
    for _ in range(_REPEATS):
        for product, taken in zip(products, times, strict=True):
            start = time.perf_counter()
            product()
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def _product(dtype: torch.dtype) -> Callable[[], object]:
    """Run once already, for whatever is made at the first call."""
    ops = cpu_ops(torch.device("cpu"), dtype, 16)
    x, weight = torch.ones(_ROWS, _WIDTH, dtype=dtype), ops.pack(torch.ones(_WIDTH, _WIDTH, dtype=dtype))
    ops.linear(x, weight)
    return lambda: ops.linear(x, weight)
