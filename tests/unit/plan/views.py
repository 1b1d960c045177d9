"""Pods and units as tables write them: only what a case is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from aixcoder_operator.api.objects import Object
from aixcoder_operator.api.serve import ServeDetails
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import ReplicaView, ServeView, UnitView
from aixcoder_serving.protocol import FailureReason, Phase, Readiness, ReplicaStats

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def before(seconds: float) -> str:
    """The time `seconds` before NOW, as Kubernetes writes it."""
    return (NOW - timedelta(seconds=seconds)).isoformat()


def pod(
    called: str,
    *,
    node: bool = True,
    ready: bool = False,
    age: float = 10,
    turned: float | None = None,
    unschedulable: str = "",
    marked: float | None = None,
    container: Object | None = None,
) -> Object:
    """A pod that was made, and got its node, `age` seconds ago and turned ready or not ready `turned` seconds ago.

    `marked`: seconds since it was chosen to go; `container`: the status of its container.
    """
    conditions: list[Object] = []
    if node or unschedulable:
        conditions.append(
            {
                "type": "PodScheduled",
                "status": "True" if node else "False",
                "lastTransitionTime": before(age),
                "message": unschedulable,
            }
        )
    if node:
        turn = before(age if turned is None else turned)
        conditions.append({"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": turn})
    annotations = {} if marked is None else {names.VICTIM_SINCE_ANNOTATION: before(marked)}
    return {
        "kind": "Pod",
        "metadata": {"name": called, "creationTimestamp": before(age), "annotations": annotations},
        "status": {
            "phase": "Running" if node else "Pending",
            "conditions": conditions,
            "containerStatuses": [{"name": "worker", "state": {"running": {}}, "lastState": {}} | (container or {})],
        },
    }


def waiting(reason: str, message: str = "") -> Object:
    """A container that does not run."""
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(reason: str = "Error", exit_code: int = 1, message: str = "") -> Object:
    """A container that ran, ended, and waits to be started again."""
    gone = {"terminated": {"reason": reason, "exitCode": exit_code, "message": message}}
    return {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": gone}


def replica_set(size: int, *, told: int | None = None, failure: str = "", age: float = 10) -> Object:
    """A ReplicaSet; `told`: the count that Serve was told; `failure`: why its pods are refused."""
    conditions = []
    if failure:
        entry = {"type": "ReplicaFailure", "status": "True", "message": failure, "lastTransitionTime": before(age)}
        conditions.append(entry)
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": "demo-aaaaaa",
            "annotations": {} if told is None else {names.SERVE_REPLICAS_ANNOTATION: str(told)},
        },
        "spec": {"replicas": size},
        "status": {"conditions": conditions},
    }


def says(phase: Phase, *, percent: int = 0, message: str = "", reason: FailureReason | None = None) -> ReplicaView:
    """What a replica answers to /ready."""
    return ReplicaView(Readiness(phase=phase, percent=percent, message=message, reason=reason))


def works(running: int, waiting_: int = 0) -> ReplicaView:
    """What a ready replica answers."""
    return ReplicaView(Readiness(phase="ready"), ReplicaStats(running=running, waiting=waiting_))


def serve(status: str, message: str = "") -> ServeView:
    """Serve with our application in it, its one deployment in `status`."""
    deployment = {"name": names.SERVE_DEPLOYMENT, "status": status, "message": message, "target_num_replicas": 1}
    application = {
        "name": names.APPLICATION,
        "status": "DEPLOYING",
        "deployments": {names.SERVE_DEPLOYMENT: deployment},
    }
    return ServeView(ServeDetails.model_validate({"applications": {names.APPLICATION: application}}))


def unit(
    *workers: Object,
    head: Object | None = None,
    size: int | None = None,
    replicas: dict[str, ReplicaView] | None = None,
    serve: ServeView | None = None,
    sets: Object | None = None,
) -> UnitView:
    """A unit of revision demo-aaaaaa with a ReplicaSet of `size`, as many as it has workers where not given."""
    return UnitView(
        name="demo-aaaaaa",
        revision="demo-aaaaaa",
        head=head,
        workers=workers,
        replica_set=sets or replica_set(len(workers) if size is None else size),
        replicas=replicas or {},
        serve=serve,
    )
