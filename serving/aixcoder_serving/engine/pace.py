"""What steps take now: the cost that was measured at the start, kept true by each step that is done.

Other load on the machine, a throttled processor or a start that was disturbed make both parts of a step slower or
faster, and not alike: what is bound by memory (the floor, the reading of the cache) and what is bound by computing (the
tokens, the rows). Each step tells of the part that bounded it.
"""

from __future__ import annotations

from aixcoder_serving.engine.cost import Cost

_WEIGHT = 0.1  # of one step: a slow one alone changes little
_LEAST, _GREATEST = 0.02, 20.0  # factors
_FEW_TOKENS = 8  # however slow such a step is, it is reading weights that took the time
_SLOWER = 1.2  # than the floor: beyond, more than a few tokens were computed and not waited for


class Pace:
    """`cost` is what to plan with."""

    def __init__(self, measured: Cost) -> None:
        self.cost = measured
        self._measured = measured
        self._memory = self._compute = 1.0

    def observe(self, tokens: int, rows: int, reads: int, taken: float) -> None:
        """A step of so many tokens, rows and reads took `taken` milliseconds."""
        if tokens < 1 or taken <= 0:
            return
        cost = self.cost
        computed = cost.base + cost.per_token * tokens + cost.per_row * rows
        rest = max(taken - cost.per_read * reads, taken / 10)
        if computed > cost.floor or (tokens > _FEW_TOKENS and rest > _SLOWER * cost.floor):
            self._compute = _followed(self._compute, rest / computed)
        else:
            self._memory = _followed(self._memory, rest / cost.floor)
        measured = self._measured
        self.cost = Cost(
            floor=measured.floor * self._memory,
            base=measured.base * self._compute,
            per_token=measured.per_token * self._compute,
            per_read=measured.per_read * self._memory,
            per_row=measured.per_row * self._compute,
        )


def _followed(factor: float, ratio: float) -> float:
    """The factor, a step nearer to what would have made the expectation right."""
    return factor + _WEIGHT * (min(max(factor * ratio, _LEAST), _GREATEST) - factor)
