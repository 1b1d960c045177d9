"""The conditions that status tells, after the contract of kstatus: Ready and Valid always, the others only while True.

Reconciling is for a generation that is being worked on or rolled out, and never with Stalled: a reader takes
Reconciling first and would not see that nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aixcoder_operator.api.defaults import Effective
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.status import Condition, ConditionType, DeploymentStatus
from aixcoder_operator.plan.diagnosis import STARTING, GpuRequest, Reason, why_not_ready
from aixcoder_operator.plan.observed import UnitView
from aixcoder_operator.plan.rollout import SWITCHING, Rollout


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests are answered, and why (not)."""

    ready: bool
    reason: Reason


def readiness(rollout: Rollout, wish: Effective, image_waits: bool, now: datetime) -> Readiness:
    """Ready: a replica of the unit with the traffic is ready and routable, and the gateways' requests reach it.

    A deployment that is wished to have no replica is ready as it is; False would hang whoever waits for it.
    `image_waits`: a newer serving image is there, and is taken with the next revision.
    """
    if wish.suspended:
        return Readiness(True, Reason("Suspended", "suspended: workers and head are removed as the spec asks"))
    if wish.replicas == 0:
        return Readiness(True, Reason("ScaledToZero", "no replica is wished for: set spec.replicas to bring some up"))
    serving = rollout.serving or rollout.target
    routable = min(len(serving.ready), serving.routable)
    waits = "; a newer serving image is taken with the next change or restart" if image_waits else ""
    why = _why(serving, wish, rollout, now)
    counted = f"{min(routable, wish.replicas)} of {wish.replicas} ready"
    if routable == 0:
        return Readiness(False, Reason(why.reason, f"{counted}: {why.message}"))
    if not rollout.routed:
        return Readiness(
            False, Reason("GatewayNotRouting", f"{counted}; waiting for every gateway to route to {serving.name}")
        )
    if rollout.target.name != serving.name:
        coming = rollout.cause or _not_listed(rollout.target)
        return Readiness(True, Reason("RollingOut", f"{counted}; {rollout.target.name} is coming up: {coming}"))
    if rollout.switching:
        return Readiness(True, Reason(SWITCHING, f"{counted}; waiting for every gateway to route to {serving.name}"))
    if routable < wish.replicas:
        return Readiness(True, Reason(why.reason, f"{counted}: {why}"))
    return Readiness(True, Reason("AllReplicasReady", f"{counted}{waits}"))


def conditions(
    deployment: AixcoderDeployment,
    rollout: Rollout,
    found: Readiness,
    missing: Reason | None,
    conflict: Reason | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """All conditions, in a steady order; an unchanged status keeps its transition time.

    `missing`: what the spec refers to is not there. `conflict`: an older deployment gets the requests for its name, so
    that it serves nobody, and somebody has to choose.
    """
    invalid = missing or conflict
    unreached = None if rollout.phase == "Suspended" else conflict
    whole = found.reason.reason in ("AllReplicasReady", "ScaledToZero", "Suspended")
    told: list[tuple[ConditionType, bool, Reason]] = [
        ("Ready", found.ready and unreached is None, unreached or found.reason),
        ("Valid", invalid is None, invalid or Reason("Valid", "what the spec refers to is there")),
    ]
    if (stalled := unreached or rollout.stalled) is not None:
        told.append(("Stalled", True, stalled))
    elif not whole and _is_worked_on(deployment, rollout):
        told.append(("Reconciling", True, rollout.cause or Reason(rollout.phase, found.reason.message)))
    return tuple(_condition(deployment, type_, holds, reason, now) for type_, holds, reason in told)


def _is_worked_on(deployment: AixcoderDeployment, rollout: Rollout) -> bool:
    """From a change of the spec until all wished replicas are ready; a replica lost later is no new work."""
    status = deployment.status
    before = status.condition("Reconciling")
    return (
        status.observed_generation != deployment.metadata.generation
        or (before is not None and before.status == "True")
        or status.condition("Stalled") is not None
        or (rollout.serving is not None and rollout.serving.revision != rollout.target.revision)
    )


def _why(unit: UnitView, wish: Effective, rollout: Rollout, now: datetime) -> Reason:
    if len(unit.ready) >= wish.replicas:
        return _not_listed(unit)
    if rollout.cause is not None and unit.name == rollout.target.name:
        return rollout.cause
    return why_not_ready(unit, wish.replicas, GpuRequest(wish.gpu_resource, wish.gpus_per_pod), now)


def _not_listed(unit: UnitView) -> Reason:
    return Reason(STARTING, f"{unit.name} has ready pods that are not yet endpoints of its Service")


def refused(deployment: AixcoderDeployment, status: DeploymentStatus, message: str, now: datetime) -> DeploymentStatus:
    """`status` where the API server refuses an object that the spec leads to: Valid is False and says what it said."""
    told = _condition(deployment, "Valid", False, Reason("ObjectRefused", message), now)
    kept = tuple(told if found.type == "Valid" else found for found in status.conditions)
    return status.model_copy(update={"conditions": kept})


def _condition(
    deployment: AixcoderDeployment, type_: ConditionType, holds: bool, reason: Reason, now: datetime
) -> Condition:
    before = deployment.status.condition(type_)
    status = "True" if holds else "False"
    unchanged = before is not None and before.status == status
    return Condition(
        type=type_,
        status=status,
        reason=reason.reason,
        message=reason.message,
        last_transition_time=before.last_transition_time if before and unchanged else now,
        observed_generation=deployment.metadata.generation,
    )
