"""EndpointSlices → which replicas of a unit are ready. Decides only."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from aixcoder_serving.protocol import ResourceView

PORT_NAME = "http"
_SERVICE = "kubernetes.io/service-name"
_DEPLOYMENT = "serving.aixcoder.io/deployment"


class _Conditions(ResourceView):
    # Kubernetes: an unknown readiness counts as ready.
    ready: bool | None = None
    terminating: bool | None = None


class _Endpoint(ResourceView):
    addresses: tuple[str, ...] = ()
    conditions: _Conditions = _Conditions()


class _Port(ResourceView):
    name: str | None = None
    port: int | None = None


class _Metadata(ResourceView):
    namespace: str
    labels: dict[str, str] = Field(default_factory=dict)


class Slice(ResourceView):
    """What the gateway reads of an EndpointSlice. Absent lists come as null."""

    metadata: _Metadata
    address_type: str = "IPv4"
    endpoints: tuple[_Endpoint, ...] | None = None
    ports: tuple[_Port, ...] | None = None

    @property
    def unit(self) -> str | None:
        """The Service it belongs to; a unit and its Service have one name."""
        return self.metadata.labels.get(_SERVICE)

    @property
    def deployment(self) -> str | None:
        """The deployment that its unit belongs to: the EndpointSlice carries the labels of its Service."""
        return self.metadata.labels.get(_DEPLOYMENT)

    def ready(self) -> Iterable[str]:
        """The addresses `ip:port` of its replicas that are ready and do not terminate."""
        port = next((port.port for port in self.ports or () if port.name == PORT_NAME), None)
        if port is None:
            return
        for endpoint in self.endpoints or ():
            if endpoint.addresses and endpoint.conditions.ready is not False and not endpoint.conditions.terminating:
                # Only the first: the others lead to the same pod.
                host = endpoint.addresses[0]
                yield f"[{host}]:{port}" if self.address_type == "IPv6" else f"{host}:{port}"


def ready_endpoints(slices: Iterable[Slice]) -> dict[tuple[str, str], tuple[str, ...]]:
    """(namespace, unit) → its ready replicas, sorted. A unit may have several slices, and a pod be in two of them."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in slices:
        if item.unit is not None:
            found.setdefault((item.metadata.namespace, item.unit), set()).update(item.ready())
    return {key: tuple(sorted(addresses)) for key, addresses in found.items()}


def owners(slices: Iterable[Slice]) -> dict[tuple[str, str], str]:
    """(namespace, unit) → the name of its deployment."""
    return {
        (item.metadata.namespace, item.unit): item.deployment
        for item in slices
        if item.unit is not None and item.deployment is not None
    }
