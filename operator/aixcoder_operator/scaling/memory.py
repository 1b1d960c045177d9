"""For how long the busiest seconds are remembered: the shortest memory that would have been enough so far.

Bursts that follow each other within minutes are met by the replicas that the last one asked for; where they are half an
hour apart, only who remembers has them. So several memories are kept at once, and each is tried on what really came: a
fleet on paper has what its memory asked for a cold start earlier, held as ours is, and counts who is late.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

MEMORIES_S = (120, 300, 600, 1800)
"""The shortest has more than the hundred seconds that one in a hundred needs, the longest all that gateways keep."""
IN_TIME = 0.99
"""Share of requests that is to wait no longer than its target."""
LATE_S = 0.2
"""Work, for each replica, that a second may leave to the next: for as long as a request may wait, by default."""
_LATE_ON_PAPER_S = 0.5
"""The same on paper, where a long memory has to be worth what it costs: what is missing then is learned."""
LONGEST_HOLD_S = 1200.0
"""However long a start takes; nor is one taken to be longer."""

_FORGET = 1 - 1 / 900  # of who was late, each second: half an hour tells most of it
_BURST_S = 60.0
_MOST_MORE = 1.5
_MOST_BACKLOG_S = 10.0  # who waits for longer has left


def hold_s(cold_start_s: float) -> float:
    """For how many seconds a need is held."""
    return min(2 * cold_start_s, LONGEST_HOLD_S)


class Window:
    """Arrivals of the last seconds, as many as it is long."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._arrivals: deque[float] = deque()
        self._sorted: list[float] = []
        self._total = 0.0

    def add(self, arrivals: float) -> None:
        """One more second."""
        self._arrivals.append(arrivals)
        insort(self._sorted, arrivals)
        self._total += arrivals
        if len(self._arrivals) > self.seconds:
            oldest = self._arrivals.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._total -= oldest

    def peak(self) -> float:
        """Requests per second: those that arrived in seconds with more are no more than 1 - IN_TIME of all.

        While it is not full, what it would be if it were. Of n bursts with an exponential tail the largest is as far
        above the mean as log n says; one a minute is taken to be independent of the others.
        """
        known = len(self._sorted)
        spare = (1 - IN_TIME) * self._total
        for arrivals in reversed(self._sorted):
            spare -= arrivals
            if spare < 0:
                more = math.log(self.seconds / _BURST_S) / math.log(max(known / _BURST_S, 2.0))
                mean = self._total / known
                return mean + (arrivals - mean) * min(max(more, 1.0), _MOST_MORE)
        return 0.0


class Trial:
    """One memory, and the fleet on paper that would have had what it asked for."""

    def __init__(self, seconds: int) -> None:
        self.window = Window(seconds)
        self.peak = 0.0
        """Of the window."""
        self._asked: deque[tuple[int, float]] = deque()  # falling needs, of the time for which they are held
        self._held: deque[float] = deque()  # of the seconds since what is ready now was asked for
        self._number = 0
        self._backlog_s = self._late = self._arrived = 0.0

    @property
    def late(self) -> float:
        """Share of requests that were late on paper."""
        return self._late / self._arrived if self._arrived else 0.0

    def add(self, arrivals: float, work_s: float, cold_start_s: float) -> None:
        """One more second: what arrives, and what a request takes of a replica."""
        replicas = 0.0
        while len(self._held) > cold_start_s:
            replicas = min(self._held.popleft(), self._held[-1])  # not rounded: how near the next whole one is, is luck
        if self._number > MEMORIES_S[0] + cold_start_s:
            backlog = self._backlog_s + arrivals * work_s - replicas
            self._backlog_s = min(max(backlog, 0.0), _MOST_BACKLOG_S * replicas)
            self._late = self._late * _FORGET + (arrivals if backlog > _LATE_ON_PAPER_S * replicas else 0.0)
            self._arrived = self._arrived * _FORGET + arrivals
        self.window.add(arrivals)
        self.peak = self.window.peak()
        need = self.peak * work_s
        self._number += 1
        while self._asked and self._asked[-1][1] <= need:
            self._asked.pop()
        self._asked.append((self._number, need))
        while self._asked[0][0] <= self._number - hold_s(cold_start_s):
            self._asked.popleft()
        self._held.append(self._asked[0][1])


def chosen(trials: Sequence[Trial]) -> Trial:
    """The shortest memory with enough in time, else the one with the fewest late."""
    for trial in trials:
        if trial.late <= 1 - IN_TIME:
            return trial
    return min(trials, key=lambda trial: trial.late)
