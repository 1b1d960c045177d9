"""What the gateways did for one deployment, second by second, and how many replicas that needs.

It is fed with the bins of `/load`, of all gateways together: fed anew with the half hour that the gateways keep, and
told what was learned in longer than that, it says what it said before.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, fields
from operator import attrgetter

from aixcoder_operator.scaling.memory import IN_TIME, LATE_S, LONGEST_HOLD_S, MEMORIES_S, Trial, chosen
from aixcoder_serving.protocol import KEPT_SECONDS

UNKNOWN_COLD_START_S = 120.0
"""Until one was measured: with a cached image and weights of 14 GB."""

_RECENT_SECONDS = 5
_QUEUE_SECONDS = 10.0  # in which what waits is worked off, beside what arrives
_FORGET = 1 - 1 / 500  # of the means, each second
_MOST_LATE_S = 1.0  # that a second may leave to the next
_CHANCE = 0.35  # replicas for the root of a replica's work
_UNKNOWN_WORK_S = 0.2  # of a request, before any is known
_PLACES_TAKEN = 2.0  # requests that a replica runs at once where its speed is not known
_LATE_SHARE = 0.7 * (1 - IN_TIME)  # what is learned aims at it: a day ends beside that, on either side
_GAIN = 0.001  # of what is learned, in a second in which as many are late as arrive in a usual one
_LEAST_LEARNED = -0.1
_BURST_SHARE = 0.5  # of a second's requests that are late where a burst was out of reach
_BURST_GAIN = 0.003
_FORGET_BURST = 1 - 1 / KEPT_SECONDS
_MOST_WEIGHT = 10.0  # of a second, in usual ones: after a quiet hour one late request would be thousands
_MOST_MARGIN = 0.5  # of either
_SET_BACK_SECONDS = 30
_GAP_SECONDS = 10  # in which nothing came if nothing came before and after
_MOST = 1e12  # of anything: no gateway tells as much, and squares and sums of it are numbers still


@dataclass(frozen=True, slots=True)
class Second:
    """One second: the sums of all gateways' counters, named as in `/load`, and what waited at its end.

    `heard`: whether every gateway that should have told it did. What is not told is unknown, not zero.
    """

    second: int
    """Since 1970."""
    arrivals: float = 0.0
    completed: float = 0.0
    cancelled_prefill: float = 0.0
    cancelled_decode: float = 0.0
    slot_ms: float = 0.0
    tokens_prefilled: float = 0.0
    tokens_decoded: float = 0.0
    waited_over_target: float = 0.0
    queued: float = 0.0
    """Of a second that another leader saw it is not known, and 0."""
    heard: bool = True
    starved: bool = False
    """Whether there were fewer replicas than were needed, whatever was wished: who was late then teaches nothing."""

    @property
    def known(self) -> bool:
        """Whether it counts: heard, and made of numbers."""
        return self.heard and all(0 <= amount <= _MOST for amount in _amounts(self))


_amounts = attrgetter(*(each.name for each in fields(Second) if each.name not in ("heard", "starved")))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a replica can do: seconds of its time, as its engine measures them, None where unknown."""

    prefill_s: float | None
    """For each token of a prompt that is computed."""
    decode_s: float | None
    """By which one more running request lengthens everybody's token."""
    slots: int
    """Requests that it runs at once: `maxConcurrentSequences`."""


