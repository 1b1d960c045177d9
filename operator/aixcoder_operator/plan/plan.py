"""`plan()`: what one deployment is to have next, from what was seen of it. Pure: the same sight gives the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from aixcoder_operator.api.base import API_VERSION, KIND
from aixcoder_operator.api.names import DEPLOYMENT_LABEL
from aixcoder_operator.api.objects import Object, labels
from aixcoder_operator.api.status import DeploymentStatus, RevisionStatus, RolloutStatus
from aixcoder_operator.plan import names
from aixcoder_operator.plan.conditions import conditions, readiness
from aixcoder_operator.plan.deployment_children import Tokens, disruption_budget, tokens_secret
from aixcoder_operator.plan.diagnosis import Reason
from aixcoder_operator.plan.events import Event, events
from aixcoder_operator.plan.head import head_objects, head_template
from aixcoder_operator.plan.network import network_policies
from aixcoder_operator.plan.observed import Observed, UnitView, is_waiting_to_start
from aixcoder_operator.plan.platform import Platform
from aixcoder_operator.plan.revision import Revision, Templates, choose, controller_revision, history, stored
from aixcoder_operator.plan.rollout import Rollout, decide
from aixcoder_operator.plan.serve import ServeOrder, serve_orders
from aixcoder_operator.plan.sizing import Sizing, is_settled, mark_patch, size
from aixcoder_operator.plan.validity import conflict, missing, unfollowed
from aixcoder_operator.plan.worker import application, worker_objects, worker_template

SOON_SECONDS = 1.0
"""While a gateway, a marked pod or a draining replica is waited for."""
POLL_SECONDS = 2.0
"""While something comes up: its progress is told in status, and Serve is asked."""
POLL_SLOWLY_SECONDS = 10.0
"""When nothing has turned for long."""
_LONG = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do now, in this order; `requeue_after` None where nothing is in progress."""

    objects: tuple[Object, ...]
    """To apply, in order; with the Secret while pods wait to start: it cannot be compared, only written."""
    kept: tuple[Object, ...]
    """Not to prune and not to touch: heads that run, whose fields are immutable."""
    annotate: tuple[tuple[Object, dict[str, str | None]], ...]
    serve: tuple[ServeOrder, ...]
    status: DeploymentStatus
    events: tuple[Event, ...]
    requeue_after: float | None


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask before planning, beyond the objects. A steady deployment is asked nothing."""

    serve: tuple[UnitView, ...] = ()
    """Units whose head is to be asked for its Serve's view."""
    replicas: tuple[Object, ...] = ()
    """Worker pods to ask for readiness and work."""
    gateways: bool = False


def questions(observed: Observed, platform: Platform) -> Questions:
    """What `plan` needs to know of this sight."""
    rollout = decide(observed, _revision(observed, platform).name)
    moving = [
        rollout.units[unit]
        for unit, wish in rollout.wishes.items()
        if unit in rollout.units and not is_settled(rollout.units[unit], wish)
    ]
    leaving = [rollout.units[unit] for unit, step in rollout.leaving.items() if step != "gone"]
    ready = observed.deployment.status.condition("Ready")
    steady = not moving and not leaving and rollout.phase in ("Complete", "Failed", "Suspended")
    return Questions(
        serve=tuple(unit for unit in moving if unit.head is not None),
        replicas=tuple(pod for unit in (*moving, *leaving) for pod in unit.workers),
        gateways=not (steady and ready is not None and ready.status == "True" and _is_told(observed, rollout)),
    )


def plan(observed: Observed, platform: Platform, tokens: Tokens) -> Plan:
    """What `observed.deployment` is to have next."""
    deployment = observed.deployment
    revision = _revision(observed, platform)
    known = {**{found.name: found for found in stored(observed.children.controller_revisions)}, revision.name: revision}
    rollout = decide(observed, revision.name)
    sizes = {
        unit: size(rollout.units[unit], replicas, observed.now) if unit in rollout.units else Sizing(replicas)
        for unit, replicas in rollout.wishes.items()
    }
    absent, taken = missing(observed), conflict(observed)
    image_waits = revision.templates.image != platform.serving_image
    found = readiness(rollout, deployment.status.condition("Ready"), image_waits, observed.now)
    status = DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        conditions=conditions(deployment, rollout, found, absent or unfollowed(observed), taken, observed.now),
        replicas=sum(len(unit.workers) for unit in rollout.units.values()),
        ready_replicas=sum(len(unit.ready) for unit in rollout.units.values()),
        selector=f"{DEPLOYMENT_LABEL}={deployment.metadata.name},{names.COMPONENT_LABEL}={names.WORKER}",
        revisions=tuple(
            RevisionStatus(name=unit.name, replicas=len(unit.workers), ready=len(unit.ready))
            for unit in rollout.units.values()
            if rollout.leaving.get(unit.name) != "gone"
        ),
        traffic=rollout.traffic,
        rollout=RolloutStatus(
            stable=rollout.stable,
            target=rollout.target.name,
            failed=rollout.failed,
            phase=rollout.phase,
            step_started=rollout.step_started,
        ),
        autoscaling=(observed.autoscaling or deployment.status.autoscaling) if rollout.wish.autoscaled else None,
        endpoint=platform.gateway_url,
    )
    requeue = _requeue_after(observed, rollout, sizes, absent, status)
    objects, kept = _objects(observed, platform, rollout, revision, known, sizes)
    if _awaits_secret(rollout):
        objects.insert(0, tokens_secret(deployment.metadata.name, tokens, _metadata(observed)))
    return Plan(
        objects=tuple(objects),
        kept=tuple(kept),
        annotate=tuple(_marks(observed, rollout, sizes)),
        serve=tuple(serve_orders(rollout, known)),
        status=status,
        events=tuple(events(deployment.status, rollout, status)),
        requeue_after=requeue,
    )


