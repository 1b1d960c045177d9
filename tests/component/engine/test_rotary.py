"""The tables against transformers' own, number for number, and against the formula's plain meaning."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from aixcoder_serving.engine.rotary import tables
from aixcoder_serving.engine.shape import LlamaShape, read

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 10,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("rope", "tolerance"),
    [
        pytest.param({"rope_theta": 256000.0}, 0.0, id="aiXcoder"),
        pytest.param({"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0}, 0.0, id="linear"),
        # Written as one expression, it rounds otherwise; after 3,000 positions that is some 1e-4 of a turn.
        pytest.param({"rope_theta": 500000.0, **LLAMA3, "original_max_position_embeddings": 1024}, 1e-3, id="llama3"),
    ],
)
def test_as_transformers(rope: dict[str, Any], tolerance: float) -> None:
    config = {**SIZES, "rope_parameters": rope}
    found = tables(read(config, "config.json"), 3000, CPU)
    theirs = LlamaRotaryEmbedding(LlamaConfig(**config))
    cos, sin = theirs(torch.zeros(1), torch.arange(3000)[None])
    assert found.cos.shape == (3000, 64)
    for mine, other in ((found.cos, cos), (found.sin, sin)):
        assert (mine - other[0, :, :64]).abs().max() <= tolerance
        assert torch.equal(other[0, :, :64], other[0, :, 64:])


def test_the_first_pair_turns_by_one_radian() -> None:
    found = tables(LlamaShape(8, 8, 1, 1, 1, 8, 8, 16, 1e-5), 4, CPU)
    torch.testing.assert_close(found.cos[:, 0], torch.arange(4.0).cos())
    torch.testing.assert_close(found.sin[:, 3], (torch.arange(4.0) * 10000.0 ** (-6 / 8)).sin())
