"""Min-p, top-k and top-p over slices of the vocabulary, without sorting it.

Each filter keeps a head of the order of tokens (larger value first, of equal values the lower id). For min-p and top-k
the last one kept is known beforehand. For top-p a token is drawn first and looked at then: it belongs to the head where
all that come before it have less than top_p of the probability. Else neither it nor what comes after it does: these are
struck out, and the next is drawn with the same noise. The outcome is the maximum over the head, as if the others had
never been there. It takes a second draw with probability 1 - top_p, and each strikes out half of what is left or so.

Only tokens that can be the outcome get noise: the noise is bounded, and what is so unlikely that the whole vocabulary
of it had less than 1 - top_p of the probability is not in the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.noise import NOISE_RANGE, gumbel_at
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.vocabulary import Slice, above, leading, merge, row_blocks

_LEAST_EXPONENT = -80.0
_MARGIN = 0.01  # of a logarithm: more than what float32 rounds away


def draw_filtered(
    x: Tensor, temperatures: Tensor, key: Tensor, wishes: Sequence[Sampling], part: Slice, collectives: Collectives
) -> list[int | None]:
    """Draw one id for each row of logits x (R, part.rows) by the filters in `wishes`; None where there are no numbers.

    temperatures: (R,) float32, above 0. key: (R,) int64, see `noise.keys`. Waits for the device.
    """
    bounds = _bounds(x, temperatures, wishes, part, collectives)
    heads = [
        _Head(rows, x, temperatures, key, bounds, part) for rows in row_blocks(x, part.vocabulary // collectives.size)
    ]
    sums, drawn, logits = _exchange(heads, collectives)
    limits = [
        wish.top_p * (total if math.isnan(mass) else mass)
        for wish, mass, total in zip(wishes, bounds.mass, sums.tolist(), strict=True)
    ]
    numbers = [math.isfinite(greatest) for greatest in bounds.greatest.tolist()]
    outcome = [int(i) if finite else None for finite, i in zip(numbers, drawn.tolist(), strict=True)]
    unsettled = {r for r, finite in enumerate(numbers) if finite and wishes[r].top_p < 1}
    while unsettled:
        heads = [head for head in heads if not unsettled.isdisjoint(range(head.rows.start, head.rows.stop))]
        for head in heads:
            head.strike(drawn[head.rows], logits[head.rows])
        sums, following, following_logits = _exchange(heads, collectives)
        rows = torch.cat([torch.arange(head.rows.start, head.rows.stop) for head in heads])
        for r, before in zip(rows.tolist(), sums.tolist(), strict=True):
            if r in unsettled and before < limits[r]:
                outcome[r] = int(drawn[r])
                unsettled.remove(r)
        drawn[rows], logits[rows] = following, following_logits
    return outcome


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What is known of each row before the draw; tensors are (R,), on the device.

    `last`, `last_id`: the last token that min-p and top-k keep. Below `floor` none can be the outcome. `mass`: the sum
    of exp((logit - greatest) / T) of what they keep, NaN where the slices have to sum it, 0 where nobody asks.
    """

    greatest: Tensor
    last: Tensor
    last_id: Tensor
    floor: Tensor
    mass: tuple[float, ...]


def _bounds(
    x: Tensor, temperatures: Tensor, wishes: Sequence[Sampling], part: Slice, collectives: Collectives
) -> _Bounds:
    n = min(max(wish.top_k if wish.top_k < part.vocabulary else 0 for wish in wishes), part.vocabulary)
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
    found, masses = [], []
    for r, (wish, top, t) in enumerate(zip(wishes, greatest.tolist(), temperatures.tolist(), strict=True)):
        # Min-p keeps what has min_p times the greatest probability.
        last = top + t * math.log(wish.min_p) if wish.min_p else -math.inf
        last_id = part.vocabulary
        mass = math.nan if wish.top_p < 1 else 0.0
        if 0 < wish.top_k < part.vocabulary:
            kept = values[r, : wish.top_k][values[r, : wish.top_k] >= last]
            mass = float(torch.exp((kept - top) / t).sum())
            if len(kept) == wish.top_k:
                last, last_id = float(kept[-1]), int(ids[r, wish.top_k - 1])
        floor = max(last, top - t * NOISE_RANGE)
        if wish.top_p < 1:
            floor = max(floor, top + t * (math.log((1 - wish.top_p) / part.vocabulary) - _MARGIN))
        found.append((top, last, last_id, floor))
        masses.append(mass)
    bounds = torch.tensor(found, dtype=torch.float64).to(x.device).unbind(-1)
    return _Bounds(
        greatest=bounds[0].to(x.dtype),
        last=bounds[1].to(x.dtype),
        last_id=bounds[2].to(torch.int64),
        floor=bounds[3].to(x.dtype),
        mass=tuple(masses),
    )


class _Head:
    """What can be drawn of a block of rows on this slice, by column and filled up with minus infinity: (B, M)."""

    def __init__(self, rows: slice, x: Tensor, temperatures: Tensor, key: Tensor, bounds: _Bounds, part: Slice) -> None:
        self.rows = rows
        own, last = x[rows], bounds.last[rows].unsqueeze(1)
        self._temperature, self._greatest = temperatures[rows].unsqueeze(1), bounds.greatest[rows].unsqueeze(1)
        self._logits, columns = above(own, bounds.floor[rows].unsqueeze(1))
        self._ids = columns + part.first
        cut = (self._logits == last) & (self._ids > bounds.last_id[rows].unsqueeze(1))
        noise = gumbel_at(key[rows], self._ids)
        self._scores = noise.mul_(self._temperature).add_(self._logits).masked_fill_(cut, -torch.inf)
        self._sum = torch.zeros(len(own), dtype=torch.float64, device=x.device)
        if any(map(math.isnan, bounds.mass[rows])):
            self._sum = self._weights(own).masked_fill_(own < last, 0.0).sum(-1, dtype=torch.float64)

    def _weights(self, logits: Tensor) -> Tensor:
        # exp of less is a denormal number: 30 times as slow, and nothing beside the greatest one's 1.
        return (logits - self._greatest).div_(self._temperature).clamp_(min=_LEAST_EXPONENT).exp_()

    def strike(self, drawn: Tensor, logits: Tensor) -> None:
        """Take out the tokens `drawn` and all that come after them, both (B,) on the CPU; sum what comes before."""
        bound, bound_id = (t.to(self._ids.device).unsqueeze(1) for t in (logits, drawn))
        cut = (self._logits < bound) | ((self._logits == bound) & (self._ids >= bound_id))
        self._scores.masked_fill_(cut, -torch.inf)
        self._sum = self._weights(self._logits).masked_fill_(cut, 0.0).sum(-1, dtype=torch.float64)

    def propose(self) -> Tensor:
        """(B, 4) float64: the sum, and of the token with the greatest score this score, the id and the logit."""
        column = self._scores.max(-1, keepdim=True).indices
        chosen = (t.gather(1, column)[:, 0].double() for t in (self._scores, self._ids, self._logits))
        return torch.stack((self._sum, *chosen), dim=-1)


def _exchange(heads: Sequence[_Head], collectives: Collectives) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of all slices, and the id and logit of the best proposal, (rows of the heads,) float64 on the CPU each.

    On the CPU and from the same numbers every rank comes to the same conclusions, and makes the same calls after it.
    """
    said = collectives.all_gather(torch.cat([head.propose() for head in heads])).cpu()
    rank = said[:, :, 1].argmax(0, keepdim=True)
    return said[:, :, 0].sum(0), said[:, :, 2].gather(0, rank)[0], said[:, :, 3].gather(0, rank)[0]
