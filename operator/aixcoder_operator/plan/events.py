"""Kubernetes events on a deployment: what a person would want to know, told once, when it happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aixcoder_operator.api.status import DeploymentStatus
from aixcoder_operator.plan.diagnosis import STARTING
from aixcoder_operator.plan.rollout import SWITCHING, Rollout

_NO_NEWS = frozenset({STARTING, SWITCHING, "ModelLoading", "GatewayNotRouting", "RollingOut"})
"""Reasons of Ready that are steps on a way, and no events for a person."""


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the deployment, for a person."""

    reason: str
    message: str
    warning: bool = False


def events(before: DeploymentStatus, rollout: Rollout, status: DeploymentStatus) -> Iterator[Event]:
    """What happened between the status `before` and the `status` that tells of `rollout`."""
    if before.rollout.target != rollout.target.name and rollout.target.name in rollout.wishes.keys() - rollout.units:
        yield Event("RolloutStarted", f"bringing up {rollout.target.name}")
    if before.traffic.weights != rollout.traffic.weights and rollout.traffic.weights:
        yield Event("TrafficSwitched", f"requests go to {', '.join(rollout.traffic.weights)}")
    if rollout.failed and before.rollout.failed != rollout.failed and rollout.stalled:
        yield Event("RolloutFailed", rollout.stalled.message, warning=True)
    ready, was = status.condition("Ready"), before.condition("Ready")
    if ready is None or (was is not None and was.status == ready.status and was.reason == ready.reason):
        return
    if ready.reason not in _NO_NEWS:
        yield Event(ready.reason, ready.message, warning=ready.status != "True")
