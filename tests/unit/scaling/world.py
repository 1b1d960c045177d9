"""A deployment whose load is told second by second, and the scaler that watches it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aixcoder_operator.scaling.load import Capacity, Load, Second
from aixcoder_operator.scaling.policy import Bounds, Decision, Now, Standing, decide

PREFILL_S = 0.0001
CAPACITY = Capacity(prefill_s=PREFILL_S, decode_s=0.0, slots=8)
PROMPT = 2000
"""Tokens: 0.2 s of a replica, so that five requests a second are one."""
COLD_START_S = 30.0
BOUNDS = Bounds(least=1, most=20, zero_after_s=300.0)


def calm(second: int, arrivals: float, **changes: Any) -> Second:
    """A second in which all that arrives is served at once."""
    usual = Second(
        second,
        arrivals=arrivals,
        completed=arrivals,
        slot_ms=500 * arrivals,
        tokens_prefilled=PROMPT * arrivals,
        tokens_decoded=20 * arrivals,
    )
    return replace(usual, **changes)


@dataclass
class World:
    """Time goes on by `play`; `decisions` and `needs`, in replicas, are those of each second."""

    bounds: Bounds = BOUNDS
    standing: Standing = field(default_factory=lambda: Standing(1))
    time: int = 1_000_000
    load: Load = field(default_factory=lambda: Load(CAPACITY, COLD_START_S))
    decisions: list[Decision] = field(default_factory=list)
    needs: list[float] = field(default_factory=list)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=5))

    def play(self, seconds: Iterable[Second], *, all_heard: bool = True, ready: int = 1) -> Decision:
        """Take each second, its number counted from now, and decide after it."""
        for one in seconds:
            self.load.add(replace(one, second=self.time))
            self.needs.append(self.load.need)
            self.recent.append(one.arrivals)
            self.time += 1
            rate = sum(self.recent) / len(self.recent)
            now = Now(float(self.time), one.queued, ready=ready, all_heard=all_heard, arrivals_per_s=rate)
            self.decisions.append(decide(self.load, now, self.bounds, self.standing))
            self.standing = self.decisions[-1].standing
        return self.decisions[-1]

    def steady(self, arrivals: float, seconds: int, **changes: Any) -> Decision:
        """The same again and again."""
        return self.play([calm(0, arrivals, **changes)] * seconds)

    @property
    def desired(self) -> Sequence[int]:
        """At each second."""
        return [decision.standing.desired for decision in self.decisions]
