"""The architecture that a config.json describes, checked value by value and read without torch.

Keys are those that transformers 4 and 5 write: rotary embedding stands in `rope_parameters` (5) or in `rope_theta` and
`rope_scaling` (4). Sizes must be there; where another key is absent, its default is that of transformers' LlamaConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from aixcoder_serving.engine.interface import LoadFailed


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for longer contexts; the last three are for llama3 alone."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class LlamaShape:
    """A Llama model without biases, with silu. `heads` query heads share `kv_heads` key/value heads in equal groups."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False

    def check_tensor_parallel(self, size: int) -> None:
        """Raise `LoadFailed` (ModelInvalid) where the model can not be split into `size` equal parts."""
        for count, what in ((self.kv_heads, "key/value heads"), (self.intermediate_size, "intermediate columns")):
            if count % size:
                raise LoadFailed(
                    "ModelInvalid",
                    f"a tensor parallel size of {size} is asked for; the model has {count} {what}, "
                    f"which is no multiple of it: ask for one of {_sizes(self)}",
                )


def read(config: Mapping[str, Any], where: str) -> LlamaShape:
    """Raise `LoadFailed` (ModelInvalid) for what is missing, no number, or not done by this engine."""
    keys = _Keys(config, where)
    keys.refuse_unless("attention_bias", False, "biases are not supported")
    keys.refuse_unless("mlp_bias", False, "biases are not supported")
    keys.refuse_unless("hidden_act", "silu", "only silu is supported")
    keys.refuse_unless("quantization_config", None, "quantised weights are not supported: use the original ones")
    hidden_size, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    kv_heads = keys.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise keys.invalid(f"{heads} attention heads can not share {kv_heads} key/value heads evenly")
    if config.get("head_dim") is None and hidden_size % heads:
        raise keys.invalid(f"it has no head_dim, and hidden_size {hidden_size} is no multiple of {heads} heads")
    head_dim = keys.count("head_dim", hidden_size // heads)
    if head_dim % 2:
        raise keys.invalid(f"head_dim is {head_dim}; rotary embedding needs an even number")
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise keys.invalid(f"tie_word_embeddings is {tied!r}, not true or false")
    max_positions = keys.count("max_position_embeddings")
    theta, scaling = _rope(config, where, max_positions)
    return LlamaShape(
        hidden_size=hidden_size,
        intermediate_size=keys.count("intermediate_size"),
        layers=keys.count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary_size=keys.count("vocab_size"),
        max_positions=max_positions,
        rms_norm_eps=keys.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=tied,
    )


def _rope(config: Mapping[str, Any], where: str, max_positions: int) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, in either spelling."""
    name = "rope_parameters" if config.get("rope_parameters") is not None else "rope_scaling"
    rope = config.get(name)
    if rope is None:
        rope = {}
    if not isinstance(rope, dict):
        raise LoadFailed("ModelInvalid", f"{where}: {name} is not an object")
    keys = _Keys(rope, f"{where}: {name}")
    theta = keys.number("rope_theta", _Keys(config, where).number("rope_theta", 10000.0))
    keys.refuse_unless("partial_rotary_factor", 1.0, "only whole heads can be rotated")
    match rope.get("rope_type", rope.get("type", "default")):
        case "default":
            return theta, None
        case "linear":
            return theta, RopeScaling("linear", keys.number("factor"))
        case "llama3":
            scaling = RopeScaling(
                "llama3",
                keys.number("factor"),
                keys.number("low_freq_factor"),
                keys.number("high_freq_factor"),
                keys.count("original_max_position_embeddings", max_positions),
            )
            if scaling.low_freq_factor >= scaling.high_freq_factor:
                raise keys.invalid("low_freq_factor is not below high_freq_factor")
            return theta, scaling
        case other:
            raise keys.invalid(f"rope_type is {other!r}; default, linear and llama3 are supported")


@dataclass(frozen=True)
class _Keys:
    """An object of config.json; `where` begins every sentence about it."""

    values: Mapping[str, Any]
    where: str

    def invalid(self, problem: str) -> LoadFailed:
        return LoadFailed("ModelInvalid", f"{self.where}: {problem}")

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self.invalid(f"{key} is {value!r}, not a whole number above zero")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value <= 0:
            raise self.invalid(f"{key} is {value!r}, not a number above zero")
        return float(value)

    def refuse_unless(self, key: str, expected: Any, why: str) -> None:
        """Absent is as expected."""
        if self.values.get(key, expected) != expected:
            raise self.invalid(f"{key} is {self.values[key]!r}; {why}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.invalid(f"{key} is missing")
        return value


def _sizes(shape: LlamaShape) -> str:
    """The tensor parallel sizes that divide the model."""
    both = [n for n in range(1, shape.kv_heads + 1) if shape.kv_heads % n == shape.intermediate_size % n == 0]
    return ", ".join(map(str, both))
