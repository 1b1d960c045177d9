"""What a step costs, in milliseconds, measured at the start; and how many tokens a budget of milliseconds buys.

A step of T query tokens that together read R cached positions, and L rows of logits, takes
  max(floor, base + per_token * T + per_row * L) + per_read * R
The floor is what reading all weights once takes: below it tokens are free. R = sum over the query tokens of the
positions each attends to. A row is what a token costs whose successor is wanted: the head's product and the sampler.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from aixcoder_serving.engine.interface import Sampling
from aixcoder_serving.engine.plan import Admission, Plan, Work


@dataclass(frozen=True)
class Cost:
    """The measured numbers, in milliseconds."""

    floor: float
    base: float
    per_token: float
    per_read: float
    per_row: float = 0.0

    def milliseconds(self, tokens: int, rows: int, reads: int) -> float:
        """A step's time."""
        computed = self.base + self.per_token * tokens + self.per_row * rows
        return max(self.floor, computed) + self.per_read * reads

    @property
    def per_request(self) -> float:
        """What one more token adds to a step beyond the floor: it reads `_CONTEXT` positions and gives a row."""
        return self.per_token + self.per_row + self.per_read * _CONTEXT

    def affordable(self, budget: float, tokens: int, rows: int, reads: int, start: int, *, with_rows: bool) -> int:
        """Tokens from position `start` on that fit into `budget` ms beside what is planned already.

        `with_rows`: each of them gives a row, as those of a draft do.
        """
        left = budget - self.per_read * reads
        # Of the n more tokens, token i reads start + i + 1 positions.
        read = self.per_read * (start + 0.5)
        each = self.per_token + (self.per_row if with_rows else 0.0)
        computed = _most(left - self.base - self.per_token * tokens - self.per_row * rows, each + read, self.per_read)
        return min(computed, _most(left - self.floor, read, self.per_read))


def _most(left: float, slope: float, curve: float) -> int:
    """The largest n with curve / 2 * n² + slope * n <= left, at most a million; 0 where there is none."""
    if left < 0 or slope * 1e6 + curve / 2 * 1e12 <= left:
        return 0 if left < 0 else 1_000_000
    return math.floor(2 * left / (slope + math.sqrt(slope * slope + 2 * curve * left)))


@dataclass
class Room:
    """What is left of one step while it is planned. `most`: the query tokens that a step can hold."""

    cost: Cost
    budget: float
    most: int
    tokens: int = 0
    rows: int = 0
    reads: int = 0

    def take(self, start: int, count: int, rows: int) -> None:
        """Plan `count` tokens from position `start` on, of which `rows` give a row of logits."""
        self.tokens += count
        self.rows += rows
        self.reads += count * start + count * (count + 1) // 2

    def left(self, start: int, *, with_rows: bool = False) -> int:
        """How many more tokens fit, the first of them at position `start`; `with_rows`: each gives a row."""
        affordable = self.cost.affordable(self.budget, self.tokens, self.rows, self.reads, start, with_rows=with_rows)
        return max(min(affordable, self.most - self.tokens), 0)

    @property
    def milliseconds(self) -> float:
        """What is planned takes."""
        return self.cost.milliseconds(self.tokens, self.rows, self.reads)


_CONTEXT = 2048  # far enough that reading it shows beside the rest of a step, and as long as a usual prompt
_SOME = 16  # tokens of a step that is not the floor alone
_ROWS = 64  # enough that computing them takes longer than reading the head's weights
_REPEATS = 3


def measure(run: Callable[[Plan], object], *, budget_ms: float, most: int, max_length: int, block_size: int) -> Cost:
    """Time steps of growing size on an engine that has no request yet; it writes into the first blocks of the cache.

    `most`: the query tokens that a step can hold. Ends at the first size that takes more than the budget, but not
    before `_SOME`.
    """

    def milliseconds(start: int, count: int, drafts: int = 0) -> float:
        length = start + count
        blocks = tuple(range(-(-length // block_size)))
        admission = Admission(0, (0,) * length, Sampling(), 0)
        plan = Plan(0, (admission,), (), (Work(0, start, count, sample=True, draft=(0,) * drafts, blocks=blocks),))
        run(plan)
        times = []
        for _ in range(_REPEATS):
            begin = time.perf_counter()
            run(plan)
            times.append((time.perf_counter() - begin) * 1000)
        return min(times)  # what else the machine did meanwhile only adds

    floor = milliseconds(0, 1)
    small, large = 1, 1
    small_ms, large_ms = floor, floor
    while large < min(most, max_length) and (large < _SOME or large_ms < budget_ms):
        small, small_ms = large, large_ms
        large = min(large * 4, most, max_length)
        large_ms = milliseconds(0, large)
    per_token = max((large_ms - small_ms) / max(large - small, 1), floor * 1e-4, 1e-6)
    per_row = 0.0
    if (rows := min(large, _ROWS)) > 1:
        one_row = large_ms if rows == large else milliseconds(0, rows)
        per_row = max(milliseconds(0, rows, rows - 1) - one_row, 0.0) / (rows - 1)
    base = max(large_ms - per_token * large - per_row, 0.0)
    per_read = 0.0
    if (context := min(_CONTEXT, max_length - small)) > 0:
        per_read = max(milliseconds(context, small) - small_ms, 0.0) / (small * context)
    return Cost(floor, base, per_token, per_read, per_row)
