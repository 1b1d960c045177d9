"""What a `World` answers to those who look at it and ask."""

from __future__ import annotations

from aixcoder_operator.api.children import Children
from aixcoder_operator.api.deployment import AixcoderDeployment
from aixcoder_operator.api.objects import Object, name, owner_uids
from aixcoder_operator.api.serve import ServeDetails
from aixcoder_operator.plan import names
from aixcoder_operator.plan.observed import GatewayView, ReplicaView, ServeView, is_ready
from aixcoder_serving.protocol import Readiness, ReplicaStats, Route
from tests.unit.plan.world import World, image_of


def children(world: World, owner: str) -> Children:
    """All that is there; `owner` is the deployment's uid."""

    def of(kind: str) -> tuple[Object, ...]:
        return tuple(world.of_kind(kind))

    return Children(
        controller_revisions=tuple(found for found in of("ControllerRevision") if owner in owner_uids(found)),
        pods=of("Pod"),
        replica_sets=of("ReplicaSet"),
        stateful_sets=of("StatefulSet"),
        services=of("Service"),
        endpoint_slices=of("EndpointSlice"),
        pod_disruption_budgets=of("PodDisruptionBudget"),
        network_policies=of("NetworkPolicy"),
        claim=world.objects.get(("PersistentVolumeClaim", "weights")),
    )


def serve_of(world: World, head: Object) -> ServeView:
    """What Ray Serve on a head says."""
    if not is_ready(head):
        return ServeView(error="connection refused")
    ray = world.ray(head)
    if ray.config is None:
        return ServeView(ServeDetails())
    deployment = {"name": names.SERVE_DEPLOYMENT, "status": "UPDATING", "target_num_replicas": ray.target}
    application = {
        "name": names.APPLICATION,
        "status": "DEPLOYING",
        "deployed_app_config": ray.config,
        "deployments": {names.SERVE_DEPLOYMENT: deployment},
    }
    return ServeView(ServeDetails.model_validate({"applications": {names.APPLICATION: application}}))


def replica(world: World, pod: Object) -> ReplicaView:
    """What a replica's own port says."""
    silent = world.ages[pod["metadata"]["uid"]] < 5 or world.now.second % 20 >= 10
    if world.faults.get(image_of(pod["spec"])) == "missing" and not silent:
        return ReplicaView(Readiness(phase="failed", reason="ModelNotFound", message="/models: no config.json"))
    if not is_ready(pod):
        return ReplicaView()
    running = world.busy.get(name(pod), 0)
    return ReplicaView(Readiness(phase="ready", percent=100), ReplicaStats(running=running))


def gateways(world: World, deployment: AixcoderDeployment) -> tuple[GatewayView, ...]:
    """What every gateway does for the deployment."""

    def route(version: int) -> Route:
        metadata = deployment.metadata
        return Route(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            served_name=metadata.name,
            traffic_version=version,
            endpoints={},
        )

    return tuple(
        GatewayView(
            f"10.1.0.{index}:9090",
            route(gateway.version) if gateway.reachable and gateway.version is not None else None,
        )
        for index, gateway in enumerate(world.gateways)
    )
