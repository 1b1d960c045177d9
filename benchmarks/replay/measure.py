"""What a replay says of an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from benchmarks.peers.lines import Request, Result
from benchmarks.replay.trace import Ask
from benchmarks.summary import percentile

FIRST_LINE_SECONDS, PERCENT, SERVED = 0.5, 95.0, 0.99
"""Goodput: this percentile of the times to a complete first line, and this share of the requests that are served."""
MAX_TOKENS = 48
"""Of a completion: the line counts as complete there, where it has no end yet."""


def requests(asks: Sequence[Ask], speed: float) -> list[Request]:
    """The trace at a speed."""
    return [
        Request(
            id=n,
            prompt=ask.prompt,
            max_tokens=MAX_TOKENS,
            at=ask.at / speed,
            cancel_at=None if ask.cancel_at is None else ask.cancel_at / speed,
            first_line=True,
            editor=ask.editor,
        )
        for n, ask in enumerate(asks)
    ]


def opening(asks: Sequence[Ask]) -> list[Request]:
    """What is computed before the clock starts: each editor's first prompt. People open files long before they type."""
    firsts: dict[int, Ask] = {}
    for ask in asks:
        firsts.setdefault(ask.editor, ask)
    return [Request(n, ask.prompt, max_tokens=1, editor=ask.editor) for n, ask in enumerate(firsts.values())]


def first_line_seconds(request: Request, result: Result | None) -> float:
    """From the key to the complete line, infinite where it did not come."""
    if result is None or result.end not in ("line", "length"):
        return math.inf
    return result.times[-1] - request.at


@dataclass(frozen=True)
class Verdict:
    """Of the requests that nobody cancelled: the time to a complete first line, and the share that got one."""

    first_line_p95: float
    served: float

    @property
    def good(self) -> bool:
        """Whether this speed counts."""
        return self.first_line_p95 <= FIRST_LINE_SECONDS and self.served >= SERVED


def verdict(asked: Sequence[Request], results: Mapping[int, Result]) -> Verdict:
    """Judge a replay; a request without a result was not served."""
    seconds = [first_line_seconds(request, results.get(request.id)) for request in asked if request.cancel_at is None]
    served = sum(map(math.isfinite, seconds)) / len(seconds)
    return Verdict(percentile(seconds, PERCENT), served)


class Misses:
    """Counts what came too late while a replay runs, and says when it can no longer be good."""

    def __init__(self, asked: Sequence[Request]) -> None:
        self._asked = {request.id: request for request in asked if request.cancel_at is None}
        self._left = math.floor(len(self._asked) * (1 - PERCENT / 100))

    def __call__(self, result: Result) -> bool:
        """Take one more result; True where the replay has failed."""
        request = self._asked.get(result.id)
        if request is not None and first_line_seconds(request, result) > FIRST_LINE_SECONDS:
            self._left -= 1
        return self._left < 0


def warm(asks: Sequence[Ask], asked: Sequence[Request], results: Mapping[int, Result]) -> list[int]:
    """Numbers of the awaited requests whose prompt, but for what was typed since, had been computed before.

    That is: since the editor's last prompt that was another one, a request had given a token when this one came.
    """
    computed: dict[int, float] = {}  # by editor: when its prompt was first computed
    found = []
    for n, (ask, request) in enumerate(zip(asks, asked, strict=True)):
        result = results.get(n)
        if not ask.appends:
            computed.pop(ask.editor, None)
        elif request.cancel_at is None and computed.get(ask.editor, math.inf) <= request.at:
            found.append(n)
        if result is not None and result.times:
            computed[ask.editor] = min(computed.get(ask.editor, math.inf), result.times[0])
    return found


def latencies(asks: Sequence[Ask], asked: Sequence[Request], results: Mapping[int, Result]) -> dict[str, float]:
    """Times and computed tokens of one replay, all the 95th percentile but for `delivery_ms`, a median.

    A first line that never came counts as the longest that was waited. What nothing was measured of is left out.
    """
    waited = max((result.ended for result in results.values()), default=0.0)
    answered = [n for n in warm(asks, asked, results) if n in results and results[n].times]
    measured: dict[str, list[float]] = {
        "warm_ttft_p95_ms": [1000 * (results[n].times[0] - asked[n].at) for n in answered],
        "recomputed_per_key_p95": [
            len(asked[n].prompt) - cached for n in answered if (cached := results[n].cached) is not None
        ],
    }
    found = {"first_line_p95_ms": 1000 * min(verdict(asked, results).first_line_p95, waited)}
    found |= {name: percentile(values, PERCENT) for name, values in measured.items() if values}
    between = [1000 * (later - earlier) for result in results.values() for earlier, later in pairwise(result.times)]
    return found | ({"delivery_ms": median(between)} if between else {})
