"""The kinds that the operator touches, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from aixcoder_operator.api import base
from aixcoder_operator.api.objects import Object


@dataclass(frozen=True)
class Resource:
    """One kind of object: its API version, kind and plural, as in the object and in the URL."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, of one object, or of its subresource; `namespace` None: across all namespaces."""
        parts = ["/api" if "/" not in self.api_version else "/apis", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


POD = Resource("v1", "Pod", "pods")
SERVICE = Resource("v1", "Service", "services")
SECRET = Resource("v1", "Secret", "secrets")
PERSISTENT_VOLUME_CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
CONTROLLER_REVISION = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
REPLICA_SET = Resource("apps/v1", "ReplicaSet", "replicasets")
STATEFUL_SET = Resource("apps/v1", "StatefulSet", "statefulsets")
ENDPOINT_SLICE = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
POD_DISRUPTION_BUDGET = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
DEPLOYMENT = Resource(base.API_VERSION, base.KIND, base.PLURAL)
CUSTOM_RESOURCE_DEFINITION = Resource(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

CHILD_KINDS = (
    CONTROLLER_REVISION,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    SERVICE,
    ENDPOINT_SLICE,
    POD_DISRUPTION_BUDGET,
    NETWORK_POLICY,
)
"""What is read and watched of a deployment's children. Secrets are written only."""

_BY_KIND = {
    (resource.api_version, resource.kind): resource for resource in (*CHILD_KINDS, SECRET, LEASE, EVENT, DEPLOYMENT)
}


def resource_of(obj: Object) -> Resource:
    """Where `obj` is kept, by its apiVersion and kind. KeyError for a kind that the operator does not touch."""
    return _BY_KIND[(obj["apiVersion"], obj["kind"])]
