"""One rank: a plan becomes tensors, tensors become ids. Keeps the tokens and the block table of each slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from aixcoder_serving.engine.interface import Sampling, TokenLogprobs
from aixcoder_serving.engine.logprobs import LOGPROB_ROWS, token_logprobs
from aixcoder_serving.engine.model import LlamaModel
from aixcoder_serving.engine.ops import Batch, Collectives, Ops
from aixcoder_serving.engine.plan import NOTHING, Admission, Plan, Sampled, StepResult, Work
from aixcoder_serving.engine.sampler import BrokenLogits, Row, Rule, sample
from aixcoder_serving.engine.vocabulary import Slice

Forward = Callable[[Batch], Tensor]


class Runner:
    """Runs plans on one device. After a plan that raised, its slots must be admitted anew."""

    def __init__(
        self,
        model: LlamaModel,
        ops: Ops,
        collectives: Collectives,
        *,
        vocabulary_size: int,
        blocks: int,
        slots: int,
        max_length: int,
        graphed: Callable[[Forward, Tensor], Forward] | None = None,
    ) -> None:
        """`graphed` makes one that may pad of the forward pass and the tables: their last row is for padding alone."""
        padding = 0 if graphed is None else 1
        self._model = model
        self._ops = ops
        self._collectives = collectives
        self._caches = model.new_cache(blocks + padding)
        self._part = Slice(model.vocabulary.start, len(model.vocabulary), vocabulary_size)
        table_width = -(-max_length // ops.block_size)
        self._tables = torch.zeros((slots + padding, table_width), dtype=torch.int32, device=ops.device)
        self._tables[slots:] = blocks  # a block that the pool does not have
        self._forward: Forward = self._compute if graphed is None else graphed(self._compute, self._tables)
        self._table_lengths = [0] * slots
        # The token after the last position is written, too.
        self._tokens = torch.zeros((slots, max_length + 1), dtype=torch.int64, device=ops.device)
        # The same memory where the host computes: indexing by torch takes ten times as long there.
        self._host_tokens = self._tokens.numpy() if ops.device.type == "cpu" else None
        self._counting = torch.arange(slots + 1, dtype=torch.int32, device=ops.device)
        self._row_numbers = torch.arange(slots, device=ops.device)
        self._rules = [Rule(Sampling(), seed=0, prompt_length=0)] * slots
        self._prompt_lengths = [0] * slots

    @torch.inference_mode()
    def run(self, plan: Plan) -> StepResult:
        """Compute one step. Every rank returns the same."""
        for admission in plan.admissions:
            self._admit(admission)
        if plan.copies:
            self._ops.copy_blocks(self._caches, plan.copies)
        for work in plan.work:
            self._extend(work)
        batch, wanted = self._batch(plan.work)
        hidden = self._forward(batch)
        prompt_logprobs = self._prompt_logprobs(plan.work, wanted, hidden)
        return self._sample(plan.work, wanted, hidden, prompt_logprobs)

    def _compute(self, batch: Batch) -> Tensor:
        return self._model.forward(batch, self._caches)

    def _admit(self, admission: Admission) -> None:
        slot, prompt = admission.slot, admission.prompt
        self._table_lengths[slot] = 0
        self._tokens[slot, : len(prompt)] = self._device(numpy.array(prompt, dtype=numpy.int64))
        self._rules[slot] = Rule(admission.sampling, seed=admission.seed, prompt_length=len(prompt))
        self._prompt_lengths[slot] = len(prompt)

    def _extend(self, work: Work) -> None:
        """Append the slot's new blocks; write the drafts where they will be read."""
        if work.blocks:
            known = self._table_lengths[work.slot]
            self._table_lengths[work.slot] = end = known + len(work.blocks)
            self._tables[work.slot, known:end] = self._device(numpy.array(work.blocks, dtype=numpy.int32))
        if work.draft:
            end = work.start + work.count
            draft = self._device(numpy.array(work.draft, dtype=numpy.int64))
            self._tokens[work.slot, end - len(work.draft) : end] = draft

    def _batch(self, works: Sequence[Work]) -> tuple[Batch, list[int]]:
        """The step's inputs, and how many rows of logits each work wants: the last ones of its tokens."""
        starts = numpy.array([work.start for work in works], dtype=numpy.int32)
        slots = numpy.array([work.slot for work in works], dtype=numpy.int32)
        wanted = [self._wanted(work) for work in works]
        n = len(works)
        if wanted == [1] * n and all(work.count == 1 for work in works):  # decoding alone
            positions, slot_of_token, context = starts, slots, starts + 1
            query_start, rows = self._counting[: n + 1], self._row_numbers[:n]
        else:
            counts = numpy.array([work.count for work in works], dtype=numpy.int32)
            ends = numpy.cumsum(counts, dtype=numpy.int32)
            positions = numpy.arange(ends[-1], dtype=numpy.int32)
            positions += numpy.repeat(starts - ends + counts, counts)
            slot_of_token, context = numpy.repeat(slots, counts), starts + counts
            query_start = self._device(numpy.concatenate(([0], ends), dtype=numpy.int32))
            ranges = [numpy.arange(end - k, end) for end, k in zip(ends.tolist(), wanted, strict=True) if k]
            rows = self._device(numpy.concatenate([numpy.zeros(0, dtype=numpy.int64), *ranges]))
        on_device = self._device(positions)
        if self._host_tokens is None:
            ids = self._tokens[self._device(slot_of_token), on_device]
        else:
            ids = self._device(self._host_tokens[slot_of_token, positions])
        batch = Batch(
            ids=ids,
            positions=on_device,
            query_start=query_start,
            context=self._device(context),
            slots=self._device(slots),
            tables=self._tables,
            logits_rows=rows,
        )
        return batch, wanted

    def _wanted(self, work: Work) -> int:
        if self._rules[work.slot].sampling.prompt_logprobs is not None and work.start < self._prompt_lengths[work.slot]:
            return work.count
        return 1 + len(work.draft) if work.sample else 0

    def _prompt_logprobs(
        self, works: Sequence[Work], wanted: Sequence[int], hidden: Tensor
    ) -> dict[int, tuple[TokenLogprobs, ...]]:
        """Of the tokens that follow each position of a prompt, by index of the work."""
        found: dict[int, tuple[TokenLogprobs, ...]] = {}
        first = 0
        for index, (work, n) in enumerate(zip(works, wanted, strict=True)):
            top = self._rules[work.slot].sampling.prompt_logprobs
            if top is not None and n == work.count and work.start < self._prompt_lengths[work.slot]:
                following = self._tokens[work.slot, work.start + 1 : self._prompt_lengths[work.slot]][:n].tolist()
                entries: list[TokenLogprobs] = []
                for at in range(0, len(following), LOGPROB_ROWS):
                    ids = following[at : at + LOGPROB_ROWS]
                    logits = self._model.logits(hidden[first + at : first + at + len(ids)])
                    entries += token_logprobs(logits, ids, [top] * len(ids), self._part, self._collectives)
                found[index] = tuple(entries)
            first += n
        return found

    def _sample(
        self,
        works: Sequence[Work],
        wanted: Sequence[int],
        hidden: Tensor,
        prompt_logprobs: dict[int, tuple[TokenLogprobs, ...]],
    ) -> StepResult:
        rows: list[Row] = []
        chosen_rows: list[int] = []
        first = 0
        for work, n in zip(works, wanted, strict=True):
            if work.sample:
                k = 1 + len(work.draft)
                chosen_rows += range(first + n - k, first + n)
                rule, end = self._rules[work.slot], work.start + work.count
                tokens = self._tokens[work.slot] if rule.penalised else None
                rows += [Row(rule, position, tokens) for position in range(end - k + 1, end + 1)]
            first += n
        if not rows:
            return StepResult(tuple(Sampled((), (), prompt_logprobs.get(i, ())) for i in range(len(works))))
        if len(chosen_rows) != len(hidden):
            hidden = hidden[self._device(numpy.array(chosen_rows, dtype=numpy.int64))]
        choices: Sequence[tuple[int, TokenLogprobs | None] | None]
        try:
            choices = sample(self._model.logits(hidden), rows, self._part, self._collectives)
        except BrokenLogits as broken:
            choices = broken.choices
        results, at = [], 0
        for index, work in enumerate(works):
            if not work.sample:
                results.append(Sampled((), (), prompt_logprobs[index]) if index in prompt_logprobs else NOTHING)
                continue
            k = 1 + len(work.draft)
            results.append(_verified(work.draft, choices[at : at + k], prompt_logprobs.get(index, ())))
            at += k
        self._keep(works, results)
        return StepResult(tuple(results))

    def _keep(self, works: Sequence[Work], results: Sequence[Sampled]) -> None:
        """Write the new tokens after those from which they follow."""
        slots: list[int] = []
        positions: list[int] = []
        ids: list[int] = []
        for work, result in zip(works, results, strict=True):
            if n := len(result.token_ids):
                first = work.start + work.count - len(work.draft)
                slots += [work.slot] * n
                positions += range(first, first + n)
                ids += result.token_ids
        if not ids:
            return
        if self._host_tokens is None:
            where = self._device(numpy.array([slots, positions], dtype=numpy.int64))
            self._tokens[where[0], where[1]] = self._device(numpy.array(ids, dtype=numpy.int64))
        else:
            self._host_tokens[slots, positions] = ids

    def _device(self, array: numpy.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._ops.device.type == "cpu" else tensor.to(self._ops.device, non_blocking=True)


def _verified(
    draft: Sequence[int],
    choices: Sequence[tuple[int, TokenLogprobs | None] | None],
    prompt_logprobs: tuple[TokenLogprobs, ...],
) -> Sampled:
    """Row i was computed as if the first i drafts were right: it counts as far as they are."""
    ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    for i, choice in enumerate(choices):
        if choice is None:
            return Sampled(tuple(ids), tuple(logprobs), prompt_logprobs, broken=True)
        ids.append(choice[0])
        if choice[1] is not None:
            logprobs.append(choice[1])
        if i < len(draft) and choice[0] != draft[i]:
            break
    return Sampled(tuple(ids), tuple(logprobs), prompt_logprobs)
