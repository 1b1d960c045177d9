"""One deployment that is scaled: what is known of it, what stands, and what was decided. Pure.

What has to outlive the process stands in status: the number, its hold, how long a start takes, and the margin. A new
leader begins with them, and scales nothing down for twice as long as a start takes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from aixcoder_operator.api.autoscaling import Autoscaling
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.status import AutoscalingStatus, ScalingDecision
from aixcoder_operator.plan.observed import Observed
from aixcoder_operator.scaling.cold_start import ColdStarts
from aixcoder_operator.scaling.history import History
from aixcoder_operator.scaling.load import Capacity, Load
from aixcoder_operator.scaling.memory import hold_s
from aixcoder_operator.scaling.policy import Bounds, Decision, Now, Rate, Standing, decide
from aixcoder_operator.scaling.schedule import minimum
from aixcoder_serving.protocol import KEPT_SECONDS, ReplicaStats

_MINUTE_S = 60
_UNKNOWN = (-1, 0)  # the minimum by schedule, in a minute


def key_of(deployment: AixcoderDeployment) -> str:
    """`namespace/name`."""
    return f"{deployment.metadata.namespace}/{deployment.metadata.name}"


class Scaler:
    """`observed`: the deployment as it is when this process begins to scale it, with spec.autoscaling."""

    def __init__(self, observed: Observed) -> None:
        metadata = observed.deployment.metadata
        self.key = key_of(observed.deployment)
        self.uid = metadata.uid
        self.decided = observed.deployment.status.autoscaling
        """What status is to tell; None before the first decision."""
        self.decision: Decision | None = None
        """The last one, whether it changed anything or not."""
        told = self.decided
        self._standing = taken_over(observed.wish().replicas, told)
        self._starts = ColdStarts(told.cold_start_seconds if told else None)
        self._raised_at: float | None = None
        self.ready = 0
        """Replicas that are."""
        self._slots = observed.wish().max_concurrent_sequences
        self._capacity = Capacity(None, None, self._slots)
        self._load = Load(self._capacity, self._starts.seconds, *_learned(told))
        self._read: tuple[History, int] | None = None  # of what the load was made: a history, and its changes
        self._next = 0
        # Second → what waited at its end, and whether replicas were missing, where either was: no gateway keeps it.
        self._seen: dict[int, tuple[float, bool]] = {}
        self._seen_until = 0
        self._made_at = math.floor(metadata.creation_timestamp.timestamp()) if metadata.creation_timestamp else 0
        self.learn(observed)

    def learn(self, observed: Observed) -> list[float]:
        """Take in the deployment and its pods as they are now.

        Returns the seconds from a decision for more replicas to the first one that is ready and was made for it.
        """
        spec = observed.deployment.spec
        if spec.autoscaling is None:
            raise ValueError(f"{self.key} has no spec.autoscaling")
        self._spec, self._minimum = spec.autoscaling, _UNKNOWN
        self._load.target_s = bounds(self._spec, 0).target_s
        units = observed.units().values()
        self.ready = sum(len(unit.ready) for unit in units)
        waits = []
        for start in self._starts.see(pod for unit in units for pod in unit.workers):
            # Kubernetes keeps whole seconds.
            if self._raised_at is not None and start.made_at >= math.floor(self._raised_at):
                waits.append(max(start.ready_at - self._raised_at, 0.0))
                self._raised_at = None
        if self.ready >= self._standing.desired:
            self._raised_at = None  # met without a start: by one that was to go and stays
        self._load.cold_start_s = self._starts.seconds
        if self.decided is not None:
            # Told with the next status, which a pod that became ready brings anyway.
            self.decided = self.decided.model_copy(update={"cold_start_seconds": self._starts.whole_seconds})
        return waits

    def measure(self, observed: Observed) -> None:
        """Take in what replicas told that they can do."""
        slots = observed.wish().max_concurrent_sequences
        if slots != self._slots:
            self._slots, self._capacity = slots, replace(self._capacity, slots=slots)
        self._capacity = capacity((view.stats for view in observed.replicas.values()), self._capacity)
        self._load.capacity = self._capacity

    @property
    def most(self) -> int:
        """Replicas that the spec allows."""
        return self._spec.max_replicas

    @property
    def is_measured(self) -> bool:
        """Whether a replica has told what it can do."""
        return self._capacity.prefill_s is not None

    def is_stale(self, history: History) -> bool:
        """Whether seconds that were fed have changed since, or none was fed of this history."""
        return self._read != (history, history.mended(self.key))

    def read_again(self, history: History) -> None:
        """Begin the load anew: the whole half hour is fed next, in some hundredths of a second."""
        self._read = history, history.mended(self.key)
        self._load = self._load.anew()
        self._next = max(history.closed - KEPT_SECONDS, self._made_at)  # nothing is known of what was not there

    def feed(self, history: History, queued: float) -> None:
        """Take the seconds that were closed since the last time; at the end of the last one `queued` waited."""
        if self._read is None or self._read[0] is not history:
            return
        self._see(history.closed, queued)
        for second in range(self._next, history.closed):
            self._load.add(history.second(self.key, second, *self._seen.get(second, (0.0, False))))
        self._next = history.closed

    def _see(self, closed: int, queued: float) -> None:
        """Of seconds that are fed for the first time: what waits at the end of the last one, and what is missing."""
        starved = self._is_starved(closed)
        for second in range(max(self._next, self._seen_until), closed):
            waited = queued if second == closed - 1 else 0.0
            if waited or starved:
                self._seen[second] = waited, starved
        self._seen_until = closed
        while len(self._seen) > KEPT_SECONDS:
            del self._seen[next(iter(self._seen))]

    def _is_starved(self, now: float) -> bool:
        """Whether fewer replicas are there than are needed, whatever is wished."""
        standing, most = self._standing, self._spec.max_replicas
        overdue = now - standing.risen_at > hold_s(self._load.start_s)
        # What the leader before wished for is not known: where it had the most, it may have been more.
        at_most = standing.desired >= most if self.decision is None else self.decision.wish > most
        return at_most or (self.ready < standing.desired and overdue)

    def decide(self, now: Now) -> int:
        """By how many replicas the wish changes now. Where it does, or is not told yet, `decided` is another one."""
        before, told = self._standing.desired, self.decided
        self.decision = decide(self._load, replace(now, ready=self.ready), self._bounds(now.time), self._standing)
        standing = self._standing = self.decision.standing
        if standing.desired < before:
            self._raised_at = None
        elif standing.desired > before and self._raised_at is None:
            self._raised_at = now.time
        if told is None or told.desired != standing.desired:
            rises = standing.desired > (before if told is None else told.desired)
            reason = self.decision.reason
            is_first = told is None and standing.desired == before
            self.decided = AutoscalingStatus(
                desired=standing.desired,
                hold_until=_moment(standing.hold_until) if rises else told and told.hold_until,
                last_decision=None if is_first else ScalingDecision(time=_moment(now.time), reason=reason),
                cold_start_seconds=self._starts.whole_seconds,
                margin_percent=round(self._load.learned * 100) or None,
            )
        return standing.desired - before

    def inputs(self, now: Now) -> dict[str, float]:
        """What the last decision went by, and what it was, by the names of the metrics."""
        return {
            "wish": self.decision.wish if self.decision else 0,
            "desired": self._standing.desired,
            "queued": now.queued,
            "running": now.running,
            "arrivals_per_second": now.arrivals_per_s,
            "busiest_arrivals_per_second": self._load.peak,
            "memory_seconds": self._load.memory_s,
            "work_seconds": self._load.work_s,
            "margin": self._load.margin,
            "cold_start_seconds": self._load.start_s,
        }

    def _bounds(self, now: float) -> Bounds:
        minute = int(now // _MINUTE_S)
        if self._minimum[0] != minute:
            self._minimum = minute, minimum(self._spec.schedule, _moment(now))
        return bounds(self._spec, self._minimum[1])


def taken_over(replicas: int, told: AutoscalingStatus | None) -> Standing:
    """What a new leader begins with, where so many replicas are wished for.

    Its hold is as long as any can be, which the first decision makes 2·D from then on: so it covers the one that
    status tells. A rise sets the hold, and only a lower maxReplicas makes the number fall before its end: where it ends
    after the last change, that was a rise. Else the last rise is not known, and holds nothing up.
    """
    if told is None or told.last_decision is None:
        return Standing(replicas, math.inf)
    changed_at = told.last_decision.time.timestamp()
    rose = told.hold_until is not None and told.hold_until.timestamp() > changed_at
    return Standing(replicas, math.inf, changed_at, risen_at=changed_at if rose else 0.0)


def _learned(told: AutoscalingStatus | None) -> tuple[float, float]:
    """What was learned before, and when: what gateways tell of the time after that changes it."""
    if told is None or told.last_decision is None:
        return 0.0, -math.inf
    return (told.margin_percent or 0) / 100, told.last_decision.time.timestamp()


def bounds(spec: Autoscaling, scheduled: int) -> Bounds:
    """What a spec allows while its schedule asks for `scheduled` replicas."""
    least = max(1 if spec.min_replicas is None else spec.min_replicas, scheduled)
    usual = Bounds(least=min(least, spec.max_replicas), most=spec.max_replicas)
    return Bounds(
        least=usual.least,
        most=usual.most,
        target_s=usual.target_s if spec.queue_time_target_ms is None else spec.queue_time_target_ms / 1000,
        zero_after_s=usual.zero_after_s
        if spec.scale_to_zero_after_seconds is None
        else float(spec.scale_to_zero_after_seconds),
        up=None if spec.scale_up is None else Rate(spec.scale_up.replicas, spec.scale_up.period_seconds),
        down=None if spec.scale_down is None else Rate(spec.scale_down.replicas, spec.scale_down.period_seconds),
    )


def capacity(told: Iterable[ReplicaStats | None], before: Capacity) -> Capacity:
    """What a replica can do, the median of those that tell it; what none tells is as it was before.

    In the messages 0 is what is not known.
    """
    heard = [stats for stats in told if stats is not None]
    prefill = [stats.prefill_ms_per_token / 1000 for stats in heard if stats.prefill_ms_per_token > 0]
    decode = [stats.decode_ms_per_request / 1000 for stats in heard if stats.decode_ms_per_request > 0]
    places = [stats.slots for stats in heard if stats.slots > 0]
    return Capacity(
        prefill_s=statistics.median(prefill) if prefill else before.prefill_s,
        decode_s=statistics.median(decode) if decode else before.decode_s,
        slots=statistics.median_low(places) if places else before.slots,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
