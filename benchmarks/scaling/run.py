"""One policy on one trace: asked once a second, as our own loop asks, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.files import DAY_S
from benchmarks.scaling.fleet import SERVICE, Counts, Fleet, Service
from benchmarks.scaling.traces import Trace

WARM_S = 300.0
"""From the beginning of a trace: one replica stands there, and nothing is counted yet."""
MIN_REPLICAS, MAX_REPLICAS = 1, 256
"""Of every policy, the clairvoyant's and the static fleet's too. The most is what `spec.autoscaling` allows, far above
what a day needs: how a policy meets a peak is measured, not where it is cut off."""
SLO_SHARE = 0.99
_BIN_S = 10.0
_BIN_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Seen:
    """What a policy may look at: the second, counters at its beginning and the target that holds."""

    second: int
    counts: Counts
    before: Counts
    """A second earlier."""
    target: int


Policy = Callable[[Seen], int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares of requests, NaN where none counts; seconds; `targets` is the wish at each second."""

    slo: float
    shed: float
    gpu_s: float
    changes_per_day: float
    worst_s: float
    targets: NDArray[np.int64]


def run(
    trace: Trace,
    policy: Policy,
    cold_start_s: float,
    *,
    least: int = MIN_REPLICAS,
    most: int = MAX_REPLICAS,
    service: Service = SERVICE,
    warm_s: float = WARM_S,
    end_s: float | None = None,
) -> Outcome:
    """Play `trace` from 0 to `end_s`, where None is its last request, beginning with `least` replicas that are ready.

    GPU-seconds are those from `warm_s` to the end. Requests count that arrive after `warm_s` and could be shed before
    the end.
    """
    end = trace.end if end_s is None else end_s
    fleet = Fleet(trace, cold_start_s, warm_s, end, service)
    fleet.scale(least, at_once=True)
    target = least
    targets = np.empty(int(end) + 1, np.int64)
    before = fleet.advance(0.0)
    for second in range(len(targets)):
        now = fleet.advance(float(second))
        wish = min(max(policy(Seen(second, now, before, target)), least), most)
        if wish != target:
            fleet.scale(wish)
            target = wish
        targets[second] = target
        before = now
    fleet.advance(end)
    gpu_s, wait = fleet.finish()
    counted = counts(trace.at, end, warm_s, service)
    at, wait = trace.at[counted], wait[counted]
    late = wait > service.target_s
    return Outcome(
        slo=1 - _share(late),
        shed=_share(np.isinf(wait)),
        gpu_s=gpu_s,
        changes_per_day=float(np.count_nonzero(np.diff(targets[int(warm_s) :]))) * DAY_S / (end - warm_s),
        worst_s=worst(at, late),
        targets=targets,
    )


def _share(those: NDArray[np.bool_]) -> float:
    return float(np.mean(those)) if len(those) else math.nan


def counts(
    at: NDArray[np.float64], end_s: float, warm_s: float = WARM_S, service: Service = SERVICE
) -> NDArray[np.bool_]:
    """Of requests that arrive then, which count."""
    counted: NDArray[np.bool_] = (at >= warm_s) & (at < end_s - service.patience_s)
    return counted


def worst(at: NDArray[np.float64], late: NDArray[np.bool_]) -> float:
    """The longest time in seconds in which each 10 s with requests had less than nine of ten in time."""
    bins = (at // _BIN_S).astype(np.int64)
    requests, lates = np.bincount(bins), np.bincount(bins, late)
    bad = requests - lates < _BIN_SHARE * requests
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths.max(initial=0)) * _BIN_S
