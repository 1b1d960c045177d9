"""`reconcile()`: the algorithm of the operator.

It is level-triggered: what it does follows from what is there, never from the event that called it, and any number of
calls ends in the same state as one.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aixcoder_operator.api.deployment import UnreadableResourceError, read
from aixcoder_operator.api.objects import Object, annotations_of, name
from aixcoder_operator.api.serve import ServeConfig
from aixcoder_operator.api.status import DeploymentStatus
from aixcoder_operator.cluster.apply import Occupied, apply, prune
from aixcoder_operator.cluster.client import Forbidden, Invalid, NotFound
from aixcoder_operator.cluster.events import EventType
from aixcoder_operator.cluster.observe import gateway_addresses, observe
from aixcoder_operator.context import Context
from aixcoder_operator.plan import names
from aixcoder_operator.plan.conditions import refused
from aixcoder_operator.plan.deployment_children import Tokens
from aixcoder_operator.plan.observed import GatewayView, Observed, ReplicaView, ServeView, UnitView
from aixcoder_operator.plan.plan import Questions, plan, questions
from aixcoder_operator.plan.platform import Platform
from aixcoder_operator.plan.serve import ServeOrder
from aixcoder_operator.ray.serve import ServeError, Unreachable
from aixcoder_operator.ray.token import ray_token
from aixcoder_serving.protocol import replica_token


async def reconcile(key: str, *, context: Context) -> float | None:
    """Bring the deployment `key` ("namespace/name") one step nearer to its spec.

    Returns the seconds after which to look again, None where only an event can change anything. Errors of the API
    server fly out: the queue tries again with back-off.
    """
    namespace, deployment_name = key.split("/", 1)
    seen = await observe(context.client, namespace, deployment_name)
    if seen is None or seen.parent["metadata"].get("deletionTimestamp"):
        context.autoscaler.forget(key)
        return None  # owner references take the children away
    try:
        deployment = read(seen.parent)
    except UnreadableResourceError as error:
        context.events.record(seen.parent, "Unreadable", str(error), "Warning")
        return None
    observed = Observed(
        deployment,
        context.now(),
        seen.children,
        name_taken_by=context.served_names.taken_by(key),
    )
    context.autoscaler.learn(observed)
    observed = replace(observed, autoscaling=context.autoscaler.decided(deployment))
    platform = platform_of(context)
    uid = deployment.metadata.uid
    tokens = Tokens(ray=ray_token(context.key, uid), replica=replica_token(context.data_key, uid))

    observed = await ask(observed, questions(observed, platform), tokens.ray, context)
    context.autoscaler.measure(observed)
    planned = plan(observed, platform, tokens)

    try:
        applied = await apply(context.client, planned.objects, seen.children, owner=seen.parent)
    except (Forbidden, Invalid, Occupied) as error:
        await write_status(seen.parent, refused(deployment, planned.status, str(error), observed.now), context)
        raise
    await prune(context.client, (*planned.objects, *planned.kept), seen.children, owner=seen.parent)
    for pod, marks in planned.annotate:
        await _annotate(context, pod, marks)
    for order in planned.serve:
        await tell_serve(order, seen.parent, tokens.ray, context)
    await write_status(seen.parent, planned.status, context)
    for event in planned.events:
        kind: EventType = "Warning" if event.warning else "Normal"
        context.events.record(seen.parent, event.reason, event.message, kind, event.topic)
    return 1.0 if applied.waiting else planned.requeue_after


def platform_of(context: Context) -> Platform:
    """What the settings put into every deployment's objects."""
    settings = context.settings
    gateway = settings.gateway
    return Platform(
        serving_image=settings.serving_image,
        operator_namespace=settings.lease.namespace,
        gateway_namespace=gateway.namespace,
        gateway_url=f"http://{gateway.public_service}.{gateway.namespace}.svc.{settings.cluster_domain}/v1",
        metrics_peers=settings.metrics_peers,
        env=settings.serving.env,
        volumes=settings.serving.volumes,
        volume_mounts=settings.serving.volume_mounts,
        image_pull_secrets=settings.serving.image_pull_secrets,
    )


async def ask(observed: Observed, wanted: Questions, token: str, context: Context) -> Observed:
    """`observed` with the answers of Ray heads, replicas and gateways to what is `wanted`; all are asked at once."""
    serve, replicas, gateways = await asyncio.gather(
        asyncio.gather(*(_ask_serve(unit, token, context) for unit in wanted.serve)),
        _ask_replicas((*wanted.replicas, *context.autoscaler.unmeasured(observed)), context),
        _ask_gateways(observed.deployment.metadata.uid, context) if wanted.gateways else _nothing(),
    )
    return replace(
        observed,
        serve={unit.name: view for unit, view in zip(wanted.serve, serve, strict=True) if view is not None},
        replicas=replicas,
        gateways=gateways,
    )


async def tell_serve(order: ServeOrder, parent: Object, token: str, context: Context) -> None:
    """Deploy the application and set its replica count; the ReplicaSet remembers the count that Serve was told.

    A head that does not listen is asked again with the next look: status tells RayUnavailable where that lasts.
    """
    host, replica_set = _pod_ip(order.unit.head), order.unit.replica_set
    if host is None or replica_set is None:
        return
    serve = context.serve(host, token)
    try:
        if order.put is not None:
            await serve.put(ServeConfig(applications=(order.put,)))
        told = order.unit.serve.deployment if order.unit.serve else None
        if order.put is None and told is not None and told.target_num_replicas != order.replicas:
            await serve.scale(names.APPLICATION, names.SERVE_DEPLOYMENT, order.replicas)
    except Unreachable:
        return
    except ServeError as error:
        context.events.record(parent, "ServeRefused", str(error), "Warning")
        return
    if annotations_of(replica_set).get(names.SERVE_REPLICAS_ANNOTATION) != str(order.replicas):
        await _annotate(context, replica_set, {names.SERVE_REPLICAS_ANNOTATION: str(order.replicas)})


async def write_status(parent: Object, status: DeploymentStatus, context: Context) -> None:
    """Status, where it has something new to tell."""
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    if parent.get("status") != document:
        await context.client.apply_status(parent, document)


async def _annotate(context: Context, obj: Object, marks: dict[str, str | None]) -> None:
    try:
        await context.client.annotate(obj, marks)
    except NotFound:
        return  # gone in the meantime: there is nothing left to mark


async def _ask_serve(unit: UnitView, token: str, context: Context) -> ServeView | None:
    host = _pod_ip(unit.head)
    if host is None:
        return None
    try:
        return ServeView(await context.serve(host, token).details())
    except ServeError as error:
        return ServeView(error=str(error))


async def _ask_replicas(pods: tuple[Object, ...], context: Context) -> dict[str, ReplicaView]:
    addresses = {name(pod): ip for pod in pods if (ip := _pod_ip(pod)) is not None}
    readiness, stats = await asyncio.gather(
        context.prober.readiness(addresses.values()), context.prober.stats(addresses.values())
    )
    return {pod: ReplicaView(readiness[ip], stats[ip]) for pod, ip in addresses.items()}


async def _ask_gateways(uid: str, context: Context) -> tuple[GatewayView, ...]:
    addresses = await gateway_addresses(context.client, context.settings.gateway)
    answers = await context.prober.routes(addresses)
    return tuple(
        GatewayView(address, next((route for route in answer.routes if route.uid == uid), None) if answer else None)
        for address, answer in answers.items()
    )


async def _nothing() -> None:
    return None


def _pod_ip(pod: Object | None) -> str | None:
    return (pod.get("status") or {}).get("podIP") if pod else None
