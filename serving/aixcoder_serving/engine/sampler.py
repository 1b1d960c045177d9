"""Which token comes next: argmax(logit / T + noise of (seed, position, id)) over all slices of the vocabulary.

The noise is a function of those three alone, so that a token depends neither on what else is in the batch, nor on the
number of ranks, nor on how a prompt was cut or whether a draft was there. The maximum of logits / T plus Gumbel noise
is a draw from softmax(logits / T) (Maddison, Tarlow, Minka: A* sampling, 2014). What is compared is logit + T * noise:
it does not overflow, and T = 0 is the greedy choice.

The order is vLLM's: logarithms of probabilities are the model's own; then bias and min_tokens, penalties, temperature,
min-p, top-k, top-p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aixcoder_serving.engine.filters import draw_filtered
from aixcoder_serving.engine.interface import Sampling, TokenLogprobs
from aixcoder_serving.engine.logprobs import token_logprobs
from aixcoder_serving.engine.noise import add_noise, keys
from aixcoder_serving.engine.ops import Collectives
from aixcoder_serving.engine.penalties import add_bias, ban, penalise
from aixcoder_serving.engine.vocabulary import Slice, largest

_LEAST_TEMPERATURE = 1e-6  # below, the noise is less than what float32 keeps of a logit
_GREATEST_TEMPERATURE = 1e20  # above, all tokens have been equally likely for long, and float32 ends

_FILTERED_ROWS = 64  # at a time: what bounds the memory

Choice = tuple[int, TokenLogprobs | None]


class Rule:
    """How one request's tokens are chosen; made once, when it is admitted.

    `greedy`: the likeliest token, and nothing told of it. `penalised`: its rows need `tokens`.
    """

    __slots__ = ("filtered", "greedy", "penalised", "prompt_length", "sampling", "seed", "temperature")

    def __init__(self, sampling: Sampling, *, seed: int, prompt_length: int) -> None:
        self.sampling = sampling
        self.seed = seed
        self.prompt_length = prompt_length
        warm = sampling.temperature >= _LEAST_TEMPERATURE
        self.temperature = min(sampling.temperature, _GREATEST_TEMPERATURE) if warm else 0.0
        self.filtered = warm and (sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0)
        self.penalised = bool(
            sampling.repetition_penalty != 1 or sampling.frequency_penalty or sampling.presence_penalty
        )
        edited = self.penalised or bool(sampling.logit_bias) or self._banned(prompt_length)
        self.greedy = not (warm or edited or sampling.logprobs is not None)

    def _banned(self, position: int) -> bool:
        sampling = self.sampling
        early = position - self.prompt_length < sampling.min_tokens
        return early and bool(sampling.stop_ids) and not sampling.ignore_eos

    def edits(self, position: int) -> bool:
        """Whether the logits of this position's token are changed by more than noise."""
        return self.penalised or bool(self.sampling.logit_bias) or self._banned(position)

    def edit(self, x: Tensor, position: int, tokens: Tensor | None, part: Slice) -> None:
        """Apply bias, min_tokens and penalties to the logits x (rows,), in place."""
        add_bias(x, self.sampling.logit_bias, part)
        if self._banned(position):
            ban(x, self.sampling.stop_ids, part)
        if self.penalised:
            if tokens is None or len(tokens) < position:
                raise ValueError(f"penalties at position {position} need the {position} ids before it")
            penalise(x, tokens[:position], self.prompt_length, self.sampling, part)


@dataclass(slots=True)
class Row:
    """One row of logits: the token at `position`, counted from the sequence's start, is to be chosen.

    `tokens`: ids from the sequence's start, 1-d, of which the first `position` are read, and only where the rule is
    `penalised`. In the rows of a draft they are what the draft says: then each row has the counts of its own past.
    """

    rule: Rule
    position: int
    tokens: Tensor | None = None


class BrokenLogits(ValueError):
    """Rows from which no token can be chosen; `choices` has None there, and what the other rows gave."""

    def __init__(self, rows: tuple[int, ...], choices: list[Choice | None]) -> None:
        super().__init__("the model gave logits that are not numbers, or none above minus infinity: no token follows")
        self.rows = rows
        self.choices = choices