def _awaits_secret(rollout: Rollout) -> bool:
    """A pod is to be made or has a node and cannot start: the Secret, which cannot be read, may be missing."""
    views = [rollout.units.get(unit) for unit in rollout.wishes]
    return any(
        view is None or view.head is None or any(is_waiting_to_start(pod) for pod in (view.head, *view.workers))
        for view in views
    )


def _revision(observed: Observed, platform: Platform) -> Revision:
    def render() -> Templates:
        return Templates(
            image=platform.serving_image,
            head=head_template(observed.deployment, platform),
            worker=worker_template(observed.deployment, platform),
            application=application(observed.deployment),
            storage_class=observed.deployment.spec.head.storage_class_name,
        )

    revisions = stored(observed.children.controller_revisions)
    target = observed.deployment.status.rollout.target or ""
    current = next((found.name for found in revisions if names.is_unit_of(target, found.name)), None)
    return choose(observed.deployment, revisions, current, render)


def _metadata(observed: Observed) -> Object:
    parent = observed.deployment.metadata
    return {
        "namespace": parent.namespace,
        "labels": names.deployment_labels(parent.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": parent.name,
                "uid": parent.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _objects(
    observed: Observed,
    platform: Platform,
    rollout: Rollout,
    revision: Revision,
    known: dict[str, Revision],
    sizes: dict[str, Sizing],
) -> tuple[list[Object], list[Object]]:
    name, metadata = observed.deployment.metadata.name, _metadata(observed)
    # With no pod left, the revision that was ready last is still the one to come back with.
    last = {found for found in known if names.is_unit_of(rollout.stable or "", found)}
    in_use = frozenset({revision.name, *(unit.revision for unit in rollout.units.values()), *last})
    ordered = tuple(sorted(known.values(), key=lambda found: found.number))
    objects = [
        controller_revision(found, metadata) for found in history(ordered, in_use, rollout.wish.revision_history_limit)
    ]
    objects += [*network_policies(name, platform, metadata), disruption_budget(name, metadata)]
    kept: list[Object] = []
    for unit, replicas in _sizes_of_all(rollout, sizes).items():
        view = rollout.units.get(unit)
        of = known.get(view.revision if view else rollout.target.revision)
        if of is None:
            # Somebody deleted its ControllerRevision: it cannot be rendered, only be kept as it is or taken away whole.
            kept += _left_of(observed, unit) if replicas else ()
            continue
        # The head goes first: a unit with workers and no head has lost it (UnitView.lost_its_head).
        for obj in head_objects(name, of, unit, metadata):
            if obj["kind"] == "Pod" and view is not None and view.head is not None:
                kept.append(view.head)
            elif obj["kind"] == "Service" or view is None or not view.lost_its_head:
                objects.append(obj)
        objects += worker_objects(name, of, unit, replicas, metadata)
    return objects, kept


def _left_of(observed: Observed, unit: str) -> list[Object]:
    return [child for child in observed.children if labels(child).get(names.UNIT_LABEL) == unit]


def _sizes_of_all(rollout: Rollout, sizes: dict[str, Sizing]) -> dict[str, int]:
    """ReplicaSet sizes of the units to have, and of those that leave until their last pod has gone."""
    leaving = {
        unit: rollout.units[unit].size if step == "hold" else 0
        for unit, step in rollout.leaving.items()
        if step != "gone"
    }
    return {unit: sizing.replicas for unit, sizing in sizes.items()} | leaving


def _marks(
    observed: Observed, rollout: Rollout, sizes: dict[str, Sizing]
) -> Iterator[tuple[Object, dict[str, str | None]]]:
    for unit, sizing in sizes.items():
        for pod in rollout.units[unit].workers if unit in rollout.units else ():
            if pod["metadata"]["name"] in sizing.mark:
                yield pod, mark_patch(observed.now)
            elif pod["metadata"]["name"] in sizing.unmark:
                yield pod, mark_patch(None)


def _is_told(observed: Observed, rollout: Rollout) -> bool:
    """Status tells this rollout already: its Ready was found with the gateways' word for this traffic."""
    status = observed.deployment.status
    return (
        status.observed_generation == observed.deployment.metadata.generation
        and status.traffic == rollout.traffic
        and status.rollout.target == rollout.target.name
    )


def _requeue_after(
    observed: Observed, rollout: Rollout, sizes: dict[str, Sizing], absent: Reason | None, status: DeploymentStatus
) -> float | None:
    if any(sizing.settling for sizing in sizes.values()):
        return SOON_SECONDS
    ready = status.condition("Ready")
    leaving = any(step != "gone" for step in rollout.leaving.values())
    routing = leaving or (ready is not None and ready.reason == "GatewayNotRouting")
    moving = any(
        unit not in rollout.units or not is_settled(rollout.units[unit], wish) for unit, wish in rollout.wishes.items()
    )
    if not (routing or moving or rollout.phase == "Progressing" or absent):
        return None
    if observed.now - max(rollout.step_started, observed.last_turn()) > _LONG:
        return POLL_SLOWLY_SECONDS
    return SOON_SECONDS if routing else POLL_SECONDS
