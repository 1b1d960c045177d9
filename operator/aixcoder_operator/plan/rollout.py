"""Which units a deployment has next, and which of them gets the traffic.

Each step follows from what is seen:

    no stable unit            → the target alone, with the traffic from the start
    target beside stable      → both; the target's workers come up while the stable unit serves
    none is wished for        → nothing, where no head is kept: the traffic goes, then what is left drains
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

from aixcoder_operator.api.defaults import Effective
from aixcoder_operator.api.deployment import RESTART_ANNOTATION
from aixcoder_operator.api.status import DeploymentStatus, TrafficStatus
from aixcoder_operator.plan.cause import cause_of
from aixcoder_operator.plan.diagnosis import Reason
from aixcoder_operator.plan.lateness import Late, lateness
from aixcoder_operator.plan.observed import GatewayView, Observed, UnitView
from aixcoder_operator.plan.units import protected, remembered, unit_of, wish_for
from aixcoder_operator.plan.worker import SHUTDOWN_GRACE_SECONDS

Farewell = Literal["hold", "drain", "gone"]
Phase = Literal["Progressing", "Complete", "Failed", "Suspended"]
SWITCHING = "TrafficSwitching"
"""Reason of Ready while a gateway may still act on the traffic before: told apart from a traffic that was confirmed."""
AT_ZERO = "ScaledToZero"
"""Reason of Ready where no replica is wished for."""
WAKING = "WakingUp"
"""Reason of Ready between zero and the first replica: requests are held."""
UNCONFIRMED = frozenset({SWITCHING, AT_ZERO, WAKING})
"""Reasons of a Ready for which no gateway was asked, or not every one acts on the traffic yet."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The decision. `wishes`: each unit to have and its wished worker pods; `leaving`: what to do with any other."""

    wish: Effective
    """What is wished for on this way; `replicas` for the target alone."""
    target: UnitView
    """The unit that the rollout goes to: of the wished revision, or of the stable one where the wished one failed."""
    stable: str | None
    """Unit that has served and is protected; None where none has. Autoscaled, it is known with no pod left, too."""
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
    scaling: bool = False
    """Autoscaled, and the target is all there is and was ready before: what it lacks is no matter of a rollout."""
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
    status, now = observed.deployment.status, observed.now
    wish = wish_for(observed, revision)

    wished = unit_of(revision, units)
    cause = cause_of(wished, wish, status, now)
    late = lateness(wished, wish, cause, _since(status, wished, now), now) if cause else None
    starved = late is not None and not late.expired
    stable = None if wish.suspended else protected(units, status, starved)
    absent = remembered(observed, wish)
    before = stable or absent
    expired = late is not None and late.expired and not _has_arrived(wished, wish, stable)
    given_up = before is not None and before.revision != revision and (status.rollout.failed == revision or expired)

    target = wished
    if before and given_up:
        target = unit_of(before.revision, units)
        cause = cause_of(target, wish, status, now)
    started = _since(status, target, now)
    arrived = _has_arrived(target, wish, stable)
    if wish.is_away:
        wishes, serving = {}, None
    elif stable is not None and stable.name != target.name and not arrived:
        wishes, serving = {stable.name: _kept(stable, wish, starved), target.name: wish.replicas}, stable.name
    else:
        wishes, serving = {target.name: wish.replicas}, target.name
        stable = target if target.ready or (stable and stable.name == target.name) else None
    stable = stable or absent  # with no pod left it is known all the same
    works = stable is not None and stable.revision == target.revision
    scaling = wish.autoscaled and works and (wish.is_away or serving == target.name)

    traffic = _traffic(status.traffic, serving)
    switched = traffic != status.traffic
    if switched:
        started = now
    confirmed = not switched and acts_on(observed.gateways, traffic.version)
    leaving = {
        unit.name: farewell(unit, confirmed, now - started) for unit in units.values() if unit.name not in wishes
    }
    switching = not confirmed and any(step == "hold" and units[unit].ready for unit, step in leaving.items())
    routed = confirmed or _is_routed_still(status, switched, switching)
    left = any(step != "gone" for step in leaving.values())
    complete = (arrived or scaling) and (routed or wish.replicas == 0) and not left
    return Rollout(
        wish=wish,
        target=target,
        stable=stable.name if stable else None,
        phase=_phase(wish.suspended, given_up, complete),
        wishes=wishes,
        leaving=leaving,
        traffic=traffic,
        step_started=started,
        failed=revision if given_up else None,
        cause=cause,
        stalled=_stalled(observed, revision, given_up, late, scaling and bool(target.ready)),
        scaling=scaling,
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


def _has_arrived(target: UnitView, wish: Effective, stable: UnitView | None) -> bool:
    """Whether `target` can do the work: it has what is wished for, ready and routable.

    While the number is scaled it may have grown again before the last ones are ready: then the target can do what the
    stable unit does now.
    """
    enough = wish.replicas
    if wish.autoscaled and stable is not None and stable.name != target.name:
        enough = min(enough, max(len(stable.ready), 1))
    return len(target.ready) >= enough and target.routable >= enough


def _kept(stable: UnitView, wish: Effective, starved: bool) -> int:
    """The size of the stable unit while the target comes up: it never shrinks, and grows with the load.

    It does shrink with the load where the target waits for its GPUs. Without a head it cannot grow, and from zero it
    need not: the target comes.
    """
    if not wish.autoscaled or stable.lost_its_head or stable.size == 0:
        return stable.size
    return wish.replicas if starved else max(stable.size, wish.replicas)


def _is_routed_still(status: DeploymentStatus, switched: bool, switching: bool) -> bool:
    """Without asking the gateways again: they were asked before status told Ready."""
    ready = status.condition("Ready")
    if ready is None or ready.status != "True":
        return False
    return switching or (not switched and ready.reason not in UNCONFIRMED)


def _traffic(before: TrafficStatus, serving: str | None) -> TrafficStatus:
    weights = {serving: 100} if serving else {}
    return before if before.weights == weights else TrafficStatus(version=before.version + 1, weights=weights)


def _phase(suspended: bool, given_up: bool, complete: bool) -> Phase:
    if suspended:
        return "Suspended"
    if given_up:
        return "Failed"
    return "Complete" if complete else "Progressing"


def _stalled(
    observed: Observed, revision: str, given_up: bool, late: Late | None, serves_scaled: bool
) -> Reason | None:
    """`serves_scaled`: the target serves and has fewer replicas than the load asks for, which is no standstill."""
    if not given_up:
        return late.reason if late and not serves_scaled else None
    told = observed.deployment.status.condition("Stalled")
    if observed.deployment.status.rollout.failed == revision and told is not None:
        return Reason(told.reason, told.message)
    why = late.reason if late else Reason("ProgressDeadlineExceeded", "it did not get ready in time")
    return Reason(
        why.reason,
        f"revision {revision} was given up and its GPUs given back, the one before keeps serving. {why.message}. "
        f"To try again, change a field that makes new replicas or the annotation {RESTART_ANNOTATION}",
    )