def sample(logits: Tensor, rows: Sequence[Row], part: Slice, collectives: Collectives) -> list[Choice]:
    """Choose a token for each row of logits (R, part.rows) float32, which stay as they are; on every rank the same.

    Each rank gives the same rows. The second of a pair is what `Sampling.logprobs` asked for. Raises `BrokenLogits`.
    """
    if not rows:
        return []
    if all(row.rule.greedy for row in rows):
        alone = collectives.size == 1 and not logits.is_cuda
        return _checked(_likeliest(logits) if alone else choices(greedy(logits, part, collectives)), {})
    x = _edited(logits, rows, part)
    filtered = [r for r, row in enumerate(rows) if row.rule.filtered]
    ids: list[int | None] = [None] * len(rows)
    if len(filtered) < len(rows):
        ids = _choose(x, rows, part, collectives)
    for start in range(0, len(filtered), _FILTERED_ROWS):
        block = filtered[start : start + _FILTERED_ROWS]
        temperatures, row_keys = _draws([rows[r] for r in block], x.device)
        wishes = [rows[r].rule.sampling for r in block]
        drawn = draw_filtered(_take(x, block), temperatures, row_keys, wishes, part, collectives)
        for r, i in zip(block, drawn, strict=True):
            ids[r] = i
    told = {r: n for r, row in enumerate(rows) if ids[r] is not None and (n := row.rule.sampling.logprobs) is not None}
    if not told:
        return _checked(ids, {})
    chosen = [i for r in told if (i := ids[r]) is not None]
    logs = token_logprobs(_take(logits, list(told)), chosen, list(told.values()), part, collectives)
    return _checked(ids, dict(zip(told, logs, strict=True)))


def greedy(logits: Tensor, part: Slice, collectives: Collectives) -> Tensor:
    """Find the likeliest token of each row of logits (R, part.rows): (R, 2) float64, value and id. Never waits."""
    return _reduce(*_best(logits, part), collectives)


def choices(picked: Tensor) -> list[int | None]:
    """The ids of what `greedy` gave, copied from the device; None for a row without a finite value."""
    return [int(i) if math.isfinite(value) else None for value, i in picked.tolist()]


def _likeliest(logits: Tensor) -> list[int | None]:
    """`choices` of `greedy` where this rank has the whole vocabulary, in the host's memory: a tenth of the time."""
    x = logits.numpy()
    columns = x.argmax(-1).tolist()
    return [column if math.isfinite(x[r, column]) else None for r, column in enumerate(columns)]


def _edited(logits: Tensor, rows: Sequence[Row], part: Slice) -> Tensor:
    edits = [r for r, row in enumerate(rows) if row.rule.edits(row.position)]
    if not edits:
        return logits
    x = logits.clone()
    for r in edits:
        rows[r].rule.edit(x[r], rows[r].position, rows[r].tokens, part)
    return x


def _choose(x: Tensor, rows: Sequence[Row], part: Slice, collectives: Collectives) -> list[int | None]:
    """Choose for all rows without filters, in one reduction; rows with filters get something."""
    values, ids = _best(x, part)
    warm = [r for r, row in enumerate(rows) if row.rule.temperature and not row.rule.filtered]
    if warm:
        temperatures, row_keys = _draws([rows[r] for r in warm], x.device)
        found = _best_noisy(_take(x, warm), temperatures, row_keys, part)
        at = torch.tensor(warm, device=x.device)
        values[at], ids[at] = found
    return choices(_reduce(values, ids, collectives))


def _take(x: Tensor, rows: list[int]) -> Tensor:
    return x if len(rows) == x.shape[0] else x[torch.tensor(rows, device=x.device)]


def _draws(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """Temperatures (R,) float32 and keys (R,) int64."""
    seeds, positions = torch.tensor([(row.rule.seed, row.position) for row in rows], device=device).unbind(-1)
    return torch.tensor([row.rule.temperature for row in rows], device=device), keys(seeds, positions)


def _best(x: Tensor, part: Slice) -> tuple[Tensor, Tensor]:
    """This slice's greatest value and its id in each row; of an empty slice minus infinity."""
    if not part.rows:
        return x.new_full((x.shape[0],), -torch.inf), torch.full((x.shape[0],), part.vocabulary, device=x.device)
    values, columns = largest(x)
    return values, columns + part.first


def _best_noisy(x: Tensor, temperatures: Tensor, row_keys: Tensor, part: Slice) -> tuple[Tensor, Tensor]:
    best = [_best(scores, part) for scores in add_noise(x, temperatures, row_keys, part.first)]
    values, ids = zip(*best, strict=True)
    return torch.cat(values), torch.cat(ids)


def _reduce(values: Tensor, ids: Tensor, collectives: Collectives) -> Tensor:
    """The best of all slices: (R, 2), value and id. Of equal values the first slice's wins: it has the lower ids."""
    found = collectives.all_gather(torch.stack((values.double(), ids.double()), dim=-1))
    if len(found) == 1:
        return found[0]
    rank = found[:, :, 0].argmax(0)
    return found.gather(0, rank.view(1, -1, 1).expand(1, -1, 2))[0]


def _checked(ids: Sequence[int | None], logs: dict[int, TokenLogprobs]) -> list[Choice]:
    """Pairs of id and logarithms."""
    found: list[Choice | None] = []
    for r, i in enumerate(ids):
        told = logs.get(r)
        found.append(None if i is None or (told is not None and math.isnan(told.logprob)) else (i, told))
    good = [choice for choice in found if choice is not None]
    if len(good) < len(found):
        raise BrokenLogits(tuple(r for r, choice in enumerate(found) if choice is None), found)
    return good
