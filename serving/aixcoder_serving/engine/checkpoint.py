"""What a model's folder holds, read without torch: the first checks, each with a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.shape import LlamaShape, read

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A Llama model's folder. `files` hold the weights; `dtype` is None where config.json names none."""

    path: Path
    shape: LlamaShape
    dtype: str | None
    files: tuple[Path, ...]

    @property
    def vocabulary_size(self) -> int:
        """Ids that the model knows; the tokenizer may have fewer."""
        return self.shape.vocabulary_size

    @property
    def max_positions(self) -> int:
        """The longest sequence, in tokens."""
        return self.shape.max_positions


def inspect(model_path: str) -> Checkpoint:
    """Read config.json and see that every weight file is there. Raises `LoadFailed`: ModelNotFound or ModelInvalid."""
    path = Path(model_path)
    if not path.is_dir():
        raise LoadFailed("ModelNotFound", f"{path} is not a folder: check the model's source and path")
    config_file = path / "config.json"
    if not config_file.is_file():
        raise LoadFailed("ModelNotFound", f"{config_file} is not there: check the model's source and path")
    config = _object(config_file)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or "LlamaForCausalLM" not in architectures:
        raise LoadFailed("ModelInvalid", f"{config_file} names no LlamaForCausalLM: this is not an aiXcoder model")
    files = _weights(path)
    return Checkpoint(
        path=path,
        shape=read(config, str(config_file)),
        dtype=config.get("dtype") or config.get("torch_dtype"),
        files=tuple(files),
    )


def _weights(path: Path) -> list[Path]:
    """All files of weights, which are there."""
    index = path / _INDEX
    if not index.is_file():
        if not (path / "model.safetensors").is_file():
            raise LoadFailed("ModelNotFound", f"{path} holds no weights: neither model.safetensors nor {_INDEX}")
        return [path / "model.safetensors"]
    shards = _object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise LoadFailed("ModelInvalid", f"{index} has no weight_map")
    files = [path / name for name in sorted({str(name) for name in shards.values()})]
    for file in files:
        if not file.is_file():
            raise LoadFailed("ModelNotFound", f"{index} names {file.name}, which is not there: the copy is incomplete")
    return files


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadFailed("ModelInvalid", f"{file} can not be read: {error.strerror}") from error
    except ValueError as error:
        raise LoadFailed("ModelInvalid", f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise LoadFailed("ModelInvalid", f"{file} is not a JSON object")
    return value
