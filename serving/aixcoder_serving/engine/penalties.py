"""What a request adds to its logits before a token is chosen: bias, the ban of stop ids, penalties; on a slice each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.vocabulary import Slice


def add_bias(x: Tensor, bias: Iterable[tuple[int, float]], part: Slice) -> None:
    """Add to the logits x (rows,), in place; other slices' ids are skipped."""
    own = [(i - part.first, value) for i, value in bias if 0 <= i - part.first < part.rows]
    if own:
        ids, values = zip(*own, strict=True)
        x.index_add_(0, torch.tensor(ids, device=x.device), torch.tensor(values, dtype=x.dtype, device=x.device))


def ban(x: Tensor, ids: Iterable[int], part: Slice) -> None:
    """Make ids impossible in the logits x (rows,), in place; other slices' ids are skipped."""
    own = [i - part.first for i in ids if 0 <= i - part.first < part.rows]
    if own:
        x[torch.tensor(own, device=x.device)] = -torch.inf


def penalise(x: Tensor, tokens: Tensor, prompt_length: int, sampling: Sampling, part: Slice) -> None:
    """Apply the three penalties to the logits x (rows,), in place, as vLLM does.

    `tokens`: 1-d ids before the one to be chosen, `prompt_length` of them the prompt's. Repetition: ids of prompt and
    completion, positive logits divided, others multiplied. Then frequency by the count in the completion, and presence.
    """
    own = tokens.to(x.device, torch.int64) - part.first
    inside = (own >= 0) & (own < part.rows)
    if sampling.repetition_penalty != 1:
        ids = own[inside]
        old = x[ids]
        # An id that occurs twice is written twice, with the same value.
        x[ids] = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
    if sampling.frequency_penalty or sampling.presence_penalty:
        ids = own[prompt_length:][inside[prompt_length:]]
        counts = torch.zeros_like(x).index_add_(0, ids, x.new_ones(len(ids)))
        x[ids] = x[ids] - sampling.frequency_penalty * counts[ids] - sampling.presence_penalty
