"""What can never run is refused before it is queued, so that a bad request harms only itself."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Literal, NoReturn, SupportsIndex

from aixcoder_serving.engine.interface import RequestRefused, Sampling

_MOST_LOGPROBS = 20
_GREATEST_BIAS = 100.0
_GREATEST_PENALTY = 2.0
_LEAST_REPETITION, _GREATEST_REPETITION = 0.01, 100.0  # beyond, a logit may be no number any more


def validate(
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    vocabulary_size: int,
    max_length: int,
    draft: Sequence[int] = (),
    cache_tokens: int | None = None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return prompt and draft as plain ints, or raise `RequestRefused` where the request can not run.

    Lengths and `cache_tokens`, which is all that the cache holds, are in tokens.
    """
    if not len(prompt):
        raise RequestRefused("the prompt is empty: give at least one token", "prompt")
    ids = _ids(prompt, "prompt", vocabulary_size), _ids(draft, "draft", vocabulary_size)
    _check_length(len(prompt), sampling.max_tokens, max_length, cache_tokens)
    _integer("resumed", sampling.resumed, 0, len(prompt) - 1)
    _check_end(sampling)
    _check_choice(sampling, vocabulary_size)
    return ids


def _ids(given: Sequence[int], what: str, vocabulary_size: int) -> tuple[int, ...]:
    """Ids as ints. Those that are none are told by their place: prompts are users' code, which no error may hold."""
    plain = tuple(given)
    if not set(map(type, plain)) <= {int}:
        plain = tuple(_id(i, f"the {what}'s token {place}", "prompt") for place, i in enumerate(plain))
    if plain and not (min(plain) >= 0 and max(plain) < vocabulary_size):
        place = next(place for place, i in enumerate(plain) if not 0 <= i < vocabulary_size)
        raise RequestRefused(
            f"token id {plain[place]} is not in 0..{vocabulary_size - 1}: the {what}'s token {place}", "prompt"
        )
    return plain


def _id(given: SupportsIndex, what: str, parameter: Literal["prompt", "sampling"]) -> int:
    try:
        if isinstance(given, bool):
            raise TypeError
        return operator.index(given)
    except TypeError:
        raise RequestRefused(f"{what} is of type {type(given).__name__}: token ids are integers", parameter) from None


def _check_length(prompt: int, max_tokens: int, max_length: int, cache_tokens: int | None) -> None:
    _integer("max_tokens", max_tokens, 0, None, "max_tokens")
    wanted = f"{prompt} prompt tokens and max_tokens {max_tokens} are more than the"
    if prompt + max_tokens > max_length:
        raise RequestRefused(
            f"{wanted} {max_length} that this model is served with: shorten the prompt or ask for less",
            "prompt" if prompt >= max_length else "max_tokens",
        )
    if cache_tokens is not None and prompt + max_tokens > cache_tokens:
        raise RequestRefused(
            f"{wanted} {cache_tokens} that the whole cache holds: shorten the prompt, ask for less or serve the model "
            "with a larger cache",
            "prompt" if prompt >= cache_tokens else "max_tokens",
        )


def _check_end(sampling: Sampling) -> None:
    """What says when a completion ends."""
    _integer("min_tokens", sampling.min_tokens, 0, None)
    if sampling.min_tokens > sampling.max_tokens:
        _refuse(f"min_tokens is {sampling.min_tokens} and max_tokens {sampling.max_tokens}: give no more than that")
    for i in sampling.stop_ids:
        if _id(i, "a stop id", "sampling") < 0:
            _refuse(f"stop id {i} is negative: give ids of tokens")
    if not all(sampling.stop):
        _refuse("a stop string is empty: leave it out")
    _integer("n_indent", sampling.n_indent, 0, None)
    for name, limit in (("deadline_ms", sampling.deadline_ms), ("max_predict_ms", sampling.max_predict_ms)):
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            _refuse(f"{name} is {limit}: give more than 0 milliseconds, or leave it out")


def _check_choice(sampling: Sampling, vocabulary_size: int) -> None:
    """What says which token is chosen."""
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        _refuse(f"temperature is {sampling.temperature}: give a number from 0 on")
    if not 0 < sampling.top_p <= 1:
        _refuse(f"top_p is {sampling.top_p}: give more than 0 and at most 1")
    _integer("top_k", sampling.top_k, 0, None)
    if not 0 <= sampling.min_p <= 1:
        _refuse(f"min_p is {sampling.min_p}: give a number from 0 to 1")
    if sampling.seed is not None:
        _integer("seed", sampling.seed, -(2**63), 2**63 - 1)
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = getattr(sampling, name)
        if not -_GREATEST_PENALTY <= penalty <= _GREATEST_PENALTY:
            _refuse(f"{name} is {penalty}: give a number from {-_GREATEST_PENALTY} to {_GREATEST_PENALTY}")
    if not _LEAST_REPETITION <= sampling.repetition_penalty <= _GREATEST_REPETITION:
        _refuse(
            f"repetition_penalty is {sampling.repetition_penalty}: give a number from {_LEAST_REPETITION} to "
            f"{_GREATEST_REPETITION:g}; 1 changes nothing"
        )
    if sampling.min_tokens and not sampling.ignore_eos and len(sampling.stop_ids) >= vocabulary_size:
        _refuse("min_tokens forbids the stop ids, which are all ids: give fewer")
    for i, bias in sampling.logit_bias:
        if not 0 <= _id(i, "an id of logit_bias", "sampling") < vocabulary_size:
            _refuse(f"logit_bias names the token id {i}, which is not in 0..{vocabulary_size - 1}")
        if not -_GREATEST_BIAS <= bias <= _GREATEST_BIAS:
            _refuse(f"logit_bias of token id {i} is {bias}: give a number from {-_GREATEST_BIAS} to {_GREATEST_BIAS}")
    for name in ("logprobs", "prompt_logprobs"):
        number = getattr(sampling, name)
        if number is not None:
            _integer(name, number, 0, _MOST_LOGPROBS)


def _integer(
    name: str,
    value: object,
    least: int,
    most: int | None,
    parameter: Literal["max_tokens", "sampling"] = "sampling",
) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"an integer from {least} to {most}"
        raise RequestRefused(f"{name} is {value}: give {allowed}", parameter)


def _refuse(message: str) -> NoReturn:
    raise RequestRefused(message, "sampling")
