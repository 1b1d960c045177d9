"""A rank's weights from small files, and every way in which they can be wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from aixcoder_serving.engine import weights
from aixcoder_serving.engine.checkpoint import inspect
from aixcoder_serving.engine.interface import LoadFailed
from aixcoder_serving.engine.torch_ops import TorchOps
from aixcoder_serving.engine.weights import Weights

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 5,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
}
SHAPES = {
    "input_layernorm": (8,), "post_attention_layernorm": (8,),
    "self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8), "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (6, 8), "mlp.up_proj": (6, 8), "mlp.down_proj": (8, 6),
}  # fmt: skip
INDEX = "model.safetensors.index.json"
Tensors = dict[str, Tensor]


def _tensors() -> Tensors:
    chance = torch.Generator().manual_seed(5)
    shapes = {f"model.layers.{n}.{name}.weight": shape for n in range(2) for name, shape in SHAPES.items()}
    shapes |= {"model.norm.weight": (8,), "model.embed_tokens.weight": (5, 8), "lm_head.weight": (5, 8)}
    return {name: torch.randn(shape, generator=chance) for name, shape in shapes.items()}


def _write(folder: Path, tensors: Tensors, files: int = 1, **config: Any) -> str:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    if files == 1:
        save_file(tensors, folder / "model.safetensors")
        return str(folder)
    names = {name: f"part-{n % files}.safetensors" for n, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    return str(folder)


class Marking(TorchOps):
    """Tells packed weights from others, and the order of packing."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(torch.device("cpu"), dtype, 16)
        self.packed: list[int] = []

    def pack(self, weight: Tensor) -> Any:
        self.packed.append(weight.numel())
        return ("packed", weight.clone())


def _load(path: str, rank: int = 0, size: int = 1, dtype: torch.dtype = torch.float32) -> Weights:
    return weights.load(inspect(path), Marking(dtype), rank, size)


def _is(found: Any, expected: Tensor, *, packed: bool = True) -> None:
    if packed:
        kind, found = found
        assert kind == "packed"
    assert torch.equal(found, expected)


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_rank_has_all(tmp_path: Path, files: int, dtype: torch.dtype) -> None:
    tensors = _tensors()
    found = _load(_write(tmp_path, tensors, files), dtype=dtype)
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    _is(found.embedding, stored["model.embed_tokens.weight"], packed=False)
    _is(found.norm, stored["model.norm.weight"], packed=False)
    _is(found.head, stored["lm_head.weight"])
    for n, layer in enumerate(found.layers):
        one = {name: stored[f"model.layers.{n}.{name}.weight"] for name in SHAPES}
        _is(layer.input_norm, one["input_layernorm"], packed=False)
        _is(layer.post_norm, one["post_attention_layernorm"], packed=False)
        _is(layer.qkv, torch.cat([one[f"self_attn.{name}_proj"] for name in "qkv"]))
        _is(layer.gate_up, torch.cat((one["mlp.gate_proj"], one["mlp.up_proj"])))
        _is(layer.o, one["self_attn.o_proj"])
        _is(layer.down, one["mlp.down_proj"])


def test_two_ranks_have_halves(tmp_path: Path) -> None:
    tensors = _tensors()
    path = _write(tmp_path, tensors, 2)
    for rank in range(2):
        found = _load(path, rank, 2)
        rows = slice(0, 3) if rank == 0 else slice(3, 5)
        _is(found.embedding, tensors["model.embed_tokens.weight"][rows], packed=False)
        _is(found.head, tensors["lm_head.weight"][rows])
        one = {name: tensors[f"model.layers.1.{name}.weight"] for name in SHAPES}
        half = {name: tensor.chunk(2)[rank] for name, tensor in one.items()}
        layer = found.layers[1]
        _is(layer.qkv, torch.cat([half[f"self_attn.{name}_proj"] for name in "qkv"]))
        _is(layer.gate_up, torch.cat((half["mlp.gate_proj"], half["mlp.up_proj"])))
        _is(layer.o, one["self_attn.o_proj"].chunk(2, dim=1)[rank])
        _is(layer.down, one["mlp.down_proj"].chunk(2, dim=1)[rank])
        _is(layer.input_norm, one["input_layernorm"], packed=False)