class Load:
    """The load of one deployment.

    `capacity` is that of its replicas; `cold_start_s` goes from a pod that is asked for to its ready replica, as
    measured, None where it was not. Both are of now, and may be set at any time. `learned` is what it was after second
    `learned_at`: more than half an hour has made it.
    """

    def __init__(
        self, capacity: Capacity, cold_start_s: float | None = None, learned: float = 0.0, learned_at: float = -math.inf
    ) -> None:
        self.capacity = capacity
        self.cold_start_s = cold_start_s
        self.learned = min(max(learned, _LEAST_LEARNED), _MOST_MARGIN)
        """Share by which more than the formula's replicas are needed, or fewer: of days, by how many were late."""
        self.learned_at = learned_at
        """The last second that it knows of."""
        self.target_s = LATE_S
        """For which a request may wait. May be set at any time."""
        self._begin()

    def anew(self) -> Load:
        """One that has taken no second, and knows what more than half an hour has shown."""
        found = Load(self.capacity, self.cold_start_s, self.learned, self.learned_at)
        found.target_s = self.target_s
        if self.last is not None:
            found._quiet_before = self.quiet_since
        return found

    def _begin(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT_SECONDS)
        self._trials = [Trial(seconds) for seconds in MEMORIES_S]
        self.memory_s = MEMORIES_S[0]
        """For how long the busiest seconds are remembered."""
        self.peak = 0.0
        """Requests per second in the busiest of them, but for the very busiest."""
        self._needs: deque[tuple[int, float]] = deque()  # second, replicas
        self._begun = self._decoding = 0.0
        self._prefilled = self._decoded = self._slot_s = 0.0
        self._seconds = self._arrived = 0.0
        self._burst = 0.0
        self._quiet_before: int | None = None
        self.quiet_since = 0
        """The first second since which nothing is known to have come or waited."""
        self.queued = 0.0
        """At the end of the last known second."""

    @property
    def margin(self) -> float:
        """Share by which more is needed than the formula says: what was learned, and for bursts of the last minutes."""
        return round(self.learned + self._burst, 3)

    @property
    def start_s(self) -> float:
        """The cold start to reckon with, in seconds."""
        return min(max(usable(self.cold_start_s, UNKNOWN_COLD_START_S), 1.0), LONGEST_HOLD_S)

    @property
    def last(self) -> int | None:
        """The last known second."""
        return self._needs[-1][0] if self._needs else None

    def add(self, one: Second) -> None:
        """Take one second. Seconds that are unknown, or were taken already, change nothing.

        Where the clock was set back, what was taken is of no time any more, and it begins anew.
        """
        if not one.known:
            return
        last = self.last
        if last is not None and one.second <= last:
            if one.second > last - _SET_BACK_SECONDS:
                return
            self.learned_at = -math.inf
            self._begin()
            last = None
        if one.arrivals or one.queued:
            self.quiet_since = one.second + 1
        elif last is None:
            self.quiet_since = one.second if self._quiet_before is None else min(one.second, self._quiet_before)
        elif one.second - last > _GAP_SECONDS:
            self.quiet_since = one.second
        self.queued = one.queued
        self._count(one)
        self._needs.append((one.second, self._need()))
        while self._needs[0][0] <= one.second - KEPT_SECONDS:
            self._needs.popleft()

    @property
    def need(self) -> float:
        """Replicas that the last known second needed; 0 before any."""
        return self._needs[-1][1] if self._needs else 0.0

    def highest_need(self, since: float) -> tuple[float, int]:
        """The most replicas that any second after `since` needed, and how many of these seconds are known.

        One that is not known is taken to need what the last known one before it did.
        """
        highest, known = 0.0, 0
        until = math.inf
        for second, need in reversed(self._needs):
            if until - 1 <= since:
                break
            highest = max(highest, need)
            known += second > since
            until = second
        return highest, known

    @property
    def work_s(self) -> float:
        """Seconds of a replica that a request takes which gets a place: the mean of the last ten minutes.

        By its speed: (tokens of a prompt · prefill_s + tokens of a completion · decode_s) · (share that is computed),
        of those cancelled before their first token a half. A prompt's tokens are those of requests that had a first
        token: it tells a gateway what was computed. Where the speed of prompts is unknown, the time for which a place
        is taken, over the places that are. Never less than that time over all places: no more than these run at once.
        """
        if not self._begun:
            return _UNKNOWN_WORK_S
        slot_s = self._slot_s / self._begun
        prefill_s, decode_s = self.capacity.prefill_s, usable(self.capacity.decode_s, 0.0)
        if prefill_s is None or not self._decoding:
            by_speed = slot_s / _PLACES_TAKEN
        else:
            prompt_s = self._prefilled / self._decoding * usable(prefill_s, 0.0)
            computed = (self._begun + self._decoding) / 2
            by_speed = prompt_s * computed / self._begun + self._decoded / self._begun * decode_s
        return max(by_speed, slot_s / max(self.capacity.slots, 1))

    def _count(self, one: Second) -> None:
        decoding = one.completed + one.cancelled_decode
        self._begun = self._begun * _FORGET + decoding + one.cancelled_prefill
        self._decoding = self._decoding * _FORGET + decoding
        self._prefilled = self._prefilled * _FORGET + one.tokens_prefilled
        self._decoded = self._decoded * _FORGET + one.tokens_decoded
        self._slot_s = self._slot_s * _FORGET + one.slot_ms / 1000
        self._seconds = self._seconds * _FORGET + 1
        self._arrived = self._arrived * _FORGET + one.arrivals
        self._burst *= _FORGET_BURST
        # While no place was taken there was no replica: who waits for its start says nothing about its speed.
        if one.slot_ms and self._arrived and not one.starved:
            self._learn(one, self._seconds / self._arrived)
        self.learned_at = max(self.learned_at, one.second)
        self._recent.append(one.arrivals)
        start_s, work_s = self.start_s, self.work_s
        for trial in self._trials:
            trial.add(one.arrivals, work_s, start_s)
        best = chosen(self._trials)
        self.memory_s, self.peak = best.window.seconds, best.peak

    def _learn(self, one: Second, usual: float) -> None:
        """From how many were late; `usual` makes requests of them seconds of the usual load."""
        if one.second > self.learned_at:
            late = _weight(one.waited_over_target * usual) - _LATE_SHARE * _weight(one.arrivals * usual)
            self.learned = min(max(self.learned + _GAIN * late, _LEAST_LEARNED), _MOST_MARGIN)
        beyond = _weight((one.waited_over_target - _BURST_SHARE * one.arrivals) * usual)
        self._burst = min(self._burst + _BURST_GAIN * beyond, _MOST_MARGIN)

    def _need(self) -> float:
        """Replicas for the busiest seconds, or for the last ones and what waits, whichever is more.

        One second is in time where no more of its work is left to the next than its requests may wait for, a second's
        at most; several that follow each other leave nothing. Beside the busiest come replicas against chance, how
        requests are spread over a second and over replicas: it grows with the root of what arrives, so that a small
        fleet needs more of it.
        """
        rate = sum(self._recent) / len(self._recent) + self.queued / _QUEUE_SECONDS
        work = max(self.peak, rate) * self.work_s
        busiest = work / (1 + min(self.target_s, _MOST_LATE_S)) + _CHANCE * math.sqrt(work)
        return max(busiest, rate * self.work_s) * (1 + self.margin)


def _weight(usual_seconds: float) -> float:
    return min(max(usual_seconds, 0.0), _MOST_WEIGHT)


def usable(value: float | None, otherwise: float) -> float:
    """An amount that was told, where it is one: a number, not negative, and no more than can be."""
    return value if value is not None and 0 <= value <= _MOST else otherwise
