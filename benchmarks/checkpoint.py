"""Checkpoints big enough to be read from memory at each token, made here: `random_weights` and `grown`.

Both have aiXcoder's layout at hidden 512, intermediate 1808, 8 layers, 16 query and 8 key/value heads of 64, vocabulary
49152: 85 million parameters, 341 MB in float32 and 171 MB in bfloat16. They lie in the cache and are made once.

`grown` is models/tiny inside a checkpoint of that shape: it computes the tiny model's function at the large one's cost.
Random weights never end a line, so they cannot say how long a first line takes, nor propose what an editor would type.
How it is grown, exactly but for the order of sums:
- The hidden vector is the tiny one's twice over, so its root mean square is the same; weights that read it are halved.
- A head's 16 dimensions stand where the rotary frequencies of 64 are equal to those of 16; queries are doubled because
  scores are divided by 8, no longer by 4.
- What is added is random where nothing reads its result, and zero where something would.
- Ids without a piece get the output row of `<unk>`, which is never the likeliest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

Dtype = Literal["float32", "bfloat16"]
Weights = dict[str, torch.Tensor]

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 512, 1808, 8, 16, 8, 64, 49152
POSITIONS, THETA, EPSILON = 32768, 256000.0, 1e-5
TINY = Path(__file__).parent.parent / "models" / "tiny"
SEED = 5


def cache() -> Path:
    """Where the benchmarks keep what they make and install."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "aixcoder" / "benchmarks"


def random_weights(dtype: Dtype) -> Path:
    """Folder of the checkpoint with random weights."""
    return _made("random", dtype, lambda: random_tensors(torch.Generator().manual_seed(SEED)))


def grown(dtype: Dtype) -> Path:
    """Folder of the tiny model grown to the same shape."""
    return _made("grown", dtype, lambda: grow(load_file(TINY / "model.safetensors")))


def config(dtype: Dtype) -> dict[str, Any]:
    """The config.json of both."""
    return {
        **json.loads((TINY / "config.json").read_text()),
        "dtype": dtype,
        "head_dim": HEAD_DIM,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": EPSILON,
        "rope_parameters": {"rope_theta": THETA, "rope_type": "default"},
        "vocab_size": VOCABULARY,
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by name."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        found |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (HIDDEN,),
                "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
                "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
                "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
                "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
                "post_attention_layernorm": (HIDDEN,),
                "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
                "mlp.up_proj": (INTERMEDIATE, HIDDEN),
                "mlp.down_proj": (HIDDEN, INTERMEDIATE),
            }.items()
        }
    return found


def random_tensors(generator: torch.Generator) -> Weights:
    """Normal weights of variance 1/columns, so that activations keep their size; embeddings of variance 1; norms 1.

    What a layer adds is scaled down by the square root of their number, as is usual. The text is no repetition: each
    next token depends on all before it.
    """
    tensors: Weights = {}
    for name, shape in shapes().items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape)
            continue
        scale = 1.0 if "embed" in name else shape[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            scale /= (2 * LAYERS) ** 0.5
        tensors[name] = torch.randn(shape, generator=generator) * scale
    return tensors


def grow(tiny: Weights) -> Weights:
    """The tiny model's tensors inside tensors of `shapes()`; see the module."""
    small = {name: tensor.float() for name, tensor in tiny.items()}
    grown = random_tensors(torch.Generator().manual_seed(SEED))
    n_tokens = small["lm_head.weight"].shape[0]
    grown["model.embed_tokens.weight"][:n_tokens] = _twice(small["model.embed_tokens.weight"], 1)
    grown["model.norm.weight"] = _twice(small["model.norm.weight"], 0)
    head = reads_hidden(small["lm_head.weight"])
    grown["lm_head.weight"][:n_tokens], grown["lm_head.weight"][n_tokens:] = head, head[0]
    layers = 1 + max(int(name.split(".")[2]) for name in small if name.startswith("model.layers."))
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        if layer < layers:
            _grow_layer(grown, small, at)
        else:
            grown[at + "self_attn.o_proj.weight"].zero_()
            grown[at + "mlp.down_proj.weight"].zero_()
    return grown


def _grow_layer(grown: Weights, small: Weights, at: str) -> None:
    for norm in ("input_layernorm", "post_attention_layernorm"):
        grown[f"{at}{norm}.weight"] = _twice(small[f"{at}{norm}.weight"], 0)
    width = small[f"{at}mlp.gate_proj.weight"].shape[0]
    for name in ("gate", "up"):
        grown[f"{at}mlp.{name}_proj.weight"][:width] = reads_hidden(small[f"{at}mlp.{name}_proj.weight"])
    down = grown[f"{at}mlp.down_proj.weight"].zero_()
    down[:, :width] = _twice(small[f"{at}mlp.down_proj.weight"], 0)

    head_dim = small[f"{at}self_attn.q_proj.weight"].shape[0] // HEADS
    rotary, plain = rotary_places(head_dim), torch.arange(head_dim)
    for name, heads, places, factor in (
        ("q", HEADS, rotary, (HEAD_DIM / head_dim) ** 0.5),
        ("k", KV_HEADS, rotary, 1.0),
        ("v", KV_HEADS, plain, 1.0),
    ):
        rows = grown[f"{at}self_attn.{name}_proj.weight"].view(heads, HEAD_DIM, HIDDEN)
        if name == "k":
            rows.zero_()
        rows[:, places] = factor * reads_hidden(small[f"{at}self_attn.{name}_proj.weight"]).view(heads, -1, HIDDEN)
    out = grown[f"{at}self_attn.o_proj.weight"].zero_().view(HIDDEN, HEADS, HEAD_DIM)
    out[:, :, plain] = _twice(small[f"{at}self_attn.o_proj.weight"], 0).view(HIDDEN, HEADS, head_dim)


def rotary_places(head_dim: int) -> torch.Tensor:
    """Where dimension d of a small head stands in a large one: at the same frequency theta^(-2d/head_dim)."""
    stride = HEAD_DIM // head_dim
    half = torch.arange(head_dim // 2) * stride
    return torch.cat([half, half + HEAD_DIM // 2])


def _twice(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([tensor, tensor], dim)


def reads_hidden(weight: torch.Tensor) -> torch.Tensor:
    """A matrix (rows, hidden) made for the hidden vector twice over."""
    return _twice(weight / 2, 1)


def _made(name: str, dtype: Dtype, make: Callable[[], Weights]) -> Path:
    """The folder in the cache; made first where it is missing. Its name tells the code and the model it came from."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + (TINY / "model.safetensors").read_bytes()).hexdigest()[:12]
    folder = cache() / "models" / f"{name}-{dtype}-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        tensors = {key: tensor.to(getattr(torch, dtype)).contiguous() for key, tensor in make().items()}
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        (new / "config.json").write_text(json.dumps(config(dtype), indent=2))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / file, new / file)
        new.rename(folder)
    return folder
