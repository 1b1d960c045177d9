import math
from typing import Any

import numpy as np
import pytest
import torch

from aixcoder_serving.engine.interface import RequestRefused, Sampling
from aixcoder_serving.engine.validation import validate


@pytest.mark.parametrize(
    ("prompt", "sampling", "parameter", "message"),
    [
        ([], {}, "prompt", "the prompt is empty: give at least one token"),
        ([1, 2048], {}, "prompt", r"token id 2048 is not in 0\.\.2047: the prompt's token 1"),
        ([-1, 1], {}, "prompt", r"token id -1 is not in 0\.\.2047: the prompt's token 0"),
        ([1, True], {}, "prompt", "the prompt's token 1 is of type bool: token ids are integers"),
        ([1.0], {}, "prompt", "the prompt's token 0 is of type float"),
        (["1"], {}, "prompt", "the prompt's token 0 is of type str"),
        ([None], {}, "prompt", "the prompt's token 0 is of type NoneType"),
        ([np.int64(2048)], {}, "prompt", "token id 2048 is not in"),
        ([1] * 65, {"max_tokens": 0}, "prompt", "65 prompt tokens and max_tokens 0 are more than the 64"),
        ([1] * 60, {"max_tokens": 5}, "max_tokens", "60 prompt tokens and max_tokens 5 are more than the 64"),
        ([1], {"max_tokens": -1}, "max_tokens", "max_tokens is -1: give 0 or more"),
        ([1], {"max_tokens": 1.5}, "max_tokens", "max_tokens is 1.5: give 0 or more"),
        ([1], {"min_tokens": -1}, "sampling", "min_tokens is -1: give 0 or more"),
        ([1], {"min_tokens": 5}, "sampling", "min_tokens is 5 and max_tokens 4: give no more than that"),
        ([1], {"temperature": math.nan}, "sampling", "temperature is nan: give a number from 0 on"),
        ([1], {"temperature": math.inf}, "sampling", "temperature is inf"),
        ([1], {"temperature": -0.1}, "sampling", "temperature is -0.1"),
        ([1], {"top_p": 0.0}, "sampling", "top_p is 0.0: give more than 0 and at most 1"),
        ([1], {"top_p": 1.1}, "sampling", "top_p is 1.1"),
        ([1], {"top_p": math.nan}, "sampling", "top_p is nan"),
        ([1], {"top_k": -1}, "sampling", "top_k is -1: give 0 or more"),
        ([1], {"top_k": 1.5}, "sampling", "top_k is 1.5"),
        ([1], {"min_p": -0.1}, "sampling", "min_p is -0.1: give a number from 0 to 1"),
        ([1], {"min_p": 1.1}, "sampling", "min_p is 1.1"),
        ([1], {"min_p": math.nan}, "sampling", "min_p is nan"),
        ([1], {"seed": 2**63}, "sampling", "seed is 9223372036854775808: give an integer from -9223372036854775808"),
        ([1], {"seed": -(2**63) - 1}, "sampling", "seed is -9223372036854775809"),
        ([1], {"seed": 1.0}, "sampling", "seed is 1.0"),
        ([1], {"presence_penalty": 2.1}, "sampling", r"presence_penalty is 2.1: give a number from -2.0 to 2.0"),
        ([1], {"presence_penalty": math.nan}, "sampling", "presence_penalty is nan"),
        ([1], {"frequency_penalty": -2.1}, "sampling", "frequency_penalty is -2.1"),
        ([1], {"frequency_penalty": math.inf}, "sampling", "frequency_penalty is inf"),
        ([1], {"repetition_penalty": 0.0}, "sampling", "repetition_penalty is 0.0: give a number from 0.01"),
        ([1], {"repetition_penalty": 1e-300}, "sampling", "repetition_penalty is 1e-300"),
        (
            [1],
            {"min_tokens": 1, "stop_ids": frozenset(range(100_000))},
            "sampling",
            "min_tokens forbids the stop ids, which are all ids",
        ),
        ([1], {"repetition_penalty": math.inf}, "sampling", "repetition_penalty is inf"),
        ([1], {"repetition_penalty": math.nan}, "sampling", "repetition_penalty is nan"),
        (
            [1],
            {"logit_bias": ((2048, 1.0),)},
            "sampling",
            r"logit_bias names the token id 2048, which is not in 0..2047",
        ),
        ([1], {"logit_bias": ((-1, 1.0),)}, "sampling", "logit_bias names the token id -1"),
        ([1], {"logit_bias": (("7", 1.0),)}, "sampling", "an id of logit_bias is of type str: token ids are integers"),
        ([1], {"logit_bias": ((1, math.nan),)}, "sampling", "logit_bias of token id 1 is nan"),
        (
            [1],
            {"logit_bias": ((1, 100.5),)},
            "sampling",
            "logit_bias of token id 1 is 100.5: give a number from -100.0",
        ),
        ([1], {"logprobs": -1}, "sampling", "logprobs is -1: give an integer from 0 to 20"),
        ([1], {"logprobs": 21}, "sampling", "logprobs is 21"),
        ([1], {"prompt_logprobs": 21}, "sampling", "prompt_logprobs is 21"),
        ([1], {"logprobs": True}, "sampling", "logprobs is True"),
        ([1], {"stop_ids": frozenset({-1})}, "sampling", "stop id -1 is negative"),
        ([1], {"stop_ids": frozenset({1.5})}, "sampling", "a stop id is of type float"),
        ([1], {"stop": ("a", "")}, "sampling", "a stop string is empty: leave it out"),
        ([1], {"n_indent": -1}, "sampling", "n_indent is -1: give 0 or more"),
        ([1], {"deadline_ms": 0.0}, "sampling", "deadline_ms is 0.0: give more than 0 milliseconds"),
        ([1], {"deadline_ms": math.nan}, "sampling", "deadline_ms is nan"),
        ([1], {"deadline_ms": math.inf}, "sampling", "deadline_ms is inf"),
        ([1], {"max_predict_ms": -5.0}, "sampling", "max_predict_ms is -5.0"),
        ([1], {"max_predict_ms": math.nan}, "sampling", "max_predict_ms is nan"),
    ],
)
def test_refused(prompt: list[int], sampling: dict[str, Any], parameter: str, message: str) -> None:
    with pytest.raises(RequestRefused, match=message) as refused:
        validate(prompt, Sampling(**{"max_tokens": 4, **sampling}), vocabulary_size=2048, max_length=64)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 0},
        {"max_tokens": 62},
        {"min_tokens": 4},
        {"temperature": 1e300, "top_p": 1e-9, "top_k": 10**9, "min_p": 1.0, "seed": -(2**63)},
        {"temperature": 1, "top_p": 1, "min_p": 0, "seed": 2**63 - 1},
        {"presence_penalty": -2.0, "frequency_penalty": 2, "repetition_penalty": 0.01},
        {"logit_bias": ((0, -100), (2047, 100.0)), "logprobs": 0, "prompt_logprobs": 20},
        {"stop_ids": frozenset({0, 10**9}), "stop": ("x",), "n_indent": 0, "deadline_ms": 0.5, "max_predict_ms": 1e9},
    ],
)
def test_allowed(sampling: dict[str, Any]) -> None:
    validate([0, 2047], Sampling(**{"max_tokens": 4, **sampling}), vocabulary_size=2048, max_length=64)


