"""Norms, activation and rotary embedding in Triton, rounded where `TorchOps` rounds. Never run on a GPU."""

# Names in capitals are constants to Triton's compiler, as in its own examples; its decorator has no types.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aixcoder_serving.engine.ops import Batch, Rotary

_COLUMNS = 1024
_HEADS = 8


def rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, add: bool) -> Tensor:
    """The norm of `residual` (T, width); with `add` x (T, width) is added to it before, in place."""
    rows, width = residual.shape
    out = torch.empty_like(residual)
    if rows:
        rms_norm_kernel[(rows,)](
            x,
            residual,
            weight,
            out,
            width,
            eps,
            ADD=add,
            COLUMNS=triton.next_power_of_2(width),
            num_warps=8,
            enable_fp_fusion=True,
        )
    return out


def silu_mul(gate_up: Tensor) -> Tensor:
    """(T, 2 N), gate in the first half: silu(gate) * up, (T, N)."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        silu_mul_kernel[(rows, triton.cdiv(width, _COLUMNS))](
            gate_up, out, width, COLUMNS=_COLUMNS, enable_fp_fusion=True
        )
    return out


def rope_and_store(qkv: Tensor, batch: Batch, keys: Tensor, values: Tensor, rotary: Rotary) -> Tensor:
    """See `Ops`; keys and values are (blocks, G, block_size, D)."""
    tokens, width = qkv.shape
    _, kv_heads, block_size, head_dim = keys.shape
    heads = width // head_dim - 2 * kv_heads
    q = torch.empty((tokens, heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    slots, table_width = batch.tables.shape
    if tokens:
        rope_and_store_kernel[(tokens, triton.cdiv(heads + 2 * kv_heads, _HEADS))](
            qkv, q, keys, values, rotary.cos, rotary.sin,
            batch.positions, batch.query_start, batch.slots, batch.tables, batch.slots.shape[0], table_width,
            HEADS=heads, KV_HEADS=kv_heads, HALF=head_dim // 2, BLOCK_HALF=triton.next_power_of_2(head_dim // 2),
            PAGE=block_size, SEQUENCES=triton.next_power_of_2(slots), BLOCK_HEADS=_HEADS, enable_fp_fusion=True,
        )  # fmt: skip
    return q


@triton.jit
def rms_norm_kernel(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    ADD: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One row."""
    column = tl.arange(0, COLUMNS)
    mask = column < width
    at = tl.program_id(0) * width + column
    row = tl.load(residual + at, mask=mask, other=0.0)
    if ADD:
        row = (row.to(tl.float32) + tl.load(x + at, mask=mask, other=0.0).to(tl.float32)).to(row.dtype)
        tl.store(residual + at, row, mask=mask)
    wide = row.to(tl.float32)
    normed = (wide * tl.rsqrt(tl.sum(wide * wide) / width + eps)).to(row.dtype)
    scaled = normed.to(tl.float32) * tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, scaled.to(row.dtype), mask=mask)


@triton.jit
def silu_mul_kernel(gate_up: tl.tensor, out: tl.tensor, width: tl.tensor, COLUMNS: tl.constexpr) -> None:
    """Some columns of one row."""
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = column < width
    at = gate_up + row * 2 * width + column
    gate = tl.load(at, mask=mask, other=0.0)
    up = tl.load(at + width, mask=mask, other=0.0)
    wide = gate.to(tl.float32)
    active = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out + row * width + column, (active.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=mask)


@triton.jit(
    do_not_specialize=["sequences", "table_width"],
    do_not_specialize_on_alignment=["positions", "query_start", "slots", "tables"],
)
def rope_and_store_kernel(
    qkv: tl.tensor,
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    positions: tl.tensor,
    query_start: tl.tensor,
    slots: tl.tensor,
    tables: tl.tensor,
    sequences: tl.tensor,
    table_width: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    PAGE: tl.constexpr,
    SEQUENCES: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
) -> None:
    """Some heads of one token."""
    token = tl.program_id(0)
    n = tl.arange(0, SEQUENCES)
    ends = tl.load(query_start + n + 1, mask=n < sequences, other=2147483647)
    slot = tl.load(slots + tl.sum((ends <= token).to(tl.int32)))
    position = tl.load(positions + token)
    block = tl.load(tables + slot * table_width + position // PAGE).to(tl.int64)

    head = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    dim = tl.arange(0, BLOCK_HALF)
    inside = dim < HALF
    angle = position * HALF + dim
    c = tl.load(cos + angle, mask=inside, other=0.0)[None, :]
    s = tl.load(sin + angle, mask=inside, other=0.0)[None, :]
    mask = (head < HEADS + 2 * KV_HEADS)[:, None] & inside[None, :]
    at = qkv + (token * (HEADS + 2 * KV_HEADS) + head)[:, None] * (2 * HALF) + dim[None, :]
    first = tl.load(at, mask=mask, other=0.0)
    second = tl.load(at + HALF, mask=mask, other=0.0)
    a, b = first.to(tl.float32), second.to(tl.float32)
    turned_first = (a * c - b * s).to(first.dtype)
    turned_second = (b * c + a * s).to(first.dtype)

    is_query = mask & (head < HEADS)[:, None]
    to_q = q + (token * HEADS + head)[:, None] * (2 * HALF) + dim[None, :]
    tl.store(to_q, turned_first, mask=is_query)
    tl.store(to_q + HALF, turned_second, mask=is_query)
    is_key = mask & ((head >= HEADS) & (head < HEADS + KV_HEADS))[:, None]
    to_key = ((block * KV_HEADS + head - HEADS) * PAGE + position % PAGE)[:, None] * (2 * HALF) + dim[None, :]
    tl.store(keys + to_key, turned_first, mask=is_key)
    tl.store(keys + to_key + HALF, turned_second, mask=is_key)
    is_value = mask & (head >= HEADS + KV_HEADS)[:, None]
    to_value = to_key - KV_HEADS * PAGE * (2 * HALF)
    tl.store(values + to_value, first, mask=is_value)
    tl.store(values + to_value + HALF, second, mask=is_value)
