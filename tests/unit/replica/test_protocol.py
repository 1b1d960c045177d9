"""The protocol lets through what the engine takes, and carries all that the engine knows."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aixcoder_serving.engine.interface import EngineStats
from aixcoder_serving.engine.interface import Sampling as EngineSampling
from aixcoder_serving.engine.validation import validate
from aixcoder_serving.fim.vocabulary import Vocabulary
from aixcoder_serving.protocol import CompletionRequest, Delta, ReplicaStats, Sampling
from aixcoder_serving.replica.completion import engine_sampling

TINY = Path(__file__).parents[3] / "models" / "tiny"
ANOTHER: dict[str, Any] = {
    "max_tokens": 9,
    "min_tokens": 2,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 7,
    "min_p": 0.25,
    "seed": -3,
    "presence_penalty": 1.5,
    "frequency_penalty": -1.5,
    "repetition_penalty": 1.25,
    "logit_bias": ((7, -2.0),),
    "logprobs": 4,
    "prompt_logprobs": 5,
    "stop": ("x",),
    "first_line": True,
    "n_indent": 3,
    "deadline_ms": 20.5,
    "max_predict_ms": 30.5,
}
"""Of each field that has one name on both sides, a value that is not the default."""


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(TINY)


def test_every_wish_reaches_the_engine(vocabulary: Vocabulary) -> None:
    of_the_engine = {field.name for field in fields(EngineSampling)}
    assert of_the_engine == {*ANOTHER, "stop_ids", "ignore_eos", "resumed"}
    assert set(Sampling.model_fields) == {*ANOTHER, "stop_token_ids", "ignore_eos"}
    told = engine_sampling(Sampling(**ANOTHER), vocabulary)
    default = engine_sampling(Sampling(), vocabulary)
    for name, value in ANOTHER.items():
        assert getattr(told, name) == value
        assert getattr(default, name) == getattr(EngineSampling(), name) != value


@pytest.mark.parametrize(
    ("own", "ignore_eos", "of_the_model", "expected"),
    [
        ((), False, True, ()),
        ((700, 701), False, True, (700, 701)),
        ((), True, False, ()),
        ((700,), True, False, (700,)),
    ],
)
def test_stop_ids(
    vocabulary: Vocabulary, own: tuple[int, ...], ignore_eos: bool, of_the_model: bool, expected: tuple[int, ...]
) -> None:
    told = engine_sampling(Sampling(stop_token_ids=own, ignore_eos=ignore_eos), vocabulary)
    assert told.stop_ids == frozenset(expected) | (vocabulary.stop_ids if of_the_model else frozenset())


above_zero = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
samplings = st.builds(
    Sampling,
    max_tokens=st.integers(0, 100),
    min_tokens=st.just(0),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.integers(0, 2**31),
    min_p=st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    repetition_penalty=st.floats(0.01, 100),
    logit_bias=st.lists(st.tuples(st.integers(0, 2047), st.floats(-100, 100)), max_size=3),
    logprobs=st.none() | st.integers(0, 20),
    prompt_logprobs=st.none() | st.integers(0, 20),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=2),
    stop_token_ids=st.lists(st.integers(0, 2**31), max_size=3),
    ignore_eos=st.booleans(),
    first_line=st.booleans(),
    n_indent=st.integers(0, 2**31),
    deadline_ms=st.none() | above_zero,
    max_predict_ms=st.none() | above_zero,
)


@given(wish=samplings)
def test_what_the_protocol_lets_through_the_engine_takes(vocabulary: Vocabulary, wish: Sampling) -> None:
    validate([1], engine_sampling(wish, vocabulary), vocabulary_size=2048, max_length=200)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_tokens", -1),
        ("top_k", -1),
        ("min_p", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("repetition_penalty", 0),
        ("logit_bias", [[1, 101]]),
        ("logit_bias", [[-1, 1]]),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
        ("stop_token_ids", [-1]),
        ("n_indent", -1),
        ("deadline_ms", 0),
        ("max_predict_ms", float("inf")),
    ],
)
def test_what_the_engine_would_refuse_is_refused_at_the_edge(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        CompletionRequest.model_validate({"id": "x", "prefix": "", "sampling": {field: value}})
    assert refused.value.errors()[0]["loc"][:2] == ("sampling", field)


def test_an_older_gateways_messages_are_understood() -> None:
    request = CompletionRequest.model_validate({"id": "x", "prefix": "", "sampling": {"max_tokens": 3}})
    assert (request.draft_token_ids, request.cache_salt) == ((), "")
    delta = Delta.model_validate_json('{"type": "delta", "text": "a", "token_ids": [5]}')
    assert (delta.logprobs, delta.prompt_logprobs, delta.begun) == ((), (), None)


def test_stats_mirror_the_engines() -> None:
    assert set(ReplicaStats.model_fields) == {field.name for field in fields(EngineStats)}
