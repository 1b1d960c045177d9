"""What was seen of one deployment, and the same grouped by unit: the whole input of `plan()`.

A unit is one Ray cluster: one incarnation of one revision (names.unit_name). Nothing here remembers; everything is read
from objects, from Ray Serve and from the programs' own pages at the time of one reconcile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from aixcoder_operator.api.children import Children
from aixcoder_operator.api.defaults import Effective, effective, least_replicas
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.objects import (
    Object,
    condition,
    is_terminating,
    is_true,
    labels,
    name,
    owner_uids,
    timestamp,
)
from aixcoder_operator.api.objects import uid as uid_of
from aixcoder_operator.api.serve import ApplicationDetails, DeploymentDetails, ServeDetails
from aixcoder_operator.api.status import AutoscalingStatus
from aixcoder_operator.plan import names
from aixcoder_serving.protocol import Readiness, ReplicaStats, Route


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """What a replica's own port said; None where it did not answer."""

    readiness: Readiness | None = None
    stats: ReplicaStats | None = None


@dataclass(frozen=True, slots=True)
class ServeView:
    """What Ray Serve on a unit's head answered, or why it did not."""

    details: ServeDetails | None = None
    error: str = ""

    @property
    def application(self) -> ApplicationDetails | None:
        """Our application; None where Serve has none, or did not answer."""
        return self.details.applications.get(names.APPLICATION) if self.details else None

    @property
    def deployment(self) -> DeploymentDetails | None:
        """The one deployment of our application; None while the application is being built."""
        return self.application.deployments.get(names.SERVE_DEPLOYMENT) if self.application else None

    @property
    def failure(self) -> str | None:
        """What Serve says of a deployment that it cannot run; None where nothing is wrong."""
        if self.deployment and self.deployment.status in ("UNHEALTHY", "DEPLOY_FAILED"):
            return self.deployment.message
        if self.application and self.application.status in ("UNHEALTHY", "DEPLOY_FAILED"):
            return self.application.message
        return None


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One ready gateway pod; `route` is what it does for this deployment, None where it did not answer or has none."""

    address: str
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a plan is made from."""

    deployment: AixcoderDeployment
    now: datetime
    children: Children = field(default_factory=Children)
    name_taken_by: str | None = None
    """The older deployment, `namespace/name`, that answers to the model name which this one claims."""
    serve: Mapping[str, ServeView] = field(default_factory=dict)
    """Unit → what its Ray Serve answered; a unit that was not asked is absent."""
    replicas: Mapping[str, ReplicaView] = field(default_factory=dict)
    """Worker pod → what it said; a pod that was not asked is absent."""
    gateways: tuple[GatewayView, ...] | None = None
    """Ready gateways; None where none was asked."""
    autoscaling: AutoscalingStatus | None = None
    """What the operator's scaling has decided; None where it has not yet, or is not asked for."""

    def wish(self) -> Effective:
        """The spec with its defaults, and the number of replicas that is wished for now.

        With spec.autoscaling that is the last decision: this process's, else the one that status tells; before the
        first one as many as there are. Bounds hold at once, whatever was decided before they changed.
        """
        wish, autoscaling = effective(self.deployment.spec), self.deployment.spec.autoscaling
        if autoscaling is None:
            return wish
        status = self.deployment.status
        decided = self.autoscaling or status.autoscaling
        replicas = decided.desired if decided else max(wish.replicas, status.replicas or 0)
        bounded = min(max(replicas, least_replicas(autoscaling)), autoscaling.max_replicas)
        return replace(wish, replicas=bounded)

    def units(self) -> dict[str, UnitView]:
        """All units of which anything is left, by name.

        What an earlier deployment of the same name left behind is no unit's, but it keeps the name taken.
        """
        found: dict[str, str] = {}
        for obj in (*self.children.pods, *self.children.replica_sets, *self.children.stateful_sets):
            unit = labels(obj).get(names.UNIT_LABEL)
            if unit:
                found[unit] = labels(obj).get(names.REVISION_LABEL, unit)
        return {unit: self._unit(unit, revision) for unit, revision in sorted(found.items())}

    def last_turn(self) -> datetime:
        """When a condition of a pod last turned; the least of times where there is no pod."""
        turns = (
            timestamp(entry["lastTransitionTime"])
            for pod in self.children.pods
            for entry in pod.get("status", {}).get("conditions") or ()
            if entry.get("lastTransitionTime")
        )
        return max(turns, default=datetime.min.replace(tzinfo=UTC))

    def _unit(self, unit: str, revision: str) -> UnitView:
        def of_unit(objects: tuple[Object, ...]) -> tuple[Object, ...]:
            return tuple(obj for obj in objects if labels(obj).get(names.UNIT_LABEL) == unit)

        uid = self.deployment.metadata.uid
        replica_sets = tuple(obj for obj in of_unit(self.children.replica_sets) if uid in owner_uids(obj))
        stateful_sets = tuple(obj for obj in of_unit(self.children.stateful_sets) if uid in owner_uids(obj))
        owners = {uid, *map(uid_of, (*replica_sets, *stateful_sets))}
        pods = of_unit(self.children.pods)
        all_heads = [pod for pod in pods if labels(pod).get(names.COMPONENT_LABEL) == names.HEAD]
        heads = [pod for pod in all_heads if is_live(pod) and owners & owner_uids(pod)]
        all_workers = [pod for pod in pods if labels(pod).get(names.COMPONENT_LABEL) == names.WORKER]
        workers = tuple(pod for pod in all_workers if owners & owner_uids(pod))
        return UnitView(
            name=unit,
            revision=revision,
            head=heads[0] if heads else None,
            is_taken=len(heads) < len(all_heads)
            or len(workers) < len(all_workers)
            or len(replica_sets) < len(of_unit(self.children.replica_sets)),
            head_is_recreated=any(not is_terminating(obj) for obj in stateful_sets),
            workers=tuple(pod for pod in workers if is_live(pod)),
            leaving=tuple(pod for pod in workers if is_terminating(pod)),
            replica_set=replica_sets[0] if replica_sets else None,
            routable=self._routable(unit),
            serve=self.serve.get(unit),
            replicas={name(pod): self.replicas[name(pod)] for pod in workers if name(pod) in self.replicas},
        )

    def _routable(self, unit: str) -> int:
        return sum(
            1
            for piece in self.children.endpoint_slices
            if labels(piece).get("kubernetes.io/service-name") == unit
            for endpoint in piece.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True)
        )


