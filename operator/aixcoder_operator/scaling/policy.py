"""How many replicas a deployment should have. Pure: the loop asks once a second, and so does the simulator.

    wish     what the last second shows to be needed (`load.py`); from zero, until a replica is ready, what works off
             the queue in its target, whatever is remembered of busier times
    held     the highest need of the last 2·D seconds, D the cold start
    bounded  what is held, between the least and the most
    desired  that, as far as step and rate let it

Up at once. Down only where each need of the last 2·D seconds was lower, nothing was woken in them, nine of ten of them
are known, where `hold_until` has passed, and while every gateway is heard. To zero after `zero_after_s` without a
request, or 2·D where that is longer, whatever was needed before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aixcoder_operator.scaling.load import Load, usable
from aixcoder_operator.scaling.memory import hold_s

_KNOWN = 0.9
_STALE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many replicas within the period: that many at once, then none until it is over."""

    replicas: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What `spec.autoscaling` allows."""

    least: int
    most: int
    target_s: float = 0.2
    """For which a request may wait."""
    zero_after_s: float = 600.0
    up: Rate | None = None
    """None: any number at once."""
    down: Rate | None = None

    def of(self, replicas: int) -> int:
        """As near to that as they allow."""
        return min(max(replicas, self.least), self.most)


@dataclass(frozen=True, slots=True)
class Now:
    """The moment. `time` in seconds since 1970, of the clock that the bins are of."""

    time: float
    queued: float = 0.0
    """Requests that wait for a replica."""
    running: float = 0.0
    """Requests that have one."""
    ready: int = 1
    """Replicas that can take a request."""
    all_heard: bool = True
    """Whether each gateway that should answer did."""
    arrivals_per_s: float = 0.0
    """Of late, at the gateways that are heard: looked at while others are not, when no second is known as a whole."""

    def usable(self, load: Load) -> Now:
        """What is no number is unknown: what waits is as it was, and something may run and come."""
        return replace(
            self,
            queued=usable(self.queued, load.queued),
            running=usable(self.running, 1.0),
            arrivals_per_s=usable(self.arrivals_per_s, 1.0),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided last. Times in seconds since 1970."""

    desired: int
    hold_until: float = 0.0
    """Before, nothing is scaled down."""
    changed_at: float = 0.0
    risen_at: float = 0.0
    """Of the last change to more; long ago where it is not known."""
    waking: bool = False
    """Whether it was zero, and no replica is ready yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What stands from now on, what was wished with no hold and no bounds, and why, in words and numbers."""

    standing: Standing
    wish: int
    reason: str


def decide(load: Load, now: Now, bounds: Bounds, standing: Standing) -> Decision:
    """The decision of this moment."""
    now, before = now.usable(load), standing.desired
    held_s = hold_s(load.start_s)
    # A clock that was set leaves no time that is later than any can be.
    hold_until = min(standing.hold_until, now.time + held_s)
    changed_at, risen_at = min(standing.changed_at, now.time), min(standing.risen_at, now.time)

    waking = before == 0 or (standing.waking and not now.ready)
    wish, why = _wish(load, now, bounds, waking)
    reasons = [why]
    highest, known_seconds = load.highest_need(now.time - held_s - 1)
    held = wish if waking else max(wish, _whole(highest))
    if held > wish:
        reasons.append(f"{held} within the last {held_s:.0f} s")
    if bounds.least == 0:
        quiet_s, zero_after_s = _quiet_s(load, now), max(bounds.zero_after_s, held_s)
        if quiet_s >= zero_after_s:
            held = 0
            reasons.append(f"no request for {quiet_s:.0f} s: 0")
        elif before and not held:
            held = 1
            reasons.append(f"1 until no request came for {zero_after_s:.0f} s")
    bounded = bounds.of(held)
    reasons.append(_at_bound(held, bounded))

    doubt = _doubt(load, now, held_s, hold_until, known_seconds)
    if bounded >= before:
        moved, why = _step(before, bounded, bounds.up, now.time - risen_at)
    elif doubt:
        moved, why = before, f"stays at {before}: {doubt}"
    else:
        moved, why = _step(before, bounded, bounds.down, now.time - changed_at)
    desired = bounds.of(moved)  # which wait for nothing
    if desired != bounded:
        reasons.append(_at_bound(moved, desired) or why)

    # The load remembers what it needed, and nothing of what a wake or a silent gateway asks for.
    if desired > before or (wish and waking) or wish > _whole(load.need):
        hold_until = now.time + held_s
    if desired > before:
        risen_at = now.time
    if desired != before:
        changed_at = now.time
    reason = "; ".join(filter(None, reasons))
    return Decision(Standing(desired, hold_until, changed_at, risen_at, waking), wish, reason)


