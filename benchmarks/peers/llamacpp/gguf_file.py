"""A Llama checkpoint as GGUF, in its own data type: the package's own converter is no part of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import numpy as np
from numpy.typing import NDArray

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def converted(folder: Path) -> Path:
    """The checkpoint's GGUF file beside its folder; written first where it is missing."""
    file = folder.with_name(f"{folder.name}.gguf")
    if not file.is_file():
        new = file.with_suffix(".new")
        write(folder, new)
        new.rename(file)
    return file


def write(folder: Path, file: Path) -> None:
    """Convert a checkpoint that has a single file of weights and a tokenizer of pieces with `▁` for a space."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if config["dtype"] == "float32" else gguf.LlamaFileType.MOSTLY_BF16)
    add_vocabulary(writer, folder, config)
    for name, weight in tensors(folder / "model.safetensors"):
        where, kind = place(name)
        if kind in ("attn_q", "attn_k"):
            weight = interleave(weight, config["head_dim"])
        if weight.dtype == np.float32:
            writer.add_tensor(f"{where}.weight", weight)
        elif weight.ndim == 1:  # norms are float32 always
            writer.add_tensor(f"{where}.weight", (weight.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(f"{where}.weight", weight.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(file: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and values of each tensor; numpy knows no bfloat16, so those are their bits as uint16."""
    kinds = {"F32": np.float32, "BF16": np.uint16}
    with file.open("rb") as source:
        size = int.from_bytes(source.read(8), "little")
        header = json.loads(source.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            kind, start = np.dtype(kinds[entry["dtype"]]), 8 + size + entry["data_offsets"][0]
            yield name, np.fromfile(file, kind, math.prod(entry["shape"]), offset=start).reshape(entry["shape"])


def place(name: str) -> tuple[str, str]:
    """Where a tensor of transformers' stands in GGUF, and its kind."""
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return OUTSIDE[stem], OUTSIDE[stem]
    _, _, layer, kind = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[kind]}", LAYER[kind]


def interleave(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Rows of a head in llama.cpp's order: rotated pairs beside each other, not half a head apart."""
    rows, columns = weight.shape
    halves = weight.reshape(rows // head_dim, 2, head_dim // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Pieces by id; ids without one get a name, and are marked as unused."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {entry["id"] for entry in tokenizer["added_tokens"] if entry["special"]}
    pieces = [f"<unused_{n}>" for n in range(config["vocab_size"])]
    kinds = [gguf.TokenType.UNUSED] * len(pieces)
    for piece, n in tokenizer["model"]["vocab"].items():
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        pieces[n], kinds[n] = piece, gguf.TokenType.BYTE if is_byte else gguf.TokenType.NORMAL
    for n in special:
        kinds[n] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