@dataclass(frozen=True, slots=True)
class UnitView:
    """One Ray cluster as it was seen."""

    name: str
    revision: str
    head: Object | None = None
    """The head Pod, where it is alive: neither being deleted nor finished."""
    is_taken: bool = False
    """A head that is being deleted or has finished, or an earlier deployment's head or workers, still have its name."""
    head_is_recreated: bool = False
    """A StatefulSet keeps the head: it comes back by itself, with its storage."""
    workers: tuple[Object, ...] = ()
    """Live worker pods."""
    leaving: tuple[Object, ...] = ()
    """Worker pods with a deletionTimestamp."""
    replica_set: Object | None = None
    routable: int = 0
    """Ready endpoints in the worker Service's EndpointSlices."""
    serve: ServeView | None = None
    replicas: Mapping[str, ReplicaView] = field(default_factory=dict)

    @property
    def ready(self) -> tuple[Object, ...]:
        """Live workers whose replica passes its readiness probe."""
        return tuple(pod for pod in self.workers if is_ready(pod))

    @property
    def size(self) -> int:
        """Worker pods asked for by the ReplicaSet; 0 where there is none."""
        return int(self.replica_set["spec"].get("replicas", 1)) if self.replica_set else 0

    @property
    def lost_its_head(self) -> bool:
        """A head was there, or workers that had one, and none is left that could be theirs.

        A head that came back at the old address with an empty store would end these workers, so none may: the revision
        goes on as a new incarnation. The head is always applied before the ReplicaSet, so a unit in creation never
        looks like this.
        """
        return (self.replica_set is not None or self.is_taken) and self.head is None and not self.head_is_recreated


def is_live(pod: Object) -> bool:
    """Neither being deleted nor finished."""
    return not is_terminating(pod) and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")


def is_ready(pod: Object) -> bool:
    """Live and Ready."""
    return is_live(pod) and is_true(pod, "Ready")


def is_waiting_to_start(pod: Object) -> bool:
    """On a node, and none of its containers has run."""
    return is_true(pod, "PodScheduled") and (pod.get("status") or {}).get("phase") == "Pending"


def scheduled_at(pod: Object) -> datetime | None:
    """When the pod got its node; None while it has none."""
    found = condition(pod, "PodScheduled")
    return timestamp(found["lastTransitionTime"]) if found and found["status"] == "True" else None