def test_a_rank_without_ids(tmp_path: Path) -> None:
    shapes = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 2, "intermediate_size": 8}
    tensors = _tensors()
    for n in range(2):
        prefix = f"model.layers.{n}"
        for name, shape in {"k": (8, 8), "v": (8, 8)}.items():
            tensors[f"{prefix}.self_attn.{name}_proj.weight"] = torch.ones(shape)
        for name, shape in {"gate": (8, 8), "up": (8, 8), "down": (8, 8)}.items():
            tensors[f"{prefix}.mlp.{name}_proj.weight"] = torch.ones(shape)
    found = _load(_write(tmp_path, tensors, **shapes), 3, 4)
    assert (found.head, tuple(found.embedding.shape)) == (None, (0, 8))


def test_a_tied_head(tmp_path: Path) -> None:
    tensors = _tensors()
    del tensors["lm_head.weight"]
    found = _load(_write(tmp_path, tensors, tie_word_embeddings=True))
    _is(found.head, tensors["model.embed_tokens.weight"])


def test_the_largest_come_first(tmp_path: Path) -> None:
    """Of those that are packed: the second copy takes room that is filled later."""
    ops = Marking()
    weights.load(inspect(_write(tmp_path, _tensors())), ops, 0, 1)
    assert ops.packed == sorted(ops.packed, reverse=True)
    assert len(ops.packed) == 4 * 2 + 1


def test_percent(tmp_path: Path) -> None:
    seen: list[int] = []
    weights.load(inspect(_write(tmp_path, _tensors())), Marking(), 0, 1, seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1], len(seen)) == (0, 100, 16)


def _without(tensors: Tensors) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def _of_another_shape(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.ones(7)


def _turned(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.down_proj.weight"] = torch.ones(6, 8)


def _in_int8(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = torch.ones(5, 8, dtype=torch.int8)


@pytest.mark.parametrize(
    ("spoil", "files", "message"),
    [
        (_without, 1, "lacks the tensor model.layers.1.mlp.up_proj.weight: it is not in model.safetensors"),
        (_without, 4, "it is not in part-0.safetensors, part-1.safetensors, part-2.safetensors, …"),
        (_of_another_shape, 1, r"model.safetensors has model.norm.weight of shape \[7\]; by config.json it is \[8\]"),
        (_turned, 1, r"down_proj.weight of shape \[6, 8\]; by config.json it is \[8, 6\]"),
        (_in_int8, 1, "holds lm_head.weight as I8; F32, BF16, F16 can be read"),
    ],
)
def test_wrong_tensors(tmp_path: Path, spoil: Callable[[Tensors], None], files: int, message: str) -> None:
    """Told before a weight is read."""
    tensors, ops = _tensors(), Marking()
    spoil(tensors)
    with pytest.raises(LoadFailed, match=message) as failed:
        weights.load(inspect(_write(tmp_path, tensors, files)), ops, 0, 1)
    assert (failed.value.reason, ops.packed) == ("ModelInvalid", [])


def test_a_truncated_file_among_several(tmp_path: Path) -> None:
    path = _write(tmp_path, _tensors(), 3)
    file = tmp_path / "part-1.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        LoadFailed, match=r"part-1.safetensors has \d+ bytes and should have \d+: the copy is incomplete"
    ):
        _load(path)


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("you tried to: can't allocate memory"), None])
def test_memory_that_is_not_there(tmp_path: Path, fault: Exception | None) -> None:
    class Full(Marking):
        def pack(self, weight: Tensor) -> Any:
            if len(self.packed) == 3:
                raise fault or RuntimeError("something else")
            return super().pack(weight)

    with pytest.raises(LoadFailed if fault else RuntimeError) as failed:
        weights.load(inspect(_write(tmp_path, _tensors())), Full(), 0, 1)
    if fault:
        assert isinstance(failed.value, LoadFailed)
        assert failed.value.reason == "OutOfMemory"
        assert str(failed.value) == "the weights do not fit: 44 % are loaded"
    else:
        assert str(failed.value) == "something else"
