"""What can never run is refused before it is queued, so that a bad request harms only itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aixcoder_serving.engine.interface import RequestRefused, Sampling


def validate(prompt: Sequence[int], sampling: Sampling, *, vocabulary_size: int, max_length: int) -> None:
    """Raise `RequestRefused` where a request can not run; lengths are in tokens."""
    if not prompt:
        raise RequestRefused("the prompt is empty: give at least one token", "prompt")
    bad = next((i for i in prompt if not 0 <= i < vocabulary_size), None)
    if bad is not None:
        raise RequestRefused(f"token id {bad} is not in 0..{vocabulary_size - 1}", "prompt")
    if sampling.max_tokens < 0:
        raise RequestRefused(f"max_tokens is {sampling.max_tokens}: give 0 or more", "max_tokens")
    if len(prompt) + sampling.max_tokens > max_length:
        raise RequestRefused(
            f"{len(prompt)} prompt tokens and max_tokens {sampling.max_tokens} are more than the {max_length} "
            "that this model is served with: shorten the prompt or ask for less",
            "prompt" if len(prompt) >= max_length else "max_tokens",
        )
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise RequestRefused(f"temperature is {sampling.temperature}: give a number from 0 on", "sampling")
    if not 0 < sampling.top_p <= 1:
        raise RequestRefused(f"top_p is {sampling.top_p}: give more than 0 and at most 1", "sampling")
    if any(not text for text in sampling.stop):
        raise RequestRefused("a stop string is empty: leave it out", "sampling")
