"""The conditions that status tells, after the contract of kstatus: Ready and Valid always, the others only while True.

Reconciling is for a generation that is being worked on or rolled out, and never with Stalled: a reader takes
Reconciling first and would not see that nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.status import Condition, ConditionType, DeploymentStatus
from aixcoder_operator.plan.diagnosis import STARTING, UNDER_WAY, GpuRequest, Reason, why_not_ready
from aixcoder_operator.plan.observed import UnitView
from aixcoder_operator.plan.rollout import AT_ZERO, SWITCHING, WAKING, Rollout

WHOLE = frozenset({"AllReplicasReady", AT_ZERO, "Suspended"})
"""Reasons of Ready where all of what is wished for is there."""
_FOLLOWED = timedelta(seconds=10)
"""Gateways act on another traffic within a second or two."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests are answered, and why (not)."""

    ready: bool
    reason: Reason


def readiness(rollout: Rollout, was: Condition | None, image_waits: bool, now: datetime) -> Readiness:
    """Ready: a replica of the unit with the traffic is ready and routable, and the gateways' requests reach it.

    A deployment that is wished to have no replica is ready as it is; False would hang whoever waits for it. One that
    wakes from there stays so while its first replica comes up as it should: its requests are held, nothing is wrong.
    `was`: the condition that status tells. `image_waits`: a newer serving image is there, and is taken with the next
    revision.
    """
    wish = rollout.wish
    if wish.suspended:
        return Readiness(True, Reason("Suspended", "suspended: workers and head are removed as the spec asks"))
    if wish.replicas == 0 and wish.autoscaled:
        return Readiness(True, Reason(AT_ZERO, "nobody has asked for a while: the first request wakes it"))
    if wish.replicas == 0:
        return Readiness(True, Reason(AT_ZERO, "no replica is wished for: set spec.replicas to bring some up"))
    serving = rollout.serving or rollout.target
    routable = min(len(serving.ready), serving.routable)
    waits = "; a newer serving image is taken with the next change or restart" if image_waits else ""
    why = _why(serving, rollout, now)
    counted = f"{min(routable, wish.replicas)} of {wish.replicas} ready"
    if _is_waking(rollout, was, why, now) and not (routable and rollout.routed):
        held = "every gateway is to route to it" if routable else why.message
        return Readiness(True, Reason(WAKING, f"{counted}, requests are held: {held}"))
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
    unusable: Reason | None,
    conflict: Reason | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """All conditions, in a steady order; an unchanged status keeps its transition time.

    `unusable`: what the spec refers to is not there, or is not known here. `conflict`: an older deployment gets the
    requests for its name, so that it serves nobody, and somebody has to choose.
    """
    invalid = unusable or conflict
    unreached = None if rollout.phase == "Suspended" else conflict
    whole = found.reason.reason in WHOLE
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
    """From a change of the spec until all wished replicas are ready; a replica lost later is no new work.

    Nor is one more that the load asks for: an autoscaled rollout is complete with less (`Rollout.scaling`).
    """
    status = deployment.status
    before = status.condition("Reconciling")
    return rollout.phase != "Complete" and (
        status.observed_generation != deployment.metadata.generation
        or (before is not None and before.status == "True")
        or status.condition("Stalled") is not None
        or (rollout.serving is not None and rollout.serving.revision != rollout.target.revision)
    )


def _is_waking(rollout: Rollout, was: Condition | None, why: Reason, now: datetime) -> bool:
    """From zero on, while nothing is wrong: no replica that answers yet, or gateways that have not followed yet."""
    at_zero = was is not None and was.status == "True" and was.reason in (AT_ZERO, WAKING)
    late = rollout.stalled is not None or (bool(rollout.target.ready) and now - rollout.step_started > _FOLLOWED)
    return at_zero and rollout.scaling and not late and why.reason in UNDER_WAY


def _why(unit: UnitView, rollout: Rollout, now: datetime) -> Reason:
    wish = rollout.wish
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
