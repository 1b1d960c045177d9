"""What others do, from their documents: each a function that is asked once a second and keeps its own state.

Their settings are their defaults. Where a default depends on the replica, such as how many requests it is to run at
once, it is of one with eight slots.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean

from benchmarks.scaling.fleet import SERVICE
from benchmarks.scaling.run import Policy, Seen

SLOTS = SERVICE.slots


def _ongoing(seen: Seen) -> float:
    return seen.counts.queued + seen.counts.running


def ray_serve(
    target: float = 2.0,
    look_back_s: int = 30,
    interval_s: int = 10,
    upscale_delay_s: int = 30,
    downscale_delay_s: int = 600,
) -> Policy:
    """Ray Serve 2.60: ongoing requests, averaged over the look-back, divided by the target.

    A wish that stays above the present number for the upscale delay is taken as it then is, one below for the downscale
    delay; a wish the other way, or none, begins the delay anew.
    """
    samples: deque[tuple[int, float]] = deque()
    direction, since = 0, 0

    def policy(seen: Seen) -> int:
        nonlocal direction, since
        if seen.second % interval_s == 0:
            samples.append((seen.second, _ongoing(seen)))
        while samples and samples[0][0] <= seen.second - look_back_s - interval_s:
            samples.popleft()
        wish = max(math.ceil(fmean(value for _, value in samples) / target), 1) if samples else seen.target
        now = (wish > seen.target) - (wish < seen.target)
        if now != direction:
            direction, since = now, seen.second
        delay = upscale_delay_s if now > 0 else downscale_delay_s
        if not now or seen.second - since < delay:
            return seen.target
        direction = 0
        return wish

    return policy


def ray_serve_tuned() -> Policy:
    """Ray Serve's with settings for bursts, chosen by hand: no search was made."""
    return ray_serve(target=1.0, look_back_s=10, interval_s=1, upscale_delay_s=0, downscale_delay_s=120)


def knative() -> Policy:
    """Knative's KPA: concurrency over 60 s, or over 6 s in panic, by 70 % of the slots; looks every 2 s.

    Panic begins where the short window asks for twice what is ready, lasts for 60 s after, and scales nothing down.
    No look leaves less than half of what is ready.
    """
    stable_s, panic_s, panic_at, each = 60, 6, 2.0, 0.7 * SLOTS
    history: deque[float] = deque(maxlen=stable_s)
    panic_since: int | None = None
    highest = 0

    def policy(seen: Seen) -> int:
        nonlocal panic_since, highest
        history.append(_ongoing(seen))
        if seen.second % 2:
            return seen.target
        ready = max(seen.counts.ready, 1.0)
        stable = max(math.ceil(fmean(history) / each), math.floor(ready / 2))
        short = max(math.ceil(fmean(list(history)[-panic_s:]) / each), math.floor(ready / 2))
        if short / ready >= panic_at:
            panic_since = seen.second
        elif panic_since is not None and seen.second - panic_since > stable_s:
            panic_since, highest = None, 0
        if panic_since is None:
            return stable
        highest = max(highest, stable, short)
        return highest

    return policy


def hpa_queue(waiting: float = 5.0) -> Policy:
    """A HorizontalPodAutoscaler on what waits, so many for each replica: every 15 s, on numbers 15 s old.

    A ratio within a tenth of 1 changes nothing; up by four or to the double, down to the highest of the last 300 s.
    """
    sync_s, stabilization_s, tolerance = 15, 300, 0.1
    metric: deque[float] = deque(maxlen=sync_s + 1)
    wishes: deque[tuple[int, int]] = deque()

    def policy(seen: Seen) -> int:
        metric.append(seen.counts.queued)
        if seen.second % sync_s:
            return seen.target
        present = max(seen.target, 1)
        ratio = metric[0] / (waiting * present)
        wish = present if abs(ratio - 1) <= tolerance else math.ceil(metric[0] / waiting)
        wishes.append((seen.second, wish))
        while wishes[0][0] <= seen.second - stabilization_s:
            wishes.popleft()
        if wish < present:
            return min(present, max(each for _, each in wishes))
        return min(wish, max(2 * present, present + 4))

    return policy


def llm_d() -> Policy:
    """llm-d's Workload Variant Autoscaler, by saturation: every 60 s one replica more or less, none while one starts.

    Saturated is a replica with 80 % of its cache in use, here of its slots, or with 5 that wait. One is added where on
    average less than 10 % and 3 are spare, taken away where as much would be spare without it. Highest values of the
    minute count.
    """
    period_s, full, spare, queue_full, queue_spare = 60, 0.8, 0.1, 5.0, 3.0
    history: deque[tuple[float, float]] = deque(maxlen=period_s)

    def policy(seen: Seen) -> int:
        ready = max(seen.counts.ready, 1.0)
        history.append((seen.counts.running / ready / SLOTS, seen.counts.queued / ready))
        if seen.second % period_s or seen.counts.starting:
            return seen.target
        used, waiting = max(each for each, _ in history), max(each for _, each in history)
        if full - used < spare or queue_full - waiting < queue_spare:
            return seen.target + 1
        fewer = ready / (ready - 1) if ready > 1 else math.inf
        if full - used * fewer >= spare and queue_full - waiting * fewer >= queue_spare:
            return seen.target - 1
        return seen.target

    return policy


def aibrix() -> Policy:
    """AIBrix's APA: ongoing requests of a replica, averaged over 180 s, by half of its slots; looks every 10 s.

    Within a tenth nothing changes; up to the double, down to the half, and no sooner than 300 s after the last time.
    """
    window_s, period_s, cool_s, tolerance, each = 180, 10, 300, 0.1, SLOTS / 2
    history: deque[float] = deque(maxlen=window_s)
    last_down = -cool_s

    def policy(seen: Seen) -> int:
        nonlocal last_down
        history.append(_ongoing(seen) / max(seen.counts.ready, 1.0))
        if seen.second % period_s:
            return seen.target
        ratio = fmean(history) / each
        present = max(seen.target, 1)
        if ratio > 1 + tolerance:
            return min(math.ceil(present * ratio), 2 * present)
        if ratio < 1 - tolerance and seen.second - last_down >= cool_s:
            last_down = seen.second
            return max(math.ceil(present * ratio), present // 2)
        return seen.target

    return policy
