"""What a gateway did for each deployment, as the operator's scaling reads it: the page `/load`.

Counters that only grow, and the same in bins of a second for the last half hour: what a gauge that is polled misses,
such as a request that lived for 80 ms, is in them. Time is what was really spent: the milliseconds for which a request
held a place at a replica, cancelled or not.

Bins stand under the gateway's uid and start: a reader that sees others knows that its history is of another process.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import takewhile

from aixcoder_serving.protocol import KEPT_SECONDS, DeploymentLoad, GatewayLoad, LoadBin, LoadCounters

COUNTERS = tuple(LoadCounters.model_fields)


class DeploymentLedger:
    """The counts of one deployment. `clock`: seconds since 1970, never set back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._totals = dict.fromkeys(COUNTERS, 0.0)
        self._bins: deque[tuple[int, dict[str, float]]] = deque()
        self.waiting = 0
        self._running = 0
        self._counted_until = clock()

    def count(self, counter: str, amount: float = 1.0) -> None:
        """Add to a counter, now."""
        self._spend()  # before a newer bin is opened
        self._add(int(self._clock()), counter, amount)

    @property
    def running(self) -> int:
        """Requests that hold a place at a replica."""
        return self._running

    def place_taken(self) -> None:
        """A request got a place."""
        self._spend()
        self._running += 1

    def place_left(self) -> None:
        """A request gave its place back."""
        self._spend()
        self._running -= 1

    def tell(self, since: float, until: float = math.inf) -> tuple[LoadCounters, tuple[LoadBin, ...]]:
        """The counters, and the bins from second `since` to before `until`; that of now is not over yet."""
        self._spend()
        recent = takewhile(lambda one: one[0] >= since, reversed(self._bins))
        bins = [LoadBin(second=second, counts=_counters(counts)) for second, counts in recent if second < until]
        return _counters(self._totals), tuple(reversed(bins))

    def _spend(self) -> None:
        """Add what the places took since the last time, each second its own."""
        now = self._clock()
        at, self._counted_until = max(self._counted_until, now - KEPT_SECONDS), now
        while self._running and at < now:
            end = min(float(int(at) + 1), now)
            self._add(int(at), "slot_ms", self._running * (end - at) * 1000)
            at = end

    def _add(self, second: int, counter: str, amount: float) -> None:
        self._totals[counter] += amount
        if not self._bins or self._bins[-1][0] < second:
            self._bins.append((second, {}))
            while self._bins[0][0] <= second - KEPT_SECONDS:
                self._bins.popleft()
        counts = self._bins[-1][1]
        counts[counter] = counts.get(counter, 0.0) + amount


class Ledger:
    """All deployments' counts, by namespace and name."""

    def __init__(self, uid: str, clock: Callable[[], float]) -> None:
        self._uid = uid
        self._clock = clock
        self._started = clock()
        self._deployments: dict[tuple[str, str], DeploymentLedger] = {}

    def of(self, namespace: str, name: str) -> DeploymentLedger:
        """The counts of one deployment."""
        key = namespace, name
        if key not in self._deployments:
            self._deployments[key] = DeploymentLedger(self._clock)
        return self._deployments[key]

    def keep(self, known: set[tuple[str, str]]) -> None:
        """Forget deployments that are no more and have nothing under way."""
        for key in [k for k, d in self._deployments.items() if k not in known and not d.running and not d.waiting]:
            del self._deployments[key]

    def page(self, since: float, until: float = math.inf) -> GatewayLoad:
        """The body of `/load`, with the bins from second `since` to before `until`."""
        deployments = []
        for (namespace, name), ledger in sorted(self._deployments.items()):
            counters, bins = ledger.tell(since, until)
            deployments.append(
                DeploymentLoad(
                    namespace=namespace,
                    name=name,
                    waiting=ledger.waiting,
                    running=ledger.running,
                    counters=counters,
                    bins=bins,
                )
            )
        return GatewayLoad(uid=self._uid, started=self._started, now=self._clock(), deployments=tuple(deployments))


def _counters(counts: dict[str, float]) -> LoadCounters:
    return LoadCounters(**{name: round(value, 3) for name, value in counts.items()})
