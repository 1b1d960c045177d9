"""Who computes what in the next step. Decides only: no tensor, no clock, no thread.

A step is filled in this order, as far as its budget of milliseconds goes:
1. each decoding request its one token: nobody's next token waits for anybody's prompt;
2. of prompts that have not moved for `AGE_SECONDS`, one block of each that waits, and half of what is left of the step
   for the one that stood still longest: no more, so that a keystroke need not wait until long ones are done;
3. prompts, chunk by chunk, the fewest tokens left first. A waiting request gets a slot with its first chunk, where the
   blocks for its prompt and all of `max_tokens` can be reserved, so that what has started always ends. While others get
   tokens, prompts take no more than two thirds of a step, or their share by heads: a long one beside them costs each
   two times as much again, not the whole budget;
4. drafts, with what is left.

A request whose next block is being computed by another one is parked, see `under_way`.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.cost import Cost, Room
from aixcoder_serving.engine.integrity import check_blocks, check_slots
from aixcoder_serving.engine.pace import Pace
from aixcoder_serving.engine.pages import publish, publish_tail
from aixcoder_serving.engine.plan import Admission, Plan, Work
from aixcoder_serving.engine.prefix import NO_MATCH, Match
from aixcoder_serving.engine.request import Request
from aixcoder_serving.engine.under_way import UnderWay, urgency
from aixcoder_serving.engine.waiting import WaitingQueue

AGE_SECONDS = 0.3
"""Less than the 500 ms that none shall wait for its first chunk: not all that are as old fit into one step."""

BEYOND_FLOOR = 1.25
"""The least budget, in steps of one token."""

WITH_PROMPTS = 3.0
"""A step that gives tokens takes this many times the time of what gives them: the rest is for other prompts. It takes
longer where more wait for a first token than for a next one: then each of all has the same share of it."""

MOST_ROWS = 256
"""Rows of logits in one step, drafts included: a row is as wide as the vocabulary."""

_ALL = 1 << 30  # tokens: as many as there are and fit

_REFUSALS = 4  # requests that may be tried after a shorter one that does not fit into the cache
_PARKED = 8  # requests that one plan parks, which takes about as long as to admit them; then the next one goes on


class Scheduler:
    """The queues, the slots and the blocks."""

    def __init__(self, pool: BlockPool, *, slots: int, budget_ms: float, cost: Cost, most_tokens: int) -> None:
        """`budget_ms` and `most_tokens` bound a step; it samples from no more than `MOST_ROWS` rows, or one a slot."""
        self.pool = pool
        self.running: dict[int, Request] = {}
        """By slot."""
        self.waiting = WaitingQueue()
        self.prefix_query_tokens = 0
        self.prefix_hit_tokens = 0
        self.recomputed_evicted = 0
        self._budget_ms = budget_ms
        self._most_tokens = most_tokens
        self._pace = Pace(cost)
        self._planned: Room | None = None
        self._slots = slots
        self._free_slots = list(range(slots))
        self._under_way = UnderWay(self.waiting, pool.block_size)
        self._step = 0

    def add(self, request: Request) -> None:
        """Queue a valid request."""
        match = self._match(request)
        self.waiting.add(request, len(request.prompt) - match.tokens)
        self._under_way.follow(request, len(match.blocks))

    def plan(self, now: float) -> Plan | None:
        """The next step, or None where there is nothing to do. `now` in seconds of the requests' clock."""
        cost = self._pace.cost
        # Where one token takes longer than the budget, what is read for it serves more of them at little cost.
        step_ms = max(self._budget_ms, BEYOND_FLOOR * cost.floor)
        room = Room(cost, step_ms, self._most_tokens)
        # What gives a token in this step.
        urgent = Room(cost, step_ms, self._most_tokens)
        work: list[Work] = []
        admissions: list[Admission] = []
        copies: list[tuple[int, int]] = []

        sampling = [(request, 1) for request in self.running.values() if request.decoding]
        for request, _ in sampling:
            room.take(request.computed, 1, 1)
            urgent.take(request.computed, 1, 1)

        everybody = len(self.waiting) + len(self.running)
        least = self.pool.block_size  # however full the step is, the most urgent prompt moves by a block
        shares: dict[Request, int] = {}  # tokens of prompts in this step
        with closing(self._by_need(now, room)) as candidates:
            for request, match, most in candidates:
                all_rows = request.sampling.prompt_logprobs is not None
                begun = shares.get(request, 0)
                if sampling:
                    room.budget = min(step_ms, urgent.milliseconds * max(WITH_PROMPTS, everybody / len(sampling)))
                affordable = max(room.left(request.computed + begun, with_rows=all_rows), least)
                if affordable == 0:
                    break
                if match is not None:
                    self._admit(request, match, admissions, copies)
                    affordable = max(room.left(request.computed, with_rows=all_rows), least)
                left = len(request.tokens) - request.computed - begun
                if left == 0:
                    continue
                count = max(min(left, affordable, most), 1)
                least = 0
                room.take(request.computed + begun, count, count if all_rows else int(count == left))
                shares[request] = begun + count
                if count == left:
                    sampling.append((request, begun + count))
                    urgent.take(request.computed, begun + count, begun + count if all_rows else 1)
        for request, count in shares.items():
            if request.computed + count < len(request.tokens):
                work.append(self._work(request, count, sample=False))

        room.budget = step_ms
        spare_rows = MOST_ROWS - len(sampling)
        for request, count in sampling:
            wanted = min(spare_rows, request.sampling.max_tokens - request.generated - 1)
            limit = min(room.left(request.computed + count, with_rows=True), wanted) if wanted > 0 else 0
            draft = request.drafter.propose(limit) if limit > 0 else ()
            room.take(request.computed + count, len(draft), len(draft))
            spare_rows -= len(draft)
            work.append(self._work(request, count, sample=True, draft=draft))

        for source, _ in copies:
            self.pool.release_source(source)
        if not work:
            return None
        for item in work:
            self.running[item.slot].progressed = now
        self._step += 1
        self._planned = room
        return Plan(self._step, tuple(admissions), tuple(copies), tuple(work))

    def took(self, milliseconds: float) -> None:
        """How long the last planned step was: the next ones are planned by what steps really take."""
        if self._planned is not None:
            self._pace.observe(self._planned.tokens, self._planned.rows, self._planned.reads, milliseconds)

    def advance(self, request: Request, work: Work, accepted: int, tokens: Sequence[int]) -> None:
        """A step is done: `accepted` of its drafts were right, and `tokens` are the request's next ones."""
        first = not request.generated and bool(tokens)
        request.tokens.extend(tokens)
        # A stop can come before the last draft that was accepted.
        request.computed = min(work.start + work.count - len(work.draft) + accepted, len(request.tokens))
        before = request.published
        self.recomputed_evicted += publish(self.pool, request)
        self._under_way.end(request, request.hashes[before : request.published])
        if first:  # the next keystroke can come while this one is being answered
            publish_tail(self.pool, request)

    def remove(self, request: Request, *, step_done: bool = True) -> None:
        """A request is at its end, in whatever state; what it computed stays matchable.

        Where its last step was not done, what `computed` says of the last page may be a copy that was never made.
        """
        request.done = True
        if request in self.waiting:
            self._under_way.leave(request)
        if request.slot is None:
            return
        del self.running[request.slot]
        heapq.heappush(self._free_slots, request.slot)
        if step_done:
            publish_tail(self.pool, request)
        self.pool.release(request.blocks)
        self.pool.unreserve(request.reserved)
        self._under_way.end(request, request.hashes[request.published :])
        request.slot, request.blocks, request.reserved = None, [], 0

    @property
    def prefill_tokens(self) -> int:
        """Tokens of prompts that are still to be computed."""
        running = sum(len(r.tokens) - r.computed for r in self.running.values() if not r.decoding)
        return running + self.waiting.uncached

    @property
    def prefill_ms_per_token(self) -> float:
        """What one of them takes, in a step of many."""
        return self._pace.cost.per_token

    @property
    def decode_ms_per_request(self) -> float:
        """What one more request that decodes adds to a step, see `Cost.per_request`."""
        return self._pace.cost.per_request

    def check_integrity(self) -> None:
        """Raise RuntimeError where slots, blocks and requests disagree, between two steps."""
        check_slots(self._free_slots, self.running, self._slots)
        check_blocks(self.pool, self.running.values())
        self._under_way.check_integrity(self.running.values())
        self.waiting.check_integrity()

    def _by_need(self, now: float, room: Room) -> Generator[tuple[Request, Match | None, int]]:
        """Requests with a prompt to compute, most urgent first, and the tokens of it that they may have at most now.

        With what the cache has where they have no slot yet. Some come twice: for what age gives them, and by size.
        """
        before = now - AGE_SECONDS
        prefilling = [request for request in self.running.values() if not request.decoding]
        stood = min((r for r in prefilling if r.progressed <= before), key=lambda r: r.progressed, default=None)
        refusals = parked = 0
        for request in self.waiting.aged(before):
            match = self._admissible(request)
            if match is not None:
                yield request, match, self.pool.block_size
                prefilling.append(request)
            elif request.parked_on is None:
                refusals = _REFUSALS  # nobody overtakes it: what ends next makes room for it
                break
            else:
                parked += 1
                if parked == _PARKED:
                    break
        if stood is not None:
            yield stood, None, max(room.left(stood.computed) // 2, self.pool.block_size)
        by_size = sorted((r for r in prefilling if r.slot is not None), key=urgency, reverse=True)
        with closing(self.waiting.shortest()) as waiting:
            for request in waiting:
                if refusals == _REFUSALS or parked == _PARKED or not self._free_slots:
                    break
                while by_size and urgency(by_size[-1]) <= request.uncached:
                    yield by_size.pop(), None, _ALL
                match = self._admissible(request)
                if match is not None:
                    yield request, match, _ALL
                elif request.parked_on is None:
                    refusals += 1
                else:
                    parked += 1
        for request in reversed(by_size):
            yield request, None, _ALL

    def _admissible(self, request: Request) -> Match | None:
        """What the cache has for a waiting request, where it can start now.

        Parks it where another one is computing its next block.
        """
        if not self._free_slots:
            return None
        match = self._match(request)
        known = len(match.blocks)
        if self._under_way.follow(request, known):
            return None
        for usable in (match, match.without_partial()):
            if self.pool.can_reserve(self._blocks_for(request) - known, usable):
                return usable
        return None

    def _admit(
        self, request: Request, match: Match, admissions: list[Admission], copies: list[tuple[int, int]]
    ) -> None:
        """Give a request a slot, the blocks that were found and a reservation for the others."""
        self.waiting.remove(request)
        self.pool.acquire(match)
        request.reserved = self._blocks_for(request) - len(match.blocks)
        self.pool.reserve(request.reserved)
        request.slot = heapq.heappop(self._free_slots)
        self.running[request.slot] = request
        request.blocks = list(match.blocks)
        request.published = len(match.blocks)
        if match.partial is not None:
            copies.append((match.partial[0], self._allocate(request)))
            request.copied = replace(match, blocks=())
        request.computed = request.cached = match.tokens
        admissions.append(Admission(request.slot, request.prompt, request.sampling, request.seed))
        self.prefix_query_tokens += len(request.prompt)
        self.prefix_hit_tokens += match.tokens
        if self.pool.caching:  # else nobody could find what another one computed
            self._under_way.begin(request)

    def _work(self, request: Request, count: int, *, sample: bool, draft: tuple[int, ...] = ()) -> Work:
        """A running request's part of a step, with the blocks that the ranks do not know yet."""
        if request.slot is None:
            raise RuntimeError("only a request with a slot can be part of a step")
        end = request.computed + count + len(draft)
        while len(request.blocks) * self.pool.block_size < end:
            self._allocate(request)
        blocks = tuple(request.blocks[request.told :])
        request.told = len(request.blocks)
        return Work(request.slot, request.computed, count + len(draft), sample, draft, blocks)

    def _allocate(self, request: Request) -> int:
        block = self.pool.allocate()
        request.reserved -= 1
        request.blocks.append(block)
        return block

    def _blocks_for(self, request: Request) -> int:
        return -(-(len(request.prompt) + request.sampling.max_tokens) // self.pool.block_size)

    def _match(self, request: Request) -> Match:
        """All but the last token of the prompt may be found: what follows it has to be computed."""
        if request.sampling.prompt_logprobs is not None:
            return NO_MATCH
        return self.pool.match(request.prompt, request.hashes, request.root, len(request.prompt) - 1)
