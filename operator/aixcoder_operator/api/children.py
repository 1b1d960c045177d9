"""What one AixcoderDeployment has in the cluster, as read at one time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aixcoder_operator.api.objects import Object


@dataclass(frozen=True, kw_only=True)
class Children:
    """Raw objects, by kind, sorted by name; each carries its `kind` and `apiVersion`.

    All that carries the deployment's labels is here, whoever owns it: Pods are heads (owned by the deployment, or by a
    StatefulSet) and workers (owned by a ReplicaSet); EndpointSlices are owned by their Service. Secrets are never read.
    """

    controller_revisions: tuple[Object, ...] = ()
    """Only those that the deployment itself owns."""
    pods: tuple[Object, ...] = ()
    replica_sets: tuple[Object, ...] = ()
    stateful_sets: tuple[Object, ...] = ()
    services: tuple[Object, ...] = ()
    endpoint_slices: tuple[Object, ...] = ()
    pod_disruption_budgets: tuple[Object, ...] = ()
    network_policies: tuple[Object, ...] = ()
    claim: Object | None = None
    """The PersistentVolumeClaim that the spec names; None where it names none or it does not exist."""

    def __iter__(self) -> Iterator[Object]:
        """All of them but the claim, which is the user's."""
        yield from self.controller_revisions
        yield from self.pods
        yield from self.replica_sets
        yield from self.stateful_sets
        yield from self.services
        yield from self.endpoint_slices
        yield from self.pod_disruption_budgets
        yield from self.network_policies