@pytest.mark.parametrize(
    "ids",
    [(3, 5), [3, 5], range(3, 6, 2), np.array([3, 5]), [np.int32(3), 5], torch.tensor([3, 5])],
    ids=["tuple", "list", "range", "numpy", "numpy among ints", "torch"],
)
def test_ids_become_ints(ids: Any) -> None:
    prompt, draft = validate(ids, Sampling(max_tokens=4), vocabulary_size=6, max_length=64, draft=ids)
    assert prompt == draft == (3, 5)
    assert {type(i) for i in prompt + draft} == {int}


def test_a_draft_is_of_the_vocabulary() -> None:
    with pytest.raises(RequestRefused, match=r"token id 6 is not in 0\.\.5: the draft's token 1") as refused:
        validate([1], Sampling(max_tokens=4), vocabulary_size=6, max_length=64, draft=[0, 6])
    assert refused.value.parameter == "prompt"


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "parameter"), [(32, 0, None), (28, 4, None), (28, 5, "max_tokens"), (33, 0, "prompt")]
)
def test_what_the_whole_cache_cannot_hold(prompt: int, max_tokens: int, parameter: str | None) -> None:
    wish = Sampling(max_tokens=max_tokens)
    if parameter is None:
        validate([1] * prompt, wish, vocabulary_size=6, max_length=64, cache_tokens=32)
        return
    message = f"{prompt} prompt tokens and max_tokens {max_tokens} are more than the 32 that the whole cache holds"
    with pytest.raises(RequestRefused, match=message) as refused:
        validate([1] * prompt, wish, vocabulary_size=6, max_length=64, cache_tokens=32)
    assert refused.value.parameter == parameter


def test_an_error_holds_no_part_of_the_prompt() -> None:
    with pytest.raises(RequestRefused) as refused:
        validate([4711, 4712, "secret"], Sampling(), vocabulary_size=5000, max_length=64)  # type: ignore[list-item]
    assert not any(word in str(refused.value) for word in ("4711", "4712", "secret"))
