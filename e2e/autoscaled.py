"""Deployments with spec.autoscaling, and what the operator has decided for them."""

from __future__ import annotations

from typing import Any

from e2e.demo.kubernetes import Json
from e2e.service import Service

SLOTS = 2
"""Requests that a replica runs at once."""
GUARD_SECONDS = 480.0
"""Twice a start is remembered before anything goes, and starts are slow beside a load on two cores."""


def autoscaled(service: Service, **autoscaling: Any) -> Json:
    """A spec of replicas with two places each."""
    spec = service.spec
    del spec["replicas"]
    spec["engine"]["maxConcurrentSequences"] = SLOTS
    return spec | {"autoscaling": autoscaling}


def desired(resource: Json) -> int | None:
    """What the operator has decided; None before it did."""
    return _decided(resource, "desired")


def cold_start(resource: Json) -> int | None:
    """Seconds of a start, as last measured; None before one was."""
    return _decided(resource, "coldStartSeconds")


def _decided(resource: Json, field: str) -> int | None:
    found: int | None = (resource.get("status", {}).get("autoscaling") or {}).get(field)
    return found
