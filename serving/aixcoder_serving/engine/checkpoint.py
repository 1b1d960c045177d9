"""What a model's folder holds, read without torch: the first checks, each with a sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aixcoder_serving.engine.interface import LoadFailed

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Checkpoint:
    """A Llama model's folder. `max_positions` in tokens; `dtype` is None where config.json names none."""

    path: Path
    vocabulary_size: int
    max_positions: int
    dtype: str | None
    weight_bytes: int


def inspect(model_path: str) -> Checkpoint:
    """Read config.json and see that every weight file is there. Raises `LoadFailed`: ModelNotFound or ModelInvalid."""
    path = Path(model_path)
    if not path.is_dir():
        raise LoadFailed("ModelNotFound", f"{path} is not a folder: check the model's source and path")
    config_file = path / "config.json"
    if not config_file.is_file():
        raise LoadFailed("ModelNotFound", f"{config_file} is not there: check the model's source and path")
    config = _object(config_file)
    if "LlamaForCausalLM" not in config.get("architectures", []):
        raise LoadFailed("ModelInvalid", f"{config_file} names no LlamaForCausalLM: this is not an aiXcoder model")
    weights = _weights(path)
    try:
        return Checkpoint(
            path=path,
            vocabulary_size=int(config["vocab_size"]),
            max_positions=int(config["max_position_embeddings"]),
            dtype=config.get("dtype") or config.get("torch_dtype"),
            weight_bytes=sum(file.stat().st_size for file in weights),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LoadFailed("ModelInvalid", f"{config_file}: {error!r} is missing or no number") from error


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
    except ValueError as error:
        raise LoadFailed("ModelInvalid", f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise LoadFailed("ModelInvalid", f"{file} is not a JSON object")
    return value
