"""Which units a deployment has next, and which of them gets the traffic.

Each step follows from what is seen:

    no stable unit            → the target alone, with the traffic from the start
    target beside stable      → both; the target's workers come up while the stable unit serves
    target has all it wished  → the traffic switches to it, and it is the stable one
    every gateway acts on it  → what is left drains: no new request comes, running ones end, pods go, the head last
    target is late            → its GPUs are given back, the stable one stays, the revision is remembered as failed

A unit whose head is gone with its storage is followed by a new incarnation of its revision in the same way: beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from aixcoder_operator.api.defaults import effective
from aixcoder_operator.api.deployment import RESTART_ANNOTATION
from aixcoder_operator.api.status import DeploymentStatus, TrafficStatus
from aixcoder_operator.plan import names
from aixcoder_operator.plan.cause import cause_of
from aixcoder_operator.plan.diagnosis import Reason
from aixcoder_operator.plan.lateness import Late, lateness
from aixcoder_operator.plan.observed import GatewayView, Observed, UnitView
from aixcoder_operator.plan.worker import SHUTDOWN_GRACE_SECONDS

Farewell = Literal["hold", "drain", "gone"]
Phase = Literal["Progressing", "Complete", "Failed", "Suspended"]
SWITCHING = "TrafficSwitching"
"""Reason of Ready while a gateway may still act on the traffic before: told apart from a traffic that was confirmed."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The decision. `wishes`: each unit to have and its wished worker pods; `leaving`: what to do with any other."""

    target: UnitView
    """The unit that the rollout goes to: of the wished revision, or of the stable one where the wished one failed."""
    stable: str | None
    """Unit that has served and is protected; None where none has."""
    phase: Phase
    wishes: Mapping[str, int]
    leaving: Mapping[str, Farewell]
    traffic: TrafficStatus
    step_started: datetime
    failed: str | None = None
    """The wished revision, where it was given up."""
    cause: Reason | None = None
    """Why the target has fewer ready replicas than wished; None where it has them."""
    stalled: Reason | None = None
    confirmed: bool = False
    """Every ready gateway was asked and acts on the traffic that status tells, and that is the traffic to be."""
    switching: bool = False
    """Not confirmed, but a gateway that still acts on the traffic before sends to replicas that are still ready."""
    routed: bool = False
    """Requests reach ready replicas: confirmed now, or once before with nothing changed since, or switching."""
    units: Mapping[str, UnitView] = field(default_factory=dict)

    @property
    def serving(self) -> UnitView | None:
        """The unit with the traffic, where anything is left of it."""
        return next((self.units[unit] for unit in self.traffic.weights if unit in self.units), None)


def decide(observed: Observed, revision: str) -> Rollout:
    """The rollout of `observed.deployment` towards `revision`, one step on from what is seen."""
    units = observed.units()
    status = observed.deployment.status
    wish = effective(observed.deployment.spec)
    replicas = 0 if wish.suspended else wish.replicas

    wished = _unit_of(revision, units)
    cause = None if wish.suspended else cause_of(wished, wish, status, observed.now)
    late = lateness(wished, wish, cause, _since(status, wished, observed.now), observed.now) if cause else None
    starved = late is not None and not late.expired
    stable = None if wish.suspended else _stable(units, status, starved)
    protected = stable is not None and stable.revision != revision
    given_up = protected and (status.rollout.failed == revision or (late is not None and late.expired))

    target = wished
    if stable and given_up:
        target = _unit_of(stable.revision, units)
        cause = cause_of(target, wish, status, observed.now)
    started = _since(status, target, observed.now)
    arrived = len(target.ready) >= replicas and target.routable >= replicas
    if wish.suspended:
        wishes, serving = {}, None
    elif stable is not None and stable.name != target.name and not arrived:
        wishes, serving = {stable.name: stable.size, target.name: replicas}, stable.name
    else:
        wishes, serving = {target.name: replicas}, target.name
        stable = target if target.ready or (stable and stable.name == target.name) else None

    traffic = _traffic(status.traffic, serving)
    switched = traffic != status.traffic
    if switched:
        started = observed.now
    confirmed = not switched and acts_on(observed.gateways, traffic.version)
    leaving = {
        unit.name: farewell(unit, confirmed, observed.now - started)
        for unit in units.values()
        if unit.name not in wishes
    }
    switching = not confirmed and any(step == "hold" and units[unit].ready for unit, step in leaving.items())
    routed = confirmed or _is_routed_still(status, switched, switching)
    complete = arrived and (routed or replicas == 0) and not any(step != "gone" for step in leaving.values())
    return Rollout(
        target=target,
        stable=stable.name if stable else None,
        phase=_phase(wish.suspended, given_up, complete),
        wishes=wishes,
        leaving=leaving,
        traffic=traffic,
        step_started=started,
        failed=revision if given_up else None,
        cause=cause,
        stalled=_stalled(observed, revision, given_up, late),
        confirmed=confirmed,
        switching=switching,
        routed=routed,
        units=units,
    )