def _wish(load: Load, now: Now, bounds: Bounds, waking: bool) -> tuple[int, str]:
    """The highest of what is known to be needed, and why."""
    wishes = [_woken(load, now, bounds) if waking else _needed(load, now)]
    if waking or not now.all_heard:
        heard = _whole(now.arrivals_per_s * load.work_s)
        wishes.append((heard, f"{now.arrivals_per_s:.0f}/s arriving at those gateways that are heard"))
    wish, why = max(wishes, key=lambda each: each[0])
    return wish, f"{why}: {wish}"


def _needed(load: Load, now: Now) -> tuple[int, str]:
    share = round(load.margin, 2)
    margin = f", {abs(share):.0%} {'more' if share > 0 else 'less'} by how many were late" if share else ""
    return _whole(load.need), (
        f"queued {now.queued:.0f}, {load.peak:.0f}/s arriving in the busiest seconds of {load.memory_s // 60} minutes,"
        f" {load.work_s:.2f} s of a replica each{margin}"
    )


def _woken(load: Load, now: Now, bounds: Bounds) -> tuple[int, str]:
    """What works off the queue in its target; one where who came has left within the second, as most typing does."""
    if not now.queued and not now.arrivals_per_s:
        return 0, "nobody asks"
    woken = max(_whole(now.queued * load.work_s / bounds.target_s), 1)
    return woken, f"woken by {now.queued:.0f}, {load.work_s:.2f} s of a replica each"


def _step(before: int, wished: int, rate: Rate | None, since_s: float) -> tuple[int, str]:
    """How far the number goes towards what is wished, `since_s` after it last did, and why no further."""
    if rate is None:
        return wished, ""
    step = rate.replicas if since_s >= rate.period_s else 0
    moved = min(max(wished, before - step), before + step)
    return moved, f"{moved} for now, by {rate.replicas} at most in {rate.period_s:.0f} s"


def _at_bound(wished: int, allowed: int) -> str:
    """Which bound it was, if any."""
    return "" if allowed == wished else f"at {'least' if allowed > wished else 'most'} {allowed}"


def _whole(replicas: float) -> int:
    return math.ceil(round(replicas, 6))


def _quiet_s(load: Load, now: Now) -> float:
    """For how many seconds nothing came, while nothing waits and nothing runs."""
    if load.last is None or now.queued or now.running or now.arrivals_per_s:
        return 0.0
    return float(load.last + 1 - load.quiet_since)


def _doubt(load: Load, now: Now, held_s: float, hold_until: float, known_seconds: int) -> str:
    """Why nothing is scaled down now; empty where it may be."""
    if not now.all_heard:
        return "a gateway is not heard"
    if load.last is None or now.time - load.last > _STALE_SECONDS:
        return "no load is known of the last seconds"
    if now.time < hold_until:
        return f"held for another {hold_until - now.time:.0f} s"
    if known_seconds < _KNOWN * (held_s - 1):
        return f"of the last {held_s:.0f} s only {known_seconds} are known"
    return ""
