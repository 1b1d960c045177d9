from typing import Any

import pytest

from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.shape import LlamaShape, RopeScaling, read

AIXCODER: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14464,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 49152,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 256000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
}
SHAPE = LlamaShape(4096, 14464, 32, 32, 8, 128, 49152, 32768, 1e-5, 256000.0)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 4096,
}


def _with(**changes: Any) -> dict[str, Any]:
    """A change to None takes the key away."""
    return {key: value for key, value in {**AIXCODER, **changes}.items() if value is not None}


def _like(**changes: Any) -> LlamaShape:
    return LlamaShape(**{**SHAPE.__dict__, **changes})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(AIXCODER, SHAPE, id="aiXcoder"),
        pytest.param(_with(num_key_value_heads=None), _like(kv_heads=32), id="a key/value head for each head"),
        pytest.param(_with(head_dim=64), _like(head_dim=64), id="head_dim of its own"),
        pytest.param(_with(head_dim=64, hidden_size=4100), _like(head_dim=64, hidden_size=4100), id="no multiple"),
        pytest.param(_with(rope_theta=None), _like(rope_theta=10000.0), id="theta as in the first Llama"),
        pytest.param(_with(rms_norm_eps=None), _like(rms_norm_eps=1e-6), id="eps as in the first Llama"),
        pytest.param(_with(rope_theta=500000), _like(rope_theta=500000.0), id="a whole theta"),
        pytest.param(_with(tie_word_embeddings=True), _like(tie_word_embeddings=True), id="tied"),
        pytest.param({**AIXCODER, "rope_scaling": None, "quantization_config": None}, SHAPE, id="null is absent"),
        pytest.param(_with(rope_parameters={"rope_theta": 5.0}), _like(rope_theta=5.0), id="transformers 5"),
        pytest.param(_with(rope_parameters={"rope_type": "default"}), SHAPE, id="theta outside rope_parameters"),
        pytest.param(
            _with(rope_scaling={"type": "linear", "factor": 2}),
            _like(rope_scaling=RopeScaling("linear", 2.0)),
            id="linear, transformers 4",
        ),
        pytest.param(
            _with(rope_parameters={"rope_type": "linear", "rope_theta": 7.0, "factor": 2.0}),
            _like(rope_theta=7.0, rope_scaling=RopeScaling("linear", 2.0)),
            id="linear, transformers 5",
        ),
        pytest.param(
            _with(rope_scaling=LLAMA3),
            _like(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 4096)),
            id="llama3",
        ),
        pytest.param(
            _with(rope_scaling={**LLAMA3, "original_max_position_embeddings": None}),
            _like(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32768)),
            id="llama3 without its original length",
        ),
    ],
)
def test_read(config: dict[str, Any], expected: LlamaShape) -> None:
    assert read(config, "config.json") == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a whole number above zero"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True, not"),
        ({"vocab_size": "many"}, "vocab_size is 'many', not a whole number"),
        ({"intermediate_size": 10.5}, "intermediate_size is 10.5, not a whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, not a number above zero"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf, not"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, not"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5', not"),
        ({"rms_norm_eps": True}, "rms_norm_eps is True, not"),
        ({"num_key_value_heads": 5}, "32 attention heads can not share 5 key/value heads evenly"),
        ({"hidden_size": 4100}, "no head_dim, and hidden_size 4100 is no multiple of 32 heads"),
        ({"head_dim": 63}, "head_dim is 63; rotary embedding needs an even number"),
        ({"attention_bias": True}, "attention_bias is True; biases are not supported"),
        ({"mlp_bias": True}, "mlp_bias is True; biases are not supported"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only silu is supported"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', not true or false"),
        ({"quantization_config": {"bits": 4}}, "quantised weights are not supported"),
        ({"rope_theta": 0}, "rope_theta is 0, not a number above zero"),
        ({"rope_scaling": "linear"}, "rope_scaling is not an object"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'; default, linear and llama3 are"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_parameters: rope_type is 'dynamic'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5; only whole heads"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor is not below high_freq_factor"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        read(_with(**changes), "m/config.json")
    assert failed.value.reason == "ModelInvalid"
    assert str(failed.value).startswith("m/config.json: ")
    assert message in str(failed.value)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_sizes_that_divide(size: int) -> None:
    SHAPE.check_tensor_parallel(size)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        (SHAPE, 16, "the model has 8 key/value heads, which is no multiple of it: ask for one of 1, 2, 4, 8"),
        (SHAPE, 3, "a tensor parallel size of 3 is asked for"),
        (
            _like(intermediate_size=14462),
            4,
            "14462 intermediate columns, which is no multiple of it: ask for one of 1, 2",
        ),
    ],
)
def test_sizes_that_do_not_divide(shape: LlamaShape, size: int, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        shape.check_tensor_parallel(size)
    assert failed.value.reason == "ModelInvalid"
