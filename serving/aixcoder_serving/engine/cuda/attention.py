"""Causal attention over the paged cache, in Triton. Never run on a GPU: held by Triton's interpreter and its compiler.

The work of a step is cut into items: a tile of query tokens of one sequence, for one key/value head and the query heads
that share it, over one split of the context. Splits have a fixed size, so that a row's result depends on its own past
alone, whatever else is in the step; a second kernel adds up the splits of each row (flash-decoding, Dao et al. 2023).
Programs find their items in `query_start` and `context` on the device: the host waits for nothing and knows no length,
and one CUDA graph serves all steps of as many tokens.

Steps of other sizes have other tiles and splits (`tiling`) and may differ in the last bits, as cuBLAS does.

Torch's own attention over pages (`torch.nn.attention.varlen`) can not be used: it takes pages of multiples of 256
positions (flash-attention's issue 828), and the engine's have 16 or 32.
"""

# Names in capitals are constants to Triton's compiler, as in its own examples; its decorator has no types.
# ruff: noqa: N803, N806
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aixcoder_serving.engine.ops import Batch

_LOG2_E = 1.4426950408889634
_COMBINED = 16  # splits that are added up at a time


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a step is cut: rows of a tile (a query token of one head each), positions at a time, positions of a split.

    `split` 0: the whole context, without a second kernel. `stages` of the loop over the positions: with 5 the
    compiler keeps two tiles of keys and values under way, with 3 one. `programs`: how many run at once on a
    multiprocessor, by the registers and the shared memory that the compiler gives them on compute capability 9.0.
    """

    rows: int
    keys: int
    split: int
    stages: int
    programs: int


def tiling(tokens: int, group: int, head_bytes: int) -> Tiling:
    """For a step of `tokens` query tokens; `group` query heads share a key/value head, a head's vector takes bytes.

    Few tokens: all that matters is to read the cache once with the whole device, so a tile is as small as the tensor
    cores allow, and one sequence of 32,768 positions and 8 heads is 512 items. With more there are enough tiles.
    What lies in shared memory stays below the 99 KiB of the smallest devices.
    """
    keys, rows = (64, 64) if head_bytes <= 256 else (32, 32) if head_bytes <= 512 else (16, 16)
    least = max(16, triton.next_power_of_2(group))
    if tokens <= 64:
        return Tiling(least, keys, 512, 5, 3)
    return Tiling(max(rows, least), keys, 2048 if tokens <= 256 else 0, 3, 2)


def attend(q: Tensor, batch: Batch, keys: Tensor, values: Tensor, multiprocessors: int) -> Tensor:
    """Attention of q (T, H, D) over keys and values (blocks, G, block_size, D): (T, H * D)."""
    tokens, heads, head_dim = q.shape
    _, kv_heads, block_size, _ = keys.shape
    group = heads // kv_heads
    cut = tiling(tokens, group, head_dim * q.element_size())
    slots, table_width = batch.tables.shape
    sequences = batch.slots.shape[0]
    out = torch.empty_like(q)
    fixed: dict[str, Any] = {
        "HEADS": heads,
        "KV_HEADS": kv_heads,
        "HEAD_DIM": head_dim,
        "BLOCK_DIM": triton.next_power_of_2(max(head_dim, 16)),
        "SPLIT": cut.split,
    }
    if cut.split:
        programs = multiprocessors * cut.programs
        splits = triton.cdiv(table_width * block_size, cut.split)
        parts = torch.empty((tokens, heads, splits, head_dim), dtype=torch.float32, device=q.device)
        logs = torch.empty((tokens, heads, splits), dtype=torch.float32, device=q.device)
    else:
        splits, parts, logs = 1, out, out
        # Each sequence may have one tile that is not full; a program without an item ends at once.
        programs = (triton.cdiv(tokens, cut.rows // group) + sequences) * kv_heads
    if not tokens:
        return out.view(0, heads * head_dim)
    attend_kernel[(programs,)](
        q, keys, values, parts, logs,
        batch.positions, batch.query_start, batch.context, batch.slots, batch.tables,
        sequences, table_width, splits, head_dim**-0.5 * _LOG2_E,
        ROWS=cut.rows, KEYS=cut.keys, PAGE=block_size, SEQUENCES=triton.next_power_of_2(slots), **fixed,
        num_warps=4, num_stages=cut.stages, enable_fp_fusion=True,
    )  # fmt: skip
    if cut.split:
        combine_kernel[(tokens, heads)](
            parts, logs, out, batch.positions, splits, COMBINED=_COMBINED,
            **{name: fixed[name] for name in ("HEADS", "HEAD_DIM", "BLOCK_DIM", "SPLIT")},
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return out.view(tokens, heads * head_dim)


_METADATA = ["positions", "query_start", "context", "slots", "tables"]


@triton.jit(do_not_specialize=["sequences", "table_width", "splits"], do_not_specialize_on_alignment=_METADATA)
def attend_kernel(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    parts: tl.tensor,  # (T, H, splits, D) float32, or the result where SPLIT is 0
    logs: tl.tensor,  # (T, H, splits) float32: of the sums of exponentials, base 2
    positions: tl.tensor,
    query_start: tl.tensor,
    context: tl.tensor,
    slots: tl.tensor,
    tables: tl.tensor,
    sequences: tl.tensor,
    table_width: tl.tensor,
    splits: tl.tensor,
    scale: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PAGE: tl.constexpr,
    SEQUENCES: tl.constexpr,
) -> None:
    """Program p computes the items p, p + programs and so on."""
    GROUP: tl.constexpr = HEADS // KV_HEADS
    TILE: tl.constexpr = ROWS // GROUP
    n = tl.arange(0, SEQUENCES)
    there = n < sequences
    counts = tl.load(query_start + n + 1, mask=there, other=0) - tl.load(query_start + n, mask=there, other=0)
    items = tl.cdiv(counts, TILE) * KV_HEADS
    if SPLIT:
        items *= tl.cdiv(tl.load(context + n, mask=there, other=0), SPLIT)
    after = tl.cumsum(items, 0)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    for item in range(tl.program_id(0), tl.sum(items), tl.num_programs(0)):
        passed = after <= item
        sequence = tl.sum(passed.to(tl.int32))
        of_sequence = item - tl.max(tl.where(passed, after, 0))
        kv_head = of_sequence % KV_HEADS
        tile = of_sequence // KV_HEADS
        split = 0
        if SPLIT:
            n_splits = tl.cdiv(tl.load(context + sequence), SPLIT)
            split = tile % n_splits
            tile = tile // n_splits
        token = tl.load(query_start + sequence) + tile * TILE + row // GROUP
        used = (row < TILE * GROUP) & (token < tl.load(query_start + sequence + 1))
        position = tl.load(positions + token, mask=used, other=-1)
        q_row = token * HEADS + kv_head * GROUP + row % GROUP
        q_mask = used[:, None] & (dim < HEAD_DIM)[None, :]
        q_tile = tl.load(q + q_row[:, None] * HEAD_DIM + dim[None, :], mask=q_mask, other=0.0)

        first = split * SPLIT
        end = tl.max(position) + 1
        if SPLIT:
            end = tl.minimum(end, first + SPLIT)
        table = tables + tl.load(slots + sequence) * table_width
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, BLOCK_DIM), tl.float32)
        for start in range(first, end, KEYS):
            key = start + tl.arange(0, KEYS)
            block = tl.load(table + key // PAGE, mask=key < end, other=0).to(tl.int64)
            place = ((block * KV_HEADS + kv_head) * PAGE + key % PAGE) * HEAD_DIM
            # What lies behind the end may be anything, even no number.
            mask = (key < end)[:, None] & (dim < HEAD_DIM)[None, :]
            k = tl.load(keys + place[:, None] + dim[None, :], mask=mask, other=0.0)
            scores = tl.dot(q_tile, tl.trans(k), input_precision="ieee") * scale
            scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores, 1))
            shift = tl.where(higher == float("-inf"), 0.0, higher)
            weights = tl.exp2(scores - shift[:, None])
            shrink = tl.exp2(highest - shift)
            v = tl.load(values + place[:, None] + dim[None, :], mask=mask, other=0.0)
            sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
            total = total * shrink + tl.sum(weights, 1)
            highest = higher
        seen = used & (position >= first)  # some rows of a tile may end before this split
        total = tl.where(seen, total, 1.0)
        at = q_row * splits + split
        result = (sums / total[:, None]).to(parts.dtype.element_ty)
        tl.store(parts + at[:, None] * HEAD_DIM + dim[None, :], result, mask=seen[:, None] & q_mask)
        if SPLIT:
            tl.store(logs + at, highest + tl.log2(total), mask=seen)


@triton.jit(do_not_specialize=["splits"], do_not_specialize_on_alignment=["positions"])
def combine_kernel(
    parts: tl.tensor,
    logs: tl.tensor,
    out: tl.tensor,
    positions: tl.tensor,
    splits: tl.tensor,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPLIT: tl.constexpr,
    COMBINED: tl.constexpr,
) -> None:
    """Add up the splits of one token and head, those that lie before its end."""
    token = tl.program_id(0)
    row = token * HEADS + tl.program_id(1)
    dim = tl.arange(0, BLOCK_DIM)
    count = tl.load(positions + token) // SPLIT + 1
    highest = float("-inf")
    total = 0.0
    sums = tl.zeros((BLOCK_DIM,), tl.float32)
    for start in range(0, count, COMBINED):
        split = start + tl.arange(0, COMBINED)
        at = row * splits + split
        log = tl.load(logs + at, mask=split < count, other=float("-inf"))
        mask = (split < count)[:, None] & (dim < HEAD_DIM)[None, :]
        part = tl.load(parts + at[:, None] * HEAD_DIM + dim[None, :], mask=mask, other=0.0)
        higher = tl.maximum(highest, tl.max(log))
        weights = tl.exp2(log - higher)
        shrink = tl.exp2(highest - higher)
        sums = sums * shrink + tl.sum(part * weights[:, None], 0)
        total = total * shrink + tl.sum(weights)
        highest = higher
    tl.store(out + row * HEAD_DIM + dim, (sums / total).to(out.dtype.element_ty), mask=dim < HEAD_DIM)
