import math
from typing import Any

import pytest

from aixcoder_serving.engine.interface import RequestRefused, Sampling
from aixcoder_serving.engine.validation import validate


@pytest.mark.parametrize(
    ("prompt", "sampling", "parameter", "message"),
    [
        ([], {}, "prompt", "the prompt is empty"),
        ([1, 2048], {}, "prompt", r"token id 2048 is not in 0\.\.2047"),
        ([1, -1], {}, "prompt", "token id -1"),
        ([1] * 64, {"max_tokens": 0}, None, ""),
        ([1] * 65, {"max_tokens": 0}, "prompt", "more than the 64"),
        ([1] * 60, {"max_tokens": 5}, "max_tokens", "60 prompt tokens and max_tokens 5"),
        ([1], {"max_tokens": -1}, "max_tokens", "max_tokens is -1"),
        ([1], {"temperature": math.nan}, "sampling", "temperature is nan"),
        ([1], {"temperature": math.inf}, "sampling", "temperature is inf"),
        ([1], {"temperature": -0.1}, "sampling", "temperature"),
        ([1], {"top_p": 0.0}, "sampling", "top_p is 0.0"),
        ([1], {"top_p": math.nan}, "sampling", "top_p is nan"),
        ([1], {"stop": ("",)}, "sampling", "a stop string is empty"),
        ([0, 2047], {"temperature": 2.0, "top_p": 1.0, "stop": ("x",)}, None, ""),
    ],
)
def test_validate(prompt: list[int], sampling: dict[str, Any], parameter: str | None, message: str) -> None:
    wish = Sampling(**{"max_tokens": 4, **sampling})
    if parameter is None:
        validate(prompt, wish, vocabulary_size=2048, max_length=64)
        return
    with pytest.raises(RequestRefused, match=message) as refused:
        validate(prompt, wish, vocabulary_size=2048, max_length=64)
    assert refused.value.parameter == parameter
