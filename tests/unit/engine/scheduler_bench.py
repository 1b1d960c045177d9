"""A scheduler without an engine, for tests: requests, and what each of them does in a step."""

from collections.abc import Sequence
from typing import Any

from aixcoder_serving.engine.blocks import BlockPool
from aixcoder_serving.engine.cost import Cost
from aixcoder_serving.engine.draft import Drafter
from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.plan import Plan, Work
from aixcoder_serving.engine.request import Request
from aixcoder_serving.engine.scheduler import Scheduler
from aixcoder_serving.engine.stops import Ending

A_TOKEN_A_MILLISECOND = Cost(floor=32.0, base=0.0, per_token=1.0, per_read=0.0)


class Bench:
    """A scheduler whose steps always give the tokens 7, 7, 7…"""

    def __init__(
        self,
        *,
        budget: float = 64,
        slots: int = 4,
        blocks: int = 200,
        cost: Cost = A_TOKEN_A_MILLISECOND,
        caching: bool = True,
    ):
        self.pool = BlockPool(blocks, 16, caching=caching)
        self.scheduler = Scheduler(self.pool, slots=slots, budget_ms=budget, cost=cost, most_tokens=512)
        self.now = 0.0
        self.requests: list[Request] = []

    def add(self, prompt: int | Sequence[int], max_tokens: int = 8, draft: Sequence[int] = (), **sampling: Any) -> int:
        number = len(self.requests)
        tokens = tuple(prompt) if not isinstance(prompt, int) else tuple(number * 1000 + i for i in range(prompt))
        wish = Sampling(max_tokens=max_tokens, **sampling)
        request = Request(
            id=number,
            prompt=tokens,
            sampling=wish,
            seed=0,
            arrived=self.now,
            ending=Ending(wish, ()),
            drafter=Drafter(tokens, draft, enabled=bool(draft)),
            root=self.pool.root(""),
            hashes=self.pool.hashes(tokens, ""),
        )
        self.requests.append(request)
        self.scheduler.add(request)
        return number

    def plan(self) -> Plan | None:
        return self.scheduler.plan(self.now)

    def step(self, seconds: float = 0.01) -> dict[int, Work]:
        """One step; what each request did in it, by number."""
        plan = self.plan()
        self.now += seconds
        if plan is None:
            return {}
        done = {self.scheduler.running[work.slot].id: work for work in plan.work}
        for number, work in done.items():
            self.scheduler.advance(self.requests[number], work, 0, (7,) if work.sample else ())
            self.requests[number].drafter.push((7,) if work.sample else ())
        self.pool.check_integrity()
        self.scheduler.check_integrity()
        return done

    def counts(self) -> dict[int, int]:
        return {number: work.count for number, work in self.step().items()}
