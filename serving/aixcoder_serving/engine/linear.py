"""Which part of which stored tensor a rank of a tensor parallel model holds, and how the parts are put together.

As in Megatron-LM (arXiv 1909.08053): q, k, v, gate and up are split by rows, so that a rank has whole heads and whole
columns of the intermediate layer; o and down by columns, so that the ranks' products only have to be added. Embedding
and head are split by rows, that is by ids. Norms are whole on every rank. Stored tensors are (outputs, inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

from aixcoder_serving.engine.shape import LlamaShape


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a stored tensor of `shape`, (N, K) or (N,), and of these some columns: all of them where None."""

    tensor: str
    shape: tuple[int, ...]
    rows: range
    columns: range | None = None

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.columns) if self.columns is not None else self.shape[-1] if len(self.shape) == 2 else 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """One weight of a rank: its pieces, one under the other. `layer` is None outside the layers.

    `name` is a field of `weights.LayerWeights` or `weights.Weights`; `packed` ones are multiplied with, others read.
    """

    name: str
    layer: int | None
    pieces: tuple[Piece, ...]
    packed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, width), or (rows,) for a norm."""
        rows = sum(len(piece.rows) for piece in self.pieces)
        return (rows, self.pieces[0].width) if len(self.pieces[0].shape) == 2 else (rows,)

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return sum(len(piece.rows) * piece.width for piece in self.pieces)


def vocabulary_range(vocabulary_size: int, rank: int, size: int) -> range:
    """The ids of a rank: an equal share rounded up, so that the last ranks may have fewer, or none at all."""
    share = -(-vocabulary_size // size)
    return range(min(rank * share, vocabulary_size), min((rank + 1) * share, vocabulary_size))


def parameters(shape: LlamaShape, rank: int, size: int) -> tuple[Parameter, ...]:
    """All weights of a rank; `size` divides the key/value heads and the intermediate size."""
    ids = vocabulary_range(shape.vocabulary_size, rank, size)
    vocabulary = (shape.vocabulary_size, shape.hidden_size)
    embedding = Piece("model.embed_tokens.weight", vocabulary, ids)
    head = embedding if shape.tie_word_embeddings else Piece("lm_head.weight", vocabulary, ids)
    return (
        Parameter("embedding", None, (embedding,), packed=False),
        *(parameter for layer in range(shape.layers) for parameter in _layer(shape, layer, rank, size)),
        Parameter("norm", None, (_norm("model.norm.weight", shape),), packed=False),
        Parameter("head", None, (head,), packed=True),
    )


def _layer(shape: LlamaShape, layer: int, rank: int, size: int) -> tuple[Parameter, ...]:
    prefix = f"model.layers.{layer}"
    hidden, inner = shape.hidden_size, shape.intermediate_size
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def by_rows(tensor: str, rows: int) -> Piece:
        return Piece(f"{prefix}.{tensor}.weight", (rows, hidden), _share(rows, rank, size))

    def by_columns(tensor: str, columns: int) -> Piece:
        stored = (hidden, columns)
        return Piece(f"{prefix}.{tensor}.weight", stored, range(hidden), _share(columns, rank, size))

    qkv = (by_rows("self_attn.q_proj", q), by_rows("self_attn.k_proj", kv), by_rows("self_attn.v_proj", kv))
    gate_up = (by_rows("mlp.gate_proj", inner), by_rows("mlp.up_proj", inner))
    return (
        Parameter("input_norm", layer, (_norm(f"{prefix}.input_layernorm.weight", shape),), packed=False),
        Parameter("qkv", layer, qkv, packed=True),
        Parameter("o", layer, (by_columns("self_attn.o_proj", q),), packed=True),
        Parameter("post_norm", layer, (_norm(f"{prefix}.post_attention_layernorm.weight", shape),), packed=False),
        Parameter("gate_up", layer, gate_up, packed=True),
        Parameter("down", layer, (by_columns("mlp.down_proj", inner),), packed=True),
    )


def _norm(tensor: str, shape: LlamaShape) -> Piece:
    return Piece(tensor, (shape.hidden_size,), range(shape.hidden_size))


def _share(count: int, rank: int, size: int) -> range:
    return range(rank * count // size, (rank + 1) * count // size)
