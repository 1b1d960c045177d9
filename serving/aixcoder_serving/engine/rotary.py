"""Tables of rotary embedding (arXiv 2104.09864), computed in float32 as transformers computes them."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Rotary
from aixcoder_serving.engine.shape import LlamaShape, RopeScaling


def tables(shape: LlamaShape, positions: int, device: torch.device) -> Rotary:
    """For positions 0 to `positions` - 1."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    frequencies = _scaled(1.0 / shape.rope_theta**exponents, shape.rope_scaling)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies
    return Rotary(angles.cos().to(device), angles.sin().to(device))


def _scaled(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Llama 3: waves that turn often within the original context stay, those that hardly turn are stretched whole.

    The turns `low_freq_factor` and `high_freq_factor` bound a linear passage from one to the other.
    """
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_max_positions * frequencies / (2 * pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)
