"""Kubernetes events on a deployment: what a person would want to know, told once, when it happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aixcoder_operator.api.status import AutoscalingStatus, Condition, DeploymentStatus
from aixcoder_operator.plan.conditions import WHOLE
from aixcoder_operator.plan.diagnosis import UNDER_WAY
from aixcoder_operator.plan.rollout import AT_ZERO, SWITCHING, WAKING, Rollout

SCALING = "scaling"
"""Topic of the events that tell a new number of replicas."""
_NO_NEWS = UNDER_WAY | {SWITCHING, WAKING, "GatewayNotRouting", "RollingOut"}
"""Reasons of Ready that are steps on a way, and no events for a person."""


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the deployment, for a person."""

    reason: str
    message: str
    warning: bool = False
    topic: str = ""
    """Of several events of one topic within a minute the first is told; "": each is."""


def events(before: DeploymentStatus, rollout: Rollout, status: DeploymentStatus) -> Iterator[Event]:
    """What happened between the status `before` and the `status` that tells of `rollout`."""
    if before.rollout.target != rollout.target.name and rollout.target.name in rollout.wishes.keys() - rollout.units:
        yield Event("RolloutStarted", f"bringing up {rollout.target.name}")
    # What wakes had the traffic before.
    if before.traffic.weights != rollout.traffic.weights and set(rollout.traffic.weights) - {before.rollout.stable}:
        yield Event("TrafficSwitched", f"requests go to {', '.join(rollout.traffic.weights)}")
    if rollout.failed and before.rollout.failed != rollout.failed and rollout.stalled:
        yield Event("RolloutFailed", rollout.stalled.message, warning=True)
    scaled = _scaled(before.autoscaling, status.autoscaling)
    if scaled is not None:
        yield scaled
    ready = status.condition("Ready")
    if ready is not None and _is_news(before.condition("Ready"), ready, rollout.scaling, scaled is not None):
        topic = ready.reason if rollout.scaling else ""
        yield Event(ready.reason, ready.message, warning=ready.reason not in WHOLE, topic=topic)


def _scaled(before: AutoscalingStatus | None, now: AutoscalingStatus | None) -> Event | None:
    """The event of another number of replicas; None where it is the same, or the first one."""
    if before is None or now is None or before.desired == now.desired:
        return None
    why = f": {now.last_decision.reason}" if now.last_decision else ""
    reason = "ScaledUp" if now.desired > before.desired else "ScaledDown"
    return Event(reason, f"from {before.desired} to {now.desired}{why}", topic=SCALING)


def _is_news(was: Condition | None, ready: Condition, scaling: bool, decided: bool) -> bool:
    """Whether Ready tells something new.

    While the number is scaled it is none that what was decided has come about; that what is `decided` now cannot be
    had is, again.
    """
    if ready.reason in _NO_NEWS or was is None:
        return ready.reason not in _NO_NEWS
    changed = (was.status, was.reason) != (ready.status, ready.reason)
    if not scaling:
        return changed
    if ready.reason in WHOLE:
        return changed and ready.reason != AT_ZERO and not (was.status == "True" and was.reason in _NO_NEWS | WHOLE)
    return changed or decided
