"""Reads all that one reconcile looks at, live from the API server and at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from aixcoder_operator.api import names, objects
from aixcoder_operator.api.children import Children
from aixcoder_operator.api.objects import Object
from aixcoder_operator.cluster import kinds
from aixcoder_operator.cluster.client import Client, NotFound
from aixcoder_operator.cluster.kinds import Resource
from aixcoder_operator.settings import GatewaySettings


@dataclass(frozen=True)
class Observed:
    """One AixcoderDeployment and what it has."""

    parent: Object
    children: Children


async def observe(client: Client, namespace: str, name: str) -> Observed | None:
    """The deployment and its children as they are now; None where there is no such deployment.

    Lists are consistent reads: a child that an earlier reconcile has written is always seen.
    """
    selector = {names.DEPLOYMENT_LABEL: name, names.MANAGED_BY_LABEL: names.MANAGER}

    async def parent_and_claim() -> tuple[Object, Object | None]:
        parent = await client.get(kinds.DEPLOYMENT, namespace, name)
        return parent, await _claim(client, parent)

    async def children(resource: Resource) -> tuple[Object, ...]:
        return tuple(await client.list(resource, namespace, labels=selector))

    try:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(parent_and_claim())
            lists = {resource: group.create_task(children(resource)) for resource in kinds.CHILD_KINDS}
    except ExceptionGroup as errors:
        if any(isinstance(error, NotFound) for error in errors.exceptions):
            return None
        # One of several failed reads says enough, and typed errors must stay what they are for the queue.
        raise errors.exceptions[0] from None
    parent, claim = first.result()
    return Observed(
        parent,
        Children(
            # A StatefulSet's controller keeps revisions of its own beside ours, with its pods' labels.
            controller_revisions=tuple(
                revision
                for revision in lists[kinds.CONTROLLER_REVISION].result()
                if objects.uid(parent) in objects.owner_uids(revision)
            ),
            pods=lists[kinds.POD].result(),
            replica_sets=lists[kinds.REPLICA_SET].result(),
            stateful_sets=lists[kinds.STATEFUL_SET].result(),
            services=lists[kinds.SERVICE].result(),
            endpoint_slices=lists[kinds.ENDPOINT_SLICE].result(),
            pod_disruption_budgets=lists[kinds.POD_DISRUPTION_BUDGET].result(),
            network_policies=lists[kinds.NETWORK_POLICY].result(),
            claim=claim,
        ),
    )


async def _claim(client: Client, parent: Object) -> Object | None:
    source = (((parent.get("spec") or {}).get("model") or {}).get("source") or {}).get("persistentVolumeClaim") or {}
    claim_name = source.get("claimName")
    if not claim_name:
        return None
    try:
        return await client.get(kinds.PERSISTENT_VOLUME_CLAIM, objects.namespace(parent), claim_name)
    except NotFound:
        return None


@dataclass(frozen=True, slots=True)
class GatewayEndpoint:
    """One gateway pod."""

    address: str
    """`ip:port` of its internal port."""
    is_ready: bool
    should_answer: bool
    """It is ready, or would be if it had not been told to end: then it lets what runs end."""


async def gateway_endpoints(client: Client, gateway: GatewaySettings) -> tuple[GatewayEndpoint, ...]:
    """Every gateway pod that has an address, sorted by it."""
    slices = await client.list(
        kinds.ENDPOINT_SLICE, gateway.namespace, labels={"kubernetes.io/service-name": gateway.service}
    )
    return endpoints_of(slices, gateway.port)


def endpoints_of(slices: Iterable[Object], port: int) -> tuple[GatewayEndpoint, ...]:
    """The pods in the gateways' EndpointSlices, each once; in a cluster with two families it has an address of each."""
    found: dict[str, GatewayEndpoint] = {}
    for endpoint_slice in slices:
        for endpoint in endpoint_slice.get("endpoints") or ():
            ip, conditions = endpoint["addresses"][0], endpoint.get("conditions") or {}
            # Absent means ready.
            is_ready = conditions.get("ready") is not False
            ends_orderly = conditions.get("terminating") is True and conditions.get("serving") is True
            address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
            pod = (endpoint.get("targetRef") or {}).get("uid") or ip
            found.setdefault(pod, GatewayEndpoint(address, is_ready, should_answer=is_ready or ends_orderly))
    return tuple(sorted(found.values(), key=lambda one: one.address))


async def gateway_addresses(client: Client, gateway: GatewaySettings) -> tuple[str, ...]:
    """`ip:port` of the internal port of every ready gateway, sorted; empty where no gateway is ready."""
    return tuple(one.address for one in await gateway_endpoints(client, gateway) if one.is_ready)
