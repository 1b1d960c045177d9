"""Follow a resource's `Ready` condition and show what it says as it changes."""

from __future__ import annotations

import time
from typing import Any

from e2e.cluster import progress
from e2e.cluster.errors import ClusterError
from e2e.demo.kubernetes import Kubernetes

Json = dict[str, Any]

KIND = "aixcoderdeployments.serving.aixcoder.io"
POLL_SECONDS = 0.5
GUARD_SECONDS = 600.0


def condition(resource: Json, kind: str) -> Json:
    """The condition of that type; {} where the operator has written none yet."""
    for found in resource.get("status", {}).get("conditions") or []:
        if found["type"] == kind:
            return dict(found)
    return {}


def is_ready(resource: Json) -> bool:
    """Whether the resource, as it is wished for now, is ready."""
    ready = condition(resource, "Ready")
    return ready.get("status") == "True" and ready.get("observedGeneration") == resource["metadata"]["generation"]


def sentence(resource: Json) -> str:
    """What the operator says: reason and message of `Ready`, of `Stalled` before it where that is True."""
    said = []
    for kind in ("Stalled", "Ready"):
        found = condition(resource, kind)
        if found and (kind == "Ready" or found["status"] == "True"):
            prefix = "Stalled: " if kind == "Stalled" else ""
            said.append(f"{prefix}{found.get('reason', '')}: {found.get('message', '')}")
    return "; ".join(said) or "waiting for the operator"


def follow(kubernetes: Kubernetes, namespace: str, name: str) -> None:
    """Print each change until the resource is ready. Raises ClusterError with the last word where it never is."""
    start = time.monotonic()
    shown = ""
    while True:
        resource = kubernetes.get(KIND, name, f"--namespace={namespace}")
        said = sentence(resource)
        if said != shown:
            progress.say(f"  {time.monotonic() - start:5.1f} s  {said}")
            shown = said
        if resource and is_ready(resource):
            return
        if time.monotonic() - start > GUARD_SECONDS:
            pods = kubernetes.kubectl("get", "pods", f"--namespace={namespace}", "--output=wide")
            raise ClusterError(f"{name} is not ready after {GUARD_SECONDS:.0f} s: {said}\n{pods}")
        time.sleep(POLL_SECONDS)
