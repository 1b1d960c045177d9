"""The paged cache and attention over it: against torch's own attention, in steps of every form."""

import pytest
import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Ops
from tests.unit.engine.ops_cases import (
    DTYPES,
    VARIANTS,
    Sequence,
    Shape,
    batch,
    close,
    native,
    reference,
    rotary,
    run,
)

SHAPES = [Shape(8, 2, 32), Shape(4, 4, 16), Shape(3, 1, 80), Shape(2, 2, 128), Shape(14, 2, 24), Shape(60, 1, 16)]


def _dense(shape: Shape, sequence: Sequence) -> Tensor:
    """What one whole sequence gives, by torch, without a cache."""
    length = len(sequence.qkv)
    heads = sequence.qkv.float().view(length, -1, shape.head_dim).transpose(0, 1)
    plain = rotary(length, shape.head_dim)
    cos, sin = (torch.cat((part, part), dim=-1) for part in (plain.cos, plain.sin))

    def rotate(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(sequence.qkv.dtype).float()

    q, k, v = heads[: shape.heads], heads[shape.heads : -shape.kv_heads], heads[-shape.kv_heads :]
    attended = torch.nn.functional.scaled_dot_product_attention(
        rotate(q)[None], rotate(k)[None], v[None], is_causal=True, enable_gqa=True
    )
    return attended[0].transpose(0, 1).reshape(length, -1).to(sequence.qkv.dtype)


def _tables(slots: int, blocks: int) -> Tensor:
    """Scattered blocks, block 0 among them."""
    order = torch.randperm(slots * blocks + 3, generator=torch.Generator().manual_seed(1))
    return order[: slots * blocks].to(torch.int32).view(slots, blocks)


def _ops(name: str, dtype: torch.dtype, block_size: int = 16) -> Ops:
    return reference(dtype, block_size) if name == "torch" else native(name, dtype, block_size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
def test_steps_of_prefill_and_decoding(name: str, shape: Shape, block_size: int, dtype: torch.dtype) -> None:
    ops = _ops(name, dtype, block_size)
    sequences = [Sequence(0, 90, shape, dtype), Sequence(1, 33, shape, dtype), Sequence(2, 1, shape, dtype)]
    steps = [
        [(0, 0, 50)],
        [(1, 0, 20), (0, 50, 51)],
        [(0, 51, 52), (2, 0, 1), (1, 20, 33)],
        [(0, 52, 90)],
    ]
    found = run(ops, shape, sequences, _tables(3, 6), steps)
    for sequence in sequences:
        close(found[sequence.slot], _dense(shape, sequence))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
def test_a_long_context(name: str, dtype: torch.dtype) -> None:
    shape = Shape(4, 2, 32)
    sequence = Sequence(0, 1300, shape, dtype)
    steps = [[(0, 0, 600)], [(0, 600, 1290)], [(0, 1290, 1299)], [(0, 1299, 1300)]]
    close(run(_ops(name, dtype), shape, [sequence], _tables(1, 82), steps)[0], _dense(shape, sequence))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_token_is_the_same_bits_in_every_step(variant: str, dtype: torch.dtype) -> None:
    """Alone or among others, in one chunk or several, with few tasks (spans apart) or many, on one thread or two."""
    shape = Shape(6, 2, 40)
    sequences = [Sequence(0, 1100, shape, dtype), *(Sequence(slot, 40, shape, dtype) for slot in range(1, 7))]
    tables = _tables(7, 69)
    short = [(slot, 0, 40) for slot in range(1, 7)]
    whole = run(native(variant, dtype), shape, sequences, tables, [[(0, 0, 1100)], short])
    steps = [[(0, 0, 7)], [(0, 7, 1090), *short], [(0, 1090, 1099)], [(0, 1099, 1100)]]
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        parts = run(native(variant, dtype), shape, sequences, tables, steps)
        for slot, rows in whole.items():
            assert torch.equal(parts[slot], rows), slot
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
def test_a_shared_block_is_read_by_both(name: str, dtype: torch.dtype) -> None:
    """Two slots with the same first tokens and one block for them: only the first slot has stored them."""
    shape = Shape(4, 2, 32)
    first, second = Sequence(0, 30, shape, dtype), Sequence(1, 40, shape, dtype)
    second.qkv[:16] = first.qkv[:16]
    tables = torch.tensor([[2, 0, 5], [2, 4, 1]], dtype=torch.int32)
    found = run(_ops(name, dtype), shape, [first, second], tables, [[(0, 0, 30)], [(1, 16, 40), (0, 29, 30)]])
    close(found[0], torch.cat((_dense(shape, first), _dense(shape, first)[-1:])))
    close(found[1], _dense(shape, second)[16:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
def test_what_lies_behind_a_sequence_does_not_count(name: str, dtype: torch.dtype) -> None:
    """Blocks are used again: an earlier owner may have left anything behind the last token."""
    shape = Shape(4, 2, 32)
    wild, sequence = Sequence(0, 64, shape, dtype), Sequence(1, 21, shape, dtype)
    wild.qkv.fill_(torch.nan)
    tables = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]], dtype=torch.int32)
    found = run(_ops(name, dtype), shape, [wild, sequence], tables, [[(0, 0, 64)], [(1, 0, 20)], [(1, 20, 21)]])
    close(found[1], _dense(shape, sequence))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
def test_copied_blocks(name: str, dtype: torch.dtype) -> None:
    """A copy continues as its source did, and the source stays as it is."""
    shape = Shape(4, 2, 32)
    ops = _ops(name, dtype)
    caches = ops.new_cache(3, 6, shape.kv_heads, shape.head_dim)
    source, copy = Sequence(0, 20, shape, dtype), Sequence(1, 20, shape, dtype)
    copy.qkv[:10] = source.qkv[:10]
    tables = torch.tensor([[3, 1], [5, 2]], dtype=torch.int32)
    rotations = rotary(20, shape.head_dim)
    for cache in caches:
        ops.rope_and_store(source.qkv, batch([(0, 0, 20)], tables), cache, rotations, shape.kv_heads)
    ops.copy_blocks(caches, ((3, 5), (3, 4)))
    ops.copy_blocks(caches, ())
    for cache in caches:
        step = batch([(1, 10, 20)], tables)
        q = ops.rope_and_store(copy.qkv[10:], step, cache, rotations, shape.kv_heads)
        close(ops.attend(q, step, cache), _dense(shape, copy)[10:])
        step = batch([(0, 19, 20)], tables)
        q = ops.rope_and_store(source.qkv[19:], step, cache, rotations, shape.kv_heads)
        close(ops.attend(q, step, cache), _dense(shape, source)[19:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", *VARIANTS])
@pytest.mark.parametrize(("layers", "blocks", "kv_heads", "head_dim"), [(1, 1, 1, 16), (3, 7, 2, 24), (2, 50, 8, 128)])
def test_cache_bytes(name: str, dtype: torch.dtype, layers: int, blocks: int, kv_heads: int, head_dim: int) -> None:
    ops = _ops(name, dtype)
    caches = ops.new_cache(layers, blocks, kv_heads, head_dim)
    tensors = [value for cache in caches for value in map(cache.__getattribute__, cache.__slots__)]
    held = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
    assert ops.cache_bytes(layers, blocks, kv_heads, head_dim) == held


@pytest.mark.parametrize("head_dim", [0, 15, 514])
def test_a_head_that_does_not_fit_is_refused(head_dim: int) -> None:
    with pytest.raises(ValueError, match=f"head_dim is {head_dim}: it must be even and at most 512"):
        native("v3", torch.float32).new_cache(1, 1, 1, head_dim)
