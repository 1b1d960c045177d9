"""Min-p, top-k and top-p over slices of the vocabulary, without sorting it.

Each filter keeps a head of the order of tokens (larger value first, of equal values the lower id). For min-p and top-k
the last one kept is known beforehand. For top-p a token is drawn first and looked at then: it belongs to the head where
all that come before it have less than top_p of the probability. Else neither it nor what comes after it does: these are
struck out, and the next is drawn with the same noise. The outcome is the maximum over the head, as if the others had
never been there. It takes a second draw with probability 1 - top_p, and each strikes out half of what is left or so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.noise import add_noise
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.vocabulary import Slice, largest, leading, merge


def draw_filtered(
    x: Tensor, temperatures: Tensor, key: Tensor, wishes: Sequence[Sampling], part: Slice, collectives: Collectives
) -> list[int | None]:
    """Draw one id for each row of logits x (R, part.rows) by the filters in `wishes`; None where there are no numbers.

    temperatures: (R,) float32, above 0. key: (R,) int64, see `noise.keys`. Waits for the device.
    """
    ids = torch.arange(part.first, part.first + part.rows, device=x.device)
    greatest, last, last_id = (t.to(x.device).unsqueeze(1) for t in _bounds(x, temperatures, wishes, part, collectives))
    cut = (x < last) | ((x == last) & (ids > last_id))
    weights = ((x - greatest) / temperatures.unsqueeze(1)).exp_().masked_fill_(cut, 0.0)
    scores = torch.cat(list(add_noise(x, temperatures, key, part.first))).masked_fill_(cut, -torch.inf)

    total, drawn, logit = _propose(weights, scores, x, part, collectives)
    outcome = [int(i) if math.isfinite(sum_) else None for sum_, i in zip(total.tolist(), drawn.tolist(), strict=True)]
    unsettled = [r for r, wish in enumerate(wishes) if wish.top_p < 1 and outcome[r] is not None]
    limit = total * torch.tensor([wish.top_p for wish in wishes], dtype=torch.float64)
    rest = torch.tensor(unsettled, dtype=torch.int64)
    while len(rest):
        limit, drawn, logit = limit[rest], drawn[rest], logit[rest]
        at = rest.to(x.device)
        x, weights, scores = x[at], weights[at], scores[at]
        bound, bound_id = logit.to(x.device).unsqueeze(1), drawn.to(x.device).unsqueeze(1)
        cut = (x < bound) | ((x == bound) & (ids >= bound_id))
        weights.masked_fill_(cut, 0.0)
        scores.masked_fill_(cut, -torch.inf)
        before, following, following_logit = _propose(weights, scores, x, part, collectives)
        outside = before >= limit
        for r, i, again in zip(unsettled, drawn.tolist(), outside.tolist(), strict=True):
            if not again:
                outcome[r] = int(i)
        rest = outside.nonzero()[:, 0]
        unsettled = [unsettled[r] for r in rest.tolist()]
        drawn, logit = following, following_logit
    return outcome


def _bounds(
    x: Tensor, temperatures: Tensor, wishes: Sequence[Sampling], part: Slice, collectives: Collectives
) -> tuple[Tensor, Tensor, Tensor]:
    """The greatest logit of each row, and the last one that min-p and top-k keep: logit and id. (R,) each, on the CPU.

    Min-p keeps what has min_p times the greatest probability: a logit of greatest + T log(min_p).
    """
    n = min(max(wish.top_k for wish in wishes), part.vocabulary)
    said = torch.full((len(wishes), 1 + 2 * n), -torch.inf, dtype=torch.float64, device=x.device)
    said[:, 1 + n :] = part.vocabulary
    if part.rows:
        values, columns = leading(x, n)
        said[:, 0] = x.amax(-1)
        said[:, 1 : 1 + values.shape[1]] = values
        said[:, 1 + n : 1 + n + values.shape[1]] = columns + part.first
    gathered = collectives.all_gather(said).cpu()
    greatest = gathered[:, :, 0].amax(0)
    values, ids = merge(gathered[:, :, 1 : 1 + n], gathered[:, :, 1 + n :], n)
    last, last_id = [], []
    for r, (wish, top, t) in enumerate(zip(wishes, greatest.tolist(), temperatures.tolist(), strict=True)):
        bound = (top + t * math.log(wish.min_p) if wish.min_p else -math.inf, float(part.vocabulary))
        if 0 < wish.top_k < part.vocabulary:
            kth = float(values[r, wish.top_k - 1]), float(ids[r, wish.top_k - 1])
            bound = kth if kth[0] >= bound[0] else bound
        last.append(bound[0])
        last_id.append(bound[1])
    return greatest.to(x.dtype), torch.tensor(last, dtype=x.dtype), torch.tensor(last_id, dtype=torch.int64)


def _propose(
    weights: Tensor, scores: Tensor, x: Tensor, part: Slice, collectives: Collectives
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of weights of each row, and the id and logit with the greatest score: (R,) float64 each, on the CPU.

    On the CPU and from the same numbers every rank comes to the same conclusions, and makes the same calls after it.
    """
    said = torch.full((4, x.shape[0]), -torch.inf, dtype=torch.float64, device=x.device)
    said[0] = weights.sum(-1, dtype=torch.float64)
    if part.rows:
        values, columns = largest(scores)
        said[1], said[2], said[3] = values, columns + part.first, x.gather(1, columns.unsqueeze(1))[:, 0]
    sums, values, ids, logits = collectives.all_gather(said).cpu().unbind(1)
    rank = values.argmax(0, keepdim=True)
    return sums.sum(0), ids.gather(0, rank)[0], logits.gather(0, rank)[0]
