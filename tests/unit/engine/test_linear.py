"""What each rank holds, by hand, and that together they hold everything once."""

import pytest
import torch

from aixcoder_serving.engine.linear import Parameter, Piece, parameters, vocabulary_range
from aixcoder_serving.engine.shape import LlamaShape

# Four query heads share two key/value heads of dimension 4.
SHAPE = LlamaShape(10, 6, 2, 4, 2, 4, 7, 32, 1e-5)
LAYER = "model.layers.1"


def _one(rank: int, size: int, name: str, layer: int | None = 1, shape: LlamaShape = SHAPE) -> Parameter:
    (found,) = [each for each in parameters(shape, rank, size) if (each.name, each.layer) == (name, layer)]
    return found


@pytest.mark.parametrize(
    ("vocabulary", "size", "expected"),
    [
        (8, 1, [range(8)]),
        (8, 2, [range(4), range(4, 8)]),
        (7, 2, [range(4), range(4, 7)]),
        (9, 4, [range(3), range(3, 6), range(6, 9), range(9, 9)]),
        (5, 8, [range(1), range(1, 2), range(2, 3), range(3, 4), range(4, 5), *[range(5, 5)] * 3]),
    ],
)
def test_vocabulary_range(vocabulary: int, size: int, expected: list[range]) -> None:
    assert [vocabulary_range(vocabulary, rank, size) for rank in range(size)] == expected


@pytest.mark.parametrize(
    ("rank", "name", "layer", "shape", "pieces"),
    [
        (
            1,
            "qkv",
            1,
            (16, 10),
            [
                Piece(f"{LAYER}.self_attn.q_proj.weight", (16, 10), range(8, 16)),
                Piece(f"{LAYER}.self_attn.k_proj.weight", (8, 10), range(4, 8)),
                Piece(f"{LAYER}.self_attn.v_proj.weight", (8, 10), range(4, 8)),
            ],
        ),
        (0, "o", 1, (10, 8), [Piece(f"{LAYER}.self_attn.o_proj.weight", (10, 16), range(10), range(8))]),
        (
            1,
            "gate_up",
            1,
            (6, 10),
            [
                Piece(f"{LAYER}.mlp.gate_proj.weight", (6, 10), range(3, 6)),
                Piece(f"{LAYER}.mlp.up_proj.weight", (6, 10), range(3, 6)),
            ],
        ),
        (1, "down", 1, (10, 3), [Piece(f"{LAYER}.mlp.down_proj.weight", (10, 6), range(10), range(3, 6))]),
        (1, "input_norm", 1, (10,), [Piece(f"{LAYER}.input_layernorm.weight", (10,), range(10))]),
        (1, "post_norm", 1, (10,), [Piece(f"{LAYER}.post_attention_layernorm.weight", (10,), range(10))]),
        (0, "norm", None, (10,), [Piece("model.norm.weight", (10,), range(10))]),
        (1, "embedding", None, (3, 10), [Piece("model.embed_tokens.weight", (7, 10), range(4, 7))]),
        (1, "head", None, (3, 10), [Piece("lm_head.weight", (7, 10), range(4, 7))]),
    ],
)
def test_one_of_two_ranks(rank: int, name: str, layer: int | None, shape: tuple[int, ...], pieces: list[Piece]) -> None:
    found = _one(rank, 2, name, layer)
    assert (found.shape, list(found.pieces)) == (shape, pieces)
    assert found.numbers == shape[0] * (shape[1] if len(shape) == 2 else 1)


def test_what_is_packed() -> None:
    assert {each.name: each.packed for each in parameters(SHAPE, 0, 1)} == {
        "embedding": False, "input_norm": False, "post_norm": False, "norm": False,
        "qkv": True, "o": True, "gate_up": True, "down": True, "head": True,
    }  # fmt: skip


def test_a_tied_head_is_the_embedding() -> None:
    tied = LlamaShape(**{**SHAPE.__dict__, "tie_word_embeddings": True})
    assert _one(1, 2, "head", None, tied).pieces == _one(1, 2, "embedding", None, tied).pieces


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_ranks_together_hold_every_number_once(size: int) -> None:
    """All but the norms, which each has."""
    shape = LlamaShape(16, 24, 1, 16, 8, 2, 13, 32, 1e-5)
    counts: dict[str, torch.Tensor] = {}
    for rank in range(size):
        for piece in (piece for parameter in parameters(shape, rank, size) for piece in parameter.pieces):
            count = counts.setdefault(piece.tensor, torch.zeros(piece.shape))
            rows = count[piece.rows.start : piece.rows.stop]
            (rows if piece.columns is None else rows[:, piece.columns.start : piece.columns.stop]).add_(1)
    assert len(counts) == 12
    for tensor, count in counts.items():
        assert (count == (size if "norm" in tensor else 1)).all(), tensor
