"""Which deployment answers a model name, and which replicas it has. Decides only; knows no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aixcoder_serving.gateway.problems import invalid, unknown_model
from aixcoder_serving.protocol import DeploymentView, Route, Routes

Endpoints = Mapping[tuple[str, str], tuple[str, ...]]
"""(namespace, unit) → addresses `ip:port` of the replicas that are ready."""
Owners = Mapping[tuple[str, str], str]
"""(namespace, unit) → name of the deployment that it belongs to."""


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as the gateway acts on it: `deployments` oldest first, and the ready replicas of each unit.

    `replicas`: all of those that belong to one of the deployments, address → its uid.
    """

    deployments: tuple[DeploymentView, ...]
    endpoints: Endpoints
    replicas: Mapping[str, str]

    @classmethod
    def of(cls, deployments: Iterable[DeploymentView], endpoints: Endpoints, owners: Owners | None = None) -> View:
        """A view with the deployments in the order in which they claim names.

        A unit that `owners` does not name belongs to the deployment that sends it requests.
        """
        oldest_first = sorted(deployments, key=lambda d: (d.metadata.creation_timestamp, d.metadata.uid))
        uids = {(d.metadata.namespace, d.metadata.name): d.metadata.uid for d in oldest_first}
        of_unit = {
            (d.metadata.namespace, unit): d.metadata.uid for d in oldest_first for unit in d.status.traffic.weights
        }
        for (namespace, unit), name in (owners or {}).items():
            if (namespace, name) in uids:
                of_unit[namespace, unit] = uids[namespace, name]
        replicas = {address: of_unit[key] for key, found in endpoints.items() if key in of_unit for address in found}
        return cls(tuple(oldest_first), endpoints, replicas)


NOTHING = View((), {}, {})


class RouteTable(Protocol):
    """Where views come from: Kubernetes, or one replica on this machine."""

    @property
    def view(self) -> View | None:
        """What is known now; None before anything is."""

    async def run(self) -> None:
        """Keep the view fresh until cancelled."""


def claims(view: View) -> dict[str, DeploymentView]:
    """Model name → the deployment that answers to it: of several that claim one, the oldest."""
    names: dict[str, DeploymentView] = {}
    for deployment in view.deployments:
        names.setdefault(deployment.served_name, deployment)
    return names


def deployment_for(view: View, model: str | None) -> DeploymentView | None:
    """The deployment that answers to `model`; None where there is no deployment at all.

    One deployment alone answers to any name, and to none.

    Raises:
        Problem: there are several, and the name is missing or unknown.

    """
    if len(view.deployments) <= 1:
        return view.deployments[0] if view.deployments else None
    if model is None:
        raise invalid("`model` is needed, since several are served here: GET /v1/models lists them.", "model")
    deployment = claims(view).get(model)
    if deployment is None:
        raise unknown_model()
    return deployment


def current(view: View, deployment: DeploymentView) -> DeploymentView:
    """The deployment as it is in `view`, or as it was where it is there no more."""
    uid = deployment.metadata.uid
    return next((known for known in view.deployments if known.metadata.uid == uid), deployment)


def units_with_traffic(view: View, deployment: DeploymentView) -> dict[str, tuple[str, ...]]:
    """Unit → its ready replicas, for the units of a deployment that have a share of the traffic."""
    weights = deployment.status.traffic.weights
    namespace = deployment.metadata.namespace
    return {unit: view.endpoints.get((namespace, unit), ()) for unit, weight in weights.items() if weight > 0}


def routes(view: View) -> Routes:
    """What a view means for each deployment, as the page /routes shows it."""
    return Routes(
        routes=tuple(
            Route(
                namespace=deployment.metadata.namespace,
                name=deployment.metadata.name,
                uid=deployment.metadata.uid,
                served_name=deployment.served_name,
                traffic_version=deployment.status.traffic.version,
                endpoints=units_with_traffic(view, deployment),
            )
            for deployment in view.deployments
        )
    )
