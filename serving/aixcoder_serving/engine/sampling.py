"""Random choice by a generator of the request's own: one request's seed neither sees nor disturbs another's."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from aixcoder_serving.engine.interface import Sampling

_LEAST_TEMPERATURE = 1e-4  # below, logits overflow and the choice is the greedy one anyway


class _Choose(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Draws the token and leaves it as the only possible one, so that transformers' greedy search takes it."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores`: (1, vocabulary) logits."""
        chances = torch.softmax(scores.float(), dim=-1).cpu()
        token = torch.multinomial(chances, 1, generator=self._generator).to(scores.device)
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)


def processors(sampling: Sampling) -> LogitsProcessorList:
    """What changes the logits of each step; nothing where the request is greedy."""
    chain = LogitsProcessorList()
    if sampling.temperature < _LEAST_TEMPERATURE:
        return chain
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    if sampling.temperature != 1:
        chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(float(sampling.top_p)))
    chain.append(_Choose(generator))
    return chain
