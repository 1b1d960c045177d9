"""Logarithms of probabilities of the model's own distribution, over slices of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import TokenLogprobs
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.vocabulary import Slice, leading, merge, row_blocks

LOGPROB_ROWS = 64
"""Most rows that are worked on at a time: what bounds the memory of prompt logprobs. Compute no more logits at once."""


def token_logprobs(
    logits: Tensor, ids: Sequence[int], top: Sequence[int], part: Slice, collectives: Collectives
) -> list[TokenLogprobs]:
    """Natural logarithms of softmax, in each row of logits (R, part.rows), of `ids[r]` and the `top[r]` likeliest.

    Of equally likely tokens the lower id comes first. In a row with NaN every logarithm is NaN.
    """
    found: list[TokenLogprobs] = []
    for start in range(0, len(ids), LOGPROB_ROWS):
        block = slice(start, start + LOGPROB_ROWS)
        found += _block(logits[block], ids[block], top[block], part, collectives)
    return found


def _block(
    x: Tensor, ids: Sequence[int], top: Sequence[int], part: Slice, collectives: Collectives
) -> list[TokenLogprobs]:
    n = min(max(top), part.vocabulary)
    wanted = torch.tensor(ids, device=x.device)
    sums = torch.cat([_sums(x[rows], wanted[rows], part) for rows in row_blocks(x, x.shape[1])])
    gathered = collectives.all_gather(torch.cat((sums, _top(x, n, part)), dim=1)).cpu()
    greatest, total, chosen = gathered[:, :, :3].unbind(-1)
    highest = greatest.amax(0)
    sums = torch.where(greatest > -torch.inf, total * torch.exp(greatest - highest), total)
    log_sum = highest + torch.log(sums.sum(0))
    values, found = merge(gathered[:, :, 3 : 3 + n], gathered[:, :, 3 + n :], n)
    own = (chosen.amax(0) - log_sum).tolist()
    logs = (values - log_sum.unsqueeze(1)).tolist()
    names = found.to(torch.int64).tolist()
    return [
        TokenLogprobs(i, mine, tuple(zip(names[r][: top[r]], logs[r][: top[r]], strict=True)))
        for r, (i, mine) in enumerate(zip(ids, own, strict=True))
    ]


def _sums(x: Tensor, ids: Tensor, part: Slice) -> Tensor:
    """What this slice knows of the row's softmax, (R, 3) float64.

    The greatest logit, the sum of exp(logit - greatest) and the id's logit; minus infinity or 0 where it has none.
    """
    if not part.rows:
        return torch.tensor([[-torch.inf, 0.0, -torch.inf]], dtype=torch.float64, device=x.device).repeat(len(ids), 1)
    greatest = x.amax(-1, keepdim=True)
    total = (x - greatest.clamp(min=torch.finfo(x.dtype).min)).exp_().sum(-1, dtype=torch.float64)
    own = (ids - part.first).unsqueeze(1)
    logit = x.gather(1, own.clamp(0, part.rows - 1))
    logit = torch.where((own >= 0) & (own < part.rows), logit, -torch.inf)
    return torch.stack((greatest[:, 0].double(), total, logit[:, 0].double()), dim=-1)


def _top(x: Tensor, n: int, part: Slice) -> Tensor:
    """This slice's n likeliest, (R, 2 n) float64: logits, then their ids; filled up as `merge` asks."""
    said = torch.full((x.shape[0], 2 * n), -torch.inf, dtype=torch.float64, device=x.device)
    said[:, n:] = part.vocabulary
    values, columns = leading(x, n)
    said[:, : values.shape[1]] = values
    said[:, n : n + values.shape[1]] = columns + part.first
    return said