def acts_on(gateways: tuple[GatewayView, ...] | None, version: int) -> bool:
    """Whether every ready gateway is known to act on traffic `version`. Unasked gateways are not; none at all are."""
    return gateways is not None and all(
        gateway.route is not None and gateway.route.traffic_version == version for gateway in gateways
    )


def farewell(unit: UnitView, confirmed: bool, since_switch: timedelta) -> Farewell:
    """What to do with a unit that is not wished for any more.

    It is held while a gateway may still send to it or a request runs in it; no request outlives the shutdown grace. The
    head stays until the last worker is gone: without it a worker could not drain.
    """
    if not unit.workers and not unit.leaving and unit.size == 0:
        return "gone"
    if not unit.ready:
        return "drain"
    idle = all(
        view is not None and view.stats is not None and view.stats.running + view.stats.waiting == 0
        for view in (unit.replicas.get(pod["metadata"]["name"]) for pod in unit.ready)
    )
    if not confirmed or not (idle or since_switch > timedelta(seconds=SHUTDOWN_GRACE_SECONDS)):
        return "hold"
    return "drain"


def _since(status: DeploymentStatus, unit: UnitView, now: datetime) -> datetime:
    """When the rollout began to go to `unit`, or switched to it."""
    known = status.rollout.target == unit.name and status.rollout.step_started
    return known or now


def _stable(units: Mapping[str, UnitView], status: DeploymentStatus, starved: bool) -> UnitView | None:
    """The unit to protect. Where status does not tell one, what serves is protected all the same: status may be lost.

    A unit that serves nothing is not protected for ever: not where its workers cannot come back, since they lost their
    head, and not where the target gets no GPU (`starved`) while it holds some.
    """
    told = units.get(status.rollout.stable or "")
    if told is not None:
        return told if told.ready or not (starved or told.lost_its_head) else None
    ready = [unit for unit in units.values() if unit.ready]
    return max(ready, key=lambda unit: (unit.name in status.traffic.weights, len(unit.ready)), default=None)


def _is_routed_still(status: DeploymentStatus, switched: bool, switching: bool) -> bool:
    """Without asking the gateways again: they were asked before status told Ready."""
    ready = status.condition("Ready")
    if ready is None or ready.status != "True":
        return False
    return switching or (not switched and ready.reason != SWITCHING)


def _unit_of(revision: str, units: Mapping[str, UnitView]) -> UnitView:
    """The newest incarnation of `revision` with a head to live with, or the next one, which does not exist yet."""
    numbers = [names.incarnation_of(unit.name, revision) for unit in units.values() if unit.revision == revision]
    if not numbers:
        return UnitView(names.unit_name(revision, 0), revision)
    newest = units[names.unit_name(revision, max(numbers))]
    if newest.lost_its_head:
        return UnitView(names.unit_name(revision, max(numbers) + 1), revision)
    return newest


def _traffic(before: TrafficStatus, serving: str | None) -> TrafficStatus:
    weights = {serving: 100} if serving else {}
    return before if before.weights == weights else TrafficStatus(version=before.version + 1, weights=weights)


def _phase(suspended: bool, given_up: bool, complete: bool) -> Phase:
    if suspended:
        return "Suspended"
    if given_up:
        return "Failed"
    return "Complete" if complete else "Progressing"


def _stalled(observed: Observed, revision: str, given_up: bool, late: Late | None) -> Reason | None:
    if not given_up:
        return late.reason if late else None
    told = observed.deployment.status.condition("Stalled")
    if observed.deployment.status.rollout.failed == revision and told is not None:
        return Reason(told.reason, told.message)
    why = late.reason if late else Reason("ProgressDeadlineExceeded", "it did not get ready in time")
    return Reason(
        why.reason,
        f"revision {revision} was given up and its GPUs given back, the one before keeps serving. {why.message}. "
        f"To try again, change a field that makes new replicas or the annotation {RESTART_ANNOTATION}",
    )
