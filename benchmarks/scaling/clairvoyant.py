"""The cheapest schedule that knows the future: what a policy's cost is divided by.

At second s it has as many replicas as the highest need in the next D + 1 seconds, D the cold start: it asks D early,
and keeps what it would ask for again within D. The need of a second is d / u + b·sqrt(d), d the mean of the work that
arrives in `window` seconds around it, in seconds of a replica per second. Work is what a request takes where it waits
for nothing, its cancellation known.

The grid: windows of 1, 5, 15 and 60 s; b of 0, 0.25 and 0.5; u from 0.5 to 1.2 in steps of 0.05. Of each window and b
the greatest u is sought that has 99 % of the requests in time; the cheapest of these is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.fleet import SERVICE
from benchmarks.scaling.run import MAX_REPLICAS, SLO_SHARE, WARM_S, Outcome, Policy, run
from benchmarks.scaling.traces import Trace, per_second, work_s

WINDOWS_S = (1, 5, 15, 60)
MARGINS = (0.25, 0.0, 0.5)
USES = tuple(round(0.5 + 0.05 * n, 2) for n in range(15))


def clairvoyant(trace: Trace, cold_start_s: float) -> Outcome | None:
    """The best of the grid. None where no schedule of it is good enough."""
    work = arriving_work(trace)
    best: Outcome | None = None
    for window in WINDOWS_S:
        for margin in MARGINS:
            low, high = 0, len(USES)
            while low < high:
                middle = (low + high) // 2
                replicas = schedule(work, cold_start_s, window, USES[middle], margin)
                # What is drained comes on top: it costs so much at least.
                if best is not None and replicas[int(WARM_S) : int(trace.end)].sum() >= best.gpu_s:
                    low = middle + 1
                    continue
                outcome = run(trace, follow(replicas), cold_start_s)
                if outcome.slo < SLO_SHARE:
                    high = middle
                    continue
                low = middle + 1
                if best is None or outcome.gpu_s < best.gpu_s:
                    best = outcome
    return best


def arriving_work(trace: Trace) -> NDArray[np.float64]:
    """Seconds of a replica that arrive in each second."""
    each = work_s(trace, SERVICE.prefill_tokens_per_s, SERVICE.token_s, SERVICE.token_s_per_request)
    return per_second(trace.at, each, int(trace.end) + 1)


def schedule(
    work: NDArray[np.float64], cold_start_s: float, window_s: int, use: float, margin: float
) -> NDArray[np.int64]:
    """Replicas at each second, for `work` in seconds of a replica that arrive in each."""
    sums = np.concatenate([[0.0], np.cumsum(work)])
    second = np.arange(len(work))
    first, last = np.maximum(second - window_s // 2, 0), np.minimum(second + window_s // 2 + 1, len(work))
    mean = (sums[last] - sums[first]) / (last - first)
    need = np.ceil(np.round(mean / use + margin * np.sqrt(np.maximum(mean, 0)), 9))
    ahead = int(cold_start_s) + 1
    padded = np.concatenate([need, np.zeros(ahead - 1)])
    highest = np.lib.stride_tricks.sliding_window_view(padded, ahead).max(axis=1)
    found: NDArray[np.int64] = np.clip(highest, 1, MAX_REPLICAS).astype(np.int64)
    return found


def follow(replicas: NDArray[np.int64]) -> Policy:
    """A policy that does what a schedule says; its last number holds on."""
    wishes = replicas.tolist()
    return lambda seen: int(wishes[min(seen.second, len(wishes) - 1)])
