"""The engine's core: requests in, one `step()` after the other, tokens out. One thread, no process, no event loop.

Correct for any executor that runs plans as `runner.Runner` does: one rank in this process, or a group of ranks.
"""

from __future__ import annotations

import heapq
import logging
import math
import secrets
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.draft import Drafter
from aixcoder_serving.engine.faults import first_line
from aixcoder_serving.engine.interface import (
    STEP_SECONDS,
    EngineClosed,
    EngineSettings,
    EngineStats,
    Finish,
    Sampling,
)
from aixcoder_serving.engine.messages import Output
from aixcoder_serving.engine.pages import withdraw
from aixcoder_serving.engine.plan import Plan, Sampled, StepResult, Work
from aixcoder_serving.engine.request import Request
from aixcoder_serving.engine.scheduler import Scheduler
from aixcoder_serving.engine.stops import Ending

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs plans on all ranks."""

    def run(self, plan: Plan) -> StepResult:
        """Compute one step.

        Raises `EngineClosed` where no later plan can succeed either; after anything else the next plan may. What it
        raises is told to clients and logged: its text holds no data.
        """
        ...


class EngineCore:
    """Continuous batching over a paged prefix cache. Not thread safe; `now` is in seconds, of a monotonic clock."""

    def __init__(
        self,
        settings: EngineSettings,
        token_bytes: Sequence[bytes],
        executor: Executor,
        *,
        blocks: int,
        cost: Cost,
        most_tokens: int,
        clock: Callable[[], float],
    ) -> None:
        self.pool = BlockPool(blocks, settings.block_size, caching=settings.prefix_caching)
        self.failure: str | None = None
        """Why no step can succeed any more, or None."""
        self._settings = settings
        self._token_bytes = token_bytes
        self._executor = executor
        self._clock = clock
        self._scheduler = Scheduler(
            self.pool,
            slots=settings.max_concurrent_sequences,
            budget_ms=settings.step_budget_ms,
            cost=cost,
            most_tokens=most_tokens,
        )
        self._requests: dict[int, Request] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._step_seconds = [0] * (len(STEP_SECONDS) + 1)
        self._step_seconds_sum = 0.0

    def submit(
        self, request_id: int, prompt: tuple[int, ...], sampling: Sampling, draft: tuple[int, ...], salt: str
    ) -> list[Output]:
        """Queue a request that `validate` let through. What it gets without a step is returned."""
        self._counts["submitted"] += 1
        if sampling.max_tokens == 0 and sampling.prompt_logprobs is None:
            self._counts["completed"] += 1
            return [Output(request_id, finish=Finish("length", 0))]
        ending = Ending(sampling, self._token_bytes)
        ending.resume(prompt[len(prompt) - sampling.resumed :])
        request = Request(
            id=request_id,
            prompt=prompt,
            sampling=sampling,
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            arrived=self._clock(),
            ending=ending,
            drafter=Drafter(prompt, draft, self._settings.drafting),
            root=self.pool.root(salt),
            hashes=self.pool.hashes(prompt, salt),
        )
        self._requests[request_id] = request
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, request_id))
        self._scheduler.add(request)
        return []

    def cancel(self, request_id: int) -> list[Output]:
        """End a request, whatever it is doing: no later plan has it, and its blocks are free."""
        request = self._requests.get(request_id)
        if request is None:
            return []
        self._counts["cancelled"] += 1
        return [self._end(request, Finish("cancelled", request.generated, cached_tokens=request.cached))]

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._requests)

    def step(self) -> list[Output]:
        """Plan, run, hand out. Returns what each request of the step got."""
        started = self._clock()
        outputs = self._expire(started)
        plan = self._scheduler.plan(started)
        if plan is None:
            return outputs
        try:
            result = self._executor.run(plan)
        except Exception as fault:
            return outputs + self._fail(plan, fault)
        now = self._clock()
        self._scheduler.took((now - started) * 1000)
        for work, sampled in zip(plan.work, result.sampled, strict=True):
            outputs += self._accept(self._scheduler.running[work.slot], work, sampled, started, now)
        self._time(now - started)
        return outputs

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(
            load_percent=100,
            slots=self._settings.max_concurrent_sequences,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            prefill_waiting_ms=self._scheduler.prefill_ms_per_token * self._scheduler.prefill_tokens,
            prefill_ms_per_token=self._scheduler.prefill_ms_per_token,
            decode_ms_per_request=self._scheduler.decode_ms_per_request,
            blocks_total=self.pool.total,
            blocks_used=self.pool.used,
            blocks_cached=self.pool.cached,
            prefix_query_tokens=self._scheduler.prefix_query_tokens,
            prefix_hit_tokens=self._scheduler.prefix_hit_tokens,
            recomputed_evicted=self._scheduler.recomputed_evicted,
            evictions=self.pool.evictions,
            step_seconds_sum=self._step_seconds_sum,
            step_seconds=tuple(self._step_seconds),
            **self._counts,
        )

    def check_integrity(self) -> None:
        """Raise where blocks, slots and requests disagree, between two steps."""
        self.pool.check_integrity()
        self._scheduler.check_integrity()
        known = set(self._requests.values())
        if known != {*self._scheduler.running.values(), *self._scheduler.waiting}:
            raise RuntimeError(f"{len(known)} requests are under way, which are not those that run or wait")

    def _accept(self, request: Request, work: Work, sampled: Sampled, started: float, now: float) -> list[Output]:
        """Add to a request the tokens of a step that went on from `started` to `now`, up to where it ends."""
        waited_ms = None if request.begun else (started - request.arrived) * 1000
        request.begun = True
        verdict, kept = None, 0
        # With a length of 0 only the prompt's logprobs were wanted.
        ids = sampled.token_ids if request.sampling.max_tokens else ()
        while verdict is None and kept < len(ids):
            verdict = request.ending.push(ids[kept], now * 1000)
            kept += 1
        tokens = ids[:kept]
        accepted = len(sampled.token_ids) - (0 if sampled.broken else 1) if work.sample else 0
        self._counts["tokens_prefilled"] += max(min(work.start + work.count, len(request.prompt)) - work.start, 0)
        self._counts["tokens_decoded"] += kept
        if work.sample:
            request.drafter.accepted(len(work.draft), accepted)
            request.drafter.push(tokens)
            self._counts["draft_tokens"] += len(work.draft)
            self._counts["draft_tokens_accepted"] += min(accepted, kept)
        no_prompt_logprob = any(math.isnan(entry.logprob) for entry in sampled.prompt_logprobs)
        if no_prompt_logprob or (sampled.broken and verdict is None):
            withdraw(self.pool, request)
            return [self._failed(request, "the model computed no probabilities for the next token (not a number)")]
        self._scheduler.advance(request, work, accepted, tokens)
        finish = None
        if verdict is not None:
            finish = Finish(verdict.reason, request.generated, verdict.trim_bytes, request.cached)
        elif work.sample and request.sampling.max_tokens == 0:
            finish = Finish("length", 0, cached_tokens=request.cached)
        if not tokens and not sampled.prompt_logprobs and finish is None and waited_ms is None:
            return []
        if finish is not None:
            self._counts["completed"] += 1
            self._forget(request)
        return [
            Output(
                request.id,
                tokens,
                request.ending.held_bytes,
                sampled.logprobs[:kept],
                sampled.prompt_logprobs,
                finish,
                cached_tokens=request.cached,
                waited_ms=waited_ms,
            )
        ]

    def _expire(self, now: float) -> list[Output]:
        """End those whose time is over."""
        ended = []
        while self._deadlines and self._deadlines[0][0] <= now:
            request = self._requests.get(heapq.heappop(self._deadlines)[1])
            if request is not None:
                self._counts["completed"] += 1
                ended.append(self._end(request, Finish("length", request.generated, cached_tokens=request.cached)))
        return ended

    def _fail(self, plan: Plan, fault: Exception) -> list[Output]:
        """A step raised: its requests fail, all where nothing can go on."""
        if isinstance(fault, EngineClosed):
            self.failure = str(fault)
            failed = list(self._requests.values())
        else:
            failed = [self._scheduler.running[work.slot] for work in plan.work]
        message = self.failure or f"a step of the engine failed: {first_line(fault)}"
        logger.error("step %d with %d requests: %s", plan.step, len(plan.work), message)
        return [self._failed(request, message) for request in failed]

    def _failed(self, request: Request, message: str) -> Output:
        self._counts["failed"] += 1
        self._forget(request, step_done=False)
        return Output(request.id, error=message)

    def _end(self, request: Request, finish: Finish) -> Output:
        self._forget(request)
        return Output(request.id, finish=finish)

    def _forget(self, request: Request, *, step_done: bool = True) -> None:
        self._scheduler.remove(request, step_done=step_done)
        del self._requests[request.id]

    def _time(self, seconds: float) -> None:
        self._counts["steps"] += 1
        self._step_seconds_sum += seconds
        self._step_seconds[bisect_left(STEP_SECONDS, seconds)] += 1


_COUNTERS = (
    "submitted",
    "completed",
    "cancelled",
    "failed",
    "tokens_prefilled",
    "tokens_decoded",
    "draft_tokens",
    "draft_tokens_accepted",
    "steps",
)
