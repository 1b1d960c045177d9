import json
from pathlib import Path
from typing import Any

import pytest

from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.shape import LlamaShape

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
}
INDEX = "model.safetensors.index.json"


def _write(folder: Path, config: Any = CONFIG, files: dict[str, Any] | None = None) -> str:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name, content in ({"model.safetensors": ""} if files is None else files).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def test_one_file(tmp_path: Path) -> None:
    found = inspect(_write(tmp_path))
    assert (found.vocabulary_size, found.max_positions, found.dtype) == (2048, 512, "bfloat16")
    assert found.shape == LlamaShape(8, 16, 2, 4, 4, 2, 2048, 512, 1e-6)
    assert found.files == (tmp_path / "model.safetensors",)


def test_shards(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    files = {INDEX: index, "1.safetensors": "12345", "2.safetensors": "123", "3.safetensors": "not in the index"}
    found = inspect(_write(tmp_path, {**CONFIG, "dtype": "float32"}, files))
    assert found.dtype == "float32"
    assert [file.name for file in found.files] == ["1.safetensors", "2.safetensors"]


@pytest.mark.parametrize(
    ("config", "files", "reason", "message"),
    [
        (CONFIG, {}, "ModelNotFound", "holds no weights"),
        (CONFIG, {INDEX: {"weight_map": {"a": "1.safetensors"}}}, "ModelNotFound", "names 1.safetensors"),
        (CONFIG, {INDEX: {"weight_map": {}}}, "ModelInvalid", "has no weight_map"),
        (CONFIG, {INDEX: "no"}, "ModelInvalid", "is not JSON"),
        ("{", None, "ModelInvalid", "is not JSON"),
        ("[]", None, "ModelInvalid", "is not a JSON object"),
        ({**CONFIG, "architectures": ["GPT2LMHeadModel"]}, None, "ModelInvalid", "names no LlamaForCausalLM"),
        ({**CONFIG, "architectures": None}, None, "ModelInvalid", "names no LlamaForCausalLM"),
        ({**CONFIG, "architectures": 7}, None, "ModelInvalid", "names no LlamaForCausalLM"),
        ({"architectures": ["LlamaForCausalLM"]}, None, "ModelInvalid", "config.json: hidden_size is missing"),
        ({**CONFIG, "vocab_size": "many"}, None, "ModelInvalid", "config.json: vocab_size is 'many'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, config: Any, files: Any, reason: str, message: str) -> None:
    with pytest.raises(LoadFailed, match=message) as failed:
        inspect(_write(tmp_path, config, files))
    assert failed.value.reason == reason


def test_no_folder_and_no_config(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(LoadFailed, match=str(path)) as failed:
            inspect(str(path))
        assert failed.value.reason == "ModelNotFound"
