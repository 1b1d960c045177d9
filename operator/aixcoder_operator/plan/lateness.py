"""When a unit is late: a deadline for getting its pods onto nodes, another for getting ready once they are there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from aixcoder_operator.api.defaults import Effective
from aixcoder_operator.api.objects import Object, condition, is_true, timestamp
from aixcoder_operator.plan.diagnosis import Reason, refusal
from aixcoder_operator.plan.observed import UnitView, scheduled_at


@dataclass(frozen=True, slots=True)
class Late:
    """A deadline has passed. `expired` where it was the progress deadline: the revision may be given up."""

    reason: Reason
    expired: bool


def lateness(unit: UnitView, wish: Effective, cause: Reason, started: datetime, now: datetime) -> Late | None:
    """Whether `unit`, worked on since `started`, is late with getting ready; `cause` is why it is not.

    The progress deadline counts from the last progress (the start, a pod that got its node, a replica that got ready or
    that was ready until then) and only while every pod has a node. Waiting for a node has the scheduling deadline.
    """
    pods = [*([unit.head] if unit.head else []), *unit.workers]
    nodeless = [pod for pod in pods if not is_true(pod, "PodScheduled")]
    if nodeless:
        waiting_since = max(started, min(timestamp(pod["metadata"]["creationTimestamp"]) for pod in nodeless))
        limit = timedelta(seconds=wish.scheduling_deadline_seconds)
        return Late(cause, expired=False) if now - waiting_since > limit else None
    if len(unit.workers) < wish.replicas:
        refused = refusal(unit)
        if refused is None:
            return None
        progress = [timestamp(refused["lastTransitionTime"])]
    else:
        known = (*map(scheduled_at, pods), *map(_turned_at, unit.workers))
        progress = [at for at in known if at is not None]
    limit = timedelta(seconds=wish.progress_deadline_seconds)
    if now - max(started, *progress) <= limit:
        return None
    late = Reason(cause.reason, f"not ready within {wish.progress_deadline_seconds} s: {cause.message}")
    return Late(late, expired=True)


def _turned_at(pod: Object) -> datetime | None:
    """When the pod got ready, or stopped to be: a replica that ran for days has its whole deadline to come back."""
    found = condition(pod, "Ready")
    return timestamp(found["lastTransitionTime"]) if found else None
